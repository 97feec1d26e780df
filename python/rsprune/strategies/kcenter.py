"""k-center greedy: the row farthest from all that are chosen, again and again."""

from __future__ import annotations

from typing import Literal

import numpy as np
from numpy.typing import NDArray

from rsprune import _core
from rsprune._core import Rows
from rsprune.apportion import apportion
from rsprune.assignment import assign
from rsprune.centroids import fit_centroids
from rsprune.embeddings import Embeddings
from rsprune.errors import ArgumentError, BudgetError
from rsprune.strategies.base import Choice, Inputs, strategy
from rsprune.strategies.neighbourhood import pool_rows
from rsprune.strategies.ranking import grouped

__all__ = ["kcenter"]


@strategy(needs=("embeds",), budget="optional")
def kcenter(
    inputs: Inputs,
    *,
    first: int | Literal["centre", "random"] = "centre",
    min_distance: float = 0.0,
    per_cluster: bool = False,
    k: int | None = None,
) -> Choice:
    """Rows such that no row is far from the nearest of them.

    Gonzalez (1985); as a core-set, Sener and Savarese (ICLR 2018). With ``m_i = min_(a chosen) |x_i - x_a|`` of unit
    rows, ``argmax_i m_i`` is chosen next, ties to the lower row. At most twice as far as the best possible B centres.

    Parameters
    ----------
    inputs
        ``labels``, or clusters around the given centroids, or clusters fitted on the pool, with ``per_cluster``.
    first
        The row that is chosen first: its number; ``"centre"``, the one of the largest cosine to the mean of the unit
        rows, ties to the lower row; or ``"random"``, that of the smallest draw.
    min_distance
        Stop once no row is farther than this (of unit rows, so in [0, 2]), even below the budget. Without a budget it
        alone decides: what is left are rows farther than this from each other.
    per_cluster
        Choose in every class or cluster by itself, with shares in proportion to their sizes.
    k
        Fit so many clusters, whatever labels and centroids are given.
    """
    if isinstance(min_distance, bool) or not 0 <= min_distance <= 2:
        message = f"min_distance is {min_distance!r}; expected a distance of unit rows, from 0 to 2"
        raise ArgumentError(message)
    if inputs.budget is None and min_distance == 0:
        message = "the strategy 'kcenter' needs a budget, or min_distance above 0"
        raise BudgetError(message)
    # At distance 0 equal rows would end it below the budget.
    least = min_distance if min_distance > 0 else -1.0
    budget = len(inputs.candidates) if inputs.budget is None else inputs.budget
    if not per_cluster:
        rows, numbers = pool_rows(inputs)
        return Choice(numbers[_chosen(rows, numbers, first, budget, least, inputs)])
    if first not in ("centre", "random"):
        message = f"first is {first!r}; expected 'centre' or 'random' with per_cluster=True"
        raise ArgumentError(message)
    groups = inputs.groups(k)
    members = grouped(groups, inputs)
    sizes = np.bincount(groups.labels[members], minlength=groups.k)
    counts = sizes if inputs.budget is None else apportion(budget, sizes, upper=sizes)
    chosen = []
    for group in np.flatnonzero(counts):
        rows, numbers = pool_rows(inputs, members[groups.labels[members] == group])
        chosen.append(numbers[_chosen(rows, numbers, first, int(counts[group]), least, inputs)])
    return Choice(np.concatenate(chosen), groups)


def _chosen(
    rows: Rows,
    numbers: NDArray[np.int64],
    first: int | Literal["centre", "random"],
    count: int,
    min_distance: float,
    inputs: Inputs,
) -> NDArray[np.int64]:
    valid = inputs.valid[numbers]
    if first == "centre":
        embeds = Embeddings(rows.shape, [rows])
        mean = fit_centroids(embeds, 1, n_init=1, threads=inputs.threads)
        similarity = assign(embeds, mean, threads=inputs.threads).similarity
        place = int(np.nanargmax(similarity))
    elif first == "random":
        place = int(np.argmin(np.where(valid, inputs.draws[numbers], np.iinfo(np.uint64).max)))
    else:
        found = np.flatnonzero(numbers == first)
        if isinstance(first, (bool, str)) or len(found) == 0 or not valid[found[0]]:
            message = f"first is {first!r}; expected 'centre', 'random', or the number of a valid row"
            raise ArgumentError(message)
        place = int(found[0])
    given = np.array([place], np.int64)
    return _core.farthest_first(rows, given, count=count, distance=min_distance, threads=inputs.threads)[0]
