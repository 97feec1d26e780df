"""The Vendi score: the effective number of different rows of a set."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rsprune.embeddings import as_rows
from rsprune.errors import InvalidRowError
from rsprune.evaluation.features import blocks
from rsprune.evaluation.statistics import Statistics

__all__ = ["effective_number", "vendi_score"]


def vendi_score(features: Any) -> float:
    """The exponential of the entropy of the eigenvalues of ``K / N``, K the cosines of all pairs of rows.

    Friedman and Dieng (2023). 1 for rows of one direction, N for orthogonal ones; never above D. The eigenvalues are
    those of the smaller of ``X X^T / N`` and ``X^T X / N``, so that the cost is linear in N.

    Parameters
    ----------
    features
        (N, D) features; rows are normalized.

    Raises
    ------
    InvalidRowError
        A row is all zero.
    """
    if as_rows(features).shape[0] == 1:
        return 1.0
    return effective_number(Statistics.of_blocks(_unit_blocks(features)).second_moment_eigenvalues())


def _unit_blocks(features: Any) -> Iterator[NDArray[np.float64]]:
    n = 0
    for block in blocks(features):
        lengths = np.linalg.norm(block, axis=1, keepdims=True)
        if not lengths.all():
            message = f"row {n + int(np.flatnonzero(lengths == 0)[0])} is all zero and has no direction; leave it out"
            raise InvalidRowError(message)
        n += len(block)
        yield block / lengths


def effective_number(shares: NDArray[np.floating[Any]]) -> float:
    """Exponential of the entropy of shares that sum to 1; values that rounding made negative count as 0."""
    positive = shares[shares > 0]
    return float(np.exp(-(positive * np.log(positive)).sum()))
