"""Stage II: the rows that a budget keeps."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple, overload

import numpy as np
from numpy.typing import NDArray

from rsprune import _core
from rsprune.assignment import Assignment, assign, read_assignment
from rsprune.centroids import as_core, check_order, swapped_hint
from rsprune.embeddings import Embeddings, as_rows
from rsprune.errors import ArgumentError, BudgetError, DtypeError, ShapeError, as_html
from rsprune.io import atomic_write
from rsprune.left_out import find_left_out, read_excluded
from rsprune.options import keywords
from rsprune.quotas import GroupCounts, Groups, Part, read_groups, select_in_groups
from rsprune.select_options import AssignedSelectOptions, Fill, SelectOptions, Within
from rsprune.validation import (
    budget_rows,
    check_column,
    check_integer,
    check_number,
    check_row_numbers,
    check_threads,
    check_weights,
    warn_caller,
)

__all__ = [
    "COUNTS",
    "FILL",
    "PRESELECTED",
    "QUOTA",
    "AssignedSelectOptions",
    "Fill",
    "Origin",
    "Request",
    "SelectOptions",
    "Selection",
    "Within",
    "budget_rows",
    "check_min_similarity",
    "choose",
    "read_request",
    "select",
    "select_assigned",
]

# Values of Selection.phase.
QUOTA, FILL, PRESELECTED = 0, 1, 2

# Float32 holds every integer from -MAX_EXACT to MAX_EXACT.
MAX_EXACT = 2**24

# The columns of Selection.counts.
COUNTS = np.dtype([("pool", np.int64), ("quota", np.int64), ("fill", np.int64), ("preselected", np.int64)])


@dataclass(frozen=True, eq=False, repr=False)
class Selection:
    """Selected rows; a sequence of ints, so that ``torch.utils.data.Subset(dataset, selection)`` works.

    Attributes
    ----------
    indices
        int64 (B,): row numbers, ascending.
    cluster, similarity, phase
        Aligned with ``indices``: int32 cluster, float32 similarity to its centroid, uint8 reason (0 by quota, 1 by
        fill, 2 preselected).
    counts
        Structured array (K,), a row a cluster: ``pool`` (rows to select from, the preselected included), and how many
        were selected by ``quota``, by ``fill`` and as ``preselected``.
    invalid
        int64: rows left out because they have no direction, label or similarity, ascending.
    budget
        Rows that were asked for.
    k
        Number of clusters.
    total
        Rows that were there, N.
    duplicates
        int64: rows left out as near-duplicates, ascending.
    outside
        int64: rows left out because they are less similar than ``min_similarity``, ascending.
    groups
        For each group by its name: the rows to select from, its share of the budget, and the rows selected. Empty
        without groups.
    keys
        The keys of the rows, aligned with ``indices``; None if the rows were given none.
    leaks, surplus
        int64: rows left out because they resemble an image of the evaluation set, or because their group has more
        than ``max_per_group``, ascending.
    """

    indices: NDArray[np.int64]
    cluster: NDArray[np.int32]
    similarity: NDArray[np.float32]
    phase: NDArray[np.uint8]
    counts: NDArray[np.void]
    invalid: NDArray[np.int64]
    budget: int
    k: int
    total: int
    duplicates: NDArray[np.int64] = field(default_factory=lambda: np.empty(0, np.int64))
    outside: NDArray[np.int64] = field(default_factory=lambda: np.empty(0, np.int64))
    groups: Mapping[Any, GroupCounts] = field(default_factory=dict)
    keys: Sequence[str] | None = None
    leaks: NDArray[np.int64] = field(default_factory=lambda: np.empty(0, np.int64))
    surplus: NDArray[np.int64] = field(default_factory=lambda: np.empty(0, np.int64))

    def __len__(self) -> int:
        return len(self.indices)

    def __iter__(self) -> Iterator[int]:
        return iter(self.indices.tolist())

    @overload
    def __getitem__(self, item: int) -> int: ...
    @overload
    def __getitem__(self, item: slice) -> NDArray[np.int64]: ...
    def __getitem__(self, item: int | slice) -> int | NDArray[np.int64]:
        return self.indices[item] if isinstance(item, slice) else int(self.indices[item])

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> NDArray[Any]:
        return np.array(self.indices, dtype=dtype) if copy else np.asarray(self.indices, dtype=dtype)

    def __repr__(self) -> str:
        return f"Selection({self._headline()})"

    def _repr_html_(self) -> str:
        return as_html(self.summary())

    def summary(self) -> str:
        """Say in a few lines of text what was selected."""
        pool = self.counts["pool"]
        selected = self.counts["quota"] + self.counts["fill"] + self.counts["preselected"]
        lines = [
            self._headline(),
            f"clusters: {self.k}, of which {np.count_nonzero(pool == 0)} empty and "
            f"{np.count_nonzero((pool > 0) & (selected == 0))} without a selected row",
        ]
        if len(self):
            lines.append(f"selected a cluster: {selected.min()} to {selected.max()}, median {np.median(selected):g}")
        if len(self.duplicates):
            lines.append(f"near-duplicates left out: {len(self.duplicates)}")
        if len(self.leaks):
            lines.append(f"too similar to the evaluation set: {len(self.leaks)}")
        if len(self.surplus):
            lines.append(f"beyond the maximum of their group: {len(self.surplus)}")
        if len(self.outside):
            lines.append(f"out of the domain: {len(self.outside)}")
        if self.groups:
            kept = (f"{name} {group.selected} of {group.pool}" for name, group in self.groups.items())
            lines.append(f"selected a group: {', '.join(kept)}")
        # A strategy without centroids has no similarities.
        if len(self) and not np.isnan(self.similarity).all():
            lines.append(
                f"similarity: {self.similarity.min():.4f} to {self.similarity.max():.4f}, "
                f"mean {self.similarity.mean(dtype=np.float64):.4f}"
            )
        return "\n".join(lines)

    def to_parquet(self, path: str | os.PathLike[str], provenance: Mapping[str, Any] | None = None) -> None:
        """Write a table of key (where there are some), row, cluster, similarity and phase.

        It is written beside ``path`` and then renamed.

        Its metadata under ``rsprune`` holds version, budget, k, total, the number of invalid rows, of those out of the
        domain and by group, where there are such, and what ``provenance`` adds, as JSON.
        """
        import pyarrow as pa
        import pyarrow.parquet as pq

        about = {"rsprune": _core.VERSION, "budget": self.budget, "k": self.k, "total": self.total}
        about |= {"invalid": len(self.invalid)} | ({"outside": len(self.outside)} if len(self.outside) else {})
        if self.groups:
            about["groups"] = {str(name): group._asdict() for name, group in self.groups.items()}
        about |= provenance or {}
        columns: dict[str, Any] = {} if self.keys is None else {"key": pa.array(self.keys, pa.string())}
        columns |= {"row": self.indices, "cluster": self.cluster, "similarity": self.similarity, "phase": self.phase}
        table = pa.table(columns, metadata={"rsprune": json.dumps(about)})
        with atomic_write(path) as beside:
            pq.write_table(table, beside, write_page_checksum=True)

    def _headline(self) -> str:
        by = {name: int(self.counts[name].sum()) for name in ("quota", "fill", "preselected")}
        text = f"{len(self)} of {self.total} rows, k={self.k}: {by['quota']} by quota, {by['fill']} by fill"
        text += f", {by['preselected']} preselected" if by["preselected"] else ""
        text += f", {len(self.invalid)} invalid" if len(self.invalid) else ""
        return text + (f", budget {self.budget}" if self.budget != len(self) else "")


@keywords(SelectOptions)
def select(
    embeds: Any,
    centroids: Any,
    budget: float,
    *,
    keys: Any = None,
    score: Any = None,
    seed: int = 0,
    threads: int | None = None,
    options: SelectOptions,
) -> Selection:
    """Select a budget of rows, balanced over the clusters around reference centroids.

    :func:`assign` followed by :func:`select_assigned`; the embeddings are read once.

    Parameters
    ----------
    embeds, centroids
        See :func:`assign`.
    budget, keys, score, seed, threads
        See :func:`select_assigned`.

    Returns
    -------
    Selection
        Exactly ``budget`` rows, ascending.

    Raises
    ------
    RspruneError
        See :func:`assign` and :func:`select_assigned`.
    """
    check_order(embeds, centroids)
    rows = as_rows(embeds)
    # Everything that can be checked is checked before the rows are read.
    names = read_keys(keys, rows.shape[0])
    request = read_request(rows.shape[0], budget, options, names, score=score, seed=seed, threads=threads)
    core = as_core(centroids, rows=rows.shape[0])
    assignment = assign(
        embeds, core, normalize=options.normalize, on_invalid=options.on_invalid, threads=request.threads
    )
    return with_keys(choose(request, assignment, core.shape[0], rows), names)


@keywords(AssignedSelectOptions)
def select_assigned(
    labels: Any,
    similarity: Any,
    budget: float,
    *,
    k: int,
    keys: Any = None,
    score: Any = None,
    seed: int = 0,
    threads: int | None = None,
    options: AssignedSelectOptions,
) -> Selection:
    """Select a budget of rows whose clusters and similarities are known.

    Every cluster keeps its best ``min(floor(B / K), pool)`` rows by quota. What is left of B, because K does not
    divide it or because clusters are small, goes to the best of all remaining rows (RS-Prune, Sec. 3.3). Ties go to
    the lowest row. The time taken grows linearly with N.

    Parameters
    ----------
    labels
        Integers (N,): the cluster of each row, 0 to ``k - 1``, or -1 for an invalid row.
    similarity
        Floating numbers (N,), rounded to float32: the similarity of each row to its centroid, or any other score of
        which more is better. NaN marks an invalid row.
    budget
        Rows to select, B: an integer, or a fraction in (0, 1) of all N rows (invalid and excluded ones too), rounded
        down.
    k
        Number of clusters, K.
    keys
        Strings (N,), the names of the rows: the selection has those of its own.
    score
        Floating numbers (N,), more is better, NaN for invalid rows: they rank the rows instead of the similarity.
        Float64 keeps its order to the last bit.
    seed
        Seed of ``within="random"``.
    threads
        Number of threads, all cores by default. Results do not depend on it.

    Returns
    -------
    Selection
        Exactly B rows, ascending.

    Raises
    ------
    BudgetError
        The budget is no positive number of rows or fraction, or cannot be met; quotas do not add up to it, or a group
        cannot meet its own.
    ArgumentError
        An option, label or row number is out of range; rows are both excluded (or out of the domain) and preselected;
        more than 2^25 distinct scores that float32 does not hold, or any such score with ``fill="zscore"``.
    InvalidRowError
        A preselected row is invalid.
    ShapeError, DtypeError, EmptyInputError
        ``labels`` and ``similarity`` are not two arrays (N,) of integers and floating numbers, or ``score``, ``keys``
        or ``groups`` is not (N,).
    """
    k = check_integer("k", k)
    assignment = read_assignment(labels, similarity, k)
    names = read_keys(keys, len(assignment.labels))
    request = read_request(len(assignment.labels), budget, options, names, score=score, seed=seed, threads=threads)
    return with_keys(choose(request, assignment, k), names)


def read_keys(keys: Any, n: int) -> NDArray[np.object_] | None:
    """Check the names of ``n`` rows; None stands for none."""
    if keys is None:
        return None
    names = np.asarray(keys, dtype=object)
    if names.shape != (n,):
        message = f"keys of shape {names.shape} for {n} rows; expected ({n},)"
        raise ShapeError(message)
    if n and not isinstance(names[0], str):
        message = f"keys of {type(names[0]).__name__}; expected strings"
        raise DtypeError(message)
    return names


def with_keys(selection: Selection, names: NDArray[np.object_] | None) -> Selection:
    """Return a selection with the names of its rows, of those of all rows."""
    return selection if names is None else replace(selection, keys=names[selection.indices].tolist())


class Origin(NamedTuple):
    """What rows come from that are some of many, those on which a choice from all can fall."""

    numbers: NDArray[np.int64]  # (N,): their numbers among all, ascending, by which is drawn
    pools: NDArray[np.int64]  # (K,): all rows of each cluster


class Request(NamedTuple):
    """A selection that was asked for, its arguments checked and read for N rows."""

    n: int  # number of rows
    budget: int  # how many of them to select
    options: AssignedSelectOptions  # as they were given
    ranks: NDArray[np.float32] | None  # (N,): ranks the rows instead of their similarity; None without a score
    groups: Groups | None  # the group of each row
    excluded: NDArray[np.int64]  # row numbers
    preselected: NDArray[np.int64]
    seed: int
    threads: int | None
    origin: Origin | None = None  # None where the rows are all there are


def read_request(
    n: int,
    budget: float,
    options: AssignedSelectOptions,
    names: NDArray[np.object_] | None = None,
    *,
    score: Any,
    seed: int,
    threads: int | None,
) -> Request:
    """Check the arguments of a selection from ``n`` rows; see :func:`select_assigned` for them and the errors.

    ``names`` are the keys of the rows, if they have any.
    """
    return Request(
        n,
        budget_rows(budget, n),
        options,
        None if score is None else _float32_ranks(score, n, options.fill),
        None if options.groups is None else read_groups(options.groups, n),
        read_excluded(options.exclude, n, names),
        check_row_numbers("preselected", options.preselected, n),
        check_integer("seed", seed, minimum=0),
        check_threads(threads),
    )


def choose(request: Request, assignment: Assignment, k: int, rows: Embeddings | None = None) -> Selection:
    """Select from rows assigned to ``k`` clusters; ``rows`` themselves are needed for ``dedup`` and ``leaks`` alone."""
    options, budget, preselected = request.options, request.budget, request.preselected
    labels, similarity = assignment
    weights = None if options.weights is None else check_weights(options.weights, k)
    ranks = similarity
    if request.ranks is not None:
        check_column("similarity", similarity, request.n, kinds="f")
        unknown = np.isnan(similarity)
        ranks = np.where(unknown, np.float32(np.nan), request.ranks) if unknown.any() else request.ranks
    left_out = find_left_out(
        options,
        labels,
        similarity,
        ranks,
        rows=rows,
        groups=request.groups,
        excluded=request.excluded,
        preselected=preselected,
        threads=request.threads,
    )
    some = [numbers for numbers in (request.excluded, *left_out) if len(numbers)]
    excluded = np.concatenate(some) if len(some) > 1 else next(iter(some), request.excluded)
    origin = request.origin

    def run(
        rows: NDArray[np.int64] | None, labels: NDArray[np.int32], k: int, budget: int, held: NDArray[np.int64]
    ) -> _core.Selection:
        """Select from all rows, or from some: those of another group cannot be selected."""
        numbers = None if origin is None else origin.numbers
        return _core.select(
            labels,
            ranks if rows is None else ranks[rows],
            k=k,
            budget=budget,
            fill=options.fill,
            within=options.within,
            seed=request.seed,
            exclude=excluded if rows is None else np.flatnonzero(~pool[rows]),
            preselected=held if rows is None else np.searchsorted(rows, held),
            strict=options.strict,
            threads=request.threads,
            numbers=numbers if rows is None else rows if numbers is None else numbers[rows],
            pools=None if origin is None or rows is not None else origin.pools.tolist(),
            weights=None if weights is None or k == 1 else weights.tolist(),
        )

    try:
        # Whatever fails here fails in groups, too.
        chosen = run(None, labels, k, budget, preselected)
    except BudgetError as error:
        if not (why := left_out.describe(options.min_similarity)):
            raise
        message = f"{error}. Of the excluded, {why}"
        raise BudgetError(message) from None
    whole = Part(chosen.indices, chosen.cluster, chosen.phase, chosen.counts)
    by_group: dict[Any, GroupCounts] = {}
    smallest, where = budget, ""
    if options.quotas is not None or (request.groups is not None and options.max_per_group is None):
        pool = (labels >= 0) & ~np.isnan(ranks)
        pool[excluded] = False
        by_group, whole = select_in_groups(
            run, request.groups, labels, pool, preselected, options.quotas, budget, k, strict=options.strict
        )
        whole.counts[:, 0] = chosen.counts[:, 0]  # the rows to select from are those of all groups
    if by_group and request.groups is not None:
        shares = ((group.budget, str(name)) for name, group in by_group.items() if group.budget)
        smallest, name = min(shares, default=(budget, ""))
        where = f" in the group {name!r}"
    elif by_group:
        by_group, smallest = {}, k  # the counts of clusters say all
    if smallest < k and options.fill == "global":
        warn_caller(
            f"a budget of {smallest} rows for {k} clusters{where} leaves no quota: the {smallest} most similar rows of "
            'all are selected, whatever their clusters. fill="waterfill" spreads them' + swapped_hint(request.n, k)
        )
    return Selection(
        whole.indices,
        whole.cluster,
        similarity[whole.indices],
        whole.phase,
        whole.counts.view(COUNTS).reshape(k),
        chosen.invalid,
        budget,
        k,
        request.n,
        left_out.duplicates,
        left_out.outside,
        by_group,
        leaks=left_out.leaks,
        surplus=left_out.surplus,
    )


def check_min_similarity(value: Any) -> float | None:
    """Check a least similarity; None stands for none."""
    return None if value is None else check_number("min_similarity", value, minimum=-1, maximum=1)


def _float32_ranks(score: Any, n: int, fill: Fill) -> NDArray[np.float32]:
    """Rank rows by float32 numbers (N,): by the scores, or by their dense ranks where float32 would round those."""
    array = check_column("score", score, n, kinds="f", expected="floating numbers")
    with np.errstate(over="ignore"):
        rounded = np.ascontiguousarray(array, dtype=np.float32)
    if ((rounded == array) | np.isnan(array)).all():
        return rounded
    valid = ~np.isnan(array)
    if fill == "zscore":
        message = "fill='zscore' standardizes scores as float32, which rounds some of these: give them as float32"
        raise ArgumentError(message)
    values, rank = np.unique(array[valid], return_inverse=True)
    if len(values) > 2 * MAX_EXACT:
        message = (
            f"{len(values)} distinct scores that float32 rounds; expected at most {2 * MAX_EXACT}: give them as float32"
        )
        raise ArgumentError(message)
    ranks = np.full(n, np.nan, np.float32)
    ranks[valid] = rank - MAX_EXACT
    return ranks
