"""What a selection method is given, what it returns, and how the registry describes it."""

from __future__ import annotations

import contextlib
import inspect
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Literal, get_type_hints

import numpy as np
from numpy.typing import NDArray

from rsprune import _core
from rsprune._core import Rows
from rsprune.assignment import Assignment, assign, read_assignment
from rsprune.centroids import Centroids, as_core, check_order, fit_centroids
from rsprune.embeddings import Embeddings, as_rows
from rsprune.errors import ArgumentError, BudgetError, EmptyInputError, MissingInputError, ShapeError
from rsprune.selection import Origin, Selection, budget_rows
from rsprune.validation import check_annotated, check_column, check_integer, check_threads

__all__ = ["Budget", "Clustering", "Partition", "Picked", "Pool", "Strategy", "strategy"]

Budget = Literal["required", "optional", "none"]

#: The inputs of :func:`rsprune.strategies.select` that a method may use.
INPUTS = ("embeds", "assignment", "centroids", "reference", "entropy", "score", "labels")

# A pool of more rows than FIT_ROWS, and than FIT_ROWS_PER_CLUSTER for each cluster, is clustered by a sample.
FIT_ROWS, FIT_ROWS_PER_CLUSTER = 200_000, 32


@dataclass(frozen=True, eq=False)
class Partition:
    """The rows of a pool in disjoint groups."""

    labels: NDArray[np.int32]  # (N,): the group of each row; -1 for invalid rows
    k: int  # number of groups
    #: float32 (N,): the cosine to the centroid of the group, NaN for invalid rows; None for groups without centroids.
    similarity: NDArray[np.float32] | None = None
    centroids: NDArray[np.float32] | None = None  # (K, D) unit vectors; None for groups that are classes


@dataclass(frozen=True, eq=False)
class Clustering(Partition):
    """The rows of a pool around centroids."""

    similarity: NDArray[np.float32]
    centroids: NDArray[np.float32]


@dataclass(frozen=True, eq=False)
class Picked:
    """The rows that a method picked."""

    rows: NDArray[np.int64]  # row numbers, each once, in any order: valid rows, no more than the budget
    partition: Partition | None = None  # the groups that it worked with; otherwise the pool counts as one group
    #: uint8, aligned with ``rows``: why each was picked (see :class:`rsprune.Selection`); None for all by quota.
    phase: NDArray[np.uint8] | None = None


@dataclass(frozen=True, eq=False)
class Pool:
    """The rows that a method picks from, and everything known about them, checked."""

    method: str  # the name of the method, for messages
    n: int  # number of rows, N
    requested: int | None  # the budget, or None where the method has a rule of its own
    embeds: Embeddings | None = None  # of the rows
    assignment: Assignment | None = None  # clusters and similarities that are known already; stands in for embeds
    centroids: Centroids | None = None  # unit centroids to use instead of fitted ones
    reference: Mapping[str, Embeddings] | None = None  # of the reference images, by the name of their set
    entropy: NDArray[np.float64] | None = None  # (N,): bits; NaN marks an invalid row
    score: NDArray[np.float64] | None = None  # (N,): any score of which more is better; NaN marks an invalid row
    labels: NDArray[np.int32] | None = None  # (N,): a class for each row, -1 for an invalid one
    seed: int = 0
    threads: int | None = None  # None for all cores
    origin: Origin | None = None  # of the rows, where they are some of many; None where they are all
    _clusterings: dict[Any, Clustering] = field(default_factory=dict, repr=False)
    _used: set[str] = field(default_factory=set, repr=False)

    def __getattribute__(self, name: str) -> Any:
        if name in INPUTS:
            object.__getattribute__(self, "_used").add(name)
        return object.__getattribute__(self, name)

    @property
    def unused(self) -> list[str]:
        """The inputs that were given and have not been looked at, embeddings excepted."""
        given = vars(self)
        return [name for name in INPUTS[1:] if given[name] is not None and name not in self._used]

    @classmethod
    def read(
        cls,
        method: Strategy,
        inputs: Mapping[str, Any],
        budget: float | None,
        seed: int,
        threads: int | None,
        origin: Origin | None = None,
    ) -> Pool:
        """Check the inputs of a method, by their names in :data:`INPUTS`; None stands for one that is not given."""
        given = {name: value for name, value in inputs.items() if value is not None}
        method.check_inputs(given)
        read: dict[str, Any] = {}
        lengths: dict[str, int] = {}
        if "embeds" in given:
            if "centroids" in given:
                check_order(given["embeds"], given["centroids"])
            read["embeds"] = as_rows(given["embeds"])
            lengths["embeds"] = read["embeds"].shape[0]
        if "centroids" in given:
            read["centroids"] = given["centroids"]
            if isinstance(read["centroids"], (str, os.PathLike)):
                read["centroids"] = Centroids.load(read["centroids"])
            if not isinstance(read["centroids"], Centroids):
                read["centroids"] = Centroids(as_core(given["centroids"], rows=lengths.get("embeds")).vectors())
        if "assignment" in given:
            labels, similarity = given["assignment"]
            read["assignment"] = read_assignment(labels, similarity, read["centroids"].k)
            lengths["assignment"] = len(read["assignment"].labels)
        for name, parse in (("entropy", _read_numbers), ("score", _read_numbers), ("labels", _read_labels)):
            if name in given:
                read[name] = parse(name, given[name])
                lengths[name] = len(read[name])
        if "reference" in given:
            read["reference"] = _read_sets(given["reference"], read.get("embeds"))
        if len(set(lengths.values())) != 1:
            message = f"inputs of different numbers of rows: {', '.join(f'{name} {n}' for name, n in lengths.items())}"
            raise ShapeError(message)
        n = next(iter(lengths.values()))
        if n == 0:
            message = "nothing to select from: 0 rows"
            raise EmptyInputError(message)
        requested = None if budget is None else budget_rows(budget, n)
        seed, threads = check_integer("seed", seed, minimum=0), check_threads(threads)
        return cls(method.name, n, requested, **read, seed=seed, threads=threads, origin=origin)

    def require(self, name: str) -> Any:
        """Return the input of this name; a :class:`MissingInputError` if it was not given."""
        value = getattr(self, name)
        if value is None:
            raise MissingInputError(self.method, name)
        return value

    @property
    def budget(self) -> int:
        """The number of rows to pick, at most as many as are valid.

        None given is a :class:`MissingInputError`, fewer valid rows are a :class:`BudgetError`.
        """
        if self.requested is None:
            raise MissingInputError(self.method, "budget")
        return min(self.requested, len(self.candidates))

    @property
    def references(self) -> Embeddings:
        """All reference sets as one, in the order in which they were given."""
        sets = list(self.require("reference").values())
        return Embeddings((sum(one.shape[0] for one in sets), sets[0].shape[1]), [p for one in sets for p in one.parts])

    @cached_property
    def known(self) -> NDArray[np.bool_]:
        """The rows with an entropy, score and label, as far as these were given, bool (N,)."""
        known = np.ones(self.n, np.bool_)
        for name in ("entropy", "score", "labels"):
            if (values := vars(self)[name]) is not None:
                of_this = values >= 0 if name == "labels" else ~np.isnan(values)
                if not of_this.all():
                    known &= of_this
                    self._used.add(name)
        return known

    @cached_property
    def valid(self) -> NDArray[np.bool_]:
        """The rows that can be picked, bool (N,): those that are :attr:`known` and have a direction."""
        return self.known if self.embeds is None else self.known & self.embeds.valid(self.threads)

    @cached_property
    def candidates(self) -> NDArray[np.int64]:
        """The valid rows, ascending; fewer than the budget are a :class:`BudgetError`."""
        rows = np.flatnonzero(self.valid).astype(np.int64)
        if self.requested is not None and self.requested > len(rows):
            message = (
                f"a budget of {self.requested} rows, but only {len(rows)} of {self.n} can be selected "
                f"({self.n - len(rows)} invalid); lower it"
            )
            raise BudgetError(message)
        return rows

    @cached_property
    def random_keys(self) -> NDArray[np.uint64]:
        """uint64 (N,): ``hash64(seed, number)`` of each row, which does not depend on the number of rows."""
        if self.origin is None:
            return _core.hash64(self.seed, 0, self.n)
        return _core.hash64(self.seed, 0, int(self.origin.numbers[-1]) + 1)[self.origin.numbers]

    def cluster(
        self, k: int | None = None, *, default_k: int = 200, n_init: int = 1, max_iter: int = 100, tol: float = 1e-4
    ) -> Clustering:
        """Cluster the pool: around the centroids that were given, or else around fitted ones.

        With ``k`` so many clusters are fitted even where centroids were given; with neither ``default_k``, never more
        than half the valid rows. For the other options see :func:`rsprune.fit_centroids`.

        Spherical K-means with k-means++ starts. On unit rows the order within a cluster is that of Euclidean distance:
        ``|x - m|^2 = 1 + |m|^2 - 2 <x, m>``. A pool of more than 200,000 rows (32 for each cluster, if that is more) is
        fitted on a random sample of that size; every row is then assigned.
        """
        key = (k, default_k, n_init, max_iter, tol)
        if key not in self._clusterings:
            self.require("embeds")
            if k is None and self.centroids is not None:
                fitted = self.centroids
            else:
                wanted = max(1, min(default_k, len(self.candidates) // 2)) if k is None else k
                fitted = self.fit(wanted, n_init=n_init, max_iter=max_iter, tol=tol)
            self._clusterings[key] = self.around(fitted)
        return self._clusterings[key]

    def around(self, centroids: Centroids) -> Clustering:
        """Assign the rows of the pool to centroids."""
        labels, similarity = assign(self.require("embeds"), centroids, threads=self.threads)
        # A row may be invalid for another reason than its embedding.
        labels[~self.valid] = -1
        similarity[~self.valid] = np.nan
        return Clustering(labels, centroids.k, similarity, centroids.vectors)

    def partition(self, k: int | None = None, *, default_k: int = 200) -> Partition:
        """Partition the pool by class where labels were given and ``k`` was not, or else :meth:`cluster` it."""
        if k is None and self.labels is not None:
            labels = np.where(self.valid, self.labels, -1).astype(np.int32)
            return Partition(labels, int(self.labels.max()) + 1)
        return self.cluster(k, default_k=default_k)

    def searchable_rows(self, rows: NDArray[np.int64] | None = None) -> tuple[Rows, NDArray[np.int64]]:
        """Return the candidates, or the given ones of them, to be searched for neighbors, and the number of each.

        Rows without a direction are never found, so they may stay where that saves a copy.
        """
        embeds = self.require("embeds")
        if rows is None and np.array_equal(embeds.valid(self.threads), self.valid):
            return embeds.on_host(), np.arange(self.n)
        wanted = self.candidates if rows is None else rows
        return Rows([embeds.take(wanted)]), wanted

    def sizes(self, partition: Partition) -> NDArray[np.int64]:
        """Count the valid rows of each group: int64 (K,)."""
        labels = partition.labels[self.candidates]
        return np.bincount(labels[labels >= 0], minlength=partition.k)

    def whole(self) -> Partition:
        """Return all valid rows as one group."""
        return Partition(np.where(self.valid, 0, -1).astype(np.int32), 1)

    def fit(self, k: int, *, n_init: int = 1, max_iter: int = 100, tol: float = 1e-4) -> Centroids:
        """Fit ``k`` centroids on the valid rows of the pool, or on a random sample of them where it is large."""
        embeds = self.require("embeds")
        limit = max(FIT_ROWS, FIT_ROWS_PER_CLUSTER * k)
        rows = self.candidates
        if len(rows) > limit:
            rows = np.sort(rows[np.argsort(self.random_keys[rows], kind="stable")[:limit]])
        if k > len(rows):
            message = f"k is {k}, but there are only {len(rows)} valid rows to cluster; lower k"
            raise ArgumentError(message)
        taken = embeds if len(rows) == self.n else embeds.take(rows)
        return fit_centroids(taken, k, seed=self.seed, n_init=n_init, max_iter=max_iter, tol=tol, threads=self.threads)


class _PoolReached(BaseException):
    """A method has looked at the pool."""


class _NoPool:
    """Stands in for the pool as long as a method checks its options."""

    def __getattribute__(self, name: str) -> Any:
        raise _PoolReached


@dataclass(frozen=True)
class Strategy:
    """A selection method as the registry knows it; made by :func:`strategy`."""

    #: ``run(pool, **options)`` returns what it picked, or a whole :class:`rsprune.Selection`. Its keyword-only
    #: parameters are the options of the method.
    run: Callable[..., Picked | Selection]
    needs: tuple[str, ...] = ()  # the inputs, from INPUTS, without which it cannot work; an option may need more
    #: The inputs that it uses where they are given. Any other input is refused, except ``embeds``, which say what rows
    #: there are and which of them are valid.
    uses: tuple[str, ...] = ()
    budget: Budget = "required"  # whether it needs one, can do without, or picks as many rows as its own rule says
    #: Whether it selects by quota and fill from an assignment to reference centroids. Such a method can be given the
    #: assignment instead of the embeddings, and its Selection tells where the quota of each cluster and the fill end.
    quotas: bool = False

    @property
    def name(self) -> str:
        """Name of the method."""
        return self.run.__name__

    @property
    def summary(self) -> str:
        """What the method does, in one line."""
        return (inspect.getdoc(self.run) or "").partition("\n")[0]

    @cached_property
    def options(self) -> Mapping[str, Any]:
        """The options of the method and their defaults."""
        parameters = inspect.signature(self.run).parameters.values()
        return {one.name: one.default for one in parameters if one.kind is one.KEYWORD_ONLY}

    def usable(self, inputs: Mapping[str, Any]) -> dict[str, Any]:
        """Return those of the inputs that the method needs or uses, for callers who have more than that.

        An assignment stands in for the embeddings where both are there and it suffices.
        """
        names = {"embeds", *self.needs, *self.uses}
        if self.quotas and inputs.get("assignment") is not None:
            names = names - {"embeds"} | {"assignment"}
        return {name: value for name, value in inputs.items() if name in names}

    def check(self, options: Mapping[str, Any]) -> None:
        """Fail when the method does not have one of ``options``, or does not take its value, as far as no row tells.

        A method checks its options before it looks at the pool; here it is run on none.
        """
        if unknown := sorted(set(options) - set(self.options)):
            known = ", ".join(self.options) or "none at all"
            message = f"the strategy {self.name!r} has no option {unknown[0]!r}; it has {known}"
            raise ArgumentError(message)
        for option, value in options.items():
            check_annotated(option, value, self.annotations.get(option))
        with contextlib.suppress(_PoolReached):
            self.run(_NoPool(), **options)

    @cached_property
    def annotations(self) -> Mapping[str, Any]:
        """The types of the options."""
        return get_type_hints(self.run)

    def check_inputs(self, given: Mapping[str, Any]) -> None:
        """Raise an error when an input is missing, or when one is given that the method does not use."""
        known = {"embeds", *self.needs, *self.uses} | ({"assignment"} if self.quotas else set())
        if unused := [name for name in given if name not in known]:
            message = f"the strategy {self.name!r} does not use {unused[0]}=: leave it out"
            raise ArgumentError(message)
        # Centroids can be fitted on reference images.
        stand_ins = {"embeds": "assignment"} | ({} if "assignment" in given else {"centroids": "reference"})
        for need in self.needs:
            if need not in given and stand_ins.get(need) not in given:
                raise MissingInputError(self.name, need)
        if not given.keys() - {"centroids", "reference"}:
            raise MissingInputError(self.name, "embeds")
        if "assignment" in given and "centroids" not in given:
            raise MissingInputError(self.name, "centroids")

    def __call__(self, pool: Pool, options: Mapping[str, Any]) -> Picked | Selection:
        """Run the method."""
        if self.budget == "required" and pool.requested is None:
            message = f"the strategy {self.name!r} needs a budget: a number of rows, or a fraction between 0 and 1"
            raise BudgetError(message)
        if self.budget == "none" and pool.requested is not None:
            message = f"the strategy {self.name!r} has no budget: its own rule says how many rows it keeps; pass None"
            raise BudgetError(message)
        return self.run(pool, **options)


def strategy(
    *, needs: tuple[str, ...] = (), uses: tuple[str, ...] = (), budget: Budget = "required", quotas: bool = False
) -> Callable[[Callable[..., Picked | Selection]], Strategy]:
    """Make a :class:`Strategy` of a function ``f(pool, *, option=default, ...) -> Picked``.

    Raises
    ------
    ArgumentError
        ``needs`` or ``uses`` holds a name that is no input.
    """
    for name in (*needs, *uses):
        if name not in INPUTS:
            message = f"{name!r} is no input of a strategy; expected some of {', '.join(INPUTS)}"
            raise ArgumentError(message)
    return lambda run: Strategy(run, tuple(needs), tuple(uses), budget, quotas)


def _read_sets(reference: Any, pool: Embeddings | None) -> dict[str, Embeddings]:
    """Read one or several sets of reference embeddings, of the dimension of the pool."""
    named = reference if isinstance(reference, Mapping) else {"reference": reference}
    sets = {str(name): as_rows(embeds) for name, embeds in named.items()}
    if not sets:
        message = "reference is a mapping of no sets; expected at least one"
        raise EmptyInputError(message)
    dim = (pool or next(iter(sets.values()))).shape[1]
    for name, one in sets.items():
        if one.shape[1] != dim:
            message = (
                f"the reference set {name!r} has {one.shape[1]} dimensions, expected {dim}: use one encoder for all"
            )
            raise ShapeError(message)
    return sets


def _read_numbers(name: str, values: Any) -> NDArray[np.float64]:
    # -0.0 and 0.0 are one score.
    numbers: NDArray[np.float64] = check_column(name, values).astype(np.float64) + 0.0
    if np.isinf(numbers).any():
        message = f"{name} holds infinity in row {int(np.flatnonzero(np.isinf(numbers))[0])}; expected finite numbers"
        raise ArgumentError(message)
    return numbers


def _read_labels(name: str, values: Any) -> NDArray[np.int32]:
    labels = check_column(name, values, kinds="iu", expected="integers")
    wrong = np.flatnonzero((labels < -1) | (labels >= 2**31 - 1))
    if wrong.size:
        message = f"row {int(wrong[0])} has label {labels[wrong[0]]}; expected 0 or more, or -1 for an invalid row"
        raise ArgumentError(message)
    return labels.astype(np.int32)
