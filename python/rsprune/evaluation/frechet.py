"""The Frechet distance between two sets of features, each taken as a normal distribution."""

from __future__ import annotations

from typing import Any

import numpy as np

from rsprune.evaluation.features import check_same_dim
from rsprune.evaluation.statistics import Statistics

__all__ = ["frechet_distance"]


def frechet_distance(a: Any, b: Any) -> float:
    """The squared 2-Wasserstein distance of the normal distributions with the means and covariances of two sets.

    ``|m_a - m_b|^2 + tr S_a + tr S_b - 2 tr (S_a S_b)^(1/2)`` (Dowson and Landau, 1982). With features of the Inception
    network this is FID (Heusel et al., 2017), with any other it is not: name it after its extractor. It is biased
    upwards for few rows, by an amount that depends on the model (Chong and Forsyth, 2020): compare at equal N only.

    Parameters
    ----------
    a, b
        Features (N, D), N of at least 2, or their :class:`Statistics`.

    Returns
    -------
    float
        At least 0, in squared units of the features.

    Raises
    ------
    ShapeError, EmptyInputError
        Different D; fewer than two rows.

    Notes
    -----
    With ``F F^T = S``, of no more columns than the rank that N rows can have, the trace of the root is the nuclear norm
    of ``F_a^T F_b``: the sum of the roots of the eigenvalues of ``S_a^(1/2) S_b S_a^(1/2)``, without squaring what is
    then rooted. No root of a product is taken, and covariances of too few rows for full rank lose no digits.
    """
    first, second = (given if isinstance(given, Statistics) else Statistics.of(given) for given in (a, b))
    check_same_dim(first.dim, second.dim)
    step = first.mean - second.mean
    traces = np.trace(first.covariance) + np.trace(second.covariance)
    trace_of_root = np.linalg.norm(first.factor.T @ second.factor, "nuc")
    return max(float(step @ step + traces - 2 * trace_of_root), 0.0)
