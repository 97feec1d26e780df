"""Metrics of a subset against its pool and against a target, without training and without labels."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rsprune import _core
from rsprune._core import Rows
from rsprune.assignment import assign
from rsprune.centroids import Centroids
from rsprune.embeddings import Embeddings, as_rows
from rsprune.errors import ArgumentError, EmptyInputError, InvalidRowError, ShapeError
from rsprune.evaluation.features import row_blocks, sample_rows
from rsprune.evaluation.kid import Kernel, gaussian
from rsprune.evaluation.statistics import Statistics, frechet_distance
from rsprune.evaluation.vendi import effective_number
from rsprune.validation import as_array, check_column, check_integer, check_number, check_threads

__all__ = ["SubsetEvaluator", "SubsetMetrics"]

# Beyond this many rows, what costs the square of them is taken on a sample.
SAMPLE = 16_384


@dataclass(frozen=True)
class SubsetMetrics:
    """Metrics of a subset. Distances are those between unit vectors, from 0 to 2.

    Metrics that need a target or labels are None without these.
    """

    rows: int  # of the subset
    mmd: float  # squared maximum mean discrepancy to the pool as a set, Gaussian kernel: 0 for equal ones
    frechet: float  # Frechet distance to the pool in the space of the embeddings: never FID
    coverage: float  # the share of the pool's rows whose ball to their k-th nearest row holds a row of the subset
    density: float  # mean number of those balls that a row of the subset lies in, divided by k
    mean_nn_distance: float  # mean, over the rows of the pool, of the distance to the nearest row of the subset
    covering_radius: float  # maximum of the same
    knn_radius: float  # mean distance of a row of the subset to its k-th nearest neighbor in the subset
    vendi: float  # Vendi score: the effective number of different rows
    balance: float  # entropy of the distribution over clusters divided by log K: 1 when all have equally many rows
    duplicates: float  # share of rows that are more similar than 1 - eps to an earlier row of their cluster
    target_mmd: float | None = None  # the same four against the target
    target_frechet: float | None = None
    target_coverage: float | None = None
    target_density: float | None = None
    class_balance: float | None = None  # entropy of the distribution over classes divided by its maximum
    class_coverage: float | None = None  # share of classes with a row


class SubsetEvaluator:
    """Measures subsets of one pool; quantities of the pool alone are computed once.

    Parameters
    ----------
    embeds
        (N, D) embeddings of the pool; see :func:`rsprune.embeddings.as_rows`. They are normalized. Invalid rows are
        left out.
    centroids
        Clusters for balance and duplicates.
    target
        Embeddings of images that the subset should stand for, such as the reference images.
    labels
        Integers (N,): a class each row, -1 for none.
    k, eps
        Each ball reaches to the k-th nearest neighbor; duplicates are more similar than ``1 - eps``.
    sample, seed
        A larger pool is sampled to this many rows, by seed and row number; MMD, coverage, density, distances and k-NN
        radius are then those of the sample and the selected rows in it. The target is sampled alike.
    threads
        Number of threads; all cores by default.

    Raises
    ------
    ArgumentError
        An option out of range, or fewer than ``k + 1`` valid rows.
    ShapeError
        Different dimensions, or labels of another length.

    Notes
    -----
    The bandwidth of the Gaussian kernel is the median distance between rows of the pool (of 1,024 of them), as is usual
    (Gretton et al., 2012). Balls and nearest rows follow cosine similarities as :func:`rsprune.assign` defines them,
    exactly; the rest is float64.
    """

    def __init__(
        self,
        embeds: Any,
        centroids: Centroids | Any,
        *,
        target: Any = None,
        labels: Any = None,
        k: int = 5,
        eps: float = 0.01,
        sample: int = SAMPLE,
        seed: int = 0,
        threads: int | None = None,
    ) -> None:
        self._embeds, self._threads = as_rows(embeds), check_threads(threads)
        self._k, seed = check_integer("k", k), check_integer("seed", seed, minimum=0)
        self._eps = check_number("eps", eps, minimum=0, maximum=1)
        sample = check_integer("sample", sample, minimum=2)
        fitted = centroids if isinstance(centroids, Centroids) else Centroids(centroids)
        self._clusters = assign(self._embeds, fitted, threads=self._threads).labels
        self._centroids = fitted.k
        self.valid: NDArray[np.bool_] = self._clusters >= 0
        self._labels = None if labels is None else _check_labels(labels, len(self.valid))
        candidates = np.flatnonzero(self.valid)
        self._drawn = candidates[sample_rows(sample, len(candidates), seed)]
        #: Whether some metrics are those of a sample.
        self.is_sampled = len(self._drawn) < len(candidates)
        self._pool = pool = _Set(self._embeds.take(self._drawn), self._k, self._threads)
        self._kernel = _median_kernel(pool.unit[sample_rows(1024, len(pool.unit), seed)])
        self._standards = {"": _Standard(pool, pool, self._kernel, _moments(self._embeds, candidates))}
        if target is not None:
            rows = as_rows(target)
            if rows.shape[1] != self._embeds.shape[1]:
                message = f"the target has {rows.shape[1]} dimensions, the pool {self._embeds.shape[1]}"
                raise ShapeError(message)
            usable = np.flatnonzero(rows.valid(self._threads))
            some = _Set(rows.take(usable[sample_rows(sample, len(usable), seed)]), self._k, self._threads)
            self._standards["target_"] = _Standard(pool, some, self._kernel, _moments(rows, usable))

    def __call__(self, rows: Any) -> SubsetMetrics:
        """Measure a subset, integers (B,): a :class:`rsprune.Selection`, or row numbers of the pool, each once.

        Raises
        ------
        ArgumentError
            A row is not there, or is there twice, or fewer than ``k + 1`` are in the sample.
        InvalidRowError
            A row has no direction.
        """
        chosen = self._check(rows)
        inside = np.flatnonzero(np.isin(self._drawn, chosen, assume_unique=True))
        if len(inside) <= self._k:
            message = (
                f"{len(inside)} of {len(chosen)} selected rows are in the sample of {len(self._drawn)}; expected more "
                f"than k = {self._k}: select more, or raise sample"
            )
            raise ArgumentError(message)
        subset = _Set(self._pool.numbers[inside], self._k, self._threads)
        moments = _moments(self._embeds, chosen)
        within = mmd_within(subset, self._kernel)
        metrics: dict[str, Any] = {
            "rows": len(chosen),
            "knn_radius": float(distance(subset.edge).mean()),
            "vendi": effective_number(moments.second_moment_eigenvalues()),
            "balance": _evenness(np.bincount(self._clusters[chosen], minlength=self._centroids)),
            "duplicates": self._duplicates(chosen),
        }
        for prefix, standard in self._standards.items():
            nearest = standard.rows.nearest(subset)
            found = standard.measure(inside, within, nearest, moments, self._k)
            metrics |= {prefix + name: value for name, value in found.items()}
            if standard.rows is self._pool:
                reach = distance(nearest)
                metrics |= {"mean_nn_distance": float(reach.mean()), "covering_radius": float(reach.max())}
        if self._labels is not None:
            classes = np.bincount(self._labels[chosen][self._labels[chosen] >= 0], minlength=self._labels.max() + 1)
            classes = classes[np.bincount(self._labels[self._labels >= 0], minlength=len(classes)) > 0]
            metrics |= {"class_balance": _evenness(classes), "class_coverage": float((classes > 0).mean())}
        return SubsetMetrics(**metrics)

    def _check(self, rows: Any) -> NDArray[np.int64]:
        chosen = as_array("rows", rows)
        if chosen.ndim != 1 or chosen.dtype.kind not in "iu":
            message = f"rows of shape {chosen.shape} and {chosen.dtype}; expected row numbers (B,)"
            raise ArgumentError(message)
        chosen = np.sort(chosen.astype(np.int64))
        if len(chosen) < 2:
            message = f"the number of selected rows is {len(chosen)}; expected at least 2"
            raise EmptyInputError(message)
        if chosen[0] < 0 or chosen[-1] >= len(self.valid) or (np.diff(chosen) == 0).any():
            message = f"rows must be from 0 to {len(self.valid) - 1}, each once"
            raise ArgumentError(message)
        if not self.valid[chosen].all():
            row = int(chosen[~self.valid[chosen]][0])
            message = f"row {row} is NaN, infinite or all zero, and has no place in a subset"
            raise InvalidRowError(message)
        return chosen

    def _duplicates(self, chosen: NDArray[np.int64]) -> float:
        clusters = self._clusters[chosen]
        order = chosen[np.lexsort((chosen, clusters))]
        starts = np.concatenate([[0], np.cumsum(np.bincount(clusters, minlength=self._centroids))]).astype(np.int64)
        rows = self._embeds.on_host()
        earlier = _core.max_similarity_to_earlier(rows, order, starts, threads=self._threads)
        return float((earlier > np.float32(1 - self._eps)).mean())


class _Set:
    """Rows (n, D), and how far it is from each to its k-th nearest other one."""

    def __init__(self, rows: NDArray[Any], k: int, threads: int | None) -> None:
        if len(rows) <= k:
            message = f"k is {k}; expected less than the number of rows, {len(rows)}"
            raise ArgumentError(message)
        # Those of float64 are normalized before they are rounded, as the search does.
        self.numbers: NDArray[np.float32] = rows if rows.dtype == np.float32 else unit(rows).astype(np.float32)
        self.unit, self.rows, self._threads = unit(self.numbers), Rows([self.numbers]), threads
        _, similarity = _core.knn(self.rows, self.rows, k=k, exclude_self=True, threads=threads)
        self.edge: NDArray[np.float32] = similarity[:, -1]  # (n,): the similarity of that neighbor

    def nearest(self, other: _Set) -> NDArray[np.float32]:
        """The similarity of each row to the nearest of another set: float32 (n,)."""
        _, similarity = _core.knn(self.rows, other.rows, k=1, exclude_self=False, threads=self._threads)
        return similarity[:, 0]


class _Standard:
    """Rows that subsets of a pool are held against: those of the pool itself, or of a target."""

    def __init__(self, pool: _Set, rows: _Set, kernel: Kernel, moments: Statistics) -> None:
        self.rows, self.moments, one = rows, moments, np.ones((1, 1))
        # Of each row of the pool: the mean of the kernel to these rows, and the number of their balls that it lies in.
        self.kernel, self.balls = np.empty(len(pool.unit)), np.empty(len(pool.unit), np.int64)
        for block in row_blocks(len(pool.unit), len(rows.unit)):
            dots = pool.unit[block] @ rows.unit.T
            self.balls[block] = (dots.astype(np.float32) >= rows.edge).sum(axis=1)
            self.kernel[block] = kernel(dots, one, one).mean(axis=1)
        self.within = float(self.kernel.mean()) if rows is pool else mmd_within(rows, kernel)

    def measure(
        self, inside: NDArray[np.int64], within: float, nearest: NDArray[np.float32], moments: Statistics, k: int
    ) -> dict[str, float]:
        """Measure the subset of the rows ``inside`` of the pool.

        ``within`` is the mean of the kernel within the subset, ``nearest`` the similarity of each of these rows to the
        nearest in it, ``moments`` those of the whole subset.
        """
        return {
            "mmd": max(within + self.within - 2 * float(self.kernel[inside].mean()), 0.0),
            "frechet": frechet_distance(moments, self.moments),
            "coverage": float((nearest >= self.rows.edge).mean()),
            "density": float(self.balls[inside].mean() / k),
        }


def _median_kernel(rows: NDArray[np.float64]) -> Kernel:
    """The Gaussian kernel whose bandwidth is the median distance between unit rows."""
    squared = (2 - 2 * (rows @ rows.T))[np.triu_indices(len(rows), 1)]
    return gaussian(math.sqrt(max(float(np.median(squared)), np.finfo(float).tiny)))


def mmd_within(rows: _Set, kernel: Kernel) -> float:
    """The mean of the kernel over all pairs, a row with itself among them."""
    one = np.ones((1, 1))
    total = sum(kernel(rows.unit[i] @ rows.unit.T, one, one).sum() for i in row_blocks(len(rows.unit), len(rows.unit)))
    return float(total) / len(rows.unit) ** 2


def unit(rows: NDArray[Any]) -> NDArray[np.float64]:
    """Normalize rows, in float64."""
    wide: NDArray[np.float64] = rows.astype(np.float64)
    # Scaled by the largest entry first: squares could overflow.
    wide /= np.abs(wide).max(axis=1, keepdims=True)
    wide /= np.linalg.norm(wide, axis=1, keepdims=True)
    return wide


def distance(similarity: NDArray[np.float32]) -> NDArray[np.float64]:
    """Distances between unit vectors of these cosines: ``sqrt(2 - 2 s)``."""
    lengths: NDArray[np.float64] = np.sqrt((2 - 2 * similarity.astype(np.float64)).clip(min=0))
    return lengths


def _moments(embeds: Embeddings, rows: NDArray[np.int64]) -> Statistics:
    """Mean and covariance of some rows, normalized, block by block."""
    return Statistics.of_blocks(unit(embeds.take(rows[i : i + 1024])) for i in range(0, len(rows), 1024))


def _evenness(counts: NDArray[np.int64]) -> float:
    """Entropy of shares over its maximum; 1 for a single group."""
    if len(counts) < 2 or not counts.sum():
        return 1.0
    return math.log(effective_number(counts / counts.sum())) / math.log(len(counts))


def _check_labels(labels: Any, n: int) -> NDArray[np.int64]:
    array = check_column("labels", labels, n, kinds="iu", expected="integers")
    if (array < -1).any():
        message = f"a label is {array.min()}; expected 0 or more, or -1 for none"
        raise ArgumentError(message)
    return array.astype(np.int64)
