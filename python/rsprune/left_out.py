"""Rows that are left out before a selection is made: out of the domain, leaked, near-duplicates, or over a maximum."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from rsprune.dedup import leaks, near_duplicates
from rsprune.embeddings import Embeddings
from rsprune.errors import ArgumentError, EmptyInputError
from rsprune.quotas import Groups
from rsprune.select_options import AssignedSelectOptions, SelectOptions
from rsprune.sources.filesystem import load_array
from rsprune.validation import check_row_numbers, warn_caller

__all__ = ["LeftOut", "find_left_out", "load_excluded", "read_excluded"]


class LeftOut(NamedTuple):
    """Rows that are left out, each int64 and ascending."""

    outside: NDArray[np.int64]  # less similar than `min_similarity`
    leaks: NDArray[np.int64]  # too similar to an image of an evaluation set
    duplicates: NDArray[np.int64]  # near-duplicates of rows that stay
    surplus: NDArray[np.int64]  # beyond the maximum of their group

    def describe(self, least: float | None) -> str:
        """Say how many rows are left out for which cause; nothing if none is."""
        causes = {
            f"below min_similarity = {least}": self.outside,
            "too similar to the evaluation set": self.leaks,
            "near-duplicates": self.duplicates,
            "beyond the maximum of their group": self.surplus,
        }
        return ", ".join(f"{len(rows)} are {cause}" for cause, rows in causes.items() if len(rows))


def find_left_out(
    options: AssignedSelectOptions,
    labels: NDArray[np.int32],
    similarity: NDArray[np.float32],
    ranks: NDArray[np.float32],
    *,
    rows: Embeddings | None = None,
    groups: Groups | None = None,
    excluded: NDArray[np.int64],
    preselected: NDArray[np.int64],
    threads: int | None = None,
) -> LeftOut:
    """Find the rows that options leave out: those of each cause among the rows that the causes before it leave.

    ``ranks`` say which of several rows stays, the highest first; ``rows`` are needed for ``dedup`` and ``leaks``,
    ``groups`` for ``max_per_group``. Neither ``excluded`` rows nor those of NaN count. Preselected rows stay.

    Raises
    ------
    ArgumentError
        A preselected row is out of the domain.
    """
    none = np.empty(0, np.int64)
    found = LeftOut(_out_of_domain(similarity, options.min_similarity, preselected), none, none, none)
    resembling, eps, most = getattr(options, "leaks", None), getattr(options, "dedup", None), options.max_per_group
    if resembling is None and eps is None and most is None:
        return found
    absent = np.isnan(ranks) | (labels < 0)
    absent[excluded] = absent[found.outside] = True
    if isinstance(options, SelectOptions) and resembling is not None and options.leak_eps is not None:
        rows_found = leaks(rows, resembling, options.leak_eps, threads=threads)
        found = found._replace(leaks=rows_found[~absent[rows_found]])
        absent[found.leaks] = True
    if eps is not None:
        assert rows is not None
        present, away = preselected[~absent[preselected]], np.flatnonzero(absent)
        again = near_duplicates(rows, labels, ranks, eps, preselected=present, excluded=away, threads=threads)
        found = found._replace(duplicates=again)
        absent[again] = True
    if most is not None and groups is not None:
        found = found._replace(surplus=_surplus(groups.of, ranks, np.flatnonzero(~absent), preselected, most))
    return found


def load_excluded(exclude: Any) -> Any:
    """Read what is to be excluded if it is a file: row numbers or a mask (``.npy``), or keys.

    Keys are the lines of a text file, as in ``selected.txt``, or the column ``key`` of a Parquet file.

    Raises
    ------
    EmptyInputError
        The file names no key.
    """
    if not isinstance(exclude, (str, os.PathLike)):
        return exclude
    path = Path(exclude)
    if path.suffix == ".npy":
        return load_array(path)
    from rsprune.io import read_table
    from rsprune.sources.key_lines import key_of_line

    if path.suffix == ".parquet":
        keys: list[str] = read_table(path, ["key"])["key"].to_pylist()
    else:
        lines = map(str.strip, path.read_text(encoding="utf-8").split("\n"))
        keys = [key_of_line(line) for line in lines if line and not line.startswith("#")]
    if not keys:
        message = f"{path} names no key to exclude"
        raise EmptyInputError(message)
    return keys


def is_keys(exclude: Any) -> bool:
    """Tell whether what is to be excluded is given by keys."""
    listed = isinstance(exclude, (list, tuple)) or (isinstance(exclude, np.ndarray) and exclude.ndim == 1)
    return listed and len(exclude) > 0 and isinstance(exclude[0], str)


def read_excluded(exclude: Any, n: int, keys: Sequence[str] | NDArray[Any] | None) -> NDArray[np.int64]:
    """Return the numbers of the rows to exclude, of ``n`` rows with these keys; None stands for no row.

    Raises
    ------
    ArgumentError
        Keys are excluded, and the rows have none, or none of these.
    """
    exclude = load_excluded(exclude)
    if not is_keys(exclude):
        return check_row_numbers("exclude", exclude, n)
    if keys is None:
        message = f"exclude names keys such as {exclude[0]!r}, and the rows have none: give keys=, or row numbers"
        raise ArgumentError(message)
    wanted = set(exclude)
    found = np.array([row for row, key in enumerate(keys) if key in wanted], np.int64)
    check_found(exclude, len({keys[row] for row in found.tolist()}), warn_caller)
    return found


def check_found(exclude: Sequence[str], found: int, warn: Any) -> None:
    """Fail where none of the keys to exclude was found, and warn where some were not."""
    wanted = len(set(exclude))
    if not found:
        message = f"none of the keys of exclude is there ({wanted}, such as {exclude[0]!r})"
        raise ArgumentError(message)
    if found < wanted:
        warn(f"{wanted - found} of the {wanted} keys of exclude are not there")


def _surplus(
    group: NDArray[np.int64],
    ranks: NDArray[np.float32],
    rows: NDArray[np.int64],
    preselected: NDArray[np.int64],
    most: int,
) -> NDArray[np.int64]:
    """Find those of some rows that come after the first ``most`` of their group: preselected first, then by rank."""
    later = np.ones(len(group), np.bool_)
    later[preselected] = False
    order = rows[np.lexsort((-ranks[rows], later[rows], group[rows]))]
    ordered = group[order]
    place = np.arange(len(order)) - np.searchsorted(ordered, ordered)
    return np.sort(order[(place >= most) & later[order]]).astype(np.int64)


def _out_of_domain(
    similarity: NDArray[np.float32], lower: float | None, preselected: NDArray[np.int64]
) -> NDArray[np.int64]:
    """Find the rows below a similarity, ascending; none of them may be preselected."""
    if lower is None:
        return np.empty(0, np.int64)
    rows = np.flatnonzero(similarity < np.float32(lower)).astype(np.int64, copy=False)
    if (both := preselected[similarity[preselected] < np.float32(lower)]).size:
        row = int(both.min())
        message = (
            f"row {row} is preselected, but its similarity of {similarity[row]:.4f} is below min_similarity = {lower}: "
            "lower that, or leave the row out"
        )
        raise ArgumentError(message)
    return rows
