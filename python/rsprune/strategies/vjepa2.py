"""V-JEPA 2's retrieval: clusters of the pool, weighted by the reference images in them."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from rsprune.apportion import apportion
from rsprune.errors import ArgumentError
from rsprune.selection import Within
from rsprune.strategies.base import Picked, Pool, strategy
from rsprune.strategies.grouping import (
    reference_clusters,
    reference_hits,
    require_reachable,
    top_per_group,
    within_key,
)

__all__ = ["vjepa2"]


@strategy(needs=("embeds", "reference"), uses=("centroids",))
def vjepa2(
    pool: Pool,
    *,
    k: int | None = None,
    weights: Mapping[str, float] | None = None,
    within: Within = "random",
) -> Picked:
    """Clusters of the pool in proportion to the reference images in them, of several weighted sets.

    V-JEPA 2 (Assran et al., 2025), App. A.2. Cluster c weighs ``w_c = sum_d w_d N_(d,c) / N_d``, ``N_(d,c)`` being the
    images of set d in it. The paper draws clusters by weight; here their shares are proportional to it, capped by what
    they hold, by water-filling.

    Parameters
    ----------
    pool
        Without ``centroids`` one cluster for 500 rows is fitted on the pool.
    k
        Fit this many clusters, whatever centroids are given.
    weights
        ``w_d`` by the name of the reference set, at least 0; all alike by default.
    within
        Which rows of a cluster are kept: ``"random"`` ones in the paper.
    """
    sets = pool.require("reference")
    of_set = dict.fromkeys(sets, 1.0) if weights is None else {str(name): float(w) for name, w in weights.items()}
    if set(of_set) != set(sets) or not all(0 <= w < np.inf for w in of_set.values()) or not any(of_set.values()):
        message = f"weights is {weights!r}; expected a number of at least 0 for each of {list(sets)}, one above 0"
        raise ArgumentError(message)
    clusters = reference_clusters(pool, k)
    weight = np.zeros(clusters.k)
    for name, counts in reference_hits(clusters, pool).items():
        weight += of_set[name] * counts / max(int(counts.sum()), 1)
    sizes = pool.sizes(clusters)
    require_reachable(int(sizes[weight > 0].sum()), pool)
    counts = apportion(pool.budget, weight, upper=sizes)
    return Picked(top_per_group(within_key(within, clusters, pool), clusters, counts, pool), clusters)
