"""A finished run, read shard by shard: the stages' tables side by side, row for row."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from rsprune.errors import UnfinishedRunError
from rsprune.io import read_json, read_table
from rsprune.runs.folder import RunFolder

__all__ = ["PHASES", "FinishedRun", "ShardRows", "read_run"]

# How selection.parquet numbers them.
PHASES = ("quota", "fill", "preselected")
NOT_CHOSEN = -1


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
class FinishedRun:
    """A run folder whose last file is written.

    Iterating over it yields the :class:`ShardRows` of one shard after another: memory holds one shard, and of the
    selection and the quarantine the row numbers.
    """

    folder: RunFolder
    config: dict[str, Any]
    summary: dict[str, Any]
    shards: tuple[str, ...]
    chosen: dict[str, tuple[NDArray[np.int64], NDArray[np.int8]]]
    quarantined: dict[str, NDArray[np.int64]]

    def __iter__(self) -> Iterator[ShardRows]:
        first = 0
        for name in self.shards:
            shard = self.read(name, first)
            first += len(shard.entropy)
            yield shard

    @property
    def within(self) -> str:
        """Which images of a cluster came first."""
        return str(self.config.get("selection", {}).get("within", "nearest"))

    @property
    def fill(self) -> str:
        """Who got what the quotas left of the budget."""
        return str(self.config.get("selection", {}).get("fill", "global"))

    @property
    def strategy(self) -> str:
        """The rule of Stage II."""
        return str(self.config.get("selection", {}).get("strategy", "rsprune"))

    def read(self, name: str, first: int) -> ShardRows:
        """Read one shard, whose first row has the number ``first``."""
        entropy = read_table(self.folder.entropy(name), ["entropy"])["entropy"].to_numpy().astype(np.float64)
        assignments = self.folder.assignments(name)
        if assignments.exists():
            table = read_table(assignments, ["row", "label", "similarity"])
            row = table["row"].to_numpy()
            cluster = table["label"].fill_null(-1).to_numpy()
            similarity = table["similarity"].to_numpy().astype(np.float32)
        else:  # Stage I kept nothing of it
            row, cluster, similarity = np.empty(0, np.int64), np.empty(0, np.int32), np.empty(0, np.float32)
        # An image that Stage I refused may have an entropy all the same: one that repeats the key of another.
        refused = np.setdiff1d(self.quarantined.get(name, np.empty(0, np.int64)), row)
        entropy[refused] = np.nan
        phase_of_row = np.full(len(entropy), NOT_CHOSEN, np.int8)
        if name in self.chosen:
            rows, phases = self.chosen[name]
            phase_of_row[rows] = phases
        return ShardRows(name, first, entropy, row, cluster, similarity, phase_of_row[row])

    def keys(self, name: str) -> pa.ChunkedArray:
        """The keys of all rows of one shard."""
        return read_table(self.folder.entropy(name), ["key"])["key"]


def read_run(folder: RunFolder | str | Path) -> FinishedRun:
    """Open a run folder for reading.

    Raises
    ------
    FileNotFoundError
        It is no run folder.
    UnfinishedRunError
        The run has not come to its end.
    """
    folder = folder if isinstance(folder, RunFolder) else RunFolder(folder)
    config = folder.read_config()
    for path in (folder.summary, folder.selection, folder.quarantine):
        if not path.is_file():
            msg = f"the run in {folder.path} is not finished: it has no {path.name}. Start it again; it will go on"
            raise UnfinishedRunError(msg)
    selection = read_table(folder.selection, ["shard", "row", "phase"])
    rows, phases = selection["row"].to_numpy(), selection["phase"].to_numpy().astype(np.int8)
    quarantine = read_table(folder.quarantine, ["shard", "row"])
    refused = quarantine["row"].to_numpy()
    return FinishedRun(
        folder=folder,
        config=config,
        summary=read_json(folder.summary),
        shards=tuple(sorted(path.stem for path in (folder.path / "entropy").glob("*.parquet"))),
        chosen={shard: (rows[at], phases[at]) for shard, at in by_value(selection["shard"])},
        quarantined={shard: refused[at] for shard, at in by_value(quarantine["shard"])},
    )


def by_value(column: pa.ChunkedArray) -> Iterator[tuple[str, NDArray[np.int64]]]:
    """Yield each distinct string of a column with the positions that hold it, ascending."""
    encoded = column.combine_chunks().dictionary_encode()
    codes = encoded.indices.to_numpy()
    order = np.argsort(codes, kind="stable")
    bounds = np.searchsorted(codes[order], np.arange(len(encoded.dictionary) + 1))
    for value, start, end in zip(encoded.dictionary.to_pylist(), bounds[:-1], bounds[1:], strict=True):
        yield value, order[start:end]
