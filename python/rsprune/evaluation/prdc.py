"""Precision, recall, density and coverage of generated features against real ones."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rsprune.errors import ArgumentError
from rsprune.evaluation.features import as_pair, row_blocks
from rsprune.validation import check_integer

__all__ = ["Manifolds", "prdc"]


@dataclass(frozen=True)
class Manifolds:
    """Overlap of two sets, each as the union of the balls to its rows' k-th nearest row."""

    precision: float  # the share of generated rows within the real balls
    recall: float  # the share of real rows within the generated balls
    density: float  # mean number of real balls that a generated row lies in, divided by k; it may exceed 1
    coverage: float  # the share of real balls that hold a generated row
    k: int  # the neighbor that a ball reaches


def prdc(real: Any, generated: Any, *, k: int = 5) -> Manifolds:
    """Precision and recall (Kynkaanniemi et al., 2019), density and coverage (Naeem et al., 2020).

    Parameters
    ----------
    real, generated
        Features (N, D) and (M, D), by Euclidean distance.
    k
        A ball reaches from a row to its k-th nearest row in its own set, not counting itself; what lies on its edge is
        inside.

    Raises
    ------
    ArgumentError, ShapeError
        A set has no more than k rows; different D.
    """
    x, y = as_pair(real, generated)
    check_integer("k", k)
    for name, rows in (("real", x), ("generated", y)):
        if len(rows) <= k:
            message = f"k is {k}; expected less than the number of {name} rows, {len(rows)}"
            raise ArgumentError(message)
    real_balls, generated_balls = _radii(x, k), _radii(y, k)
    balls_of = np.zeros(len(y), np.int64)
    covered, recalled = np.zeros(len(x), np.bool_), np.zeros(len(x), np.bool_)
    for rows, squared in _distances(x, y):
        inside = squared <= real_balls[rows, None]
        balls_of += inside.sum(axis=0)
        covered[rows] = inside.any(axis=1)
        recalled[rows] = (squared <= generated_balls).any(axis=1)
    return Manifolds(
        precision=float((balls_of > 0).mean()),
        recall=float(recalled.mean()),
        density=float(balls_of.mean() / k),
        coverage=float(covered.mean()),
        k=k,
    )


def _radii(x: NDArray[np.float64], k: int) -> NDArray[np.float64]:
    """The squared distance of each row to its k-th nearest other row."""
    radii = np.empty(len(x))
    for rows, squared in _distances(x, x):
        # A row is its own nearest, whatever rounding says.
        squared[np.arange(rows.stop - rows.start), np.arange(rows.start, rows.stop)] = -1
        radii[rows] = np.partition(squared, k, axis=1)[:, k]
    return radii


def _distances(x: NDArray[np.float64], y: NDArray[np.float64]) -> Any:
    """Squared Euclidean distances, a block of rows of ``x`` at a time: ``|x|^2 + |y|^2 - 2 <x, y>``."""
    a, b = np.einsum("ij,ij->i", x, x), np.einsum("ij,ij->i", y, y)
    for rows in row_blocks(len(x), len(y)):
        yield rows, (a[rows, None] + b - 2 * (x[rows] @ y.T)).clip(min=0)
