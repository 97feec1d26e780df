"""The Vendi score: how many different rows a set holds in effect."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from rsprune.errors import InvalidRowError
from rsprune.evaluation.features import blocks

__all__ = ["effective_number", "vendi_score"]


def vendi_score(features: Any) -> float:
    """The exponential of the entropy of the eigenvalues of ``K / N``, K the cosines of all pairs of rows.

    Friedman and Dieng (2023). 1 for rows of one direction, N for orthogonal ones; never above D. The eigenvalues are
    those of the (D, D) matrix of second moments, so that the cost is linear in N.

    Parameters
    ----------
    features
        (N, D) features; rows are normalised.

    Raises
    ------
    InvalidRowError
        A row is all zero.
    """
    moments: NDArray[np.float64] | None = None
    n = 0
    for block in blocks(features):
        lengths = np.linalg.norm(block, axis=1, keepdims=True)
        if not lengths.all():
            message = f"row {n + int(np.flatnonzero(lengths == 0)[0])} is all zero and has no direction; leave it out"
            raise InvalidRowError(message)
        unit = block / lengths
        moments = unit.T @ unit if moments is None else moments + unit.T @ unit
        n += len(block)
    assert moments is not None  # as_rows has an error for no rows
    return effective_number(np.linalg.eigvalsh(moments / n))


def effective_number(shares: NDArray[np.floating[Any]]) -> float:
    """The exponential of the entropy of shares of sum 1; what rounding made negative counts as 0."""
    positive = shares[shares > 0]
    return float(np.exp(-(positive * np.log(positive)).sum()))
