"""Diagnostics of a pool: how many centroids it asks for, and which pruning ratio."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rsprune import _core
from rsprune._core import Rows
from rsprune.assignment import assign
from rsprune.centroids import fit_centroids
from rsprune.embeddings import as_rows
from rsprune.errors import ArgumentError
from rsprune.evaluation.features import sample_rows, split_rows
from rsprune.evaluation.subset import distance
from rsprune.selection import FILL, budget_rows, select_assigned
from rsprune.validation import check_integer, check_number, check_threads

__all__ = ["Redundancy", "Trial", "redundancy", "same_partition", "sweep"]


@dataclass(frozen=True)
class Trial:
    """Centroids of one number K, over several seeds: means, and the spread between seeds as standard deviations."""

    k: int  # number of centroids
    reference_similarity: float  # the mean cosine of held-out reference rows to their nearest centroid
    reference_spread: float
    pool_similarity: float  # the same of the pool's rows
    empty: float  # the share of centroids that are nearest to no row of the pool
    smallest: float  # rows of the pool around a centroid that is not empty
    median: float
    largest: float
    fill_share: float  # the share of the budget that the quotas leave, and that goes to the pool's remainder
    fill_spread: float
    agreement: float | None  # adjusted Rand index of two seeds' partitions: 1 for the same, 0 for chance
    overlap: float | None  # Jaccard index of what two seeds select; both are None for one seed


def sweep(
    reference: Any,
    pool: Any,
    ks: Sequence[int] = (25, 50, 100, 200, 400),
    *,
    keep: float = 0.15,
    seeds: Sequence[int] = (0, 1, 2),
    holdout: float = 0.2,
    threads: int | None = None,
) -> list[Trial]:
    """Fit reference centroids of several numbers and seeds, and select with each; one trial for each number.

    Parameters
    ----------
    reference, pool
        Embeddings (M, D) and (N, D).
    ks, seeds
        Numbers of centroids, and their seeds; the first seed also draws the rows that are held out.
    keep
        The budget: rows, or a fraction of the pool.
    holdout
        The share of the reference rows that no centroids are fitted on.
    threads
        All cores by default.

    Raises
    ------
    ArgumentError
        More centroids than reference rows, or an option out of range.
    """
    holdout = check_number("holdout", holdout, above=0, below=1)
    if not seeds or not ks:
        message = f"ks {list(ks)!r} and seeds {list(seeds)!r}; expected at least one of each"
        raise ArgumentError(message)
    known, rows = as_rows(reference), as_rows(pool)
    parts = split_rows(known, holdout, check_integer("seed", seeds[0], minimum=0), threads)
    fitted_on, held_out = map(known.take, parts)
    budget = budget_rows(keep, rows.shape[0])
    trials = []
    for k in ks:
        measured, partitions, selections = [], [], []
        for seed in seeds:
            centroids = fit_centroids(fitted_on, k, seed=seed, n_init=1, threads=threads)
            labels, similarity = assign(rows, centroids, threads=threads)
            chosen = select_assigned(labels, similarity, budget, k=k, threads=threads)
            sizes = np.bincount(labels[labels >= 0], minlength=k)
            filled = sizes[sizes > 0]
            measured.append(
                {
                    "reference_similarity": float(assign(held_out, centroids, threads=threads).similarity.mean()),
                    "pool_similarity": np.nanmean(similarity),
                    "empty": (sizes == 0).mean(),
                    "smallest": filled.min(),
                    "median": np.median(filled),
                    "largest": filled.max(),
                    "fill_share": float((chosen.phase == FILL).mean()),
                }
            )
            partitions.append(labels)
            selections.append(chosen.indices)
        each = {name: [one[name] for one in measured] for name in measured[0]}
        trials.append(
            Trial(
                k=check_integer("k", k),
                **{name: float(np.mean(values)) for name, values in each.items()},
                reference_spread=float(np.std(each["reference_similarity"])),
                fill_spread=float(np.std(each["fill_share"])),
                agreement=_mean_of_pairs(same_partition, partitions),
                overlap=_mean_of_pairs(_jaccard, selections),
            )
        )
    return trials


def _mean_of_pairs(alike: Callable[[Any, Any], float], outcomes: Sequence[Any]) -> float | None:
    """The mean likeness of the outcomes of two seeds; None for one seed."""
    pairs = list(itertools.combinations(outcomes, 2))
    return float(np.mean([alike(a, b) for a, b in pairs])) if pairs else None


@dataclass(frozen=True, eq=False)
class Redundancy:
    """The novelty that each further row of a pool adds to those before it."""

    #: float64 (n,), never rising: the distance of the b-th row of a farthest-first traversal to the nearest row before
    #: it, between unit vectors. The first has no row before it, and counts as the second.
    novelty: NDArray[np.float64]
    rows: NDArray[np.int64]  # (n,): the traversal
    keep: float  # the recommended share of rows: of those that add at least the mean novelty
    #: How far the curve stands above the diagonal there: 0 where all rows add as much and none is redundant, near 1
    #: where few rows add everything.
    height: float

    def curve(self, points: int = 50) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """The share of all novelty in the first rows, at evenly spaced shares of rows; both from 0 to 1."""
        total = np.concatenate([[0.0], np.cumsum(self.novelty)])
        share = np.linspace(0, 1, points + 1)
        whole = total[-1] or 1.0
        return share, np.interp(share, np.linspace(0, 1, len(total)), total / whole)


def redundancy(embeds: Any, *, sample: int = 16_384, seed: int = 0, threads: int | None = None) -> Redundancy:
    """Measure how redundant a pool is, and find where pruning begins to cost more than redundancy.

    Rows are put in the order of the farthest-first traversal (Gonzalez, 1985): each is the farthest from all before it,
    and its distance to them is what it adds. The cumulated novelty is a concave curve from (0, 0) to (1, 1) over the
    share of rows; the knee is where it is highest above the diagonal (Satopaa et al., 2011, "Kneedle", without
    smoothing). There the novelty of a row falls below the mean over the pool: rows behind the knee repeat, more than
    the average row does, what is kept already.

    Parameters
    ----------
    embeds
        (N, D) embeddings; see :func:`rsprune.embeddings.as_rows`. Invalid rows are left out.
    sample
        Of a larger pool so many rows are drawn. Rows of a sample are farther apart than those of the whole: the
        recommended share of a sample is too large, not too small.
    seed, threads
        The seed of the draw, and the number of threads, all cores by default.

    Raises
    ------
    ArgumentError
        Fewer than two valid rows.
    """
    rows = as_rows(embeds)
    valid = np.flatnonzero(rows.valid(check_threads(threads)))
    if len(valid) < 2:
        message = f"the number of valid rows is {len(valid)}; expected at least 2"
        raise ArgumentError(message)
    drawn = valid[sample_rows(check_integer("sample", sample, minimum=2), len(valid), seed)]
    some = Rows([rows.take(drawn)])
    first = np.array([0], np.int64)
    order, _ = _core.farthest_first(some, first, count=len(drawn), distance=-1.0, threads=threads)
    ends = np.array([0, len(order)], np.int64)
    novelty = distance(_core.max_similarity_to_earlier(some, order, ends, threads=threads))
    novelty[0] = novelty[1]
    # Rounding may leave steps up of its own size.
    novelty = np.minimum.accumulate(novelty)
    before_knee = novelty >= novelty.mean() * (1 - 1e-12)
    keep = float(before_knee.mean())
    height = float(novelty[before_knee].sum() / (novelty.sum() or 1.0)) - keep
    return Redundancy(novelty, drawn[order], keep, height)


def same_partition(a: NDArray[np.int32], b: NDArray[np.int32]) -> float:
    """The adjusted Rand index of two labelings (Hubert and Arabie, 1985); rows with a label below 0 are left out."""
    both = (a >= 0) & (b >= 0)
    table = np.zeros((int(a.max(initial=0)) + 1, int(b.max(initial=0)) + 1), np.int64)
    np.add.at(table, (a[both], b[both]), 1)

    def pairs(counts: NDArray[np.int64]) -> float:
        return float((counts * (counts - 1) // 2).sum())

    together, in_a, in_b = pairs(table), pairs(table.sum(axis=1)), pairs(table.sum(axis=0))
    by_chance = in_a * in_b / max(pairs(np.array([both.sum()])), 1.0)
    most = (in_a + in_b) / 2
    return 1.0 if most == by_chance else (together - by_chance) / (most - by_chance)


def _jaccard(a: NDArray[np.int64], b: NDArray[np.int64]) -> float:
    common = len(np.intersect1d(a, b, assume_unique=True))
    return common / max(len(a) + len(b) - common, 1)
