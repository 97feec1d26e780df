"""Pools to choose from again: run folders that kept their embeddings, and embeddings alone."""

from __future__ import annotations

import csv
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from typing_extensions import Self, override

from rsprune import strategies
from rsprune.centroids import Centroids, fit_centroids
from rsprune.embeddings import Embeddings, as_rows
from rsprune.errors import ArgumentError, FormatError, UnfinishedRunError
from rsprune.evaluation.features import split_rows
from rsprune.io import digest
from rsprune.runs.reader import RunReader
from rsprune.sources import Item, Shard, Source
from rsprune.sources.filesystem import open_text
from rsprune.sources.keys import read_known

__all__ = ["ArrayPool", "EmbeddedPool", "EmbeddedSet", "Pool", "read_classes"]


@dataclass(frozen=True)
class EmbeddedSet:
    """The images of a run that have an embedding, in the order of its rows."""

    reader: RunReader

    @classmethod
    def open(cls, run: str | Path) -> Self:
        """Open a run folder."""
        return cls(RunReader(run))

    @cached_property
    def embeds(self) -> Embeddings:
        """The embeddings (N, D), where they lie."""
        return as_rows(self.reader.embeddings())

    @cached_property
    def keys(self) -> list[str]:
        """The keys of the images."""
        everything = np.arange(len(self.reader.embedded_index))
        return [key for table, _ in self.reader.embedded_at(everything) for key in table["key"].to_pylist()]

    def read(self, source: Source, numbers: NDArray[np.int64]) -> Iterator[Item]:
        """Read the images of ascending rows from the collection that the run was made from."""
        first = 0
        for shard in self.reader.shards:
            table = self.reader.assignments(shard, ["row", "key"])
            mine = table.take(pa.array(numbers[(numbers >= first) & (numbers < first + len(table))] - first))
            first += len(table)
            if rows := mine["row"].to_pylist():
                keys = mine["key"].to_pylist()
                yield from read_known(source, Shard(shard), rows, keys, self.reader.folder.path)

    def split(self, seed: int, holdout: float = 0.5) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Return the valid rows in two parts, drawn by seed: for the methods, and the share ``holdout``."""
        return split_rows(self.embeds, holdout, seed)

    def of_classes(self, numbers: NDArray[np.int64], share: int) -> NDArray[np.int64]:
        """Return those of some rows whose class folder is among the first 1/share of all class folders."""
        tables = pa.concat_tables(self.reader.assignments(shard, ["key"]) for shard in self.reader.shards)
        classes = [key.rpartition("/")[0] for key in tables["key"].take(pa.array(numbers)).to_pylist()]
        names = sorted(set(classes))
        first = set(names[: -(-len(names) // share)])
        return numbers[[name in first for name in classes]]


@dataclass(frozen=True)
class EmbeddedPool(EmbeddedSet):
    """A pool to select from: the images of a run that kept its embeddings, those that Stage I kept."""

    @classmethod
    @override
    def open(cls, run: str | Path) -> Self:
        """Open a run folder; one that kept no embeddings, or has not come to its end, is refused."""
        pool = super().open(run)
        reader, path = pool.reader, pool.reader.folder.path
        if not reader.config.get("keep_embeddings"):
            message = f"{path} holds no embeddings: run `rsprune prune --keep-embeddings` into another folder"
            raise ArgumentError(message)
        if not reader.shards or len(reader.index) != reader.images:
            message = f"the run in {path} is not finished: make the call that began it again"
            raise UnfinishedRunError(message)
        reader.embeddings()
        return pool

    @property
    def total(self) -> int:
        """The images of the collection, those without embedding included."""
        return self.reader.images

    @cached_property
    def entropy(self) -> NDArray[np.float64]:
        """The entropies of the images, float64 (N,) in bits."""
        return self.reader.embedded_entropy()

    @cached_property
    def centroids(self) -> Centroids:
        """The centroids of the run."""
        return self.reader.centroids

    @property
    def k(self) -> int:
        """The number of centroids of the run."""
        return self.centroids.k

    def identify(self) -> str:
        """Return a digest of what the pool is."""
        return digest(self.reader.config)

    def reference(self, holdout: float, seed: int) -> tuple[NDArray[Any], NDArray[Any]] | None:
        """Split the reference images' embeddings: for the methods, and held out; None if the run has none."""
        if self.reader.reference is None:
            return None
        return halves(EmbeddedSet(self.reader.reference).embeds, holdout, seed)

    def describe(self) -> str:
        """Describe the pool in a line: methods without Stage I may want more than its survivors."""
        n = self.embeds.shape[0]
        if n == self.total:
            return f"pool: all {n:,} images of the collection"
        return f"pool: the {n:,} of {self.total:,} images that Stage I kept and embedded; no method sees the others"


@dataclass(frozen=True)
class ArrayPool:
    """A pool of embeddings alone, all of a collection.

    Attributes
    ----------
    embeds
        The embeddings (N, D), where they lie.
    names
        The keys of the rows; None if nothing names them.
    references
        Embeddings of the reference images, where there are some.
    fitted
        The centroids, where they are given.
    clusters
        How many centroids are fitted on the reference otherwise.
    entropy
        float64 (N,) in bits, where they are known.
    """

    embeds: Embeddings
    names: list[str] | None = None
    references: Embeddings | None = None
    fitted: Centroids | None = None
    clusters: int = 200
    entropy: NDArray[np.float64] | None = None

    @property
    def total(self) -> int:
        """The number of rows."""
        return self.embeds.shape[0]

    @property
    def keys(self) -> list[str]:
        """The keys of the rows, or their numbers where nothing names them."""
        return list(map(str, range(self.total))) if self.names is None else self.names

    @property
    def k(self) -> int:
        """The number of centroids."""
        return self.clusters if self.fitted is None else self.fitted.k

    @cached_property
    def centroids(self) -> Centroids | None:
        """The centroids: those that are given, or fitted on the whole reference; None without either."""
        if self.fitted is not None or self.references is None:
            return self.fitted
        return fit_centroids(self.references, self.k)

    def identify(self) -> str:
        """Return a digest of what the pool is. Reads all rows."""
        sets = [None if one is None else one.on_host().digest(threads=None) for one in (self.embeds, self.references)]
        centroids = None if self.fitted is None else as_rows(self.fitted.vectors).on_host().digest(threads=None)
        known = None if self.entropy is None else digest(self.entropy.tolist())
        return digest({"rows": sets, "centroids": centroids, "k": self.k, "entropy": known})

    def reference(self, holdout: float, seed: int) -> tuple[NDArray[Any], NDArray[Any]] | None:
        """Split the reference embeddings: for the methods, and held out; None if there are none."""
        return None if self.references is None else halves(self.references, holdout, seed)

    def describe(self) -> str:
        """Describe the pool in a line."""
        return f"pool: {self.total:,} embeddings of {self.embeds.shape[1]} dimensions"


Pool = EmbeddedPool | ArrayPool


def known_to(pool: Pool, strategy: str, reference: Any, centroids: Callable[[], Centroids | None]) -> dict[str, Any]:
    """Return what a strategy may know of a pool. Strategies that need no centroids cluster it themselves."""
    known = {"embeds": pool.embeds, "reference": reference, "entropy": pool.entropy}
    return known | ({"centroids": centroids()} if "centroids" in strategies.get(strategy).needs else {})


def halves(reference: Embeddings, holdout: float, seed: int) -> tuple[NDArray[Any], NDArray[Any]]:
    """Split reference embeddings by seed: for the methods, and the share ``holdout``; with none of it both are all."""
    if not holdout:
        everything = reference.take(np.flatnonzero(reference.valid()))
        return everything, everything
    known, out = split_rows(reference, holdout, seed)
    return reference.take(known), reference.take(out)


def read_classes(path: str | Path, keys: Sequence[str], key: str, column: str) -> tuple[NDArray[np.int64], list[str]]:
    """Read the classes of images from the columns ``key`` and ``column`` of a CSV table with a head.

    Returns the number of the class of each of the images ``keys``, int64 (N,), -1 for those that the table does not
    name, and the classes, sorted. A table that lacks a column, or names none of the images, is a ``FormatError``.
    """
    with open_text(path) as file:
        table = csv.DictReader(file)
        try:
            for name in (key, column):
                if name not in (table.fieldnames or ()):
                    message = f"{path} has no column {name!r}; it has {', '.join(table.fieldnames or ())}"
                    raise FormatError(message)
            classes = {row[key]: row[column] for row in table if row[column] is not None}  # a row may be short
        except (csv.Error, UnicodeDecodeError) as error:
            message = f"{path} is not CSV in UTF-8: {error}"
            raise FormatError(message) from error
    names = sorted({classes[one] for one in keys if one in classes})
    if not names:
        message = f"{path} names none of the images: the column {key!r} should hold their keys, such as {keys[0]!r}"
        raise FormatError(message)
    number = {name: i for i, name in enumerate(names)}
    return np.array([number[classes[one]] if one in classes else -1 for one in keys], np.int64), names
