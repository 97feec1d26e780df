"""D2 pruning: difficulty and diversity by messages on a graph of neighbours."""

from __future__ import annotations

from typing import Literal

import numpy as np
from numpy.typing import NDArray

from rsprune import _core
from rsprune.errors import ArgumentError
from rsprune.strategies.base import Choice, Inputs, strategy
from rsprune.strategies.neighbourhood import check_count, pool_rows

__all__ = ["d2"]

# No score is lower: a row of score 0 would pass nothing on.
LEAST = 1e-7


@strategy(needs=("embeds",))
def d2(
    inputs: Inputs,
    *,
    neighbours: int = 10,
    gamma: float = 1.0,
    forward: Literal["sum", "product"] = "sum",
    reverse: Literal["weighted", "absolute"] = "weighted",
) -> Choice:
    """Rows of high score in dense places, and few of each place.

    Maharana, Yadav and Bansal (ICLR 2024). In the graph of the nearest neighbours, made symmetric, with distances
    ``d_ij`` of unit rows: forward, ``u_i = s_i + sum_(j in N(i)) exp(-d_ij) s_j``; then, B times, the row i of the
    largest u is chosen, ties to the lower row, and ``u_j -= exp(-gamma d_ij) u_i`` for its neighbours.

    Parameters
    ----------
    inputs
        ``score`` is s, raised to at least 1e-7. Without it, s is the share of rows of no higher ``entropy``; without
        that 1, and u a density.
    neighbours
        Nearest neighbours of each row.
    gamma
        How fast the reverse message fades: 0.1 in the paper for CIFAR, 1 for DataComp.
    forward
        ``"product"`` multiplies s by the messages instead.
    reverse
        ``"absolute"`` takes ``u_i`` itself off: gamma is 0.
    """
    for name, value, expected in (
        ("forward", forward, ("sum", "product")),
        ("reverse", reverse, ("weighted", "absolute")),
    ):
        if value not in expected:
            message = f"{name} is {value!r}; expected {expected[0]!r} or {expected[1]!r}"
            raise ArgumentError(message)
    if isinstance(gamma, bool) or not 0 <= gamma < np.inf:
        message = f"gamma is {gamma!r}; expected a number of at least 0"
        raise ArgumentError(message)
    rows, numbers = pool_rows(inputs)
    count = min(check_count("neighbours", neighbours), max(len(inputs.candidates) - 1, 1))
    graph = _core.knn(rows, rows, k=count, exclude_self=True, threads=inputs.threads)
    chosen = _core.pass_messages(
        *graph,
        _scores(inputs)[numbers],
        multiply=forward == "product",
        gamma=float(gamma) if reverse == "weighted" else 0.0,
        budget=inputs.rows_wanted,
    )
    return Choice(numbers[chosen])


def _scores(inputs: Inputs) -> NDArray[np.float64]:
    """S of every row, NaN for invalid ones."""
    scores = np.full(inputs.n, np.nan)
    rows = inputs.candidates
    if inputs.score is not None:
        scores[rows] = np.maximum(inputs.score[rows], LEAST)
    elif inputs.entropy is not None:
        bits = inputs.entropy[rows]
        scores[rows] = np.searchsorted(np.sort(bits), bits, side="right") / len(rows)
    else:
        scores[rows] = 1.0
    return scores
