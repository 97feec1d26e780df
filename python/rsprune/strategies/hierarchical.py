"""Balanced sampling from a hierarchy of clusters."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rsprune import _core
from rsprune.apportion import apportion
from rsprune.assignment import assign
from rsprune.centroids import Centroids, fit_centroids
from rsprune.errors import ArgumentError
from rsprune.selection import Within
from rsprune.strategies.base import Clustering, Picked, Pool, strategy
from rsprune.strategies.grouping import ranks_of, sort_by_label, top_per_group, within_key
from rsprune.validation import check_integer

__all__ = ["hierarchical"]

# Defaults: clusters at the top, clusters below each of those, and rows that a cluster has at least.
TOP, BRANCHES, ROWS_PER_CLUSTER = 200, 50, 500
# The reference implementation runs exactly this many iterations of K-means at every level.
ITERATIONS = 50


@strategy(needs=("embeds",), uses=("centroids",))
def hierarchical(
    pool: Pool,
    *,
    levels: Sequence[int] | None = None,
    sample_sizes: Sequence[int] | None = None,
    rounds: int = 10,
    within: Within = "random",
) -> Picked:
    """An even share of each branch, at every level of a hierarchy of clusters.

    Vo et al. (arXiv 2405.15613). Level 1 clusters the pool, each further level the centroids of the one before. From
    the top down a budget T is shared out among children that hold ``n_j`` rows: ``min(c, n_j)`` each, for the largest
    whole c with which that stays within T, and one more each to children of more than c rows, chosen at random, until T
    is met.

    Parameters
    ----------
    pool
        Given ``centroids`` are the clusters of level 1.
    levels
        Numbers of clusters from level 1 up, falling. By default 200 at the top and 50 times as many below, or fewer
        in a pool of less than 500 rows a cluster.
    sample_sizes
        Resample each level: take this many points nearest to each centroid, cluster those anew and assign all points
        again, ``rounds`` times. It evens out density; about half of the mean size of a cluster is usual. A number for
        each level, 1 for none. By default no level is resampled: it costs ``rounds`` times the clustering.
    rounds
        Number of rounds of resampling.
    within
        Which rows of a cluster of level 1 are kept.
    """
    samples = None if sample_sizes is None else [check_integer("sample_sizes", size) for size in sample_sizes]
    sizes = _default_levels(pool) if levels is None else _levels(levels)
    samples = samples or [1] * len(sizes)
    if len(samples) != len(sizes):
        message = f"sample_sizes has {len(samples)} numbers; expected {len(sizes)}, one a level"
        raise ArgumentError(message)
    first = _first_level(pool, sizes[0], levels is not None, samples[0], rounds)
    parents: list[NDArray[np.int32]] = []
    centroids = first.centroids
    for k, sample in zip(sizes[1:], samples[1:], strict=True):
        fitted = _fit(pool, centroids, k)
        labels, similarity = assign(centroids, fitted, threads=pool.threads)
        for _ in range(rounds if sample > 1 else 0):
            fitted = _fit(pool, centroids[_nearest(labels, similarity, sample)], k)
            labels, similarity = assign(centroids, fitted, threads=pool.threads)
        parents.append(labels)
        centroids = fitted.vectors
    counts = share_down(pool.budget, pool.sizes(first), parents, pool.seed)
    return Picked(top_per_group(within_key(within, first, pool), first, counts, pool), first)


def share_down(
    total: int, held: NDArray[np.int64], parents: Sequence[NDArray[np.int32]], seed: int
) -> NDArray[np.int64]:
    """Return how many rows each cluster of level 1 gets: int64 (K,).

    ``held``, int64 (K,), are the rows in each of them; ``parents``, for each level but the top, the cluster of the next
    level that each of its clusters is in.
    """
    sizes = [held]
    for labels in parents:
        sizes.append(np.bincount(labels, weights=sizes[-1], minlength=int(labels.max()) + 1).astype(np.int64))
    # All remainders are equal: what is left goes to the lowest keys.
    given = apportion(total, upper=sizes[-1], priority=~_random_keys(seed, len(parents), len(sizes[-1])))
    for level in range(len(parents) - 1, -1, -1):
        labels, keys = parents[level], _random_keys(seed, level, len(sizes[level]))
        shares = np.zeros(len(labels), np.int64)
        order = np.argsort(labels, kind="stable")
        for children in np.split(order, np.flatnonzero(np.diff(labels[order])) + 1):
            shares[children] = apportion(
                given[labels[children[0]]], upper=sizes[level][children], priority=~keys[children]
            )
        given = shares
    return given


def _random_keys(seed: int, level: int, k: int) -> NDArray[np.uint64]:
    """Return a key for each cluster of a level, from another random stream than that of the rows."""
    stream = int(_core.hash64(seed, 2**63 + level, 2**63 + level + 1)[0])
    return _core.hash64(stream, 0, k)


def _default_levels(pool: Pool) -> list[int]:
    first = max(1, min(BRANCHES * TOP, len(pool.candidates) // ROWS_PER_CLUSTER))
    if pool.centroids is not None:
        first = pool.centroids.k
    return [first, min(TOP, max(1, first // BRANCHES))] if first < BRANCHES * TOP else [first, TOP]


def _levels(levels: Sequence[int]) -> list[int]:
    sizes = [check_integer("levels", size) for size in levels]
    if not sizes or any(above >= below for below, above in itertools.pairwise(sizes)):
        message = (
            f"levels is {levels!r}; expected numbers of clusters from the first level up, each below the one before"
        )
        raise ArgumentError(message)
    return sizes


def _first_level(pool: Pool, k: int, fit: bool, sample: int, rounds: int) -> Clustering:
    given = pool.centroids is not None and not fit
    clusters = pool.cluster(None if given else k, max_iter=ITERATIONS, tol=0.0)
    embeds = pool.require("embeds")
    for _ in range(rounds if sample > 1 else 0):
        subset = _nearest(clusters.labels, clusters.similarity, sample)
        clusters = pool.around(_fit(pool, embeds.take(subset), k))
    return clusters


def _fit(pool: Pool, points: Any, k: int) -> Centroids:
    return fit_centroids(points, k, seed=pool.seed, n_init=1, max_iter=ITERATIONS, tol=0.0, threads=pool.threads)


def _nearest(labels: NDArray[np.int32], similarity: NDArray[np.float32], count: int) -> NDArray[np.int64]:
    """Return the ``count`` points of each cluster nearest to its centroid, ascending."""
    order, starts = sort_by_label(-similarity, labels, np.flatnonzero(labels >= 0), int(labels.max()) + 1)
    return np.sort(order[ranks_of(starts) < count])
