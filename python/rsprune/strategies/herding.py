"""Herding: rows whose mean follows that of the pool."""

from __future__ import annotations

import numpy as np

from rsprune import _core
from rsprune.strategies.base import Picked, Pool, strategy
from rsprune.strategies.grouping import Shares, share_budget
from rsprune.validation import warn_caller

__all__ = ["herding"]

# Multiply-adds that take hours on a core or two.
SLOW = 1e13


@strategy(needs=("embeds",), uses=("centroids", "labels"))
def herding(pool: Pool, *, shares: Shares | None = None, k: int | None = None) -> Picked:
    """Rows picked one by one so that their mean stays near that of the pool.

    Kernel herding with the linear kernel (Chen, Welling and Smola, 2010). With mu the mean of the N unit rows, the next
    row is ``argmax <x, (t + 1) mu - sum of the t picked>`` over those not picked. Time grows with N B D.

    Parameters
    ----------
    pool
        With ``shares``: ``labels``, or clusters around the given centroids, or clusters fitted on the pool.
    shares
        Herd every class or cluster by itself, towards its own mean, with ``"even"`` shares of the budget or shares
        ``"proportional"`` to their sizes: K times as fast. None herds the pool as a whole.
    k
        Fit this many clusters, whatever labels and centroids are given.
    """
    rows, budget = pool.require("embeds").on_host(), pool.budget
    if shares is not None:
        groups = pool.partition(k)
        counts = share_budget(shares, groups, pool)
    else:
        groups = pool.whole()
        counts = np.array([budget], np.int64)
        if (work := pool.n * budget * rows.shape[1]) > SLOW:
            warn_caller(
                f'herding {budget} of {pool.n} rows takes {work:.0e} multiply-adds; shares="proportional" takes far '
                "less"
            )
    return Picked(_core.herd(rows, groups.labels, counts, threads=pool.threads), groups)
