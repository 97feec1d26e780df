"""Scores from the logits of a training run: an input of other methods, as ``score=``."""

from __future__ import annotations

from functools import reduce
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rsprune.errors import DtypeError, ShapeError
from rsprune.validation import as_array, check_integer, check_number

__all__ = ["tdds"]

# Added inside the logarithm.
EPSILON = 1e-8
# Logits of this many bytes, as float64, are worked on at a time.
BLOCK_BYTES = 64 << 20


def tdds(logits: Any, *, window: int = 10, decay: float = 0.9) -> NDArray[np.float64]:
    """Score how unsteadily the predictions for each row move during training; more is kept.

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
    logits = as_array("logits", logits)
    if logits.ndim != 3 or 0 in logits.shape:
        message = f"logits of shape {logits.shape}; expected (epochs, rows, classes)"
        raise ShapeError(message)
    if logits.dtype.kind != "f":
        message = f"logits of {logits.dtype}; expected floating numbers"
        raise DtypeError(message)
    epochs, rows, classes = logits.shape
    window = check_integer("window", window, minimum=2, maximum=epochs)
    decay = check_number("decay", decay, above=0, maximum=1)
    step = max(1, BLOCK_BYTES // (8 * epochs * classes))
    parts = [_score_block(logits[:, start : start + step], window, decay) for start in range(0, rows, step)]
    return np.concatenate(parts)


def _score_block(logits: NDArray[Any], window: int, decay: float) -> NDArray[np.float64]:
    values = np.ascontiguousarray(np.moveaxis(logits, 2, 0), dtype=np.float64)
    with np.errstate(invalid="ignore"):
        powers = np.exp(values - values.max(axis=0))
        p = powers / _sum_in_order(powers)
        logs = np.log(p + EPSILON)
        moves = _sum_in_order(np.abs(p[:, 1:] * (logs[:, 1:] - logs[:, :-1])))
    total = np.zeros(logits.shape[1])
    last = len(logits) - window
    for k in range(last + 1):
        inside = moves[k : k + window - 1]
        spread = np.sqrt(_sum_in_order(np.square(inside - _sum_in_order(inside) / (window - 1))))
        total += spread * (decay * (1 - decay) ** (last - k))
    total[~np.isfinite(values).all(axis=(0, 1))] = np.nan
    return total


def _sum_in_order(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Sum over the first axis term by term: the order in which NumPy sums depends on the number of rows."""
    return reduce(np.add, values)
