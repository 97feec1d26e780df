"""The curation of DINOv2: without duplicates, without what evaluation sets hold, and near reference images."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from rsprune import _core
from rsprune._core import Rows
from rsprune.apportion import apportion
from rsprune.errors import ArgumentError, BudgetError
from rsprune.strategies.base import Choice, Clusters, FittedClusters, Inputs, strategy
from rsprune.strategies.neighbourhood import check_cosine, check_count, pool_rows, trimmed
from rsprune.strategies.ranking import best, best_of_groups
from rsprune.strategies.targets import pool_clusters, target_counts

__all__ = ["dinov2"]

# Neighbours a query for a reference set of a million images, as ImageNet-22k.
NEIGHBOURS = 4


@strategy(needs=("embeds",), budget="optional")
def dinov2(
    inputs: Inputs,
    *,
    mode: Literal["sample", "cluster", "none"] = "sample",
    dedup_cos: float | None = None,
    leak_cos: float = 0.45,
    held_out: Sequence[str] = (),
    dedup_k: int = 64,
    k_nn: int | None = None,
    k: int | None = None,
    min_hits: int = 4,
    per_cluster: int = 10_000,
    cap: int | None = None,
) -> Choice:
    """Rows retrieved for reference images, after the removal of duplicates and of what evaluation sets hold.

    Oquab et al. (2023), Sec. 3 and App. A: the curation of LVD-142M. Three steps, each by itself or with the others:

    1. Self-deduplication: edges join a row and those of its ``dedup_k`` nearest rows of a cosine above ``dedup_cos``;
       of each connected component one row remains.
    2. Relative deduplication: in the same graph of pool and evaluation images, with ``leak_cos``, every row whose
       component holds an evaluation image is dropped.
    3. Retrieval: of each reference image the ``k_nn`` nearest rows (``"sample"``); or of each cluster of the pool that
       holds at least ``min_hits`` images of a reference set, ``per_cluster`` rows at random (``"cluster"``).

    A row that is retrieved for several sets counts for the first. The budget is shared out evenly over the sets, by
    water-filling; the rows of a set are drawn at random.

    Parameters
    ----------
    inputs
        ``reference``: a set, or several by name. ``score``: of a component the row of the largest remains (ties, and
        without a score: the lowest).
    mode
        How rows are retrieved. The paper takes ``"cluster"`` for sets of up to a million images. ``"none"`` needs no
        reference.
    dedup_cos
        None leaves duplicates. The paper's 0.6 is one of copy-detection embeddings (SSCD): those of other encoders are
        far more similar to each other.
    leak_cos
        The paper's 0.45 is one of SSCD, too.
    held_out
        Names of the reference sets that are evaluation sets; none are by default. Nothing is retrieved for them.
    dedup_k
        Neighbours of a row in the graphs.
    k_nn
        4 in the paper for sets of a million, 32 for ImageNet-1k. None is the smallest number that fills the budget, or
        4 without one.
    k
        Fit so many clusters on the pool, whatever centroids are given; by default one for 100 rows, 100,000 at most.
    min_hits, per_cluster
        See above; the paper's.
    cap
        Rows retrieved for a set at most, drawn at random: a million in the paper. None for no limit.
    """
    if mode not in ("sample", "cluster", "none"):
        message = f"mode is {mode!r}; expected 'sample', 'cluster' or 'none'"
        raise ArgumentError(message)
    for name, count in (("dedup_k", dedup_k), ("min_hits", min_hits), ("per_cluster", per_cluster)):
        check_count(name, count)
    held = [held_out] if isinstance(held_out, str) else list(held_out)
    sets = {} if inputs.references is None else dict(inputs.references)
    if unknown := [name for name in held if name not in sets]:
        message = f"held_out names {unknown[0]!r}, which is no reference set; there are {list(sets)}"
        raise ArgumentError(message)
    pool = inputs.candidates
    if dedup_cos is not None:
        pool = _deduplicated(inputs, pool, check_cosine("dedup_cos", dedup_cos), dedup_k)
    if held:
        pool = _without_leaks(inputs, pool, held, check_cosine("leak_cos", leak_cos), dedup_k)
    sources = [name for name in sets if name not in held]
    if mode == "none":
        _check_left(inputs, len(pool), "remain: raise dedup_cos or leak_cos")
        return trimmed(inputs.draws, pool, inputs)
    if not sources:
        inputs.need("references" if not held else "reference sets other than held_out")
    clusters: FittedClusters | None = None
    if mode == "sample":
        retrieved = _by_sample(inputs, pool, sources, None if k_nn is None else check_count("k_nn", k_nn))
    else:
        clusters = pool_clusters(inputs, k)
        retrieved = _by_cluster(inputs, pool, sources, clusters, min_hits, per_cluster)
    if cap is not None:
        retrieved = [best(inputs.draws, rows, check_count("cap", cap)) for rows in retrieved]
    # The first set that a row was retrieved for.
    labels = np.full(inputs.n, -1, np.int32)
    for number, rows in reversed(list(enumerate(retrieved))):
        labels[rows] = number
    found = Clusters(labels, len(sources))
    sizes = np.bincount(labels[labels >= 0], minlength=found.k)
    if inputs.budget is None:
        return Choice(np.flatnonzero(labels >= 0), clusters or found)
    _check_left(inputs, int(sizes.sum()), "are retrieved: raise k_nn, per_cluster or cap, or lower min_hits")
    counts = apportion(inputs.budget, upper=sizes)
    return Choice(best_of_groups(inputs.draws, found, counts, inputs), clusters or found)


def _deduplicated(inputs: Inputs, pool: NDArray[np.int64], cosine: float, k: int) -> NDArray[np.int64]:
    rows, numbers = pool_rows(inputs)
    roots = _components(rows, cosine, k, inputs)
    key = np.zeros(inputs.n) if inputs.score is None else -inputs.score
    found = np.flatnonzero(inputs.valid[numbers])
    # The best of each component comes first.
    order = found[np.lexsort((key[numbers[found]], roots[found]))]
    firsts = np.unique(roots[order], return_index=True)[1]
    return np.intersect1d(pool, numbers[order[firsts]])


def _without_leaks(
    inputs: Inputs, pool: NDArray[np.int64], held: list[str], cosine: float, k: int
) -> NDArray[np.int64]:
    sets = [inputs.need("references")[name].on_host() for name in held]
    rows = Rows([inputs.need("embeds").take(pool), *(_core.take_rows(one, np.arange(one.shape[0])) for one in sets)])
    roots = _components(rows, cosine, k, inputs)
    return pool[~np.isin(roots[: len(pool)], roots[len(pool) :])]


def _components(rows: Rows, cosine: float, k: int, inputs: Inputs) -> NDArray[np.int64]:
    """Of each row, the lowest of its connected component."""
    count = max(1, min(k, rows.shape[0] - 1))
    graph = _core.knn(rows, rows, k=count, exclude_self=True, threads=inputs.threads)
    return _core.graph_components(*graph, threshold=float(np.float32(cosine)))


def _by_sample(
    inputs: Inputs, pool: NDArray[np.int64], sources: list[str], k_nn: int | None
) -> list[NDArray[np.int64]]:
    rows = Rows([inputs.need("embeds").take(pool)])
    sets = [inputs.need("references")[name].on_host() for name in sources]

    def nearest(count: int) -> list[NDArray[np.int64]]:
        return [
            _core.knn(one, rows, k=min(count, len(pool)), exclude_self=False, threads=inputs.threads)[0] for one in sets
        ]

    count = NEIGHBOURS if k_nn is None else k_nn
    found = nearest(count)
    if k_nn is None and inputs.budget is not None:
        while count < len(pool) and _distinct(found, count) < inputs.budget:
            count *= 2
            found = nearest(count)
        low, high = 1, min(count, len(pool))
        while low < high:
            middle = (low + high) // 2
            low, high = (low, middle) if _distinct(found, middle) >= inputs.budget else (middle + 1, high)
        count = low
    return [pool[np.unique(one[:, :count][one[:, :count] >= 0])] for one in found]


def _distinct(found: list[NDArray[np.int64]], count: int) -> int:
    """Rows among the first ``count`` neighbours."""
    rows = np.unique(np.concatenate([one[:, :count].ravel() for one in found]))
    return int((rows >= 0).sum())


def _by_cluster(
    inputs: Inputs,
    pool: NDArray[np.int64],
    sources: list[str],
    clusters: FittedClusters,
    min_hits: int,
    per_cluster: int,
) -> list[NDArray[np.int64]]:
    hits = target_counts(inputs, clusters)
    labels = np.full(inputs.n, -1, np.int32)
    labels[pool] = clusters.labels[pool]
    left = Clusters(labels, clusters.k)
    chosen = best_of_groups(inputs.draws, left, np.full(clusters.k, per_cluster), inputs)
    return [chosen[hits[name][labels[chosen]] >= min_hits] for name in sources]


def _check_left(inputs: Inputs, rows: int, what: str) -> None:
    if inputs.budget is not None and rows < inputs.budget:
        message = f"a budget of {inputs.budget} rows, but only {rows} {what}, or lower the budget"
        raise BudgetError(message)
