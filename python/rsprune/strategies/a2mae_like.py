"""A stand-in for the sampling of A2-MAE, of which no code and no full description can be had."""

from __future__ import annotations

from typing import Any

import numpy as np

from rsprune.apportion import apportion
from rsprune.errors import ArgumentError
from rsprune.strategies.base import Choice, Inputs, strategy
from rsprune.strategies.ranking import best_of_groups

__all__ = ["a2mae_like"]


@strategy(needs=("embeds",))
def a2mae_like(inputs: Inputs, *, k: int | None = None, prior: Any = None) -> Choice:
    """A stand-in for A2-MAE's sampling, never to be reported as it: even shares of clusters, furthest rows first.

    What is known of the original is that it prunes by clusters, balances diversity, and keeps challenging examples.
    Here each cluster of the pool gets an even share of the budget, by water-filling, and keeps its rows furthest from
    the centroid.

    Parameters
    ----------
    inputs
        Without ``centroids`` 200 clusters are fitted on the pool.
    k
        Fit so many clusters, whatever centroids are given.
    prior
        Numbers (N,) of at least 0, such as the urban share of an image: the share of a cluster is in proportion to the
        mean over its rows.
    """
    clusters = inputs.clusters(k)
    labels, pool = clusters.labels, inputs.candidates
    sizes = np.bincount(labels[pool], minlength=clusters.k)
    weight = np.ones(clusters.k)
    if prior is not None:
        prior = np.asarray(prior, np.float64)
        if prior.shape != (inputs.n,) or not (np.isfinite(prior) & (prior >= 0)).all():
            message = f"prior is of shape {prior.shape}; expected {inputs.n} numbers of at least 0, one a row"
            raise ArgumentError(message)
        weight = np.bincount(labels[pool], weights=prior[pool], minlength=clusters.k) / np.maximum(sizes, 1)
        if (reach := int(sizes[weight > 0].sum())) < inputs.rows_wanted:
            message = f"only {reach} rows are in clusters of a prior above 0, fewer than the budget: raise some priors"
            raise ArgumentError(message)
    counts = apportion(inputs.rows_wanted, weight, upper=sizes)
    return Choice(best_of_groups(clusters.similarity, clusters, counts, inputs), clusters)
