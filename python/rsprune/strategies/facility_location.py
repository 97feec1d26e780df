"""Facility location: the rows that cover all others best."""

from __future__ import annotations

import numpy as np

from rsprune import _core
from rsprune.apportion import apportion
from rsprune.strategies.base import Choice, Inputs, strategy
from rsprune.strategies.neighbourhood import check_count, ordered_groups, pool_rows

__all__ = ["facility_location"]


@strategy(needs=("embeds",))
def facility_location(
    inputs: Inputs, *, neighbours: int | None = None, balanced: bool = False, k: int | None = None
) -> Choice:
    """Rows that represent all others best: each row is as well covered as it is similar to the nearest of them.

    ``f(A) = sum_i max_(a in A) w(i, a)``, ``w = (1 + cos) / 2``, by the greedy algorithm, whose f is at least
    ``1 - 1/e`` of the best (Nemhauser, Wolsey and Fisher, 1978), evaluated lazily (Minoux, 1978). Ties go to the lower
    row.

    Parameters
    ----------
    inputs
        ``labels``, or clusters around the given centroids, or clusters fitted on the pool.
    neighbours
        None: within every class or cluster by itself, similarities of all its pairs. A number, 50 to 200 say: over all
        rows at once, where a row is covered by itself (``w = 1``) and its so many nearest rows alone.
    balanced
        Equal shares of the budget by water-filling, instead of shares in proportion to the sizes of the clusters.
    k
        Fit so many clusters, whatever labels and centroids are given.
    """
    if neighbours is not None:
        # A row is one of its own neighbours.
        count = min(check_count("neighbours", neighbours), len(inputs.candidates) - 1) + 1
        rows, numbers = pool_rows(inputs)
        graph = _core.knn(rows, rows, k=count, exclude_self=False, threads=inputs.threads)
        return Choice(numbers[_core.facility_location_on_graph(*graph, budget=inputs.rows_wanted)[0]])
    groups = inputs.groups(k)
    order, starts = ordered_groups(np.zeros(inputs.n), groups, inputs)
    sizes = np.diff(starts)
    counts = apportion(inputs.rows_wanted, 1 if balanced else sizes, upper=sizes)
    embeds = inputs.need("embeds").on_host()
    return Choice(_core.facility_location(embeds, order, starts, counts, threads=inputs.threads)[0], groups)
