"""A stand-in for the sampling of A2-MAE, of which neither code nor a full description is available."""

from __future__ import annotations

from typing import Any

import numpy as np

from rsprune.apportion import apportion
from rsprune.errors import ArgumentError
from rsprune.selection import Within
from rsprune.strategies.base import Picked, Pool, strategy
from rsprune.strategies.grouping import top_per_group, within_key
from rsprune.validation import as_array

__all__ = ["a2mae_like"]


@strategy(needs=("embeds",), uses=("centroids",))
def a2mae_like(pool: Pool, *, k: int | None = None, prior: Any = None, within: Within = "far") -> Picked:
    """A stand-in for A2-MAE's sampling, never to be reported as it: even shares of clusters, farthest rows first.

    What is known of the original is that it prunes by clusters, balances diversity, and keeps challenging examples.
    Here each cluster of the pool gets an even share of the budget, by water-filling, and keeps its rows farthest from
    the centroid.

    Parameters
    ----------
    pool
        Without ``centroids`` 200 clusters are fitted on the pool.
    k
        Fit this many clusters, whatever centroids are given.
    prior
        Numbers (N,) of at least 0, such as the urban share of an image: the share of a cluster is in proportion to the
        mean over its rows.
    within
        Which rows of a cluster are kept.
    """
    clusters = pool.cluster(k)
    rows = pool.candidates
    labels = clusters.labels[rows]
    sizes = pool.sizes(clusters)
    weights = np.ones(clusters.k)
    if prior is not None:
        prior = as_array("prior", prior).astype(np.float64)
        if prior.shape != (pool.n,) or not (np.isfinite(prior) & (prior >= 0)).all():
            message = f"prior is of shape {prior.shape}; expected {pool.n} numbers of at least 0, one a row"
            raise ArgumentError(message)
        weights = np.bincount(labels, weights=prior[rows], minlength=clusters.k) / np.maximum(sizes, 1)
        if (reach := int(sizes[weights > 0].sum())) < pool.budget:
            message = f"only {reach} rows are in clusters of a prior above 0, fewer than the budget: raise some priors"
            raise ArgumentError(message)
    counts = apportion(pool.budget, weights, upper=sizes)
    return Picked(top_per_group(within_key(within, clusters, pool), clusters, counts, pool), clusters)
