"""What a method is given, and what it gives back."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rsprune import _core
from rsprune.assignment import Assignment, assign
from rsprune.centroids import Centroids, fit_centroids
from rsprune.embeddings import Embeddings
from rsprune.errors import ArgumentError, BudgetError, MissingInputError

__all__ = ["Choice", "Clusters", "FittedClusters", "Inputs"]

# Where a pool has more rows, its clusters are fitted on a draw of this many, or of so many for each cluster.
FIT_ROWS, FIT_ROWS_A_CLUSTER = 200_000, 32


@dataclass(frozen=True, eq=False)
class Clusters:
    """All rows of a pool in groups.

    Attributes
    ----------
    labels
        int32 (N,): the group of each row; -1 for invalid rows.
    k
        Number of groups.
    similarity
        float32 (N,): the cosine to the centroid of the group, NaN for invalid rows; None for groups without centroids.
    centroids
        float32 (K, D) unit vectors; None for groups that are classes.
    """

    labels: NDArray[np.int32]
    k: int
    similarity: NDArray[np.float32] | None = None
    centroids: NDArray[np.float32] | None = None


@dataclass(frozen=True, eq=False)
class FittedClusters(Clusters):
    """All rows of a pool around centroids."""

    similarity: NDArray[np.float32]
    centroids: NDArray[np.float32]


@dataclass(frozen=True, eq=False)
class Choice:
    """What a method chose.

    Attributes
    ----------
    rows
        Row numbers, each once, in any order: valid rows, no more than the budget.
    clusters
        The groups that it worked with, if any; the pool counts as one group otherwise.
    phase
        uint8, aligned with ``rows``: why each is there (see :class:`rsprune.Selection`); None is all by quota.
    outside
        int64: rows that were left out of the domain, ascending, if any.
    """

    rows: NDArray[np.int64]
    clusters: Clusters | None = None
    phase: NDArray[np.uint8] | None = None
    outside: NDArray[np.int64] = field(default_factory=lambda: np.empty(0, np.int64))


@dataclass(frozen=True, eq=False)
class Inputs:
    """What a method is given, checked.

    Attributes
    ----------
    method
        The name of the method, for messages.
    n
        Number of rows, N.
    budget
        Rows to choose, at most as many as are valid; None where the method has a rule of its own.
    embeds
        The rows of the pool.
    references
        Embeddings of the reference images, by the name of their set.
    centroids
        Unit centroids to be used instead of fitted ones.
    entropy, score
        float64 (N,): bits; any score of which more is better. NaN marks an invalid row.
    labels
        int32 (N,): a class each row, -1 for an invalid one.
    assignment
        Clusters and similarities that are known already, instead of ``embeds``: those of ``centroids``.
    seed, threads
        Of every draw; of the core, None for all cores.
    """

    method: str
    n: int
    budget: int | None
    embeds: Embeddings | None = None
    references: Mapping[str, Embeddings] | None = None
    centroids: Centroids | None = None
    entropy: NDArray[np.float64] | None = None
    score: NDArray[np.float64] | None = None
    labels: NDArray[np.int32] | None = None
    assignment: Assignment | None = None
    seed: int = 0
    threads: int | None = None
    _clusters: dict[Any, FittedClusters] = field(default_factory=dict, repr=False)

    def need(self, name: str) -> Any:
        """The input called ``name``.

        Raises
        ------
        MissingInputError
            It was not given.
        """
        value = getattr(self, name)
        if value is None:
            raise MissingInputError(self.method, name)
        return value

    @property
    def rows_wanted(self) -> int:
        """The budget, which the candidates can meet."""
        budget = int(self.need("budget"))
        return min(budget, len(self.candidates))

    @property
    def reference(self) -> Embeddings | None:
        """All reference sets as one, in the order in which they were given."""
        if self.references is None:
            return None
        sets = list(self.references.values())
        return Embeddings((sum(one.shape[0] for one in sets), sets[0].shape[1]), [p for one in sets for p in one.parts])

    @cached_property
    def valid(self) -> NDArray[np.bool_]:
        """The rows that can be chosen, bool (N,): those with a direction, entropy, score, label, as far as given."""
        valid = np.ones(self.n, np.bool_)
        if self.embeds is not None:
            valid &= self.embeds.valid(self.threads)
        if self.assignment is not None:
            valid &= self.assignment.labels >= 0
        for values in (self.entropy, self.score):
            if values is not None:
                valid &= ~np.isnan(values)
        if self.labels is not None:
            valid &= self.labels >= 0
        return valid

    @cached_property
    def candidates(self) -> NDArray[np.int64]:
        """The valid rows, ascending.

        Raises
        ------
        BudgetError
            There are fewer than the budget.
        """
        rows = np.flatnonzero(self.valid).astype(np.int64)
        if self.budget is not None and self.budget > len(rows):
            message = (
                f"a budget of {self.budget} rows, but only {len(rows)} of {self.n} can be selected "
                f"({self.n - len(rows)} invalid); lower it"
            )
            raise BudgetError(message)
        return rows

    @cached_property
    def draws(self) -> NDArray[np.uint64]:
        """uint64 (N,): the draw ``hash64(seed, row)`` of each row, whatever the number of rows."""
        return _core.hash64(self.seed, 0, self.n)

    def clusters(
        self, k: int | None = None, *, default_k: int = 200, n_init: int = 1, max_iter: int = 100, tol: float = 1e-4
    ) -> FittedClusters:
        """The clusters of the pool: around the centroids that were given, or else around fitted ones.

        Parameters
        ----------
        k
            Fit so many clusters on the pool, even where centroids were given.
        default_k
            How many are fitted where neither ``k`` nor centroids were given; never more than half the valid rows.
        n_init, max_iter, tol
            See :func:`rsprune.fit_centroids`.

        Notes
        -----
        Spherical K-means with k-means++ starts. On unit rows the order within a cluster is that of Euclidean distance:
        ``|x - m|^2 = 1 + |m|^2 - 2 <x, m>``. A pool of more than 200,000 rows (32 a cluster, if that is more) is
        fitted on a draw of so many; every row is then assigned.
        """
        key = (k, default_k, n_init, max_iter, tol)
        if key not in self._clusters:
            embeds = self.need("embeds")
            if k is None and self.centroids is not None:
                fitted = self.centroids
            else:
                wanted = max(1, min(default_k, len(self.candidates) // 2)) if k is None else k
                fitted = self.fit(wanted, n_init=n_init, max_iter=max_iter, tol=tol)
            labels, similarity = assign(embeds, fitted, threads=self.threads)
            # A row may be invalid for another cause than its embedding.
            labels[~self.valid] = -1
            similarity[~self.valid] = np.nan
            self._clusters[key] = FittedClusters(labels, fitted.k, similarity, fitted.vectors)
        return self._clusters[key]

    def groups(self, k: int | None = None, *, default_k: int = 200) -> Clusters:
        """The classes of the rows if labels were given and ``k`` was not, or else :meth:`clusters`."""
        if k is None and self.labels is not None:
            labels = np.where(self.valid, self.labels, -1).astype(np.int32)
            return Clusters(labels, int(self.labels.max()) + 1)
        return self.clusters(k, default_k=default_k)

    def fit(self, k: int, *, n_init: int = 1, max_iter: int = 100, tol: float = 1e-4) -> Centroids:
        """``k`` centroids of the valid rows of the pool, or of a draw of them where it is large."""
        embeds = self.need("embeds")
        most = max(FIT_ROWS, FIT_ROWS_A_CLUSTER * k)
        rows = self.candidates
        if len(rows) > most:
            draws = self.draws[rows]
            rows = np.sort(rows[np.argsort(draws, kind="stable")[:most]])
        if k > len(rows):
            message = f"k is {k}, but there are only {len(rows)} valid rows to cluster; lower k"
            raise ArgumentError(message)
        taken = embeds if len(rows) == self.n else embeds.take(rows)
        return fit_centroids(taken, k, seed=self.seed, n_init=n_init, max_iter=max_iter, tol=tol, threads=self.threads)
