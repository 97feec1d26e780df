"""Facility location: the rows that cover all others best."""

from __future__ import annotations

import numpy as np

from rsprune import _core
from rsprune.strategies.base import Picked, Pool, strategy
from rsprune.strategies.grouping import Shares, group_order, share_budget

__all__ = ["facility_location"]


@strategy(needs=("embeds",), uses=("centroids", "labels"))
def facility_location(
    pool: Pool, *, n_neighbors: int | None = None, shares: Shares = "proportional", k: int | None = None
) -> Picked:
    """Rows that represent all others best: each row is as well covered as it is similar to the nearest of them.

    ``f(A) = sum_i max_(a in A) w(i, a)``, ``w = (1 + cos) / 2``, by the greedy algorithm, whose f is at least
    ``1 - 1/e`` of the best (Nemhauser, Wolsey and Fisher, 1978), evaluated lazily (Minoux, 1978). Ties go to the lower
    row.

    Parameters
    ----------
    pool
        ``labels``, or clusters around the given centroids, or clusters fitted on the pool.
    n_neighbors
        None: within every class or cluster by itself, similarities of all its pairs. A number, 50 to 200 say: over all
        rows at once, where a row is covered by itself (``w = 1``) and by this many nearest rows alone.
    shares
        How the classes or clusters share the budget: ``"proportional"`` to their sizes, or ``"even"``, by
        water-filling.
    k
        Fit this many clusters, whatever labels and centroids are given.
    """
    if n_neighbors is not None:
        # A row is one of its own neighbors.
        count = min(n_neighbors, len(pool.candidates) - 1) + 1
        rows, numbers = pool.searchable_rows()
        graph = _core.knn(rows, rows, k=count, exclude_self=False, threads=pool.threads)
        return Picked(numbers[_core.facility_location_on_graph(*graph, budget=pool.budget)[0]])
    groups = pool.partition(k)
    order, starts = group_order(np.zeros(pool.n), groups, pool)
    counts = share_budget(shares, groups, pool)
    embeds = pool.require("embeds").on_host()
    return Picked(_core.facility_location(embeds, order, starts, counts, threads=pool.threads)[0], groups)
