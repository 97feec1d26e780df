"""The rows of a pool as the searches for similar rows take them."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from rsprune import _core
from rsprune._core import Rows
from rsprune.errors import ArgumentError
from rsprune.strategies.base import Choice, Clusters, Inputs
from rsprune.strategies.ranking import Key, best, grouped

__all__ = ["check_cosine", "check_count", "ordered_groups", "pool_rows", "trimmed"]


def pool_rows(inputs: Inputs, rows: NDArray[np.int64] | None = None) -> tuple[Rows, NDArray[np.int64]]:
    """The candidates, or those of them that are given, to be searched, and the row of the pool that each is.

    Rows without a direction are never found: they are copied out of nothing.
    """
    embeds = inputs.need("embeds")
    wanted = inputs.candidates if rows is None else rows
    if rows is None:
        whole = embeds.on_host()
        if np.array_equal(_core.valid(whole, threads=inputs.threads), inputs.valid):
            return whole, np.arange(inputs.n)
    return Rows([embeds.take(wanted)]), wanted


def ordered_groups(key: Key, groups: Clusters, inputs: Inputs) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """The rows of one group after the other by (key ascending, row ascending), and where each group starts and ends."""
    rows = grouped(groups, inputs)
    labels = groups.labels[rows]
    sizes = np.bincount(labels, minlength=groups.k)
    starts = np.concatenate([[0], np.cumsum(sizes)]).astype(np.int64)
    return rows[np.lexsort((key[rows], labels))], starts


def trimmed(key: Key, rows: NDArray[np.int64], inputs: Inputs, clusters: Clusters | None = None) -> Choice:
    """The first of ``rows`` (ascending) by (key ascending, row ascending) up to the budget, or all without one."""
    count = len(rows) if inputs.budget is None else inputs.budget
    return Choice(best(key, rows, count), clusters)


def check_count(name: str, value: Any) -> int:
    """A whole number of at least 1."""
    if isinstance(value, bool) or not isinstance(value, (int, np.integer)) or value < 1:
        message = f"{name} is {value!r}; expected a whole number of at least 1"
        raise ArgumentError(message)
    return int(value)


def check_cosine(name: str, value: Any) -> float:
    """A similarity."""
    if isinstance(value, bool) or not isinstance(value, (int, float, np.floating)) or not -1 <= value <= 1:
        message = f"{name} is {value!r}; expected a cosine, from -1 to 1"
        raise ArgumentError(message)
    return float(value)
