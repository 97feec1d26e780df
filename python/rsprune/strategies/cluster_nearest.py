"""Cluster_nearest: an equal fraction of each cluster of the pool, those nearest to its centre."""

from __future__ import annotations

from typing import Literal

import numpy as np

from rsprune.apportion import apportion
from rsprune.errors import ArgumentError
from rsprune.selection import FILL, QUOTA
from rsprune.strategies.base import Choice, Inputs, strategy
from rsprune.strategies.ranking import Key, best, places

__all__ = ["cluster_nearest"]


@strategy(needs=("embeds",), budget="optional")
def cluster_nearest(
    inputs: Inputs,
    *,
    k: int | None = None,
    which: Literal["nearest", "furthest", "mid", "random"] = "nearest",
    balanced: bool = False,
    topup: bool = True,
) -> Choice:
    """Of each cluster of the pool an equal fraction, nearest to its centroid.

    Briq, Wang and Kesselheim (arXiv 2411.12523). Cluster l of ``n_l`` rows keeps ``floor(n_l B / N)`` of them:
    shares in proportion to size, where RS-Prune's are equal. Here K-means is spherical, its order within a cluster that
    of Euclidean distance.

    Parameters
    ----------
    inputs
        Without ``centroids`` 200 clusters are fitted on the pool.
    k
        Fit so many clusters, whatever centroids are given. The paper takes 1,000 for ImageNet.
    which
        The rows of a cluster that are kept: ``"nearest"`` to the centroid, ``"furthest"``, ``"random"``, or in the
        ``"mid"``: of the furthest first, from place ``floor(n_l (1 - B / N) / 2)`` on.
    balanced
        The same number of each cluster: without a budget that of the smallest one, with a budget by water-filling.
    topup
        Give what the floors leave of the budget to the first of all remaining rows, in the same order. With False, the
        paper's rule, up to K - 1 rows fewer come back.
    """
    clusters = inputs.clusters(k)
    labels, pool = clusters.labels, inputs.candidates
    sizes = np.bincount(labels[pool], minlength=clusters.k)
    if inputs.budget is None:
        if not balanced:
            inputs.need("budget")
        counts = np.minimum(sizes[sizes > 0].min(initial=len(pool)), sizes)
    elif balanced:
        counts = apportion(inputs.budget, upper=sizes)
    else:
        counts = sizes * inputs.budget // len(pool)
    similarity = clusters.similarity
    starts = np.zeros_like(counts)
    orders: dict[str, Key] = {"nearest": -similarity, "furthest": similarity, "mid": similarity, "random": inputs.draws}
    if which not in orders:
        message = f"which is {which!r}; expected 'nearest', 'furthest', 'mid' or 'random'"
        raise ArgumentError(message)
    order = fill = orders[which]
    if which == "mid":
        starts = (sizes - counts) // 2 if balanced else sizes * (len(pool) - inputs.rows_wanted) // (2 * len(pool))
    place = places(order, clusters, inputs)
    starts_of, counts_of = starts[labels[pool]], counts[labels[pool]]
    inside = (place[pool] >= starts_of) & (place[pool] < starts_of + counts_of)
    if which == "mid":
        # Across clusters of all sizes: how far from the middle of its own, relative to its size.
        fill = np.full(inputs.n, np.inf)
        fill[pool] = np.abs(2 * place[pool] - (sizes[labels[pool]] - 1)) / sizes[labels[pool]]
    phase = np.full(inputs.n, QUOTA, np.uint8)
    rows = pool[inside]
    if topup and inputs.budget is not None and len(rows) < inputs.budget:
        more = best(fill, pool[~inside], inputs.budget - len(rows))
        phase[more] = FILL
        rows = np.sort(np.concatenate([rows, more]))
    return Choice(rows, clusters, phase[rows])
