"""Maximum mean discrepancy between two sets of features, and the kernel inception distance."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rsprune.errors import ArgumentError
from rsprune.evaluation.features import as_pair, row_blocks, sample_rows
from rsprune.validation import check_integer, check_number

__all__ = ["KernelDistance", "gaussian", "kernel_distance", "mmd", "polynomial"]

#: A function of dot products (n, m) and squared lengths (n, 1) and (1, m).
Kernel = Callable[[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]], NDArray[np.float64]]


def polynomial(dim: int, degree: int = 3) -> Kernel:
    """``(<x, y> / D + 1)^degree``: the kernel of KID."""
    return lambda dots, a, b: (dots / dim + 1) ** degree


def gaussian(bandwidth: float) -> Kernel:
    """``exp(-|x - y|^2 / (2 bandwidth^2))``; the bandwidth, a length, is above 0."""
    check_number("bandwidth", bandwidth, above=0)
    return lambda dots, a, b: np.exp((2 * dots - a - b).clip(max=0) / (2 * bandwidth**2))


def mmd(a: Any, b: Any, kernel: Kernel | None = None, *, unbiased: bool = True) -> float:
    """The squared maximum mean discrepancy of two sets (Gretton et al., 2012).

    Parameters
    ----------
    a, b
        Features (N, D) and (M, D), N and M of at least 2.
    kernel
        :func:`polynomial` of degree 3 by default.
    unbiased
        Leave each row's kernel with itself out, as for samples of two distributions: the result may be below 0.
        Otherwise the distance of the two sets themselves, 0 for equal ones.

    Raises
    ------
    ArgumentError, ShapeError
        Fewer than two rows; different D.
    """
    x, y = as_pair(a, b)
    if min(len(x), len(y)) < 2:
        message = "a set of 1 row; expected at least 2"
        raise ArgumentError(message)
    kernel = kernel or polynomial(x.shape[1])
    return _within(x, kernel, unbiased) + _within(y, kernel, unbiased) - 2 * _sum(x, y, kernel) / (len(x) * len(y))


@dataclass(frozen=True)
class KernelDistance:
    """KID, or the same in the space of another extractor: mean of the subsets, and standard deviation between them."""

    mean: float
    spread: float
    subsets: int
    subset_size: int
    seed: int


def kernel_distance(
    real: Any, generated: Any, *, subsets: int = 100, subset_size: int = 1000, seed: int = 0
) -> KernelDistance:
    """Kernel distance: the mean of the unbiased squared MMD over subsets of both sets (Binkowski et al., 2018).

    With Inception features this is KID. It is unbiased, unlike the Frechet distance, and so comparable at any number of
    images.

    Parameters
    ----------
    real, generated
        Features (N, D) and (M, D).
    subsets, subset_size, seed
        How many subsets are drawn, each without replacement, of how many rows, at most as many as either set has; and
        the seed of the draws.

    Raises
    ------
    ArgumentError, ShapeError
        An option out of range; different D.
    """
    x, y = as_pair(real, generated)
    check_integer("subsets", subsets)
    check_integer("subset_size", subset_size, minimum=2)
    if (fewest := min(len(x), len(y))) < subset_size:
        message = f"subset_size is {subset_size}; expected at most the number of rows of the smaller set, {fewest}"
        raise ArgumentError(message)
    # The two sets draw apart: equal sets would otherwise be compared with themselves.
    values = []
    for turn in range(subsets):
        mine, others = (sample_rows(subset_size, len(rows), seed, 2 * turn + i) for i, rows in enumerate((x, y)))
        values.append(mmd(x[mine], y[others]))
    return KernelDistance(float(np.mean(values)), float(np.std(values)), subsets, subset_size, seed)


def _within(x: NDArray[np.float64], kernel: Kernel, unbiased: bool) -> float:
    n, total = len(x), _sum(x, x, kernel)
    if not unbiased:
        return total / n**2
    lengths = np.einsum("ij,ij->i", x, x)
    return (total - float(kernel(lengths, lengths, lengths).sum())) / (n * (n - 1))


def _sum(x: NDArray[np.float64], y: NDArray[np.float64], kernel: Kernel) -> float:
    a, b = np.einsum("ij,ij->i", x, x), np.einsum("ij,ij->i", y, y)
    return float(sum(kernel(x[rows] @ y.T, a[rows, None], b[None]).sum() for rows in row_blocks(len(x), len(y))))
