"""Herding: rows whose mean follows that of the pool."""

from __future__ import annotations

import warnings

import numpy as np

from rsprune import _core
from rsprune.apportion import apportion
from rsprune.strategies.base import Choice, Clusters, Inputs, strategy

__all__ = ["herding"]

# Multiply-adds that take hours on a core or two.
SLOW = 1e13


@strategy(needs=("embeds",))
def herding(inputs: Inputs, *, per_cluster: bool = False, k: int | None = None) -> Choice:
    """Rows chosen one by one so that their mean stays near that of the pool.

    Kernel herding with the linear kernel (Chen, Welling and Smola, 2010). With mu the mean of the N unit rows, the next
    row is ``argmax <x, (t + 1) mu - sum of the t chosen>`` over those not chosen. Time grows with N B D.

    Parameters
    ----------
    inputs
        ``labels``, or clusters around the given centroids, or clusters fitted on the pool, with ``per_cluster``.
    per_cluster
        Herd every class or cluster by itself, towards its own mean, with shares in proportion to their sizes: K times
        as fast.
    k
        Fit so many clusters, whatever labels and centroids are given.
    """
    rows, wanted = inputs.need("embeds").on_host(), inputs.rows_wanted
    if per_cluster:
        groups = inputs.groups(k)
        sizes = np.bincount(groups.labels[inputs.candidates], minlength=groups.k)
        counts = apportion(wanted, sizes, upper=sizes)
    else:
        groups = Clusters(np.where(inputs.valid, 0, -1).astype(np.int32), 1)
        counts = np.array([wanted], np.int64)
        if (work := inputs.n * wanted * rows.shape[1]) > SLOW:
            message = (
                f"herding {wanted} of {inputs.n} rows takes {work:.0e} multiply-adds; per_cluster=True takes far less"
            )
            warnings.warn(message, UserWarning, stacklevel=4)
    return Choice(_core.herd(rows, groups.labels, counts, threads=inputs.threads), groups)
