"""A run folder that kept its embeddings, as a pool to choose from again."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rsprune.centroids import Centroids
from rsprune.embeddings import Embeddings, as_rows
from rsprune.errors import ArgumentError, FormatError, UnfinishedRunError
from rsprune.evaluation.features import sample_rows
from rsprune.io import digest
from rsprune.runs.folder import RunFolder
from rsprune.runs.reader import RunReader

__all__ = ["EmbeddedPool", "EmbeddedSet", "read_classes"]


@dataclass(frozen=True)
class EmbeddedPool:
    """The images of a run that have an embedding: Stage I's survivors, in the order of the run's rows.

    Attributes
    ----------
    reader
        The reader of the run.
    """

    reader: RunReader

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
        reader = RunReader(run)
        path = reader.folder.path
        if not reader.config.get("keep_embeddings"):
            message = f"{path} holds no embeddings: run `rsprune prune --keep-embeddings` into another folder"
            raise ArgumentError(message)
        if not reader.shards or len(reader.index) != reader.images:
            message = f"the run in {path} is not finished: make the call that began it again"
            raise UnfinishedRunError(message)
        reader.embeddings()
        return cls(reader)

    @property
    def folder(self) -> RunFolder:
        """The run folder."""
        return self.reader.folder

    @property
    def total(self) -> int:
        """The images of the collection, those without embedding included."""
        return self.reader.images

    @cached_property
    def embeds(self) -> Embeddings:
        """The embeddings (N, D), where they lie."""
        return as_rows(self.reader.embeddings())

    @cached_property
    def keys(self) -> list[str]:
        """The keys of the images."""
        keys: list[str] = self.reader.embedded(["key"])["key"].to_pylist()
        return keys

    @cached_property
    def entropy(self) -> NDArray[np.float64]:
        """The entropies of the images, float64 (N,) in bits."""
        return self.reader.embedded_entropy()

    @cached_property
    def centroids(self) -> Centroids:
        """The centroids of the run."""
        return self.reader.centroids

    def reference(self, holdout: float, seed: int) -> tuple[NDArray[Any], NDArray[Any]] | None:
        """Split the reference images' embeddings: for the methods, and held out; None if the run has none."""
        if (reference := self.reader.reference) is None:
            return None
        rows = as_rows(reference.embeddings())
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
        return digest(self.reader.config)


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
        reader = RunReader(folder)
        return cls(as_rows(reader.embeddings()), reader.embedded(["key"])["key"].to_pylist())

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
