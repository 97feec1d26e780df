"""SemDeDup: rows without those that are too similar to others of their cluster."""

from __future__ import annotations

from typing import Literal

import numpy as np

from rsprune import _core
from rsprune.errors import ArgumentError
from rsprune.selection import Within
from rsprune.strategies.base import Picked, Pool, strategy
from rsprune.strategies.grouping import group_order, top_rows, within_key
from rsprune.validation import check_number

__all__ = ["semdedup"]

Mode = Literal["first_seen", "greedy", "components"]

# Rows for each cluster, and the largest number of clusters: the paper's for LAION-440M.
ROWS_PER_CLUSTER, MAX_CLUSTERS = 1_000, 50_000

# Where neither eps nor a budget is given.
DEFAULT_EPS = 0.01


@strategy(needs=("embeds",), uses=("centroids",), budget="optional")
def semdedup(
    pool: Pool,
    *,
    eps: float | None = None,
    within: Within = "far",
    mode: Mode = "first_seen",
    k: int | None = None,
) -> Picked:
    """Rows without semantic duplicates: those too similar to an earlier row of their cluster.

    Abbas et al. (arXiv 2303.09540). The rows of a cluster come in the order ``within``, ties to the lower row. Row j
    is removed where its largest similarity to an earlier one, ``M_j = max(0, max_(i<j) cos(x_i, x_j))``, exceeds
    ``1 - eps``: a larger eps removes more. With a budget instead of eps, the B rows of smallest M_j remain, ties to the
    lower row: those that the eps of exactly that many rows would leave.

    Parameters
    ----------
    pool
        Without ``centroids``, one cluster for 1,000 rows is fitted on the pool, 50,000 at most.
    eps
        Cosine distance in [0, 1] below which rows are duplicates; 0.01 where no budget is given either. Not both.
    within
        Which of near-duplicates remains: the one ``"far"`` from the centroid (the paper's), the ``"nearest"``, the one
        in the ``"mid"``, or a ``"random"`` one.
    mode
        What a row is compared with: all earlier ones, removed or not, as the authors' program does
        (``"first_seen"``); those that remain (``"greedy"``), which leaves a maximal set of rows no more similar than
        ``1 - eps``; or ``"components"``, the rule of the paper's text: the first row of each connected component of the
        graph of pairs above ``1 - eps`` remains. A budget goes with the first only.
    k
        Fit this many clusters, whatever centroids are given.
    """
    threshold = 1 - (DEFAULT_EPS if eps is None else check_number("eps", eps, minimum=0, maximum=1))
    if pool.requested is not None and (eps is not None or mode != "first_seen"):
        message = (
            f"a budget with eps = {eps!r} and mode = {mode!r}: give a budget, or eps and no budget; modes other than "
            "'first_seen' need eps"
        )
        raise ArgumentError(message)
    default_k = max(1, min(MAX_CLUSTERS, len(pool.candidates) // ROWS_PER_CLUSTER))
    clusters = pool.cluster(k, default_k=default_k)
    rows, threads = pool.require("embeds").on_host(), pool.threads
    order, starts = group_order(within_key(within, clusters, pool), clusters, pool)
    # Similarities are float32, so the threshold is rounded to that.
    threshold = float(np.float32(threshold))
    if mode == "first_seen":
        nearest = np.full(pool.n, np.inf, np.float32)
        nearest[order] = _core.max_similarity_to_earlier(rows, order, starts, threads=threads)
        if pool.requested is not None:
            return Picked(top_rows(nearest, pool.candidates, pool.budget), clusters)
        kept = order[nearest[order] <= np.float32(threshold)]
    elif mode == "greedy":
        kept = order[_core.greedy_dedup(rows, order, starts, threshold=threshold, threads=threads)]
    else:
        roots = _core.similar_components(rows, order, starts, threshold=threshold, threads=threads)
        # Keep the first row of each component, in the order of the groups.
        kept = order[np.unique(roots[order], return_index=True)[1]]
    return Picked(np.sort(kept), clusters)
