"""Example images: the extremes of a run by some order, in one pass over it."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from rsprune import _core
from rsprune.runs.reader import RunIndex, ShardRows

__all__ = ["SEED", "Example", "Extremes", "draw_order"]

SEED = 0  # of what is drawn at random

ROW = np.dtype(
    [
        ("group", np.int32),
        ("order", np.float64),
        ("number", np.int64),
        ("entropy", np.float64),
        ("cluster", np.int32),
        ("similarity", np.float32),
    ]
)


class Example(NamedTuple):
    """An image for the page."""

    number: int  # row number through all shards
    shard: str
    row: int
    entropy: float
    cluster: int | None = None
    similarity: float | None = None


class Extremes:
    """Keeps the ``size`` rows of lowest order, of each of some ``groups``; among equals the earlier ones.

    Shards are offered in the order of their rows.
    """

    def __init__(self, size: int, groups: int = 1) -> None:
        self._size = size
        self._rows = np.empty(0, ROW)
        self._worst = np.full(groups, np.inf if size else -np.inf)

    def offer(
        self,
        shard: ShardRows,
        row: NDArray[np.int64],
        order: NDArray[np.floating],
        *,
        at: NDArray[np.int64] | None = None,
        group: NDArray[np.int32] | None = None,
    ) -> None:
        """Offer rows of a shard; ``at`` holds their positions in the arrays of Stage I's survivors if they are some."""
        group = np.zeros(len(row), np.int32) if group is None else group
        better = np.flatnonzero(order < self._worst[group])
        if not len(better):
            return
        new = np.empty(len(better), ROW)
        new["group"], new["order"] = group[better], order[better]
        new["number"], new["entropy"] = shard.first + row[better], shard.entropy[row[better]]
        new["cluster"] = -1 if at is None else shard.cluster[at[better]]
        new["similarity"] = np.nan if at is None else shard.similarity[at[better]]
        both = np.concatenate([self._rows, new])
        both = both[np.lexsort((both["number"], both["order"], both["group"]))]
        place = np.arange(len(both)) - np.searchsorted(both["group"], both["group"])
        self._rows = both[place < self._size]
        last = self._rows[place[place < self._size] == self._size - 1]
        self._worst[last["group"]] = last["order"]

    def examples(self, index: RunIndex) -> dict[int, list[Example]]:
        """Return the rows by group, each in order."""
        names = np.searchsorted(index.offsets, self._rows["number"], "right") - 1
        found: dict[int, list[Example]] = {}
        for row, shard in zip(self._rows.tolist(), names.tolist(), strict=True):
            group, _, number, entropy, cluster, similarity = row
            assigned = (cluster, similarity) if cluster >= 0 else ()
            example = Example(number, index.shards[shard], number - int(index.offsets[shard]), entropy, *assigned)
            found.setdefault(group, []).append(example)
        return found

    def only(self, index: RunIndex) -> list[Example]:
        """Return the rows of the only group."""
        return self.examples(index).get(0, [])


def draw_order(shard: ShardRows, row: NDArray[np.int64], seed: int) -> NDArray[np.float64]:
    """Return an order by which the first rows are drawn at random, whatever the shards: float64 (n,)."""
    hashes = _core.hash64(seed, shard.first, shard.first + len(shard.entropy))[row]
    return (hashes >> np.uint64(11)).astype(np.float64)  # 53 bits: exact
