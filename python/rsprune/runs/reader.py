"""Reading run folders."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from rsprune.io import read_table
from rsprune.runs.folder import RunFolder
from rsprune.sources.file_list import duplicate_candidates

__all__ = ["Pool", "keys_of", "read_pool"]


@dataclass(frozen=True)
class Pool:
    """What Stage I found. Rows are numbered through all shards, in the order of the shards' names.

    Attributes
    ----------
    shards
        The shards' names.
    offsets
        int64 (S + 1,): the first row of each shard, and at the end the number of rows N.
    entropy
        float64 (N,), bits; NaN where an image was not read or repeats the key of an earlier one.
    duplicates
        int64: the rows that repeat the key of an earlier row.
    """

    shards: tuple[str, ...]
    offsets: NDArray[np.int64]
    entropy: NDArray[np.float64]
    duplicates: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.entropy)

    def rows_of(self, shard: str) -> slice:
        """The rows of one shard."""
        i = self.shards.index(shard)
        return slice(int(self.offsets[i]), int(self.offsets[i + 1]))

    def locate(self, row: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """The number of each row's shard, and its position within that shard."""
        shard = np.searchsorted(self.offsets, row, side="right") - 1
        return shard, row - self.offsets[shard]


def read_pool(folder: RunFolder) -> Pool:
    """Read Stage I's tables. Memory: 24 bytes a row, and the keys of one shard."""
    shards = tuple(sorted(path.stem for path in (folder.path / "entropy").glob("*.parquet")))
    entropy: list[NDArray[np.float64]] = [np.empty(0)]
    hashes: list[NDArray[np.int64]] = [np.empty(0, np.int64)]
    for shard in shards:
        table = read_table(folder.entropy(shard), ["key", "entropy"])
        entropy.append(table["entropy"].to_numpy())
        hashes.append(np.fromiter(map(hash, table["key"].to_pylist()), np.int64, len(table)))
    offsets = np.cumsum([len(part) for part in entropy])
    pool = Pool(shards, offsets, np.concatenate(entropy), np.empty(0, np.int64))
    duplicates = repeated_keys(folder, pool, np.concatenate(hashes))
    pool.entropy[duplicates] = np.nan
    return replace(pool, duplicates=duplicates)


def repeated_keys(folder: RunFolder, pool: Pool, hashes: NDArray[np.int64]) -> NDArray[np.int64]:
    """The rows whose key an earlier row has: found by 64-bit hash, confirmed by the keys themselves."""
    suspects = duplicate_candidates(hashes)
    seen: set[str] = set()
    repeats = []
    for row, key in zip(suspects, keys_of(folder, pool, suspects), strict=True):
        if key in seen:
            repeats.append(row)
        seen.add(key)
    return np.array(repeats, np.int64)


def keys_of(folder: RunFolder, pool: Pool, rows: NDArray[np.int64]) -> list[str]:
    """The keys of ascending ``rows``, read shard by shard."""
    keys: list[str] = []
    shard, position = pool.locate(rows)
    for i in np.unique(shard):
        column = read_table(folder.entropy(pool.shards[i]), ["key"])["key"]
        keys += column.take(pa.array(position[shard == i])).to_pylist()
    return keys
