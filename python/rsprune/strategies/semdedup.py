"""SemDeDup: rows without those that are too similar to others of their cluster."""

from __future__ import annotations

from typing import Literal

import numpy as np

from rsprune import _core
from rsprune.errors import ArgumentError
from rsprune.strategies.base import Choice, Inputs, strategy
from rsprune.strategies.neighbourhood import ordered_groups
from rsprune.strategies.ranking import Key, best

__all__ = ["semdedup"]

# Rows a cluster, and the most clusters: those of the paper for LAION-440M.
ROWS_A_CLUSTER, MOST_CLUSTERS = 1_000, 50_000

# What is removed where nothing says how much.
EPS = 0.01


@strategy(needs=("embeds",), budget="optional")
def semdedup(
    inputs: Inputs,
    *,
    eps: float | None = None,
    keep: Literal["hard", "easy", "random"] = "hard",
    mode: Literal["first_seen", "greedy", "components"] = "first_seen",
    k: int | None = None,
) -> Choice:
    """Rows without semantic duplicates: those too similar to an earlier row of their cluster.

    Abbas et al. (arXiv 2303.09540). The rows of a cluster come in the order of ``keep``, ties to the lower row. Row j
    is removed where its largest similarity to an earlier one, ``M_j = max(0, max_(i<j) cos(x_i, x_j))``, exceeds
    ``1 - eps``: a larger eps removes more. With a budget instead of eps, the B rows of smallest M_j remain, ties to the
    lower row: those that the eps of exactly so many rows would leave.

    Parameters
    ----------
    inputs
        Without ``centroids``, one cluster for 1,000 rows is fitted on the pool, 50,000 at most.
    eps
        In [0, 1]; 0.01 where no budget is given either. Not both.
    keep
        Of near-duplicates, the one that remains: far from the centroid (``"hard"``, the paper's), near it
        (``"easy"``), or ``"random"``.
    mode
        What a row is compared with: all earlier ones, removed or not, as the authors' program does
        (``"first_seen"``); those that remain (``"greedy"``), which leaves a maximal set of rows no more similar than
        ``1 - eps``; or ``"components"``, the rule of the paper's text: the first row of each connected component of the
        graph of pairs above ``1 - eps`` remains. A budget goes with the first only.
    k
        Fit so many clusters, whatever centroids are given.
    """
    if inputs.budget is not None and (eps is not None or mode != "first_seen"):
        message = (
            f"a budget with eps = {eps!r} and mode = {mode!r}: give a budget, or eps and no budget; modes other than "
            "'first_seen' need eps"
        )
        raise ArgumentError(message)
    eps = EPS if eps is None else eps
    if isinstance(eps, bool) or not 0 <= eps <= 1:
        message = f"eps is {eps!r}; expected a cosine distance from 0 to 1"
        raise ArgumentError(message)
    default_k = max(1, min(MOST_CLUSTERS, len(inputs.candidates) // ROWS_A_CLUSTER))
    clusters = inputs.clusters(k, default_k=default_k)
    orders: dict[str, Key] = {"hard": clusters.similarity, "easy": -clusters.similarity, "random": inputs.draws}
    if keep not in orders:
        message = f"keep is {keep!r}; expected 'hard', 'easy' or 'random'"
        raise ArgumentError(message)
    rows, threads = inputs.need("embeds").on_host(), inputs.threads
    order, starts = ordered_groups(orders[keep], clusters, inputs)
    # Similarities are float32: so is what they are compared with.
    threshold = float(np.float32(1 - eps))
    if mode == "first_seen":
        nearest = np.full(inputs.n, np.inf, np.float32)
        nearest[order] = _core.max_similarity_to_earlier(rows, order, starts, threads=threads)
        if inputs.budget is not None:
            return Choice(best(nearest, inputs.candidates, inputs.budget), clusters)
        kept = order[nearest[order] <= np.float32(threshold)]
    elif mode == "greedy":
        kept = order[_core.greedy_dedup(rows, order, starts, threshold=threshold, threads=threads)]
    elif mode == "components":
        roots = _core.similar_components(rows, order, starts, threshold=threshold, threads=threads)
        # The first of each, in the order of the groups.
        kept = order[np.unique(roots[order], return_index=True)[1]]
    else:
        message = f"mode is {mode!r}; expected 'first_seen', 'greedy' or 'components'"
        raise ArgumentError(message)
    return Choice(np.sort(kept), clusters)
