"""Stage II: assignment to centroids, and the rows that a budget keeps."""

from __future__ import annotations

import json
import math
import os
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal, NamedTuple, overload

import numpy as np
from numpy.typing import NDArray

from rsprune import _core, gpu
from rsprune.centroids import OnInvalid, as_core, check_on_invalid
from rsprune.duplicates import near_duplicates
from rsprune.embeddings import as_rows, host_blocks
from rsprune.errors import ArgumentError, BudgetError, DtypeError, ShapeError
from rsprune.io import atomic_write
from rsprune.quotas import GroupCounts, Groups, Quotas, group_budgets, read_groups
from rsprune.validation import check_integer, check_threads

__all__ = [
    "COUNTS",
    "FILL",
    "PRESELECTED",
    "QUOTA",
    "Assignment",
    "Fill",
    "Selection",
    "Within",
    "assign",
    "budget_rows",
    "check_min_similarity",
    "select",
    "select_assigned",
]

Fill = Literal["global", "waterfill", "zscore", "none"]
Within = Literal["nearest", "far", "random", "mid"]

# Values of Selection.phase.
QUOTA, FILL, PRESELECTED = 0, 1, 2

# Float32 holds all whole numbers up to this, and down to its negative.
EXACT = 2**24

# What Selection.counts says of a cluster.
COUNTS = np.dtype([("pool", np.int64), ("quota", np.int64), ("fill", np.int64), ("preselected", np.int64)])


class Assignment(NamedTuple):
    """The nearest centroid of every row.

    Attributes
    ----------
    labels
        int32 (N,): its number; -1 for rows that are NaN, infinite or all zero.
    similarity
        float32 (N,): the similarity to it; NaN for those.
    """

    labels: NDArray[np.int32]
    similarity: NDArray[np.float32]


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

    def summary(self) -> str:
        """Say in a few lines of text what was selected."""
        pool, selected = self.counts["pool"], self._selected()
        lines = [
            self._headline(),
            f"clusters: {self.k}, of which {np.count_nonzero(pool == 0)} empty and "
            f"{np.count_nonzero((pool > 0) & (selected == 0))} without a selected row",
        ]
        if len(self):
            lines.append(f"selected a cluster: {selected.min()} to {selected.max()}, median {np.median(selected):g}")
        if len(self.duplicates):
            lines.append(f"near-duplicates left out: {len(self.duplicates)}")
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
        """Write a table of row, cluster, similarity and phase, beside ``path`` and then renamed.

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
        columns = {"row": self.indices, "cluster": self.cluster, "similarity": self.similarity, "phase": self.phase}
        table = pa.table(columns, metadata={"rsprune": json.dumps(about)})
        with atomic_write(path) as beside:
            pq.write_table(table, beside)

    def _headline(self) -> str:
        by = {name: int(self.counts[name].sum()) for name in ("quota", "fill", "preselected")}
        text = f"{len(self)} of {self.total} rows, k={self.k}: {by['quota']} by quota, {by['fill']} by fill"
        text += f", {by['preselected']} preselected" if by["preselected"] else ""
        text += f", {len(self.invalid)} invalid" if len(self.invalid) else ""
        return text + (f", budget {self.budget}" if self.budget != len(self) else "")

    def _selected(self) -> NDArray[np.int64]:
        selected: NDArray[np.int64] = self.counts["quota"] + self.counts["fill"] + self.counts["preselected"]
        return selected


def assign(
    embeds: Any,
    centroids: Any,
    *,
    normalize: bool = True,
    on_invalid: OnInvalid = "exclude",
    threads: int | None = None,
    _block_rows: int | None = None,
) -> Assignment:
    """Find the nearest centroid of every row, exactly.

    ``label(x) = argmax_k <x, mu_k>``, ties to the lowest k; ``similarity(x) = <x, mu_label> / |x|`` (RS-Prune, Eq. 4,
    with rows normalised). Dot products are those of float64 over the rows as stored, added in one fixed order, and
    rounded once to float32: the same bits on every machine, with any number of threads.

    Parameters
    ----------
    embeds
        (N, D) embeddings; see :func:`rsprune.embeddings.as_rows`. Never copied whole.
    centroids
        :class:`~rsprune.Centroids`, or a (K, D) array. Vectors that are not of unit length are normalised, with a
        warning.
    normalize
        Divide by the norm of the row. With False the similarity is the dot product: Eq. 4 to the letter, which
        prefers long rows.
    on_invalid
        Rows that are NaN, infinite or all zero: ``"exclude"`` gives them label -1 and similarity NaN, ``"raise"``
        fails on the first.
    threads
        All cores by default.

    Returns
    -------
    Assignment
        ``labels`` int32 (N,) and ``similarity`` float32 (N,).

    Raises
    ------
    ShapeError
        Embeddings and centroids differ in D.
    InvalidRowError
        A centroid without a direction; a row without one if ``on_invalid="raise"``.
    DtypeError, EmptyInputError, FormatError, OSError
        See :func:`rsprune.embeddings.as_rows`.
    """
    embeddings = as_rows(embeds)
    raise_invalid, threads = check_on_invalid(on_invalid), check_threads(threads)
    core = as_core(centroids)
    first_row = 0
    parts: list[Assignment] = []
    for part in embeddings.parts:
        options: dict[str, Any] = {"normalize": bool(normalize), "raise_invalid": raise_invalid, "threads": threads}
        if not isinstance(part, _core.Rows) and gpu.takes(part, core):
            parts.append(Assignment(*gpu.assign(part, core, first_row=first_row, **options)))
            first_row += len(part)
            continue
        for rows in host_blocks(part):
            labels = _core.assign_rows(rows, core, first_row=first_row, block_rows=_block_rows, **options)
            parts.append(Assignment(*labels))
            first_row += rows.shape[0]
    if len(parts) == 1:
        return parts[0]
    return Assignment(*(np.concatenate(arrays) for arrays in zip(*parts, strict=True)))


def select(
    embeds: Any,
    centroids: Any,
    budget: float,
    *,
    fill: Fill = "global",
    within: Within = "nearest",
    score: Any = None,
    min_similarity: float | None = None,
    groups: Any = None,
    quotas: Quotas | None = None,
    exclude: Any = None,
    preselected: Any = None,
    dedup: float | None = None,
    normalize: bool = True,
    on_invalid: OnInvalid = "exclude",
    strict: bool = True,
    seed: int = 0,
    threads: int | None = None,
) -> Selection:
    """Select a budget of rows, balanced over the clusters around reference centroids.

    :func:`assign`, then :func:`select_assigned`; the other parameters are theirs.

    Parameters
    ----------
    dedup
        Leave out near-duplicates: rows within this cosine distance (0.01, say) of a row of their cluster that stays.
        Those nearest to their centroid stay (of the best score, where one is given), and all preselected ones. None,
        the paper's method, takes duplicates as they come.

    Raises
    ------
    RspruneError
        What those two raise.
    """
    embeddings = as_rows(embeds)
    n = embeddings.shape[0]
    # Before the long part, so that what cannot work fails at once.
    budget_rows(budget, n)
    min_similarity = check_min_similarity(min_similarity)
    ranks = None if score is None else _ranks(score, n, fill)
    members = None if groups is None else read_groups(groups, n)
    core = as_core(centroids)
    assigned = assign(embeddings, core, normalize=normalize, on_invalid=on_invalid, threads=threads)
    duplicates = np.empty(0, np.int64)
    if dedup is not None:
        first, gone = _row_numbers("preselected", preselected, n), _row_numbers("exclude", exclude, n)
        best = assigned.similarity if ranks is None else ranks
        absent = np.concatenate(
            [gone, _outside(assigned.similarity, min_similarity, first), np.flatnonzero(best != best)]
        )
        duplicates = near_duplicates(
            embeddings, assigned.labels, best, dedup, first=first, exclude=absent, threads=check_threads(threads)
        )
        exclude = np.concatenate([gone, duplicates])
    options = {"fill": fill, "within": within, "exclude": exclude, "preselected": preselected}
    options |= {"score": ranks, "min_similarity": min_similarity, "groups": members, "quotas": quotas}
    options |= {"strict": strict, "seed": seed, "threads": threads}
    selection = _select(assigned.labels, assigned.similarity, budget, core.shape[0], **options)
    return replace(selection, duplicates=duplicates)


def select_assigned(
    labels: Any,
    similarity: Any,
    budget: float,
    *,
    k: int,
    fill: Fill = "global",
    within: Within = "nearest",
    score: Any = None,
    min_similarity: float | None = None,
    groups: Any = None,
    quotas: Quotas | None = None,
    exclude: Any = None,
    preselected: Any = None,
    strict: bool = True,
    seed: int = 0,
    threads: int | None = None,
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
    fill
        Who gets what the quotas leave of B. ``"global"``: the best of all remaining rows, the paper's rule, which
        favours tight clusters. ``"waterfill"``: every cluster alike, as far as its rows reach. ``"zscore"``: as
        global, by similarity standardised within each cluster. ``"none"``: nobody, so fewer than B rows come back.
    within
        Which rows of a cluster come first, and in the fill. ``"nearest"`` or ``"far"``: most or least similar.
        ``"random"``: by a draw from ``seed`` and the row number alone. ``"mid"``: middle rank by similarity.
    score
        Floating numbers (N,), more is better, NaN for invalid rows: ranks rows instead of the similarity, wherever
        ``within`` and ``fill`` speak of that. Float64 keeps its order to the last bit.
    min_similarity
        Rows of a lower similarity (both in float32) are out of the domain: they count as excluded, and are listed in
        ``Selection.outside``.
    groups
        Strings or numbers (N,), such as each row's resolution, region or sensor: every group is selected from as if it
        were alone, with its own share of the budget. Together they make up B.
    quotas
        The shares of ``groups``. None: in proportion to the rows to select from, by largest remainder. ``"even"``:
        alike, as far as the rows of each reach. Or a mapping of groups to rows (ints) or fractions of B (floats);
        groups that it leaves out share the rest in proportion. Ties go to the larger group, then to the first by name.
        The first two give a group at least what is preselected of it.
    exclude
        Row numbers, or a boolean mask (N,): never selected.
    preselected
        Row numbers, or a boolean mask (N,), or a :class:`Selection`: in the answer already. They count towards B and
        towards their clusters' quotas; where they exceed those, the other clusters' quotas are lowered evenly so that
        B rows come back.
    strict
        Fail when fewer than B rows can be selected; with False all of them come back.
    seed
        For ``within="random"``.
    threads
        All cores by default. Never shows in the result.

    Returns
    -------
    Selection
        Exactly B rows, ascending.

    Raises
    ------
    BudgetError
        A budget that is no positive number of rows or fraction, or that cannot be met; quotas that do not add up to
        it, or that a group cannot meet.
    ArgumentError
        Unknown options, labels or row numbers out of range, rows both excluded (or out of the domain) and preselected;
        more than 2^25 distinct scores that float32 does not hold, or any such with ``fill="zscore"``.
    InvalidRowError
        A preselected row is invalid.
    ShapeError, DtypeError, EmptyInputError
        ``labels`` and ``similarity`` are not two arrays (N,) of integers and floating numbers; ``score`` or
        ``groups`` not (N,).
    """
    options = {"fill": fill, "within": within, "exclude": exclude, "preselected": preselected}
    options |= {"score": score, "min_similarity": min_similarity, "groups": groups, "quotas": quotas}
    options |= {"strict": strict, "seed": seed, "threads": threads}
    return _select(labels, similarity, budget, k, **options)


def _select(
    labels: Any,
    similarity: Any,
    budget: Any,
    k: Any,
    *,
    fill: Any,
    within: Any,
    score: Any,
    min_similarity: Any,
    groups: Any,
    quotas: Any,
    exclude: Any,
    preselected: Any,
    strict: Any,
    seed: Any,
    threads: Any,
) -> Selection:
    """:func:`select_assigned` at the depth in the stack that its warning counts on."""
    k = check_integer("k", k)
    labels, similarity = _labels(labels, k), _similarity(similarity)
    n = len(labels)
    rows = budget_rows(budget, n)
    ranks = similarity
    if score is not None:
        _check_length("similarity", similarity, n)
        ranks = np.where(np.isnan(similarity), np.float32(np.nan), _ranks(score, n, fill))
    first = _row_numbers("preselected", preselected, n)
    least = check_min_similarity(min_similarity)
    outside = _outside(similarity, least, first)
    gone = np.concatenate([_row_numbers("exclude", exclude, n), outside])

    def choose(labels: NDArray[np.int32], budget: int, first: NDArray[np.int64]) -> tuple[NDArray[Any], ...]:
        return _core.select_rows(
            labels,
            ranks,
            k=k,
            budget=budget,
            fill=str(fill),
            within=str(within),
            seed=check_integer("seed", seed, minimum=0),
            exclude=gone,
            preselected=first,
            strict=bool(strict),
            threads=check_threads(threads),
        )

    try:
        # What fails here fails in groups, too.
        indices, cluster, chosen, phase, counts, invalid = choose(labels, rows, first)
    except BudgetError as error:
        if not len(outside):
            raise
        message = f"{error}. Of the excluded, {len(outside)} are below min_similarity = {least}"
        raise BudgetError(message) from None
    smallest, what, by_group = rows, "", {}
    if groups is not None:
        members = read_groups(groups, n)
        pool = (labels >= 0) & ~np.isnan(ranks)
        pool[gone] = False
        by_group = _shares(members, quotas, rows, pool, first, strict=bool(strict))
        nothing = (indices[:0], cluster[:0], chosen[:0], phase[:0], np.zeros_like(counts))
        parts = [nothing] + [
            choose(np.where(members.of == i, labels, np.int32(-1)), group.budget, first[members.of[first] == i])
            for i, group in enumerate(by_group.values())
            if group.budget
        ]
        order = np.argsort(np.concatenate([part[0] for part in parts]))
        indices, cluster, phase = (np.concatenate([part[j] for part in parts])[order] for j in (0, 1, 3))
        whole, counts = counts, np.sum([part[4] for part in parts], axis=0)
        counts.view(COUNTS)["pool"] = whole.view(COUNTS)["pool"]
        selected = np.bincount(members.of[indices], minlength=len(by_group)).tolist()
        by_group = {
            name: group._replace(selected=count)
            for (name, group), count in zip(by_group.items(), selected, strict=True)
        }
        shares = ((group.budget, str(name)) for name, group in by_group.items() if group.budget)
        smallest, name = min(shares, default=(rows, ""))
        what = f" in the group {name!r}"
    elif quotas is not None:
        message = "quotas are those of groups: give a group for each row, too"
        raise ArgumentError(message)
    if smallest < k and fill == "global":
        message = (
            f"a budget of {smallest} rows for {k} clusters{what} leaves no quota: the {smallest} most similar rows of "
            'all are selected, whatever their clusters. fill="waterfill" spreads them'
        )
        warnings.warn(message, UserWarning, stacklevel=3)
    table = counts.view(COUNTS).reshape(k)
    return Selection(
        indices, cluster, similarity[indices], phase, table, invalid, rows, k, n, outside=outside, groups=by_group
    )


def _shares(
    groups: Groups, quotas: Any, rows: int, pool: NDArray[np.bool_], first: NDArray[np.int64], *, strict: bool
) -> dict[Any, GroupCounts]:
    """The share of each group, of which nothing is selected yet."""
    pools = np.bincount(groups.of[pool], minlength=len(groups.names)).tolist()
    held = np.bincount(groups.of[first], minlength=len(groups.names)).tolist()
    budgets = group_budgets(quotas, rows, groups.names, pools, held, strict=strict)
    of_each = zip(groups.names, pools, budgets, strict=True)
    return {name: GroupCounts(pool, budget, 0) for name, pool, budget in of_each}


def check_min_similarity(value: Any) -> float | None:
    """``value`` as a float, if it is a number."""
    if value is not None and (
        isinstance(value, bool) or not isinstance(value, int | float | np.integer | np.floating) or np.isnan(value)
    ):
        message = f"min_similarity is {value!r}; expected a number, or None"
        raise ArgumentError(message)
    return None if value is None else float(value)


def _outside(similarity: NDArray[np.float32], least: float | None, first: NDArray[np.int64]) -> NDArray[np.int64]:
    """Rows below a similarity, ascending; none of ``first`` may be."""
    if least is None:
        return np.empty(0, np.int64)
    rows = np.flatnonzero(similarity < np.float32(least)).astype(np.int64)
    if (both := np.intersect1d(first, rows)).size:
        row = int(both[0])
        message = (
            f"row {row} is preselected, but its similarity of {similarity[row]:.4f} is below min_similarity = {least}: "
            "lower that, or leave the row out"
        )
        raise ArgumentError(message)
    return rows


def _ranks(score: Any, n: int, fill: Any) -> NDArray[np.float32]:
    """Float32 numbers (N,) in the order of the scores: these themselves, or their dense ranks where float32 rounds."""
    array = np.asarray(score)
    _check_length("score", array, n)
    if array.dtype.kind != "f" and array.dtype.name != "bfloat16":
        message = f"score of {array.dtype}; expected floating numbers: convert with .astype(numpy.float64)"
        raise DtypeError(message)
    with np.errstate(over="ignore"):
        rounded = np.ascontiguousarray(array, dtype=np.float32)
    valid = ~np.isnan(array)
    if np.array_equal(rounded[valid], array[valid]):
        return rounded
    if fill == "zscore":
        message = "fill='zscore' standardises scores as float32, which rounds some of these: give them as float32"
        raise ArgumentError(message)
    values, rank = np.unique(array[valid], return_inverse=True)
    if len(values) > 2 * EXACT:
        message = (
            f"{len(values)} distinct scores that float32 rounds; expected at most {2 * EXACT}: give them as float32"
        )
        raise ArgumentError(message)
    ranks = np.full(n, np.nan, np.float32)
    ranks[valid] = rank - EXACT
    return ranks


def _check_length(name: str, array: NDArray[Any], n: int) -> None:
    if array.shape != (n,):
        message = f"{name} of shape {array.shape}; expected ({n},), a number a row"
        raise ShapeError(message)


def budget_rows(budget: Any, n: int) -> int:
    """Read a budget as a number of rows, at least one."""
    if isinstance(budget, int | np.integer) and not isinstance(budget, bool):
        rows = int(budget)
        if rows < 1:
            message = f"a budget of {rows} rows; expected at least 1, or a fraction between 0 and 1"
            raise BudgetError(message)
    elif isinstance(budget, float | np.floating):
        if not 0 < budget < 1:
            message = f"a budget of {budget}; expected a fraction between 0 and 1, or a whole number of rows as an int"
            raise BudgetError(message)
        # The nudge: 0.29 of 100 rows are 29, though 0.29 * 100 is 28.999999999999996.
        rows = math.floor(float(budget) * n + 1e-9)
        if rows < 1:
            message = f"a budget of {budget} of {n} rows is less than one row; raise it, or give a number of rows"
            raise BudgetError(message)
    else:
        message = f"a budget of {budget!r}; expected a whole number of rows, or a fraction between 0 and 1"
        raise BudgetError(message)
    # The core counts in machine words; any larger number asks for more rows than there can be.
    return min(rows, 2**63 - 1)


def _labels(labels: Any, k: int) -> NDArray[np.int32]:
    array = np.asarray(labels)
    if array.ndim != 1:
        message = f"labels of shape {array.shape}; expected (rows,)"
        raise ShapeError(message)
    if array.dtype.kind not in "iu" and array.size:
        message = f"labels of {array.dtype}; expected integers"
        raise DtypeError(message)
    if not np.can_cast(array.dtype, np.int32) and array.size:
        wrong = np.flatnonzero((array < -1) | (array >= k))
        if wrong.size:
            row = int(wrong[0])
            message = f"row {row} has label {array[row]}; expected 0 to {k - 1} (k = {k}), or -1 for an invalid row"
            raise ArgumentError(message)
    return np.ascontiguousarray(array, dtype=np.int32)


def _similarity(similarity: Any) -> NDArray[np.float32]:
    array = np.asarray(similarity)
    if array.ndim != 1:
        message = f"similarity of shape {array.shape}; expected (rows,)"
        raise ShapeError(message)
    if array.dtype.kind != "f" and array.dtype.name != "bfloat16" and array.size:
        message = f"similarity of {array.dtype}; expected floating numbers: convert with .astype(numpy.float32)"
        raise DtypeError(message)
    with np.errstate(over="ignore"):
        return np.ascontiguousarray(array, dtype=np.float32)


def _row_numbers(name: str, rows: Any, n: int) -> NDArray[np.int64]:
    array = np.asarray(() if rows is None else rows)
    if array.ndim != 1:
        message = f"{name} of shape {array.shape}; expected a list of row numbers"
        raise ShapeError(message)
    if array.dtype.kind == "b":
        if len(array) != n:
            message = f"{name} is a mask of {len(array)} values; expected one for each of {n} rows"
            raise ShapeError(message)
        return np.flatnonzero(array).astype(np.int64)
    if array.dtype.kind not in "iu" and array.size:
        message = f"{name} of {array.dtype}; expected row numbers, which are integers, or a boolean mask"
        raise DtypeError(message)
    return np.ascontiguousarray(array, dtype=np.int64)
