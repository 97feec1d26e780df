"""k-center greedy: the row farthest from all that are picked, again and again."""

from __future__ import annotations

from typing import Literal

import numpy as np
from numpy.typing import NDArray

from rsprune import _core
from rsprune._core import Rows
from rsprune.assignment import assign
from rsprune.centroids import fit_centroids
from rsprune.embeddings import Embeddings
from rsprune.errors import ArgumentError, BudgetError
from rsprune.strategies.base import Picked, Pool, strategy
from rsprune.strategies.grouping import Shares, labeled_rows, share_budget
from rsprune.validation import check_number

__all__ = ["kcenter"]


@strategy(needs=("embeds",), uses=("centroids", "labels"), budget="optional")
def kcenter(
    pool: Pool,
    *,
    first: int | Literal["center", "random"] = "center",
    min_distance: float = 0.0,
    shares: Shares | None = None,
    k: int | None = None,
) -> Picked:
    """Rows such that no row is far from the nearest of them.

    Gonzalez (1985); as a core-set, Sener and Savarese (ICLR 2018). With ``m_i = min_(a picked) |x_i - x_a|`` of unit
    rows, ``argmax_i m_i`` is picked next, ties to the lower row. At most twice as far as the best possible B centers.

    Parameters
    ----------
    pool
        With ``shares``: ``labels``, or clusters around the given centroids, or clusters fitted on the pool.
    first
        The row that is picked first: its number; ``"center"``, the one of the largest cosine to the mean of the unit
        rows, ties to the lower row; or ``"random"``, the one of the smallest random key.
    min_distance
        Stop once no row is farther than this (of unit rows, so in [0, 2]), even below the budget. Without a budget it
        alone decides: what is left are rows farther than this from each other.
    shares
        Pick in every class or cluster by itself, with ``"even"`` shares of the budget or shares ``"proportional"`` to
        their sizes. None picks from the pool as a whole.
    k
        Fit this many clusters, whatever labels and centroids are given.
    """
    min_distance = check_number("min_distance", min_distance, minimum=0, maximum=2)
    if pool.requested is None and min_distance == 0:
        message = "the strategy 'kcenter' needs a budget, or min_distance above 0"
        raise BudgetError(message)
    # At distance 0 equal rows would end the search below the budget.
    stop = min_distance if min_distance > 0 else -1.0
    if shares is None:
        rows, numbers = pool.searchable_rows()
        budget = len(pool.candidates) if pool.requested is None else pool.budget
        return Picked(numbers[_picked(rows, numbers, first, budget, stop, pool)])
    if first not in ("center", "random"):
        message = f"first is {first!r}; expected 'center' or 'random' with shares"
        raise ArgumentError(message)
    groups = pool.partition(k)
    members = labeled_rows(groups, pool)
    counts = pool.sizes(groups) if pool.requested is None else share_budget(shares, groups, pool)
    picked = []
    for group in np.flatnonzero(counts):
        rows, numbers = pool.searchable_rows(members[groups.labels[members] == group])
        picked.append(numbers[_picked(rows, numbers, first, int(counts[group]), stop, pool)])
    return Picked(np.concatenate(picked), groups)


def _picked(
    rows: Rows,
    numbers: NDArray[np.int64],
    first: int | Literal["center", "random"],
    count: int,
    min_distance: float,
    pool: Pool,
) -> NDArray[np.int64]:
    valid = pool.valid[numbers]
    if first == "center":
        embeds = Embeddings(rows.shape, [rows])
        mean = fit_centroids(embeds, 1, n_init=1, threads=pool.threads)
        similarity = assign(embeds, mean, threads=pool.threads).similarity
        place = int(np.nanargmax(similarity))
    elif first == "random":
        place = int(np.argmin(np.where(valid, pool.random_keys[numbers], np.iinfo(np.uint64).max)))
    else:
        found = np.flatnonzero(numbers == first)
        if isinstance(first, (bool, str)) or len(found) == 0 or not valid[found[0]]:
            message = f"first is {first!r}; expected 'center', 'random', or the number of a valid row"
            raise ArgumentError(message)
        place = int(found[0])
    given = np.array([place], np.int64)
    return _core.farthest_first(rows, given, count=count, distance=min_distance, threads=pool.threads)[0]
