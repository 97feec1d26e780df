"""Scores from the logits of a training run: an input of other methods, as ``score=``."""

from __future__ import annotations

from functools import reduce
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rsprune.errors import ArgumentError, DtypeError, ShapeError

__all__ = ["tdds"]

# Inside the logarithm.
EPSILON = 1e-8
# Logits of this many bytes, as float64, are worked on at a time.
BLOCK_BYTES = 64 << 20


def tdds(logits: Any, *, window: int = 10, decay: float = 0.9) -> NDArray[np.float64]:
    """How unsteadily the predictions for each row move during training; more is kept.

    TDDS (Zhang et al., CVPR 2024). With ``p_t`` the softmax of epoch t,
    ``kd_t = sum_c |p_(t+1),c (log(p_(t+1),c + 1e-8) - log(p_t,c + 1e-8))|``. A window of J epochs scores
    ``sqrt(sum (kd_t - mean)^2)`` over its J - 1 steps, and the result is the sum over the windows that start at
    k = 0 .. T - J of ``score_k a (1 - a)^(T - J - k)``.

    Parameters
    ----------
    logits
        (T, N, C) floating numbers: epochs, rows, classes. An ``np.memmap`` is read block by block.
    window
        J: epochs in a window, from 2 to T.
    decay
        a: how much later windows count, in (0, 1].

    Returns
    -------
    numpy.ndarray
        float64 (N,): a ``score=`` for :func:`rsprune.strategies.select`. NaN where a logit is NaN or infinite.

    Raises
    ------
    ShapeError, DtypeError
        ``logits`` is no (T, N, C) array of floating numbers.
    ArgumentError
        ``window`` or ``decay`` out of range.
    """
    logits = logits if isinstance(logits, np.ndarray) else np.asarray(logits)
    if logits.ndim != 3 or 0 in logits.shape:
        message = f"logits of shape {logits.shape}; expected (epochs, rows, classes)"
        raise ShapeError(message)
    if logits.dtype.kind != "f":
        message = f"logits of {logits.dtype}; expected floating numbers"
        raise DtypeError(message)
    epochs, rows, classes = logits.shape
    if isinstance(window, bool) or not isinstance(window, int) or not 2 <= window <= epochs:
        message = f"window is {window!r}; expected 2 to {epochs} epochs"
        raise ArgumentError(message)
    if not 0 < decay <= 1:
        message = f"decay is {decay!r}; expected a number in (0, 1]"
        raise ArgumentError(message)
    step = max(1, BLOCK_BYTES // (8 * epochs * classes))
    parts = [_of_block(logits[:, start : start + step], window, decay) for start in range(0, rows, step)]
    return np.concatenate(parts)


def _of_block(logits: NDArray[Any], window: int, decay: float) -> NDArray[np.float64]:
    values = np.ascontiguousarray(np.moveaxis(logits, 2, 0), dtype=np.float64)
    with np.errstate(invalid="ignore"):
        powers = np.exp(values - values.max(axis=0))
        p = powers / _in_order(powers)
        logs = np.log(p + EPSILON)
        moves = _in_order(np.abs(p[:, 1:] * (logs[:, 1:] - logs[:, :-1])))
    total = np.zeros(logits.shape[1])
    last = len(logits) - window
    for k in range(last + 1):
        inside = moves[k : k + window - 1]
        spread = np.sqrt(_in_order(np.square(inside - _in_order(inside) / (window - 1))))
        total += spread * (decay * (1 - decay) ** (last - k))
    total[~np.isfinite(values).all(axis=(0, 1))] = np.nan
    return total


def _in_order(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """The sum over the first axis, term by term: NumPy's own order depends on the number of rows."""
    return reduce(np.add, values)
