"""How a budget is shared out among groups: evenly, by water-filling, or in proportion to their sizes."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from rsprune import _core

__all__ = ["allocate", "proportional"]


def allocate(total: int, most: Any, *, least: Any = 0, weight: Any = 1.0) -> NDArray[np.int64]:
    """Share ``total`` out evenly, as far as everybody's bounds allow.

    Everybody gets ``clip(level * weight, least, most)`` for the one level at which the sum is ``total``, rounded
    down; what rounding leaves goes, one each, to the largest fractional parts, ties to the larger ``most``, then to the
    first.

    Parameters
    ----------
    total
        What is shared out: between the sums of ``least`` and of ``most`` (of those with a weight above 0).
    most, least
        Whole numbers (K,), or one for all.
    weight
        Numbers (K,) of at least 0, or one for all.

    Returns
    -------
    numpy.ndarray
        int64 (K,), of sum ``total``.

    Raises
    ------
    ArgumentError
        Bounds or weights contradict each other or cannot add up to ``total``.
    """
    most = np.ascontiguousarray(most, np.int64)
    least = np.ascontiguousarray(np.broadcast_to(np.asarray(least, np.int64), most.shape))
    weight = np.ascontiguousarray(np.broadcast_to(np.asarray(weight, np.float64), most.shape))
    return _core.allocate(int(total), least, most, weight)


def proportional(total: int, sizes: NDArray[np.int64]) -> NDArray[np.int64]:
    """Share ``total``, at most the sum of ``sizes``, out in proportion to them, in whole numbers.

    What rounding down leaves goes, one each, to the largest remainders, ties to the larger size, then to the first.
    """
    if total == 0:
        return np.zeros_like(sizes)
    shares, remainders = np.divmod(total * sizes, sizes.sum())
    order = np.lexsort((-sizes, -remainders))
    shares[order[: total - shares.sum()]] += 1
    return shares
