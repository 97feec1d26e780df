"""D2 pruning: difficulty and diversity by messages on a graph of neighbors."""

from __future__ import annotations

from typing import Literal

import numpy as np
from numpy.typing import NDArray

from rsprune import _core
from rsprune.strategies.base import Picked, Pool, strategy
from rsprune.validation import check_number

__all__ = ["d2"]

Forward = Literal["sum", "product"]
Reverse = Literal["weighted", "absolute"]

# Scores are raised to this: a row of score 0 would pass nothing on.
MIN_SCORE = 1e-7


@strategy(needs=("embeds",), uses=("entropy", "score"))
def d2(
    pool: Pool,
    *,
    n_neighbors: int = 10,
    gamma: float = 1.0,
    forward: Forward = "sum",
    reverse: Reverse = "weighted",
) -> Picked:
    """Rows of high score in dense places, and few of each place.

    Maharana, Yadav and Bansal (ICLR 2024). In the graph of the nearest neighbors, made symmetric, with distances
    ``d_ij`` of unit rows: forward, ``u_i = s_i + sum_(j in N(i)) exp(-d_ij) s_j``; then, B times, the row i of the
    largest u is picked, ties to the lower row, and ``u_j -= exp(-gamma d_ij) u_i`` for its neighbors.

    Parameters
    ----------
    pool
        ``score`` is s, raised to at least 1e-7. Without it, s is the share of rows of no higher ``entropy``; without
        that 1, and u a density.
    n_neighbors
        Number of nearest neighbors of each row.
    gamma
        How fast the reverse message fades: 0.1 in the paper for CIFAR, 1 for DataComp.
    forward
        ``"product"`` multiplies s by the messages instead.
    reverse
        ``"absolute"`` subtracts ``u_i`` itself, as ``gamma=0`` does.
    """
    check_number("gamma", gamma, minimum=0, below=np.inf)
    rows, numbers = pool.searchable_rows()
    count = min(n_neighbors, max(len(pool.candidates) - 1, 1))
    graph = _core.knn(rows, rows, k=count, exclude_self=True, threads=pool.threads)
    picked = _core.pass_messages(
        *graph,
        _scores(pool)[numbers],
        multiply=forward == "product",
        gamma=float(gamma) if reverse == "weighted" else 0.0,
        budget=pool.budget,
    )
    return Picked(numbers[picked])


def _scores(pool: Pool) -> NDArray[np.float64]:
    """Return s of every row, NaN for invalid ones."""
    scores = np.full(pool.n, np.nan)
    rows = pool.candidates
    if pool.score is not None:
        scores[rows] = np.maximum(pool.score[rows], MIN_SCORE)
    elif pool.entropy is not None:
        bits = pool.entropy[rows]
        scores[rows] = np.searchsorted(np.sort(bits), bits, side="right") / len(rows)
    else:
        scores[rows] = 1.0
    return scores
