"""Mean and covariance of a set of features, and the Frechet distance between two sets."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rsprune.errors import EmptyInputError, FormatError, ShapeError
from rsprune.evaluation.features import blocks, check_same_dim
from rsprune.sources.filesystem import check_regular
from rsprune.tensors import read_tensors, write_tensors

__all__ = ["Statistics", "frechet_distance"]


@dataclass(frozen=True, eq=False, repr=False)
class Statistics:
    """Mean and covariance of N features of D dimensions, in float64.

    Fewer than two rows have no covariance, which is an :class:`EmptyInputError`; mean and covariance that do not fit
    together are a :class:`ShapeError`.
    """

    n: int  # number of rows, at least 2
    mean: NDArray[np.float64]  # (D,)
    covariance: NDArray[np.float64]  # (D, D), divided by N - 1
    meta: Mapping[str, Any] = field(default_factory=dict)  # provenance of the features: JSON values

    def __post_init__(self) -> None:
        if self.n < 2:
            message = f"{self.n} features have no covariance; expected at least 2"
            raise EmptyInputError(message)
        if self.mean.ndim != 1 or self.covariance.shape != (len(self.mean),) * 2:
            message = f"a mean of shape {self.mean.shape} and a covariance of shape {self.covariance.shape}"
            raise ShapeError(message)

    @classmethod
    def of(cls, features: Any, meta: Mapping[str, Any] | None = None) -> Statistics:
        """Read (N, D) features block by block; see :func:`rsprune.embeddings.as_rows`."""
        return cls.of_blocks(blocks(features), meta)

    @classmethod
    def of_blocks(cls, parts: Iterable[NDArray[np.float64]], meta: Mapping[str, Any] | None = None) -> Statistics:
        """Read features as they come: float64 (n, D) at a time.

        Blocks are centred before they are summed and joined pairwise (Chan et al., 1983), so that a large mean costs no
        digits. The last bits depend on where the blocks are cut.
        """
        n, mean, scatter = 0, np.zeros(1), np.zeros((1, 1))
        few: list[NDArray[np.float64]] = []
        for block in parts:
            few = [*few, block] if n + len(block) <= block.shape[1] else []
            rows, middle = len(block), block.mean(axis=0)
            centred = block - middle
            step = middle - mean
            scatter = scatter + centred.T @ centred + np.outer(step, step * (n * rows / (n + rows)))
            mean = mean + step * (rows / (n + rows))
            n += rows
        made = cls(n, mean, scatter / (n - 1 or 1), dict(meta or {}))
        if few:
            # The factor is known: no decomposition of a large matrix of low rank is needed.
            made.__dict__["factor"] = (np.concatenate(few) - mean).T / np.sqrt(n - 1)
        return made

    @property
    def dim(self) -> int:
        """Number of dimensions, D."""
        return len(self.mean)

    @property
    def rank(self) -> int:
        """The largest rank that the covariance of N rows can have."""
        return min(self.n - 1, self.dim)

    @cached_property
    def factor(self) -> NDArray[np.float64]:
        """F such that ``F @ F.T`` is the covariance: float64 (D, min(N, D)) at most."""
        values, vectors = np.linalg.eigh(self.covariance)
        first = self.dim - self.rank
        factor: NDArray[np.float64] = vectors[:, first:] * np.sqrt(values[first:].clip(min=0))
        return factor

    def second_moment_eigenvalues(self) -> NDArray[np.float64]:
        """Eigenvalues of ``X^T X / N``, those that are not zero by its rank at least, from the smaller Gram matrix.

        Of unit rows X they sum to 1 and are the eigenvalues of the cosines over N.
        """
        if self.rank == self.dim:
            moments: NDArray[Any] = self.covariance * ((self.n - 1) / self.n) + np.outer(self.mean, self.mean)
        else:
            root = np.column_stack([self.factor * np.sqrt((self.n - 1) / self.n), self.mean])
            moments = root.T @ root if root.shape[1] < self.dim else root @ root.T
        eigenvalues: NDArray[np.float64] = np.linalg.eigvalsh(moments)
        return eigenvalues

    def __repr__(self) -> str:
        return f"Statistics(n={self.n}, dim={self.dim})"

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write one safetensors file, atomically; ``meta`` that JSON cannot express is an ``ArgumentError``."""
        tensors = {"mean": self.mean, "covariance": self.covariance}
        write_tensors(path, "statistics", tensors, {"n": self.n, "meta": dict(self.meta)})

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Statistics:
        """Read what :meth:`save` wrote; anything else is a ``FormatError``."""
        path = Path(path)
        check_regular(path)  # raises the OSError of the system, whatever safetensors would make of it
        tensors, head = read_tensors(path, "statistics", ["mean", "covariance"])
        try:
            return cls(int(head["n"]), tensors["mean"], tensors["covariance"], head["meta"])
        except (KeyError, TypeError, ValueError) as error:
            message = f"{path}: not statistics that rsprune saved: {error}"
            raise FormatError(message) from error


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
