"""Self-supervised prototypes: the rows hardest to a clustering."""

from __future__ import annotations

import numpy as np

from rsprune.selection import FILL, QUOTA, Within
from rsprune.strategies.base import Picked, Pool, strategy
from rsprune.strategies.grouping import top_per_group, top_rows, within_key
from rsprune.validation import check_number, fraction_of

__all__ = ["prototypes"]


@strategy(needs=("embeds",), uses=("centroids",))
def prototypes(pool: Pool, *, k: int | None = None, within: Within = "far", balance: float = 0.0) -> Picked:
    """The rows farthest from their cluster's prototype: the opposite direction of RS-Prune.

    Sorscher et al., NeurIPS 2022. The difficulty of a row is the cosine distance to the nearest centroid; the hardest
    are kept where data is plentiful, the easiest where it is scarce.

    Parameters
    ----------
    pool
        Without ``centroids`` 200 clusters are fitted on the pool.
    k
        Fit this many clusters, whatever centroids are given. The paper takes 1,000 for ImageNet, and finds an order of
        magnitude more or less to make little difference.
    within
        Which rows are kept: ``"far"``, the hard ones, or ``"nearest"``, the easy ones; ``"mid"`` or ``"random"``.
    balance
        Each cluster keeps at least ``floor(balance B / K)`` rows, or all that it has; in [0, 1].
    """
    balance = check_number("balance", balance, minimum=0, maximum=1)
    clusters = pool.cluster(k)
    key = within_key(within, clusters, pool)
    lowest = np.full(clusters.k, fraction_of(balance / clusters.k, pool.budget), np.int64)
    phase = np.full(pool.n, FILL, np.uint8)
    rows = top_per_group(key, clusters, lowest, pool)
    phase[rows] = QUOTA
    rest = np.setdiff1d(pool.candidates, rows, assume_unique=True)
    rows = np.sort(np.concatenate([rows, top_rows(key, rest, pool.budget - len(rows))]))
    return Picked(rows, clusters, phase[rows] if balance else None)
