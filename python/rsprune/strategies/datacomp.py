"""DataComp's image-based filter: the clusters of the pool that hold reference images."""

from __future__ import annotations

import numpy as np

from rsprune.strategies.base import Picked, Pool, strategy
from rsprune.strategies.grouping import reference_clusters, reference_hits, require_reachable, top_up_to_budget

__all__ = ["datacomp"]


@strategy(needs=("embeds", "reference"), uses=("centroids",), budget="optional")
def datacomp(pool: Pool, *, k: int | None = None) -> Picked:
    """All rows of the clusters of the pool that hold a reference image.

    The image-based filter of DataComp (Gadre et al., NeurIPS 2023). Its rule knows no budget; where one is given, that
    many of the rows are picked at random.

    Parameters
    ----------
    pool
        Without ``centroids`` one cluster for 500 rows is fitted on the pool; DataComp takes 100,000 for its pools.
    k
        Fit this many clusters, whatever centroids are given.
    """
    clusters = reference_clusters(pool, k)
    marked = np.sum(list(reference_hits(clusters, pool).values()), axis=0) > 0
    rows = pool.candidates[marked[clusters.labels[pool.candidates]]]
    if pool.requested is not None:
        require_reachable(len(rows), pool)
    return top_up_to_budget(pool.random_keys, rows, pool, clusters)
