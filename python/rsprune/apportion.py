"""Apportionment: a total shared out in whole numbers, in proportion to weights and within bounds."""

from __future__ import annotations

import math
from fractions import Fraction
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from rsprune import _core

__all__ = ["apportion"]


def apportion(
    total: int,
    weights: Any = 1,
    *,
    lower: ArrayLike = 0,
    upper: ArrayLike,
    offsets: ArrayLike | None = None,
    priority: ArrayLike | None = None,
) -> NDArray[np.int64]:
    """Share ``total`` out in proportion to ``weights``, as far as everybody's bounds allow: int64 (K,).

    Party i gets ``clip(offset_i + level * weight_i, lower_i, upper_i)`` for the one level at which the sum is
    ``total`` (water-filling), rounded down. What rounding leaves goes, one each, to the largest remainders (Hamilton's
    method), ties to the larger ``upper``, then to the first. No float is rounded on the way.

    Parameters
    ----------
    total
        Units to share out: between the sums of ``lower`` and of ``upper`` over the parties of a weight above 0. Bounds
        or weights that contradict each other or cannot add up to it are an ``ArgumentError``.
    weights
        Integers, floats or Fractions (K,) of at least 0, or one for all.
    lower, upper
        Integers (K,) of at least 0; ``lower`` may be one for all.
    offsets
        Floats (K,): shares at level 0, which may be negative. None for 0.
    priority
        uint64 (K,): ties go to the larger priority instead of the larger ``upper``, then to the first.
    """
    most = np.ascontiguousarray(upper, np.int64)
    least = np.ascontiguousarray(np.broadcast_to(np.asarray(lower, np.int64), most.shape))
    return _core.apportion(
        int(total),
        _exact(np.broadcast_to(np.asarray(weights), most.shape)),
        least,
        most,
        offsets=None if offsets is None else np.ascontiguousarray(offsets, np.float64),
        priority=None if priority is None else np.ascontiguousarray(priority, np.uint64),
    )


def _exact(weights: NDArray[Any]) -> NDArray[np.float64] | list[int]:
    """Weights as the core takes them: floats, or integers in the same proportions."""
    if weights.dtype.kind == "f":
        return np.ascontiguousarray(weights, np.float64)
    fractions = weights.tolist()
    scale = math.lcm(*(w.denominator for w in fractions if isinstance(w, Fraction)))
    return [int(w * scale) for w in fractions]
