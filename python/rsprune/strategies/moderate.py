"""Moderate-DS: rows of median distance from the median of their class."""

from __future__ import annotations

import numpy as np

from rsprune import _core
from rsprune.apportion import apportion
from rsprune.strategies.base import Choice, Inputs, strategy
from rsprune.strategies.ranking import best, places

__all__ = ["moderate"]


@strategy(needs=("embeds",))
def moderate(inputs: Inputs, *, k: int | None = None, per_cluster: bool = False) -> Choice:
    """Rows whose distance from the median of their class or cluster is moderate.

    Xia et al., ICLR 2023. The prototype ``c_k`` is the coordinate-wise median of the unit rows of class k, and
    ``d_i = |x_i - c_(y_i)|``. Of all rows by (d ascending, row ascending) the places from ``round(N (1 - r) / 2)`` on
    are kept, ``r = B / N``, rounded half to even. The paper rounds the end as well, and so may keep a row more or less.

    Parameters
    ----------
    inputs
        ``labels`` are the classes. Without them, as here there is no trained classifier, clusters stand in: around the
        given centroids, or fitted on the pool.
    k
        Fit so many clusters, whatever labels and centroids are given.
    per_cluster
        A window within each class, of a share of the budget in proportion to its size, instead of one over all.
    """
    groups = inputs.groups(k)
    rows = inputs.need("embeds").on_host()
    labels = groups.labels
    medians = _core.medians(rows, labels, k=groups.k, threads=inputs.threads)
    distance = _core.distances(rows, labels, medians, threads=inputs.threads)
    wanted, pool = inputs.rows_wanted, inputs.candidates
    if not per_cluster:
        # The window's rows are the first `start + B` without the first `start`.
        start = round((len(pool) - wanted) / 2)
        kept = np.zeros(inputs.n, np.bool_)
        kept[best(distance, pool, start + wanted)] = True
        kept[best(distance, pool, start)] = False
        return Choice(np.flatnonzero(kept), groups)
    sizes = np.bincount(labels[pool], minlength=groups.k)
    counts = apportion(wanted, sizes, upper=sizes)
    # np.rint rounds half to even.
    starts = np.rint((sizes - counts) / 2).astype(np.int64)
    place = places(distance, groups, inputs)[pool]
    window = (place >= starts[labels[pool]]) & (place < (starts + counts)[labels[pool]])
    return Choice(pool[window], groups)
