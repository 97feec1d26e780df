"""One pass over a finished run: the histograms of the page, and the images that it shows."""

from __future__ import annotations

import heapq
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from rsprune.report.finished import NOT_CHOSEN, FinishedRun, ShardRows

__all__ = ["ENTROPY_BIN", "SIMILARITY_BIN", "Pick", "Tally", "tally"]

ENTROPY_BIN = 0.1  # bits, from 0 to 8
ENTROPY_BINS = 80
SIMILARITY_BIN = 0.005  # from -1 to 1; the page merges bins when the range is wide
SIMILARITY_BINS = 400

KEPT_SHOWN = 24
DROPPED_SHOWN = 16


class Pick(NamedTuple):
    """An image that the page shows; picks compare by ``order``, then by row number."""

    order: float
    number: int  # of the row, through all shards
    shard: str
    row: int
    entropy: float
    cluster: int | None = None
    similarity: float | None = None


@dataclass
class Extremes:
    """The ``size`` picks of lowest ``order`` of all that were offered."""

    size: int
    picks: list[Pick] = field(default_factory=list)

    def offer(
        self, shard: ShardRows, row: NDArray[np.int64], order: NDArray[np.floating], at: NDArray[np.int64] | None = None
    ) -> None:
        """Offer rows of a shard; ``at`` says where the survivors among them stand in the shard's survivors."""
        candidates = []
        for i in np.lexsort((row, order))[: self.size]:
            position = int(row[i])
            pick = Pick(float(order[i]), shard.first + position, shard.name, position, float(shard.entropy[position]))
            if at is not None:
                pick = pick._replace(cluster=int(shard.cluster[at[i]]), similarity=float(shard.similarity[at[i]]))
            candidates.append(pick)
        self.picks = heapq.nsmallest(self.size, self.picks + candidates)


@dataclass
class Tally:
    """What the page shows of a run beside its summary.

    Attributes
    ----------
    ranked
        Images that Stage I ranked.
    entropy
        int64 (2, 80): images in bins of :data:`ENTROPY_BIN` bits; those that Stage I kept, those that it dropped.
    similarity
        int64 (3, 400): Stage I's survivors in bins of :data:`SIMILARITY_BIN` from -1; those that the quota kept, those
        that the fill (or the caller, beforehand) kept, those that Stage II dropped.
    kept
        By cluster, the images kept that are nearest to the centroid: the largest clusters' only.
    flattest, just_missed
        Of those that Stage I dropped, the lowest and the highest entropies.
    farthest
        Of those that Stage II dropped, the lowest similarities.
    """

    ranked: int
    entropy: NDArray[np.int64]
    similarity: NDArray[np.int64]
    kept: dict[int, Extremes]
    flattest: Extremes
    just_missed: Extremes
    farthest: Extremes

    def kept_in_turn(self) -> list[Pick]:
        """The nearest image of every cluster shown, the largest cluster first; then the second nearest; and so on."""
        rounds = max((len(extremes.picks) for extremes in self.kept.values()), default=0)
        turns = [e.picks[i] for i in range(rounds) for e in self.kept.values() if i < len(e.picks)]
        return turns[:KEPT_SHOWN]


def tally(run: FinishedRun) -> Tally:
    """Go once over the shards of a run. Memory: one shard."""
    shown = largest_clusters(run.summary["clusters"])
    each = -(-KEPT_SHOWN // max(len(shown), 1))
    result = Tally(
        ranked=0,
        entropy=np.zeros((2, ENTROPY_BINS), np.int64),
        similarity=np.zeros((3, SIMILARITY_BINS), np.int64),
        kept={k: Extremes(each) for k in shown},
        flattest=Extremes(DROPPED_SHOWN // 2),
        just_missed=Extremes(DROPPED_SHOWN // 2),
        farthest=Extremes(DROPPED_SHOWN),
    )
    for shard in run:
        add_stage_one(result, shard)
        add_stage_two(result, shard)
    return result


def largest_clusters(clusters: Mapping[str, Sequence[int]]) -> list[int]:
    """The largest of the clusters of which anything was kept; among equals, the lower number first."""
    pool = clusters["pool"]
    some = [k for k in range(len(pool)) if clusters["quota"][k] + clusters["fill"][k]]
    return sorted(some, key=lambda k: (-pool[k], k))[:KEPT_SHOWN]


def add_stage_one(result: Tally, shard: ShardRows) -> None:
    """Count the entropies of a shard, and note what Stage I dropped of it."""
    passed = shard.passed
    dropped = np.flatnonzero(~passed & ~np.isnan(shard.entropy))
    result.ranked += len(dropped) + len(shard.row)
    result.entropy[0] += histogram(shard.entropy[passed], 0.0, ENTROPY_BIN, ENTROPY_BINS)
    result.entropy[1] += histogram(shard.entropy[dropped], 0.0, ENTROPY_BIN, ENTROPY_BINS)
    result.flattest.offer(shard, dropped, shard.entropy[dropped])
    result.just_missed.offer(shard, dropped, -shard.entropy[dropped])


def add_stage_two(result: Tally, shard: ShardRows) -> None:
    """Count the similarities of a shard, and note what Stage II kept and dropped of it."""
    valid = shard.cluster >= 0
    chosen = shard.phase != NOT_CHOSEN
    for series, mask in enumerate((shard.phase == 0, shard.phase > 0, valid & ~chosen)):
        result.similarity[series] += histogram(shard.similarity[mask], -1.0, SIMILARITY_BIN, SIMILARITY_BINS)
    for k, nearest in result.kept.items():
        at = np.flatnonzero(chosen & (shard.cluster == k))
        nearest.offer(shard, shard.row[at], -shard.similarity[at], at)
    at = np.flatnonzero(valid & ~chosen)
    result.farthest.offer(shard, shard.row[at], shard.similarity[at], at)


def histogram(values: NDArray[np.floating], start: float, step: float, bins: int) -> NDArray[np.int64]:
    """Count values in equal bins; those beyond an end are counted in the bin at that end."""
    index = np.floor((values.astype(np.float64) - start) / step).astype(np.int64)
    return np.bincount(np.clip(index, 0, bins - 1), minlength=bins)
