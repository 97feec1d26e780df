"""V-JEPA 2's retrieval: clusters of the pool, weighted by the reference images in them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

import numpy as np

from rsprune.apportion import apportion
from rsprune.errors import ArgumentError
from rsprune.strategies.base import Choice, Inputs, strategy
from rsprune.strategies.ranking import best_of_groups
from rsprune.strategies.targets import check_reach, pool_clusters, target_counts

__all__ = ["vjepa2"]


@strategy(needs=("embeds", "references"))
def vjepa2(
    inputs: Inputs,
    *,
    k: int | None = None,
    weights: Mapping[str, float] | None = None,
    within: Literal["random", "nearest"] = "random",
) -> Choice:
    """Clusters of the pool in proportion to the reference images in them, of several weighted sets.

    V-JEPA 2 (Assran et al., 2025), App. A.2. Cluster c weighs ``w_c = sum_d w_d N_(d,c) / N_d``, ``N_(d,c)`` being the
    images of set d in it. The paper draws clusters by weight; here their shares are proportional to it, capped by what
    they hold, by water-filling.

    Parameters
    ----------
    inputs
        Without ``centroids`` one cluster for 500 rows is fitted on the pool.
    k
        Fit so many clusters, whatever centroids are given.
    weights
        ``w_d`` by the name of the reference set, at least 0; all alike by default.
    within
        The rows of a cluster that are kept: ``"random"``, as in the paper, or ``"nearest"`` to the centroid.
    """
    if within not in ("random", "nearest"):
        message = f"within is {within!r}; expected 'random' or 'nearest'"
        raise ArgumentError(message)
    sets = inputs.need("references")
    of_set = dict.fromkeys(sets, 1.0) if weights is None else {str(name): float(w) for name, w in weights.items()}
    if set(of_set) != set(sets) or not all(0 <= w < np.inf for w in of_set.values()) or not any(of_set.values()):
        message = f"weights is {weights!r}; expected a number of at least 0 for each of {list(sets)}, one above 0"
        raise ArgumentError(message)
    clusters = pool_clusters(inputs, k)
    weight = np.zeros(clusters.k)
    for name, counts in target_counts(inputs, clusters).items():
        weight += of_set[name] * counts / max(int(counts.sum()), 1)
    sizes = np.bincount(clusters.labels[inputs.candidates], minlength=clusters.k)
    check_reach(inputs, int(sizes[weight > 0].sum()))
    counts = apportion(inputs.rows_wanted, weight, upper=sizes)
    key = inputs.draws if within == "random" else -clusters.similarity
    return Choice(best_of_groups(key, clusters, counts, inputs), clusters)
