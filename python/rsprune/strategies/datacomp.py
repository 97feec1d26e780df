"""DataComp's image-based filter: the clusters of the pool that hold reference images."""

from __future__ import annotations

import numpy as np

from rsprune.strategies.base import Choice, Inputs, strategy
from rsprune.strategies.ranking import best
from rsprune.strategies.targets import check_reach, pool_clusters, target_counts

__all__ = ["datacomp"]


@strategy(needs=("embeds", "references"), budget="optional")
def datacomp(inputs: Inputs, *, k: int | None = None) -> Choice:
    """All rows of the clusters of the pool that hold a reference image.

    The image-based filter of DataComp (Gadre et al., NeurIPS 2023). Its rule knows no budget; where one is given, so
    many of the rows are drawn at random.

    Parameters
    ----------
    inputs
        Without ``centroids`` one cluster for 500 rows is fitted on the pool; DataComp takes 100,000 for its pools.
    k
        Fit so many clusters, whatever centroids are given.
    """
    clusters = pool_clusters(inputs, k)
    marked = np.sum(list(target_counts(inputs, clusters).values()), axis=0) > 0
    rows = inputs.candidates[marked[clusters.labels[inputs.candidates]]]
    if inputs.budget is not None:
        check_reach(inputs, len(rows))
        rows = best(inputs.draws, rows, inputs.budget)
    return Choice(rows, clusters)
