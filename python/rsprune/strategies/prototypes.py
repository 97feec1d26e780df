"""Self-supervised prototypes: the rows hardest to a clustering."""

from __future__ import annotations

from typing import Literal

import numpy as np

from rsprune.errors import ArgumentError
from rsprune.selection import FILL, QUOTA
from rsprune.strategies.base import Choice, Inputs, strategy
from rsprune.strategies.ranking import best, best_of_groups
from rsprune.validation import fraction_of

__all__ = ["prototypes"]


@strategy(needs=("embeds",))
def prototypes(
    inputs: Inputs, *, k: int | None = None, keep: Literal["hard", "easy"] = "hard", balance: float = 0.0
) -> Choice:
    """The rows furthest from their cluster's prototype: the opposite direction of RS-Prune.

    Sorscher et al., NeurIPS 2022. The difficulty of a row is the cosine distance to the nearest centroid; the hardest
    are kept where data is plentiful, the easiest where it is scarce.

    Parameters
    ----------
    inputs
        Without ``centroids`` 200 clusters are fitted on the pool.
    k
        Fit so many clusters, whatever centroids are given. The paper takes 1,000 for ImageNet, and finds an order of
        magnitude more or less to make little difference.
    keep
        ``"hard"`` or ``"easy"``.
    balance
        Each cluster keeps at least ``floor(balance B / K)`` rows, or all that it has; in [0, 1].
    """
    if keep not in ("hard", "easy"):
        message = f"keep is {keep!r}; expected 'hard' or 'easy'"
        raise ArgumentError(message)
    if not 0 <= balance <= 1:
        message = f"balance is {balance!r}; expected a number from 0 to 1"
        raise ArgumentError(message)
    clusters = inputs.clusters(k)
    # Similarity descends with the cosine distance.
    key = clusters.similarity if keep == "hard" else -clusters.similarity
    least = np.full(clusters.k, fraction_of(balance / clusters.k, inputs.rows_wanted), np.int64)
    phase = np.full(inputs.n, FILL, np.uint8)
    rows = best_of_groups(key, clusters, least, inputs)
    phase[rows] = QUOTA
    rest = np.setdiff1d(inputs.candidates, rows, assume_unique=True)
    rows = np.sort(np.concatenate([rows, best(key, rest, inputs.rows_wanted - len(rows))]))
    return Choice(rows, clusters, phase[rows] if balance else None)
