"""The clusters of the pool that hold reference images."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from rsprune.assignment import assign
from rsprune.errors import BudgetError
from rsprune.strategies.base import FittedClusters, Inputs

__all__ = ["check_reach", "pool_clusters", "target_counts"]

# Rows of the pool a cluster, and the most clusters: V-JEPA 2 has 1.5 M for 316 M rows, DataComp 100,000 for more.
ROWS_A_CLUSTER, MOST_CLUSTERS = 500, 100_000


def pool_clusters(inputs: Inputs, k: int | None) -> FittedClusters:
    """The clusters of the pool: by default one for 500 rows, 100,000 at most."""
    return inputs.clusters(k, default_k=max(1, min(MOST_CLUSTERS, len(inputs.candidates) // ROWS_A_CLUSTER)))


def target_counts(inputs: Inputs, clusters: FittedClusters) -> dict[str, NDArray[np.int64]]:
    """How many images of each reference set are in each cluster: int64 (K,) by the name of the set."""
    counts = {}
    for name, embeds in inputs.need("references").items():
        labels, _ = assign(embeds, clusters.centroids, threads=inputs.threads)
        counts[name] = np.bincount(labels[labels >= 0], minlength=clusters.k)
    return counts


def check_reach(inputs: Inputs, rows: int) -> None:
    """Fail where fewer rows than the budget lie in clusters that hold reference images."""
    if rows < inputs.rows_wanted:
        message = (
            f"a budget of {inputs.rows_wanted} rows, but only {rows} lie in clusters that hold reference images: "
            "lower it, fit fewer clusters (k), or give more reference images"
        )
        raise BudgetError(message)
