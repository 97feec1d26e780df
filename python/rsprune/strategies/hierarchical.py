"""Balanced sampling from a hierarchy of clusters."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from rsprune import _core
from rsprune.apportion import apportion
from rsprune.assignment import assign
from rsprune.centroids import Centroids, fit_centroids
from rsprune.errors import ArgumentError
from rsprune.strategies.base import Choice, FittedClusters, Inputs, strategy
from rsprune.strategies.ranking import best_of_groups

__all__ = ["hierarchical"]

# Of the defaults: clusters at the top, clusters below each of those, rows a cluster at least.
TOP, BRANCHES, ROWS_A_CLUSTER = 200, 50, 500
# K-means of every level: the reference runs exactly so many iterations.
ITERATIONS = 50


@strategy(needs=("embeds",))
def hierarchical(
    inputs: Inputs,
    *,
    levels: Sequence[int] | None = None,
    sample_sizes: Sequence[int] | None = None,
    rounds: int = 10,
    which: Literal["random", "closest"] = "random",
) -> Choice:
    """An even share of each branch, at every level of a hierarchy of clusters.

    Vo et al. (arXiv 2405.15613). Level 1 clusters the pool, each further level the centroids of the one before. From
    the top down a budget T is shared out among children that hold ``n_j`` rows: ``min(c, n_j)`` each, for the largest
    whole c with which that stays within T, and one more each to children of more than c rows, drawn at random, until T
    is met.

    Parameters
    ----------
    inputs
        Given ``centroids`` are the clusters of level 1.
    levels
        Numbers of clusters from level 1 up, falling. By default 200 at the top and 50 times as many below, or fewer
        in a pool of less than 500 rows a cluster.
    sample_sizes
        Resample each level: take so many points nearest to each centroid, cluster those anew, assign all again, and
        that ``rounds`` times. It evens out density; about half of the mean size of a cluster is usual. A number a
        level, 1 for none. By default no level is resampled: it costs ``rounds`` times the clustering.
    rounds
        Of resampling.
    which
        The rows of a cluster of level 1 that are kept: ``"random"``, or ``"closest"`` to the centroid.
    """
    if which not in ("random", "closest"):
        message = f"which is {which!r}; expected 'random' or 'closest'"
        raise ArgumentError(message)
    sizes = _levels(inputs, levels)
    samples = [1] * len(sizes) if sample_sizes is None else [_whole("sample_sizes", size) for size in sample_sizes]
    if len(samples) != len(sizes):
        message = f"sample_sizes has {len(samples)} numbers; expected {len(sizes)}, one a level"
        raise ArgumentError(message)
    rounds = _whole("rounds", rounds)
    first = _first_level(inputs, sizes[0], levels is not None, samples[0], rounds)
    parents: list[NDArray[np.int32]] = []
    centroids = first.centroids
    for k, sample in zip(sizes[1:], samples[1:], strict=True):
        fitted = _fit(inputs, centroids, k)
        labels, similarity = assign(centroids, fitted, threads=inputs.threads)
        for _ in range(rounds if sample > 1 else 0):
            fitted = _fit(inputs, centroids[_nearest(labels, similarity, sample)], k)
            labels, similarity = assign(centroids, fitted, threads=inputs.threads)
        parents.append(labels)
        centroids = fitted.vectors
    held = np.bincount(first.labels[inputs.candidates], minlength=first.k)
    counts = share_down(inputs.rows_wanted, held, parents, inputs.seed)
    key = inputs.draws if which == "random" else -first.similarity
    return Choice(best_of_groups(key, first, counts, inputs), first)


def share_down(
    total: int, held: NDArray[np.int64], parents: Sequence[NDArray[np.int32]], seed: int
) -> NDArray[np.int64]:
    """How many rows each cluster of level 1 gets.

    Parameters
    ----------
    held
        int64 (K,): rows in each cluster of level 1.
    parents
        For each level but the top, the cluster of the next level that each of its clusters is in.
    """
    sizes = [held]
    for labels in parents:
        sizes.append(np.bincount(labels, weights=sizes[-1], minlength=int(labels.max()) + 1).astype(np.int64))
    # All remainders are equal: what is left goes to the lowest draws.
    given = apportion(total, upper=sizes[-1], priority=~_draws(seed, len(parents), len(sizes[-1])))
    for level in range(len(parents) - 1, -1, -1):
        labels, draws = parents[level], _draws(seed, level, len(sizes[level]))
        shares = np.zeros(len(labels), np.int64)
        order = np.argsort(labels, kind="stable")
        for children in np.split(order, np.flatnonzero(np.diff(labels[order])) + 1):
            shares[children] = apportion(
                given[labels[children[0]]], upper=sizes[level][children], priority=~draws[children]
            )
        given = shares
    return given


def _draws(seed: int, level: int, k: int) -> NDArray[np.uint64]:
    """A draw for each cluster of a level, in a stream of its own beside that of the rows."""
    stream = int(_core.hash64(seed, 2**63 + level, 2**63 + level + 1)[0])
    return _core.hash64(stream, 0, k)


def _levels(inputs: Inputs, levels: Sequence[int] | None) -> list[int]:
    rows = len(inputs.candidates)
    if levels is None:
        first = max(1, min(BRANCHES * TOP, rows // ROWS_A_CLUSTER))
        if inputs.centroids is not None:
            first = inputs.centroids.k
        return [first, min(TOP, max(1, first // BRANCHES))] if first < BRANCHES * TOP else [first, TOP]
    sizes = [_whole("levels", size) for size in levels]
    if not sizes or any(above >= below for below, above in itertools.pairwise(sizes)):
        message = (
            f"levels is {levels!r}; expected numbers of clusters from the first level up, each below the one before"
        )
        raise ArgumentError(message)
    return sizes


def _first_level(inputs: Inputs, k: int, fit: bool, sample: int, rounds: int) -> FittedClusters:
    given = inputs.centroids is not None and not fit
    clusters = inputs.clusters(None if given else k, max_iter=ITERATIONS, tol=0.0)
    embeds = inputs.need("embeds")
    for _ in range(rounds if sample > 1 else 0):
        subset = _nearest(clusters.labels, clusters.similarity, sample)
        fitted = _fit(inputs, embeds.take(subset), k)
        labels, similarity = assign(embeds, fitted, threads=inputs.threads)
        labels[~inputs.valid] = -1
        similarity[~inputs.valid] = np.nan
        clusters = FittedClusters(labels, k, similarity, fitted.vectors)
    return clusters


def _fit(inputs: Inputs, points: Any, k: int) -> Centroids:
    return fit_centroids(points, k, seed=inputs.seed, n_init=1, max_iter=ITERATIONS, tol=0.0, threads=inputs.threads)


def _nearest(labels: NDArray[np.int32], similarity: NDArray[np.float32], count: int) -> NDArray[np.int64]:
    """The ``count`` points of each cluster nearest to its centroid, ascending."""
    points = np.flatnonzero(labels >= 0)
    order = points[np.lexsort((-similarity[points], labels[points]))]
    sizes = np.bincount(labels[points])
    place = np.arange(len(order)) - np.repeat(np.cumsum(sizes) - sizes, sizes)
    return np.sort(order[place < count])


def _whole(name: str, value: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, int | np.integer) or value < 1:
        message = f"{name} holds {value!r}; expected whole numbers of at least 1"
        raise ArgumentError(message)
    return int(value)
