"""Cluster_nearest: an equal fraction of each cluster of the pool, those nearest to its center."""

from __future__ import annotations

import numpy as np

from rsprune.selection import FILL, QUOTA, Within
from rsprune.strategies.base import Picked, Pool, strategy
from rsprune.strategies.grouping import Key, Shares, rank_in_group, share_budget, top_rows, within_key

__all__ = ["cluster_nearest"]


@strategy(needs=("embeds",), uses=("centroids",), budget="optional")
def cluster_nearest(
    pool: Pool,
    *,
    k: int | None = None,
    within: Within = "nearest",
    shares: Shares = "proportional",
    topup: bool = True,
) -> Picked:
    """An equal fraction of each cluster of the pool, nearest to its centroid first.

    Briq, Wang and Kesselheim (arXiv 2411.12523). Cluster l of ``n_l`` rows keeps ``floor(n_l B / N)`` of them:
    shares in proportion to size, where RS-Prune's are equal. Here K-means is spherical, its order within a cluster that
    of Euclidean distance.

    Parameters
    ----------
    pool
        Without ``centroids`` 200 clusters are fitted on the pool.
    k
        Fit this many clusters, whatever centroids are given. The paper takes 1,000 for ImageNet.
    within
        Which rows of a cluster are kept: ``"nearest"`` to the centroid, ``"far"`` from it, ``"random"``, or in the
        ``"mid"``: farthest first, from rank ``floor(n_l (1 - B / N) / 2)`` on.
    shares
        With ``"even"`` the same number of each cluster: without a budget that of the smallest one, with a budget by
        water-filling.
    topup
        Give what the floors leave of the budget to the first of all remaining rows, in the same order. With False, the
        paper's rule, up to K - 1 rows fewer come back.
    """
    clusters = pool.cluster(k)
    rows = pool.candidates
    labels, n = clusters.labels[rows], len(rows)
    sizes = pool.sizes(clusters)
    if shares == "even" and pool.requested is None:
        counts = np.minimum(sizes[sizes > 0].min(initial=n), sizes)
    elif shares == "even":
        counts = share_budget("even", clusters, pool)
    else:
        counts = sizes * pool.budget // n
    key: Key = clusters.similarity if within == "mid" else within_key(within, clusters, pool)
    starts = np.zeros_like(counts)
    if within == "mid":
        starts = (sizes - counts) // 2 if shares == "even" else sizes * (n - pool.budget) // (2 * n)
    rank = rank_in_group(key, clusters, pool)[rows]
    inside = (rank >= starts[labels]) & (rank < (starts + counts)[labels])
    if within == "mid":
        # Across clusters of all sizes: how far from the middle of its own a row ranks, relative to its size.
        key = np.full(pool.n, np.inf)
        key[rows] = np.abs(2 * rank - (sizes[labels] - 1)) / sizes[labels]
    phase = np.full(pool.n, QUOTA, np.uint8)
    picked = rows[inside]
    if topup and pool.requested is not None and len(picked) < pool.budget:
        more = top_rows(key, rows[~inside], pool.budget - len(picked))
        phase[more] = FILL
        picked = np.sort(np.concatenate([picked, more]))
    return Picked(picked, clusters, phase[picked])
