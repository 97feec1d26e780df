"""Statistics of a finished run from one pass over it: histograms, and example images."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from rsprune.report.examples import SEED, Example, Extremes, draw_order
from rsprune.report.quality import Flagged, QualityCounter
from rsprune.runs.reader import NOT_CHOSEN, RunReader, ShardRows

__all__ = ["ENTROPY_BIN", "SIMILARITY_BIN", "RunStatistics", "Strip", "run_statistics"]

ENTROPY_BIN = 0.1  # bits, from 0 to 8
ENTROPY_BINS = 80
SIMILARITY_BIN = 0.005  # from -1 to 1; the page merges bins when the range is wide
SIMILARITY_BINS = 400

KEPT_SHOWN = 24
DROPPED_SHOWN = 16
RANDOM_SHOWN = 16
STRIPS = 200  # clusters with a strip of images, the largest
STRIP = (3, 2, 2)  # images of a strip: nearest, last kept, first dropped


@dataclass(frozen=True)
class Strip:
    """Images of a cluster."""

    nearest: Sequence[Example]  # of those that were kept, by similarity to the centroid
    last_kept: Sequence[Example]  # the least similar of them, the least first; none of the nearest
    first_dropped: Sequence[Example]  # the most similar that Stage II dropped


@dataclass
class RunStatistics:
    """Statistics that the page shows beside the summary of the run."""

    ranked: int  # number of images that Stage I ranked
    entropy: NDArray[np.int64]  # (2, 80): histogram, in ENTROPY_BIN, of the images that Stage I kept and dropped
    #: (3, 400): histogram, in SIMILARITY_BIN from -1, of Stage I's survivors: kept by quota, kept by fill or
    #: preselected, dropped by Stage II.
    similarity: NDArray[np.int64]
    preselected: NDArray[np.int64]  # (K,): of each cluster, the images that were chosen beforehand
    #: The nearest image of every cluster, from the largest cluster on, then the second nearest, and so on.
    kept_in_turn: list[Example] = field(default_factory=list)
    lowest_entropy: list[Example] = field(default_factory=list)  # of the images that Stage I dropped
    nearly_kept: list[Example] = field(default_factory=list)  # those of highest entropy among them
    least_similar: list[Example] = field(default_factory=list)  # of the images that Stage II dropped
    random_kept: list[Example] = field(default_factory=list)
    random_dropped: list[Example] = field(default_factory=list)  # by either stage
    strips: dict[int, Strip] = field(default_factory=dict)  # by cluster, from the largest on
    quality: list[Flagged] = field(default_factory=list)  # images that may be of no use


@dataclass(frozen=True)
class Search:
    """The examples that are looked for."""

    nearest: Extremes
    last_kept: Extremes
    first_dropped: Extremes
    lowest_entropy: Extremes
    nearly_kept: Extremes
    least_similar: Extremes
    random_kept: Extremes
    random_dropped: Extremes
    shown: NDArray[np.bool_]  # (K,): whether a cluster has a strip


def run_statistics(run: RunReader) -> RunStatistics:
    """Compute the statistics of a run shard by shard; memory holds one shard."""
    clusters = run.summary["clusters"]
    k = len(clusters["pool"])
    largest = sorted(range(k), key=lambda one: (-clusters["pool"][one], one))[:STRIPS]
    some = sum(clusters["quota"][one] + clusters["fill"][one] > 0 for one in largest)
    nearest = max(STRIP[0], -(-KEPT_SHOWN // max(some, 1)))
    result = RunStatistics(
        ranked=0,
        entropy=np.zeros((2, ENTROPY_BINS), np.int64),
        similarity=np.zeros((3, SIMILARITY_BINS), np.int64),
        preselected=np.zeros(k, np.int64),
    )
    search = Search(
        nearest=Extremes(nearest, k),
        last_kept=Extremes(sum(STRIP[:2]), k),
        first_dropped=Extremes(STRIP[2], k),
        lowest_entropy=Extremes(DROPPED_SHOWN // 2),
        nearly_kept=Extremes(DROPPED_SHOWN // 2),
        least_similar=Extremes(DROPPED_SHOWN),
        random_kept=Extremes(RANDOM_SHOWN),
        random_dropped=Extremes(RANDOM_SHOWN),
        shown=np.isin(np.arange(k), largest),
    )
    quality = QualityCounter()
    for shard in run:
        quality.add(run, shard)
        add_stage_one(result, search, shard)
        add_stage_two(result, search, shard)
    result.quality = quality.found(run.index)
    for name in ("lowest_entropy", "nearly_kept", "least_similar", "random_kept", "random_dropped"):
        setattr(result, name, getattr(search, name).only(run.index))
    near, last, missed = (one.examples(run.index) for one in (search.nearest, search.last_kept, search.first_dropped))
    for one in largest:
        first = near.get(one, [])[: STRIP[0]]
        far = [example for example in last.get(one, []) if example not in first][: STRIP[1]]
        result.strips[one] = Strip(first, far, missed.get(one, []))
    turns = [near[one] for one in largest if one in near][:KEPT_SHOWN]
    rounds = [turn[i] for i in range(nearest) for turn in turns if i < len(turn)]
    result.kept_in_turn = rounds[:KEPT_SHOWN]
    return result


def add_stage_one(result: RunStatistics, search: Search, shard: ShardRows) -> None:
    """Add the entropies of a shard, and examples of what Stage I dropped."""
    passed = shard.passed
    dropped = np.flatnonzero(~passed & ~np.isnan(shard.entropy))
    result.ranked += len(dropped) + len(shard.row)
    result.entropy[0] += histogram(shard.entropy[passed], 0.0, ENTROPY_BIN, ENTROPY_BINS)
    result.entropy[1] += histogram(shard.entropy[dropped], 0.0, ENTROPY_BIN, ENTROPY_BINS)
    search.lowest_entropy.offer(shard, dropped, shard.entropy[dropped])
    search.nearly_kept.offer(shard, dropped, -shard.entropy[dropped])
    search.random_dropped.offer(shard, dropped, draw_order(shard, dropped, SEED))


def add_stage_two(result: RunStatistics, search: Search, shard: ShardRows) -> None:
    """Add the similarities of a shard, and examples of what Stage II kept and dropped."""
    valid = shard.cluster >= 0
    chosen = shard.phase != NOT_CHOSEN
    for series, mask in enumerate((shard.phase == 0, shard.phase > 0, valid & ~chosen)):
        result.similarity[series] += histogram(shard.similarity[mask], -1.0, SIMILARITY_BIN, SIMILARITY_BINS)
    result.preselected += np.bincount(shard.cluster[valid & (shard.phase == 2)], minlength=len(result.preselected))
    kept, dropped = np.flatnonzero(chosen), np.flatnonzero(valid & ~chosen)
    for examples, at in ((search.random_kept, kept), (search.random_dropped, dropped)):
        examples.offer(shard, shard.row[at], draw_order(shard, shard.row[at], SEED), at=at)
    search.least_similar.offer(shard, shard.row[dropped], shard.similarity[dropped], at=dropped)
    # Of images whose nearest centroid is that of a cluster with a strip.
    kept, dropped = (at[search.shown[shard.cluster[at]]] for at in (kept[valid[kept]], dropped))
    for examples, at, sign in (
        (search.nearest, kept, -1),
        (search.last_kept, kept, 1),
        (search.first_dropped, dropped, -1),
    ):
        order = sign * shard.similarity[at].astype(np.float64)
        examples.offer(shard, shard.row[at], order, at=at, group=shard.cluster[at])


def histogram(values: NDArray[np.floating], start: float, step: float, bins: int) -> NDArray[np.int64]:
    """Count values in equal bins; values beyond either end fall into its last bin."""
    index = np.floor((values.astype(np.float64) - start) / step).astype(np.int64)
    return np.bincount(np.clip(index, 0, bins - 1), minlength=bins)
