"""Balanced allocation by water-filling."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from rsprune import _core

__all__ = ["allocate"]


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
