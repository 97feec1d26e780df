"""The rows of a run: how they are numbered through its shards, and what became of those of one shard."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

__all__ = ["RunIndex", "ShardRows", "positions_of"]


@dataclass(frozen=True)
class ShardRows:
    """What became of the rows of one shard.

    Attributes
    ----------
    name
        The shard's name.
    first
        The number of its first row, counted through all shards in the order of their names.
    entropy
        float64 (n,), bits; NaN where Stage I could not rank the image.
    row
        int64 (m,): the positions of those that Stage I kept. The arrays below are aligned with it.
    cluster
        int32 (m,); -1 where Stage II could not embed the image.
    similarity
        float32 (m,); NaN where ``cluster`` is -1.
    phase
        int8 (m,): an index into :data:`PHASES`, or -1 where Stage II did not choose the image.
    """

    name: str
    first: int
    entropy: NDArray[np.float64]
    row: NDArray[np.int64]
    cluster: NDArray[np.int32]
    similarity: NDArray[np.float32]
    phase: NDArray[np.int8]

    @property
    def passed(self) -> NDArray[np.bool_]:
        """Whether Stage I kept the row: bool (n,)."""
        mask = np.zeros(len(self.entropy), np.bool_)
        mask[self.row] = True
        return mask


@dataclass(frozen=True)
class RunIndex:
    """The numbers of rows, counted through all shards in the order of their names.

    Attributes
    ----------
    shards
        The shards' names.
    offsets
        int64 (S + 1,): the first row of each shard, and at the end the number of rows N.
    """

    shards: tuple[str, ...]
    offsets: NDArray[np.int64]

    def __len__(self) -> int:
        return int(self.offsets[-1])

    @cached_property
    def _places(self) -> dict[str, int]:
        return {shard: place for place, shard in enumerate(self.shards)}

    def first(self, shard: str) -> int:
        """Return the number of a shard's first row."""
        return int(self.offsets[self._places[shard]])

    def count(self, shard: str) -> int:
        """Return how many rows a shard has."""
        at = self._places[shard]
        return int(self.offsets[at + 1] - self.offsets[at])

    def locate(self, rows: NDArray[np.int64]) -> Iterator[tuple[str, NDArray[np.int64], NDArray[np.int64]]]:
        """Yield, for each shard that has some of ascending ``rows``, its name, and their positions in it and here."""
        bounds = np.searchsorted(rows, self.offsets)
        for i, shard in enumerate(self.shards):
            if bounds[i] < bounds[i + 1]:
                at = np.arange(bounds[i], bounds[i + 1])
                yield shard, rows[at] - self.offsets[i], at


def positions_of(column: pa.ChunkedArray) -> Iterator[tuple[str, NDArray[np.int64]]]:
    """Yield each distinct string of a column with the positions that hold it, ascending."""
    # Codes are joined, not the strings, which are many times their size.
    encoded = column.dictionary_encode().combine_chunks()
    codes = encoded.indices.to_numpy()
    in_order = bool((codes[1:] >= codes[:-1]).all())  # as a manifest is: no need to sort what may be millions of rows
    order = np.arange(len(codes)) if in_order else np.argsort(codes, kind="stable")
    bounds = np.searchsorted(codes if in_order else codes[order], np.arange(len(encoded.dictionary) + 1))
    for value, start, end in zip(encoded.dictionary.to_pylist(), bounds[:-1], bounds[1:], strict=True):
        yield value, order[start:end]
