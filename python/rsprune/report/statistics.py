"""Statistics of a finished run from one pass over it: histograms, and example images."""

from __future__ import annotations

import heapq
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from rsprune.runs.reader import NOT_CHOSEN, RunReader, ShardRows

__all__ = ["ENTROPY_BIN", "SIMILARITY_BIN", "Example", "RunStatistics", "run_statistics"]

ENTROPY_BIN = 0.1  # bits, from 0 to 8
ENTROPY_BINS = 80
SIMILARITY_BIN = 0.005  # from -1 to 1; the page merges bins when the range is wide
SIMILARITY_BINS = 400

KEPT_SHOWN = 24
DROPPED_SHOWN = 16


class Example(NamedTuple):
    """An image for the page. Examples compare by ``order``, then by row number."""

    order: float
    number: int  # row number through all shards
    shard: str
    row: int
    entropy: float
    cluster: int | None = None
    similarity: float | None = None


@dataclass
class TopK:
    """Keeps the ``size`` examples of lowest ``order``."""

    size: int
    examples: list[Example] = field(default_factory=list)

    def offer(
        self, shard: ShardRows, row: NDArray[np.int64], order: NDArray[np.floating], at: NDArray[np.int64] | None = None
    ) -> None:
        """Offer rows of a shard; ``at`` holds the positions of survivors in the arrays of Stage I's survivors."""
        candidates = []
        for i in np.lexsort((row, order))[: self.size]:
            position = int(row[i])
            example = Example(
                float(order[i]), shard.first + position, shard.name, position, float(shard.entropy[position])
            )
            if at is not None:
                example = example._replace(cluster=int(shard.cluster[at[i]]), similarity=float(shard.similarity[at[i]]))
            candidates.append(example)
        self.examples = heapq.nsmallest(self.size, self.examples + candidates)


@dataclass
class RunStatistics:
    """Statistics that the page shows beside the summary of the run."""

    ranked: int  # number of images that Stage I ranked
    entropy: NDArray[np.int64]  # (2, 80): histogram, in ENTROPY_BIN, of the images that Stage I kept and dropped
    #: (3, 400): histogram, in SIMILARITY_BIN from -1, of Stage I's survivors: kept by quota, kept by fill or
    #: preselected, dropped by Stage II.
    similarity: NDArray[np.int64]
    kept: dict[int, TopK]  # for each of the largest clusters, the kept images nearest to its centroid
    lowest_entropy: TopK  # of the images that Stage I dropped
    nearly_kept: TopK  # those of highest entropy among them
    least_similar: TopK  # of the images that Stage II dropped

    def kept_in_turn(self) -> list[Example]:
        """List the nearest image of every cluster, from the largest cluster on, then the second nearest, and so on."""
        rounds = max((len(extremes.examples) for extremes in self.kept.values()), default=0)
        turns = [e.examples[i] for i in range(rounds) for e in self.kept.values() if i < len(e.examples)]
        return turns[:KEPT_SHOWN]


def run_statistics(run: RunReader) -> RunStatistics:
    """Compute the statistics of a run shard by shard; memory holds one shard."""
    shown = largest_clusters(run.summary["clusters"])
    each = -(-KEPT_SHOWN // max(len(shown), 1))
    result = RunStatistics(
        ranked=0,
        entropy=np.zeros((2, ENTROPY_BINS), np.int64),
        similarity=np.zeros((3, SIMILARITY_BINS), np.int64),
        kept={k: TopK(each) for k in shown},
        lowest_entropy=TopK(DROPPED_SHOWN // 2),
        nearly_kept=TopK(DROPPED_SHOWN // 2),
        least_similar=TopK(DROPPED_SHOWN),
    )
    for shard in run:
        add_stage_one(result, shard)
        add_stage_two(result, shard)
    return result


def largest_clusters(clusters: Mapping[str, Sequence[int]]) -> list[int]:
    """List the largest clusters with a kept image; among equal sizes the lower number comes first."""
    pool = clusters["pool"]
    some = [k for k in range(len(pool)) if clusters["quota"][k] + clusters["fill"][k]]
    return sorted(some, key=lambda k: (-pool[k], k))[:KEPT_SHOWN]


def add_stage_one(result: RunStatistics, shard: ShardRows) -> None:
    """Add the entropies of a shard, and examples of what Stage I dropped."""
    passed = shard.passed
    dropped = np.flatnonzero(~passed & ~np.isnan(shard.entropy))
    result.ranked += len(dropped) + len(shard.row)
    result.entropy[0] += histogram(shard.entropy[passed], 0.0, ENTROPY_BIN, ENTROPY_BINS)
    result.entropy[1] += histogram(shard.entropy[dropped], 0.0, ENTROPY_BIN, ENTROPY_BINS)
    result.lowest_entropy.offer(shard, dropped, shard.entropy[dropped])
    result.nearly_kept.offer(shard, dropped, -shard.entropy[dropped])


def add_stage_two(result: RunStatistics, shard: ShardRows) -> None:
    """Add the similarities of a shard, and examples of what Stage II kept and dropped."""
    valid = shard.cluster >= 0
    chosen = shard.phase != NOT_CHOSEN
    for series, mask in enumerate((shard.phase == 0, shard.phase > 0, valid & ~chosen)):
        result.similarity[series] += histogram(shard.similarity[mask], -1.0, SIMILARITY_BIN, SIMILARITY_BINS)
    for k, nearest in result.kept.items():
        at = np.flatnonzero(chosen & (shard.cluster == k))
        nearest.offer(shard, shard.row[at], -shard.similarity[at], at)
    at = np.flatnonzero(valid & ~chosen)
    result.least_similar.offer(shard, shard.row[at], shard.similarity[at], at)


def histogram(values: NDArray[np.floating], start: float, step: float, bins: int) -> NDArray[np.int64]:
    """Count values in equal bins; values beyond either end fall into its last bin."""
    index = np.floor((values.astype(np.float64) - start) / step).astype(np.int64)
    return np.bincount(np.clip(index, 0, bins - 1), minlength=bins)
