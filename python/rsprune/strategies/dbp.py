"""Density-based pruning: more rows of clusters that are wide and far from others."""

from __future__ import annotations

from typing import Literal

import numpy as np
from numpy.typing import NDArray

from rsprune import _core
from rsprune.apportion import apportion
from rsprune.errors import ArgumentError, BudgetError
from rsprune.strategies.base import Choice, Inputs, strategy
from rsprune.strategies.ranking import Key, best_of_groups
from rsprune.validation import fraction_of

__all__ = ["dbp"]

# Other centroids that the distance between clusters is a mean over.
NEIGHBOURS = 20
# Rows of the matrix of centroids by centroids that are held at a time.
BLOCK = 256


@strategy(needs=("embeds",))
def dbp(
    inputs: Inputs,
    *,
    k: int | None = None,
    temperature: float = 0.5,
    balance: float | None = 0.5,
    keep: Literal["hard", "easy", "random"] = "hard",
) -> Choice:
    """More rows of clusters that are complex: wide, and far from other clusters.

    DBP (Abbas et al., ICLR 2024), after near-duplicates have been removed. ``C_j`` is the mean cosine distance of the
    rows of cluster j to its centroid, times that of its centroid to the 20 nearest others; ``P = softmax(C / tau)``.
    Cluster j gets ``clip(P_j B + lambda, lo_j, hi_j)`` for the one lambda at which they add up to B, which solves the
    paper's quadratic programme; ``hi_j = n_j`` and ``lo_j = min(floor(balance B / K), n_j - 1)``. Rounding is
    by largest remainders, so that exactly B rows come back.

    Parameters
    ----------
    inputs
        Without ``centroids`` 500 clusters are fitted on the pool.
    k
        Fit so many clusters, whatever centroids are given. The paper takes 500 for 280 M images.
    temperature
        tau.
    balance
        How much of an even share each cluster gets at least; with None one row.
    keep
        The rows of a cluster that are kept: ``"hard"``, furthest from the centroid; ``"easy"``; ``"random"``.
    """
    if not (temperature > 0 and np.isfinite(temperature)):
        message = f"temperature is {temperature!r}; expected a number above 0"
        raise ArgumentError(message)
    if balance is not None and not 0 <= balance <= 1:
        message = f"balance is {balance!r}; expected a number from 0 to 1, or None"
        raise ArgumentError(message)
    clusters = inputs.clusters(k, default_k=500)
    labels, pool, wanted = clusters.labels, inputs.candidates, inputs.rows_wanted
    sizes = np.bincount(labels[pool], minlength=clusters.k)
    distances = 1.0 - clusters.similarity[pool].astype(np.float64)
    # Sums run in the order of the rows. A cluster without rows has the mean complexity of the others.
    within = np.bincount(labels[pool], weights=distances, minlength=clusters.k) / np.maximum(sizes, 1)
    complexity = within * distance_to_others(clusters.centroids, inputs.threads)
    complexity[sizes == 0] = complexity[sizes > 0].mean()
    share = _core.softmax(complexity, float(temperature))
    least = 1 if balance is None else fraction_of(balance / clusters.k, wanted)
    low = np.maximum(np.minimum(least, sizes - 1), 0)
    if low.sum() > wanted:
        message = (
            f"a budget of {wanted} rows, but the clusters keep at least {low.sum()}: raise it, or lower balance or k"
        )
        raise BudgetError(message)
    # Equal weights and the shares as offsets: their projection on the bounds. Ties go to the first.
    counts = apportion(wanted, lower=low, upper=sizes, offsets=share * wanted, priority=np.zeros(clusters.k))
    order: dict[str, Key] = {"hard": clusters.similarity, "easy": -clusters.similarity, "random": inputs.draws}
    if keep not in order:
        message = f"keep is {keep!r}; expected 'hard', 'easy' or 'random'"
        raise ArgumentError(message)
    return Choice(best_of_groups(order[keep], clusters, counts, inputs), clusters)


def distance_to_others(centroids: NDArray[np.float32], threads: int | None) -> NDArray[np.float64]:
    """Mean cosine distance of each centroid to its 20 nearest others, or to all of fewer; 0 without others."""
    k = len(centroids)
    others = min(NEIGHBOURS, k - 1)
    means = np.zeros(k)
    for start in range(0, k if others else 0, BLOCK):
        block = np.ascontiguousarray(centroids[start : start + BLOCK])
        distances = 1.0 - _core.dots(_core.Rows([block]), _core.Rows([centroids]), threads=threads)
        # Not itself.
        distances[np.arange(len(block)), np.arange(start, start + len(block))] = np.inf
        nearest = np.sort(np.partition(distances, others - 1, axis=1)[:, :others], axis=1)
        means[start : start + BLOCK] = nearest.cumsum(axis=1)[:, -1] / others
    return means
