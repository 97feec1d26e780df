"""Moderate-DS: rows of median distance from the median of their class."""

from __future__ import annotations

import numpy as np

from rsprune import _core
from rsprune.strategies.base import Picked, Pool, strategy
from rsprune.strategies.grouping import Shares, rank_in_group, share_budget, top_rows

__all__ = ["moderate"]


@strategy(needs=("embeds",), uses=("centroids", "labels"))
def moderate(pool: Pool, *, k: int | None = None, shares: Shares | None = None) -> Picked:
    """Rows whose distance from the median of their class or cluster is moderate.

    Xia et al., ICLR 2023. The prototype ``c_k`` is the coordinate-wise median of the unit rows of class k, and
    ``d_i = |x_i - c_(y_i)|``. Of all rows by (d ascending, row ascending) the ranks from ``round(N (1 - r) / 2)`` on
    are kept, ``r = B / N``, rounded half to even. The paper rounds the end as well, and so may keep a row more or less.

    Parameters
    ----------
    pool
        ``labels`` are the classes. Without them, as here there is no trained classifier, clusters stand in: around the
        given centroids, or fitted on the pool.
    k
        Fit this many clusters, whatever labels and centroids are given.
    shares
        Keep a window of ranks within each class or cluster, of an ``"even"`` share of the budget or of a share
        ``"proportional"`` to its size. None keeps one window over all rows.
    """
    groups = pool.partition(k)
    embeds = pool.require("embeds").on_host()
    medians = _core.medians(embeds, groups.labels, k=groups.k, threads=pool.threads)
    distance = _core.distances(embeds, groups.labels, medians, threads=pool.threads)
    rows, budget = pool.candidates, pool.budget
    if shares is None:
        # The window's rows are the first `start + budget` without the first `start`.
        start = round((len(rows) - budget) / 2)
        kept = np.zeros(pool.n, np.bool_)
        kept[top_rows(distance, rows, start + budget)] = True
        kept[top_rows(distance, rows, start)] = False
        return Picked(np.flatnonzero(kept), groups)
    labels, counts = groups.labels[rows], share_budget(shares, groups, pool)
    # np.rint rounds half to even.
    starts = np.rint((pool.sizes(groups) - counts) / 2).astype(np.int64)
    rank = rank_in_group(distance, groups, pool)[rows]
    return Picked(rows[(rank >= starts[labels]) & (rank < (starts + counts)[labels])], groups)
