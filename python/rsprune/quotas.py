"""How a budget is shared out among groups of rows, in whole numbers and exactly."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Mapping
from fractions import Fraction
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from rsprune import _core
from rsprune.apportion import apportion
from rsprune.errors import ArgumentError, BudgetError, DtypeError, ShapeError
from rsprune.sources.filesystem import load_array
from rsprune.validation import as_array, is_whole

__all__ = ["GroupCounts", "Groups", "Part", "Quotas", "group_budgets", "read_groups", "select_in_groups"]

Quotas = Literal["even"] | Mapping[Any, float]


class Groups(NamedTuple):
    """Groups of rows: their names in ascending order, and the number of each row's, int64 (N,)."""

    names: list[Any]
    of: NDArray[np.int64]


class GroupCounts(NamedTuple):
    """What became of a group: rows to select from, its share of the budget, and rows selected."""

    pool: int
    budget: int
    selected: int


def read_groups(groups: Any, n: int) -> Groups:
    """Read a group for each of ``n`` rows: strings, whole or floating numbers."""
    if isinstance(groups, Groups):
        return groups
    if isinstance(groups, (str, os.PathLike)):
        if not os.fspath(groups).endswith(".npy"):
            message = f"groups is {groups!r}; expected a group for each of {n} rows, or a .npy file of them"
            raise ArgumentError(message)
        groups = load_array(groups)
    # A list of strings and numbers must not become strings: NaN would be a group of its own.
    values = as_array("groups", groups if hasattr(groups, "dtype") else np.asarray(groups, object))
    if values.shape != (n,):
        message = f"groups of shape {values.shape}; expected one for each of {n} rows"
        raise ShapeError(message)
    if values.dtype.kind in "OT":
        values = _one_type(values.tolist())
    if values.dtype.kind not in "biufUS":
        message = f"groups of {values.dtype}; expected strings or numbers"
        raise DtypeError(message)
    if values.dtype.kind == "f" and np.isnan(values).any():
        raise _without_group(np.flatnonzero(np.isnan(values))[0], "NaN")
    names, of = np.unique(values, return_inverse=True)
    return Groups(names.tolist(), of.reshape(n))


def _one_type(values: list[Any]) -> NDArray[Any]:
    """Make an array of objects that are strings alone, or numbers alone."""
    for row, value in enumerate(values):
        if value is None or value != value or type(value).__name__ in ("NAType", "NaTType"):
            raise _without_group(row, repr(value))
    array = np.array(values)
    if array.tolist() != values:  # a number was made a string, or rounded
        message = "groups of several types; expected strings alone, or numbers alone"
        raise DtypeError(message)
    return array


def _without_group(row: int, value: str) -> ArgumentError:
    return ArgumentError(f"row {row} has the group {value}; give rows without one a group of their own")


class Part(NamedTuple):
    """The rows selected from some rows."""

    indices: NDArray[np.int64]
    cluster: NDArray[np.int32]
    phase: NDArray[np.uint8]
    counts: NDArray[np.int64]  # (K, 4)


def select_in_groups(
    run: Callable[[NDArray[np.int64], NDArray[np.int32], int, int, NDArray[np.int64]], _core.Selection],
    groups: Groups | None,
    labels: NDArray[np.int32],
    pool: NDArray[np.bool_],
    preselected: NDArray[np.int64],
    quotas: Quotas | None,
    budget: int,
    k: int,
    *,
    strict: bool,
) -> tuple[dict[Any, GroupCounts], Part]:
    """Share a budget out among groups, and select from each of them by itself.

    ``run(rows, labels, k, budget, preselected)`` selects from some rows, whose numbers it is given, as those of the
    preselected ones. ``groups``, ``labels`` and ``pool`` are the group of each row (None for its cluster), its cluster,
    of ``k``, and whether it can be selected; the others are those of :func:`rsprune.select_assigned`. Returns the
    counts of each group by its name, and all rows that were selected, ascending.
    """
    by_cluster = groups is None
    names, of = groups or Groups(list(range(k)), np.maximum(labels, 0).astype(np.int64))
    pools = np.bincount(of[pool], minlength=len(names)).tolist()
    held = np.bincount(of[preselected], minlength=len(names)).tolist()
    budgets = group_budgets(quotas, budget, names, pools, held, strict=strict)
    members = np.split(np.argsort(of, kind="stable"), np.cumsum(np.bincount(of, minlength=len(names)))[:-1])
    indices, cluster, phase = [np.empty(0, np.int64)], [np.empty(0, np.int32)], [np.empty(0, np.uint8)]
    counts, selected = np.zeros((k, 4), np.int64), [0] * len(names)
    for group, rows in enumerate(members):
        if not budgets[group]:
            continue
        own, first = np.sort(preselected[of[preselected] == group]), group if by_cluster else 0
        # A cluster by itself has all of its budget as its quota.
        within, k_within = (np.minimum(labels[rows], 0), 1) if by_cluster else (labels[rows], k)
        part = run(rows, within, k_within, budgets[group], own)
        indices.append(rows[part.indices])
        cluster.append(part.cluster + np.int32(first))
        phase.append(part.phase)
        counts[first : first + k_within] += part.counts
        selected[group] = len(part.indices)
    by_group = dict(zip(names, map(GroupCounts, pools, budgets, selected), strict=True))
    found = np.concatenate(indices)
    order = np.argsort(found)
    return by_group, Part(found[order], np.concatenate(cluster)[order], np.concatenate(phase)[order], counts)


def group_budgets(
    quotas: Quotas | None, budget: int, names: list[Any], pools: list[int], held: list[int], *, strict: bool
) -> list[int]:
    """Share a budget of rows out among groups.

    Of each group, ``names``, ``pools`` and ``held`` are its name, the rows to select from, and how many of them are in
    the selection already. ``quotas`` are None (in proportion to ``pools``), ``"even"`` (alike, as far as the pools
    reach), or a mapping of names to rows (ints) or fractions of the budget (floats); groups that it leaves out share
    the rest in proportion. A group of fewer rows than its share gives all that it has, unless ``strict``.

    Raises
    ------
    ArgumentError
        No such quotas, or of a group that no row is in.
    BudgetError
        The quotas do not add up to the budget, or a group cannot meet its own.
    """
    if quotas is None or (isinstance(quotas, str) and quotas == "even"):
        weights = pools if quotas is None else 1
        return list(map(int, apportion(min(budget, sum(pools)), weights, lower=held, upper=pools)))
    if not isinstance(quotas, Mapping):
        message = f"quotas is {quotas!r}; expected None, 'even', or a mapping of groups to rows or fractions"
        raise ArgumentError(message)
    # From the command line names come as text.
    by_text = {str(name): name for name in names}
    quotas = {name if name in names else by_text.get(name, name): quota for name, quota in quotas.items()}
    if unknown := [name for name in quotas if name not in names]:
        message = f"quotas names the group {unknown[0]!r}; expected some of {', '.join(map(repr, names[:20]))}"
        raise ArgumentError(message)
    shares = _named(quotas, budget)
    rest = [i for i, name in enumerate(names) if name not in shares]
    left = budget - sum(shares.values())
    if left < 0 or (left > 0 and not rest):
        message = f"the quotas add up to {budget - left} rows, the budget is {budget}: change one of them"
        raise BudgetError(message)
    at_hand, least = sum(pools[i] for i in rest), sum(held[i] for i in rest)
    if left < least:
        message = f"the quotas leave {left} rows to the groups that they do not name, of which {least} are preselected"
        raise BudgetError(message)
    if left > at_hand and strict:
        message = f"the quotas leave {left} rows to the groups that they do not name, which have only {at_hand}"
        raise BudgetError(message)
    rest_pools = [pools[i] for i in rest]
    others = apportion(min(left, at_hand), rest_pools, lower=[held[i] for i in rest], upper=rest_pools)
    budgets = [shares.get(name, 0) for name in names]
    for i, share in zip(rest, others.tolist(), strict=True):
        budgets[i] = share
    for i, share in enumerate(budgets):
        if share > pools[i] and strict:
            message = (
                f"a quota of {share} rows for the group {names[i]!r}, which has only {pools[i]} to select from: lower "
                "it, or pass strict=False (--no-strict) to take all of them"
            )
            raise BudgetError(message)
        if share < held[i]:
            message = (
                f"a quota of {share} rows for the group {names[i]!r}, of which {held[i]} are preselected: raise it"
            )
            raise BudgetError(message)
    return [min(share, pool) for share, pool in zip(budgets, pools, strict=True)]


def _named(quotas: Mapping[Any, float], budget: int) -> dict[Any, int]:
    """Quotas in rows. Fractions together make their sum of the budget, by largest remainder."""
    rows: dict[Any, int] = {}
    fractions: dict[Any, Fraction] = {}
    for name, quota in quotas.items():
        is_integer = isinstance(quota, int | np.integer) and not isinstance(quota, bool)
        if (is_integer and quota >= 0) or (is_whole(quota) and quota > 1):
            rows[name] = int(quota)
        elif isinstance(quota, float | np.floating) and 0 <= quota <= 1:
            # As it is written: 0.1 is a tenth, though no float is.
            fractions[name] = Fraction(str(quota))
        else:
            message = f"a quota of {quota!r} for the group {name!r}; expected rows, or a fraction from 0 to 1"
            raise ArgumentError(message)
    # The nudge is for three times 0.3333333333333333.
    together = math.floor(budget * sum(fractions.values()) + Fraction(1, 10**9))
    shares = apportion(together, list(fractions.values()), upper=[together] * len(fractions))
    return rows | dict(zip(fractions, shares.tolist(), strict=True))
