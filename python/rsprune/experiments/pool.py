"""A run folder that kept its embeddings, as a pool to choose from again."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
from numpy.typing import NDArray

from rsprune.centroids import Centroids
from rsprune.embeddings import Embeddings, as_rows
from rsprune.errors import ArgumentError, FormatError, UnfinishedRunError
from rsprune.evaluation.features import sample_rows
from rsprune.io import digest, read_table
from rsprune.runs.folder import RunFolder

__all__ = ["EmbeddedPool", "EmbeddedSet", "read_classes"]


@dataclass(frozen=True)
class EmbeddedPool:
    """The images of a run that have an embedding: Stage I's survivors, in the order of the run's rows.

    Attributes
    ----------
    folder
        The run folder.
    shards
        The shards' names.
    total
        Images of the collection, those without embedding included.
    """

    folder: RunFolder
    shards: tuple[str, ...]
    total: int

    @classmethod
    def open(cls, run: str | Path) -> EmbeddedPool:
        """Open a run folder.

        Raises
        ------
        FileNotFoundError
            This is no run folder.
        ArgumentError
            The run did not keep its embeddings.
        UnfinishedRunError
            Some shards have none yet.
        """
        folder = RunFolder(run)
        config = folder.read_config()
        names = sorted(path.stem for path in (folder.path / "entropy").glob("*.parquet"))
        total = int(config["source"]["images"])
        if not config.get("keep_embeddings"):
            message = f"{folder.path} holds no embeddings: run `rsprune prune --keep-embeddings` into another folder"
            raise ArgumentError(message)
        missing = [name for name in names if not folder.embeddings(name).is_file()]
        if missing or not names or sum(pq.read_metadata(folder.entropy(name)).num_rows for name in names) != total:
            message = f"the run in {folder.path} is not finished: make the call that began it again"
            raise UnfinishedRunError(message)
        return cls(folder, tuple(names), total)

    @cached_property
    def embeds(self) -> Embeddings:
        """Their embeddings (N, D), where they lie."""
        return as_rows([self.folder.embeddings(shard) for shard in self.shards])

    @cached_property
    def keys(self) -> list[str]:
        """Their keys."""
        tables = [read_table(self.folder.assignments(shard), ["key"]) for shard in self.shards]
        return [key for table in tables for key in table["key"].to_pylist()]

    @cached_property
    def entropy(self) -> NDArray[np.float64]:
        """float64 (N,): their entropies, in bits."""
        parts = []
        for shard in self.shards:
            rows = read_table(self.folder.assignments(shard), ["row"])["row"].to_numpy()
            parts.append(read_table(self.folder.entropy(shard), ["entropy"])["entropy"].to_numpy()[rows])
        return np.concatenate(parts)

    @cached_property
    def centroids(self) -> Centroids:
        """The centroids of the run."""
        return Centroids.load(self.folder.centroids)

    def reference(self, holdout: float, seed: int) -> tuple[NDArray[Any], NDArray[Any]] | None:
        """The reference images' embeddings in two: for the methods, and held out; None if the run has none."""
        paths = sorted((self.folder.reference().path / "embeddings").glob("*.npy"))
        if not paths:
            return None
        rows = as_rows(list(paths))
        valid = np.flatnonzero(rows.valid())
        if not holdout:
            everything = rows.take(valid)
            return everything, everything
        out = sample_rows(max(int(holdout * len(valid)), 1), len(valid), seed)
        return rows.take(np.delete(valid, out)), rows.take(valid[out])

    def describe(self) -> str:
        """What is compared, in a line: methods without Stage I may want more than its survivors."""
        n = self.embeds.shape[0]
        if n == self.total:
            return f"pool: all {n:,} images of the collection"
        return f"pool: the {n:,} of {self.total:,} images that Stage I kept and embedded; no method sees the others"

    def fingerprint(self) -> str:
        """The digest of the configuration that made the embeddings."""
        return digest(self.folder.read_config())


@dataclass(frozen=True)
class EmbeddedSet:
    """Reference images and their embeddings, half of them for the methods and half held out.

    Attributes
    ----------
    embeds
        Their embeddings (N, D), where they lie.
    keys
        Their keys.
    """

    embeds: Embeddings
    keys: list[str]

    @classmethod
    def open(cls, folder: Path) -> EmbeddedSet:
        """Open what `rsprune embed` wrote."""
        paths = sorted((folder / "embeddings").glob("*.npy"))
        keys = [key for path in paths for key in read_table(path.with_suffix(".parquet"), ["key"])["key"].to_pylist()]
        return cls(as_rows(list(paths)), keys)

    def split(self, seed: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """The valid rows in two halves, drawn by seed: for the methods, and held out."""
        found = self.embeds.valid()
        valid = np.flatnonzero(found)
        out = sample_rows(len(valid) // 2, len(valid), seed)
        return np.delete(valid, out), valid[out]

    def rows(self, numbers: NDArray[np.int64]) -> NDArray[Any]:
        """The embeddings of ascending numbers."""
        return self.embeds.take(numbers)

    def of_classes(self, numbers: NDArray[np.int64], share: int) -> NDArray[np.int64]:
        """Of some numbers those whose class folder is among the first 1/share of all class folders."""
        classes = [self.keys[number].rpartition("/")[0] for number in numbers.tolist()]
        names = sorted(set(classes))
        first = set(names[: -(-len(names) // share)])
        return numbers[[name in first for name in classes]]


def read_classes(path: str | Path, keys: Sequence[str], key: str, column: str) -> tuple[NDArray[np.int64], list[str]]:
    """Read the classes of images from a CSV table with a head.

    Parameters
    ----------
    path
        The table.
    keys
        The images, in order.
    key, column
        The columns that hold the key and the class.

    Returns
    -------
    labels
        int64 (N,): the number of each image's class, -1 for images that the table does not name.
    names
        The classes, sorted.

    Raises
    ------
    FormatError
        The table lacks a column, or names none of the images.
    OSError
        The file cannot be opened.
    """
    with Path(path).open(newline="", encoding="utf-8") as file:
        table = csv.DictReader(file)
        for name in (key, column):
            if name not in (table.fieldnames or ()):
                message = f"{path} has no column {name!r}; it has {', '.join(table.fieldnames or ())}"
                raise FormatError(message)
        classes = {row[key]: row[column] for row in table}
    names = sorted({classes[one] for one in keys if one in classes})
    if not names:
        message = f"{path} names none of the images: the column {key!r} should hold their keys, such as {keys[0]!r}"
        raise FormatError(message)
    number = {name: i for i, name in enumerate(names)}
    return np.array([number[classes[one]] if one in classes else -1 for one in keys], np.int64), names
