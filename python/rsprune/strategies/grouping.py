"""The first rows by a key, of all rows or of each group, and what the groups get."""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from rsprune.apportion import apportion
from rsprune.assignment import assign
from rsprune.errors import BudgetError
from rsprune.selection import Within
from rsprune.strategies.base import Clustering, Partition, Picked, Pool
from rsprune.validation import check_choice

__all__ = [
    "Key",
    "Shares",
    "group_order",
    "labeled_rows",
    "rank_in_group",
    "ranks_of",
    "reference_clusters",
    "reference_hits",
    "require_reachable",
    "share_budget",
    "sort_by_label",
    "top_per_group",
    "top_rows",
    "top_up_to_budget",
    "within_key",
]

Key = NDArray[np.floating[Any]] | NDArray[np.integer[Any]]

#: Whether groups share the budget evenly, or in proportion to their sizes.
Shares = Literal["even", "proportional"]

# Clusters that reference images are looked up in: rows of the pool for each, and the largest number of clusters.
# V-JEPA 2 has 1.5 M for 316 M rows, DataComp 100,000 for more.
ROWS_PER_CLUSTER, MAX_CLUSTERS = 500, 100_000


def top_rows(key: Key, rows: NDArray[np.int64], count: int) -> NDArray[np.int64]:
    """Return the first ``count`` of ``rows`` (ascending) by (``key[row]`` ascending, row ascending), ascending."""
    if count >= len(rows):
        return rows
    if count <= 0:
        return rows[:0]
    keys = key[rows]
    last = np.partition(keys, count - 1)[count - 1]
    before, ties = rows[keys < last], rows[keys == last]
    return np.sort(np.concatenate([before, ties[: count - len(before)]]))


def top_up_to_budget(key: Key, rows: NDArray[np.int64], pool: Pool, partition: Partition | None = None) -> Picked:
    """Pick the first of ``rows`` (ascending) by (key ascending, row ascending) up to the budget, all without one."""
    return Picked(top_rows(key, rows, len(rows) if pool.requested is None else pool.requested), partition)


def labeled_rows(partition: Partition, pool: Pool) -> NDArray[np.int64]:
    """Return the valid rows that are in a group, ascending."""
    rows = pool.candidates
    return rows[partition.labels[rows] >= 0]


def group_order(key: Key, partition: Partition, pool: Pool) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Sort the rows by (group, key ascending, row ascending); also return where each group starts, and the end."""
    return sort_by_label(key, partition.labels, labeled_rows(partition, pool), partition.k)


def sort_by_label(
    key: Key, labels: NDArray[np.int32], rows: NDArray[np.int64], k: int
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Sort ``rows`` (ascending) by (label, key ascending, row ascending); also return where each label starts."""
    starts = np.concatenate([[0], np.cumsum(np.bincount(labels[rows], minlength=k))]).astype(np.int64)
    return rows[np.lexsort((key[rows], labels[rows]))], starts


def ranks_of(starts: NDArray[np.int64]) -> NDArray[np.int64]:
    """Number the rows of each group from 0, where groups follow one another and start at ``starts``."""
    return np.arange(starts[-1]) - np.repeat(starts[:-1], np.diff(starts))


def rank_in_group(key: Key, partition: Partition, pool: Pool) -> NDArray[np.int64]:
    """Rank each row in its group by (key ascending, row ascending), from 0: int64 (N,), -1 for rows in no group."""
    order, starts = group_order(key, partition, pool)
    rank = np.full(pool.n, -1, np.int64)
    rank[order] = ranks_of(starts)
    return rank


def top_per_group(key: Key, partition: Partition, counts: NDArray[np.int64], pool: Pool) -> NDArray[np.int64]:
    """Return the first ``counts[k]`` rows of each group k by (key ascending, row ascending), ascending."""
    rank = rank_in_group(key, partition, pool)
    rows = labeled_rows(partition, pool)
    return rows[rank[rows] < counts[partition.labels[rows]]]


def within_key(within: Within, clustering: Clustering, pool: Pool) -> Key:
    """Return the key (N,) that puts the rows of each cluster into the order ``within``, smallest first.

    ``"mid"`` counts ranks from the middle of the cluster, relative to its size.
    """
    check_choice("within", within, Within)
    if within == "random":
        return pool.random_keys
    if within == "mid":
        rank = rank_in_group(-clustering.similarity, clustering, pool)
        rows = labeled_rows(clustering, pool)
        sizes = pool.sizes(clustering)[clustering.labels[rows]]
        key = np.full(pool.n, np.inf)
        key[rows] = np.abs(2 * rank[rows] - (sizes - 1)) / sizes
        return key
    return clustering.similarity if within == "far" else -clustering.similarity


def share_budget(shares: Shares, partition: Partition, pool: Pool) -> NDArray[np.int64]:
    """Apportion the budget to groups, evenly or in proportion to their sizes, as far as these reach."""
    check_choice("shares", shares, Shares)
    sizes = pool.sizes(partition)
    return apportion(pool.budget, 1 if shares == "even" else sizes, upper=sizes)


def reference_clusters(pool: Pool, k: int | None) -> Clustering:
    """Cluster the pool for the lookup of reference images: by default a cluster for 500 rows, 100,000 at most."""
    return pool.cluster(k, default_k=max(1, min(MAX_CLUSTERS, len(pool.candidates) // ROWS_PER_CLUSTER)))


def reference_hits(clustering: Clustering, pool: Pool) -> dict[str, NDArray[np.int64]]:
    """Count the images of each reference set in each cluster: int64 (K,) by the name of the set."""
    hits = {}
    for name, embeds in pool.require("reference").items():
        labels, _ = assign(embeds, clustering.centroids, threads=pool.threads)
        hits[name] = np.bincount(labels[labels >= 0], minlength=clustering.k)
    return hits


def require_reachable(rows: int, pool: Pool) -> None:
    """Fail where fewer ``rows`` than the budget lie in clusters that hold reference images."""
    if rows < pool.budget:
        message = (
            f"a budget of {pool.budget} rows, but only {rows} lie in clusters that hold reference images: "
            "lower it, fit fewer clusters (k), or give more reference images"
        )
        raise BudgetError(message)
