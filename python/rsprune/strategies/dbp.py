"""Density-based pruning: more rows of clusters that are wide and far from others."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from rsprune import _core
from rsprune.apportion import apportion
from rsprune.errors import BudgetError
from rsprune.selection import Within
from rsprune.strategies.base import Picked, Pool, strategy
from rsprune.strategies.grouping import top_per_group, within_key
from rsprune.validation import check_number, fraction_of

__all__ = ["dbp"]

# Number of other centroids that the distance between clusters is averaged over.
N_NEIGHBORS = 20
# Rows of the matrix of centroids by centroids that are held at a time.
BLOCK = 256


@strategy(needs=("embeds",), uses=("centroids",))
def dbp(
    pool: Pool,
    *,
    k: int | None = None,
    temperature: float = 0.5,
    balance: float | None = 0.5,
    within: Within = "far",
) -> Picked:
    """More rows of clusters that are complex: wide, and far from other clusters.

    DBP (Abbas et al., ICLR 2024), after near-duplicates have been removed. ``C_j`` is the mean cosine distance of the
    rows of cluster j to its centroid, times that of its centroid to the 20 nearest others; ``P = softmax(C / tau)``.
    Cluster j gets ``clip(P_j B + lambda, lo_j, hi_j)`` for the one lambda at which they add up to B, which solves the
    paper's quadratic program; ``hi_j = n_j`` and ``lo_j = min(floor(balance B / K), n_j - 1)``. Rounding is by largest
    remainders, so that exactly B rows come back.

    Parameters
    ----------
    pool
        Without ``centroids`` 500 clusters are fitted on the pool.
    k
        Fit this many clusters, whatever centroids are given. The paper takes 500 for 280 M images.
    temperature
        tau.
    balance
        The fraction of an even share that each cluster gets at least; with None one row.
    within
        Which rows of a cluster are kept: ``"far"``, the paper's hard ones, ``"nearest"``, ``"mid"`` or ``"random"``.
    """
    check_number("temperature", temperature, above=0, below=np.inf)
    if balance is not None:
        balance = check_number("balance", balance, minimum=0, maximum=1)
    clusters = pool.cluster(k, default_k=500)
    rows, budget = pool.candidates, pool.budget
    labels = clusters.labels[rows]
    sizes = pool.sizes(clusters)
    distances = 1.0 - clusters.similarity[rows].astype(np.float64)
    # Sums run in the order of the rows. A cluster without rows has the mean complexity of the others.
    width = np.bincount(labels, weights=distances, minlength=clusters.k) / np.maximum(sizes, 1)
    complexity = width * distance_to_others(clusters.centroids, pool.threads)
    complexity[sizes == 0] = complexity[sizes > 0].mean()
    shares = _core.softmax(complexity, float(temperature))
    lowest = 1 if balance is None else fraction_of(balance / clusters.k, budget)
    lower = np.maximum(np.minimum(lowest, sizes - 1), 0)
    if lower.sum() > budget:
        message = (
            f"a budget of {budget} rows, but the clusters keep at least {lower.sum()}: raise it, or lower balance or k"
        )
        raise BudgetError(message)
    # Equal weights and the shares as offsets: their projection on the bounds. Ties go to the first.
    counts = apportion(budget, lower=lower, upper=sizes, offsets=shares * budget, priority=np.zeros(clusters.k))
    return Picked(top_per_group(within_key(within, clusters, pool), clusters, counts, pool), clusters)


def distance_to_others(centroids: NDArray[np.float32], threads: int | None) -> NDArray[np.float64]:
    """Return the mean cosine distance of each centroid to its 20 nearest others, or to all of fewer; 0 for a single."""
    k = len(centroids)
    others = min(N_NEIGHBORS, k - 1)
    means = np.zeros(k)
    for start in range(0, k if others else 0, BLOCK):
        block = np.ascontiguousarray(centroids[start : start + BLOCK])
        distances = 1.0 - _core.dots(_core.Rows([block]), _core.Rows([centroids]), threads=threads)
        # A centroid is no neighbor of itself.
        distances[np.arange(len(block)), np.arange(start, start + len(block))] = np.inf
        nearest = np.sort(np.partition(distances, others - 1, axis=1)[:, :others], axis=1)
        means[start : start + BLOCK] = nearest.cumsum(axis=1)[:, -1] / others
    return means
