"""The curation of DINOv2: without duplicates, without what evaluation sets hold, and near reference images."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from rsprune import _core
from rsprune._core import Rows
from rsprune.errors import ArgumentError, BudgetError, MissingInputError
from rsprune.strategies.base import Clustering, Partition, Picked, Pool, strategy
from rsprune.strategies.grouping import (
    reference_clusters,
    reference_hits,
    share_budget,
    top_per_group,
    top_rows,
    top_up_to_budget,
)
from rsprune.validation import check_number

__all__ = ["dinov2"]

Mode = Literal["sample", "cluster", "none"]

# Rows retrieved for each image of a reference set of a million images, such as ImageNet-22k.
N_RETRIEVED = 4


@strategy(needs=("embeds",), uses=("centroids", "reference", "score"), budget="optional")
def dinov2(
    pool: Pool,
    *,
    mode: Mode = "sample",
    eps: float | None = None,
    leak_eps: float = 0.55,
    held_out: Sequence[str] = (),
    n_neighbors: int = 64,
    n_retrieved: int | None = None,
    k: int | None = None,
    min_hits: int = 4,
    rows_per_cluster: int = 10_000,
    cap: int | None = None,
) -> Picked:
    """Rows retrieved for reference images, after the removal of duplicates and of what evaluation sets hold.

    Oquab et al. (2023), Sec. 3 and App. A: the curation of LVD-142M. Three steps, each by itself or with the others:

    1. Self-deduplication: edges join a row and those of its ``n_neighbors`` nearest rows within a cosine distance of
       ``eps``; of each connected component one row remains.
    2. Relative deduplication: in the same graph of pool and evaluation images, with ``leak_eps``, every row whose
       component holds an evaluation image is dropped.
    3. Retrieval: of each reference image the ``n_retrieved`` nearest rows (``"sample"``); or of each cluster of the
       pool that holds at least ``min_hits`` images of a reference set, ``rows_per_cluster`` random rows
       (``"cluster"``).

    A row that is retrieved for several sets counts for the first. The budget is shared out evenly over the sets, by
    water-filling; the rows of a set are picked at random.

    Parameters
    ----------
    pool
        ``reference``: a set, or several by name. ``score``: of a component the row of the largest remains (ties, and
        without a score: the lowest).
    mode
        How rows are retrieved. The paper takes ``"cluster"`` for sets of up to a million images. ``"none"`` needs no
        reference.
    eps
        Cosine distance of duplicates; None leaves them in. The paper's 0.4 goes with embeddings for copy detection
        (SSCD): those of other encoders are far more similar to each other.
    leak_eps
        Cosine distance of copies of evaluation images. The paper's 0.55 goes with SSCD, too.
    held_out
        Names of the reference sets that are evaluation sets; none are by default. Nothing is retrieved for them.
    n_neighbors
        Number of nearest neighbors of a row in the graphs.
    n_retrieved
        4 in the paper for sets of a million, 32 for ImageNet-1k. None is the smallest number that fills the budget, or
        4 without one.
    k
        Fit this many clusters on the pool, whatever centroids are given; by default one for 500 rows, 100,000 at most.
    min_hits, rows_per_cluster
        See above; the defaults are the paper's.
    cap
        Largest number of rows retrieved for a set, picked at random: a million in the paper. None for no limit.
    """
    for name, distance in (("eps", eps), ("leak_eps", leak_eps)):
        if distance is not None:
            check_number(name, distance, minimum=0, maximum=2)
    held = [held_out] if isinstance(held_out, str) else list(held_out)
    sets = {} if pool.reference is None else dict(pool.reference)
    if unknown := [name for name in held if name not in sets]:
        message = f"held_out names {unknown[0]!r}, which is no reference set; there are {list(sets)}"
        raise ArgumentError(message)
    rows = pool.candidates
    if eps is not None:
        rows = _deduplicated(pool, rows, eps, n_neighbors)
    if held:
        rows = _without_leaks(pool, rows, held, leak_eps, n_neighbors)
    sources = [name for name in sets if name not in held]
    if mode == "none":
        _check_left(pool, len(rows), "remain: lower eps or leak_eps")
        return top_up_to_budget(pool.random_keys, rows, pool)
    if not sources:
        raise MissingInputError(pool.method, "reference")
    clusters: Clustering | None = None
    if mode == "sample":
        retrieved = _by_sample(pool, rows, sources, n_retrieved)
    else:
        clusters = reference_clusters(pool, k)
        retrieved = _by_cluster(pool, rows, sources, clusters, min_hits, rows_per_cluster)
    if cap is not None:
        retrieved = [top_rows(pool.random_keys, found, cap) for found in retrieved]
    # The first set that a row was retrieved for.
    labels = np.full(pool.n, -1, np.int32)
    for number, found in reversed(list(enumerate(retrieved))):
        labels[found] = number
    by_set, found = Partition(labels, len(sources)), np.flatnonzero(labels >= 0)
    if pool.requested is None:
        return Picked(found, clusters or by_set)
    _check_left(pool, len(found), "are retrieved: raise n_retrieved, rows_per_cluster or cap, or lower min_hits")
    counts = share_budget("even", by_set, pool)
    return Picked(top_per_group(pool.random_keys, by_set, counts, pool), clusters or by_set)


def _deduplicated(pool: Pool, rows: NDArray[np.int64], eps: float, n_neighbors: int) -> NDArray[np.int64]:
    searched, numbers = pool.searchable_rows()
    roots = _components(searched, eps, n_neighbors, pool)
    key = np.zeros(pool.n) if pool.score is None else -pool.score
    valid = np.flatnonzero(pool.valid[numbers])
    # The best of each component comes first.
    order = valid[np.lexsort((key[numbers[valid]], roots[valid]))]
    firsts = np.unique(roots[order], return_index=True)[1]
    return np.intersect1d(rows, numbers[order[firsts]])


def _without_leaks(
    pool: Pool, rows: NDArray[np.int64], held: list[str], eps: float, n_neighbors: int
) -> NDArray[np.int64]:
    sets = [pool.require("reference")[name] for name in held]
    everything = [one.take(np.arange(one.shape[0])) for one in sets]
    roots = _components(Rows([pool.require("embeds").take(rows), *everything]), eps, n_neighbors, pool)
    return rows[~np.isin(roots[: len(rows)], roots[len(rows) :])]


def _components(rows: Rows, eps: float, n_neighbors: int, pool: Pool) -> NDArray[np.int64]:
    """Return for each row the lowest row of its connected component."""
    count = max(1, min(n_neighbors, rows.shape[0] - 1))
    graph = _core.knn(rows, rows, k=count, exclude_self=True, threads=pool.threads)
    return _core.graph_components(*graph, threshold=float(np.float32(1 - eps)))


def _by_sample(
    pool: Pool, rows: NDArray[np.int64], sources: list[str], n_retrieved: int | None
) -> list[NDArray[np.int64]]:
    searched = Rows([pool.require("embeds").take(rows)])
    sets = [pool.require("reference")[name].on_host() for name in sources]

    def nearest(count: int) -> list[NDArray[np.int64]]:
        return [
            _core.knn(one, searched, k=min(count, len(rows)), exclude_self=False, threads=pool.threads)[0]
            for one in sets
        ]

    count = n_retrieved or N_RETRIEVED
    found = nearest(count)
    if n_retrieved is None and pool.requested is not None:
        while count < len(rows) and _distinct(found, count) < pool.budget:
            count *= 2
            found = nearest(count)
        low, high = 1, min(count, len(rows))
        while low < high:
            middle = (low + high) // 2
            low, high = (low, middle) if _distinct(found, middle) >= pool.budget else (middle + 1, high)
        count = low
    return [rows[np.unique(one[:, :count][one[:, :count] >= 0])] for one in found]


def _distinct(found: list[NDArray[np.int64]], count: int) -> int:
    """Count the different rows among the first ``count`` neighbors."""
    rows = np.unique(np.concatenate([one[:, :count].ravel() for one in found]))
    return int((rows >= 0).sum())


def _by_cluster(
    pool: Pool,
    rows: NDArray[np.int64],
    sources: list[str],
    clusters: Clustering,
    min_hits: int,
    rows_per_cluster: int,
) -> list[NDArray[np.int64]]:
    hits = reference_hits(clusters, pool)
    labels = np.full(pool.n, -1, np.int32)
    labels[rows] = clusters.labels[rows]
    left = Partition(labels, clusters.k)
    picked = top_per_group(pool.random_keys, left, np.full(clusters.k, rows_per_cluster), pool)
    return [picked[hits[name][labels[picked]] >= min_hits] for name in sources]


def _check_left(pool: Pool, rows: int, what: str) -> None:
    if pool.requested is not None and rows < pool.requested:
        message = f"a budget of {pool.requested} rows, but only {rows} {what}, or lower the budget"
        raise BudgetError(message)
