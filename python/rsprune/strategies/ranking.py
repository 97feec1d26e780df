"""The best rows by (score descending, row ascending), of all or of each group."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from rsprune.strategies.inputs import Clusters, Inputs

__all__ = ["Key", "best", "best_of_groups", "places"]

Key = NDArray[np.floating[Any]] | NDArray[np.integer[Any]]


def best(key: Key, rows: NDArray[np.int64], count: int) -> NDArray[np.int64]:
    """The ``count`` first of ``rows`` (ascending) by (``key[row]`` ascending, row ascending); they come ascending."""
    if count >= len(rows):
        return rows
    if count <= 0:
        return rows[:0]
    keys = key[rows]
    last = np.partition(keys, count - 1)[count - 1]
    before, ties = rows[keys < last], rows[keys == last]
    return np.sort(np.concatenate([before, ties[: count - len(before)]]))


def places(key: Key, clusters: Clusters, inputs: Inputs) -> NDArray[np.int64]:
    """Place of each row in its group by (key ascending, row ascending), from 0: int64 (N,), -1 for rows in none."""
    rows = grouped(clusters, inputs)
    labels = clusters.labels[rows]
    order = np.lexsort((key[rows], labels))
    sizes = np.bincount(labels, minlength=clusters.k)
    starts = np.cumsum(sizes) - sizes
    place = np.full(inputs.n, -1, np.int64)
    place[rows[order]] = np.arange(len(rows)) - np.repeat(starts, sizes)
    return place


def best_of_groups(key: Key, clusters: Clusters, counts: NDArray[np.int64], inputs: Inputs) -> NDArray[np.int64]:
    """The ``counts[k]`` first rows of each group k by (key ascending, row ascending); they come ascending."""
    place = places(key, clusters, inputs)
    rows = grouped(clusters, inputs)
    return rows[place[rows] < counts[clusters.labels[rows]]]


def grouped(clusters: Clusters, inputs: Inputs) -> NDArray[np.int64]:
    """The valid rows that are in a group, ascending."""
    rows = inputs.candidates
    return rows[clusters.labels[rows] >= 0]
