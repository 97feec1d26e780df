"""Every selection method of the paper's comparison, and more, under one signature.

One file a method. A method of another package is found by its entry point in the group ``rsprune.strategies``.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from rsprune.errors import ArgumentError, BudgetError
from rsprune.registry import Registry
from rsprune.selection import COUNTS, FILL, PRESELECTED, QUOTA, Origin, Selection
from rsprune.strategies.base import Clustering, Partition, Picked, Pool, Strategy, strategy
from rsprune.strategies.dynamics import tdds
from rsprune.validation import warn_caller

__all__ = [
    "Clustering",
    "Partition",
    "Picked",
    "Pool",
    "Strategy",
    "get",
    "names",
    "select",
    "select_from",
    "strategy",
    "tdds",
]

#: The method whose centroids are to be calibrated.
CALIBRATED = "rsprune_calibrated"
# In the order of the documentation. Each is the function of its name in the module of its name.
BUILT_IN = (
    "rsprune",
    "rsprune_calibrated",
    "full",
    "random",
    "entropy",
    "moderate",
    "cluster_nearest",
    "hierarchical",
    "vjepa2",
    "datacomp",
    "dbp",
    "prototypes",
    "ccs",
    "dinov2",
    "semdedup",
    "d2",
    "kcenter",
    "facility_location",
    "herding",
    "a2mae_like",
)

_registry: Registry[Strategy] = Registry(
    "strategy",
    "rsprune.strategies",
    {name: f"rsprune.strategies.{name}:{name}" for name in BUILT_IN},
    check=lambda member: isinstance(member, Strategy),
    expected="a function under @rsprune.strategies.strategy(...)",
)
names, get = _registry.names, _registry.get


def select(
    name: str,
    embeds: Any = None,
    budget: float | None = None,
    *,
    assignment: Any = None,
    centroids: Any = None,
    reference: Any = None,
    entropy: Any = None,
    score: Any = None,
    labels: Any = None,
    seed: int = 0,
    threads: int | None = None,
    **options: Any,
) -> Selection:
    """Select rows by any method.

    Every method keeps the same promises: no more rows than the budget, and exactly that many unless one of its options
    says otherwise; ties go to the lowest row; the same bytes with any number of threads and however the rows are
    stored; randomness by seed and row number alone. ``docs/strategies.md`` has the methods, their formulas and sources.

    Parameters
    ----------
    name
        The method: one of :func:`rsprune.strategies.names`. ``"rsprune"`` is :func:`rsprune.select`.
    embeds
        (N, D) embeddings of the pool; see :func:`rsprune.embeddings.as_rows`. None for a method that needs none.
    budget
        Rows to select: an integer, or a fraction in (0, 1) of all N rows, rounded down. None for a method with a rule
        of its own.
    assignment
        Clusters and similarities to ``centroids`` that are known already (a :class:`~rsprune.Assignment`), in place of
        ``embeds``, for methods that select by quota.
    centroids
        :class:`~rsprune.Centroids`, a (K, D) array or a path: used where the method would otherwise fit clusters on
        the pool.
    reference
        Embeddings of the reference images; a mapping of names to such, for several sets.
    entropy
        (N,) bits, as :func:`rsprune.entropy` returns them.
    score
        (N,) any score, more is better: of a training run, or of another tool.
    labels
        Integers (N,), 0 or more: a class for each row; -1 marks an invalid row.
    seed
        Random seed.
    threads
        Number of threads, all cores by default. Results do not depend on it.
    **options
        Options of the method.

    Returns
    -------
    Selection
        Rows ascending. ``cluster`` and ``similarity`` are those of the clusters that the method worked with; without
        any the pool is one cluster, and ``similarity`` NaN.

    Warns
    -----
    UserWarning
        An input makes no difference, because the options that were given leave it unused.

    Raises
    ------
    ArgumentError
        There is no such method or option, an option is out of range, or the method never uses an input.
    MissingInputError
        The method needs an input that was not given; the message names it.
    BudgetError
        There is no budget, or it cannot be met.
    ShapeError, DtypeError, EmptyInputError
        Inputs are not of N rows, or not of numbers.
    """
    inputs = {
        "embeds": embeds,
        "assignment": assignment,
        "centroids": centroids,
        "reference": reference,
        "entropy": entropy,
        "score": score,
        "labels": labels,
    }
    selection, unused = _run(get(name), inputs, budget, seed, threads, options)
    for one in unused:
        warn_caller(f"{one}= makes no difference: the strategy {name!r} does not use it with these options")
    return selection


def select_from(
    name: str,
    known: Mapping[str, Any],
    budget: float | None,
    *,
    origin: Origin | None = None,
    seed: int = 0,
    threads: int | None = None,
    **options: Any,
) -> Selection:
    """Select rows by any method, from those of the inputs ``known`` that it uses; see :func:`select`.

    An assignment stands in for the embeddings where both are there and it suffices. ``origin``
    is that of rows that are some of many.
    """
    method = get(name)
    return _run(method, method.usable(known), budget, seed, threads, options, origin)[0]


def _run(
    method: Strategy,
    inputs: Mapping[str, Any],
    budget: float | None,
    seed: int,
    threads: int | None,
    options: Any,
    origin: Origin | None = None,
) -> tuple[Selection, list[str]]:
    """Run a method; also return the names of the inputs that it did not look at."""
    method.check(options)
    pool = Pool.read(method, inputs, budget, seed, threads, origin)
    picked = method(pool, options)
    return picked if isinstance(picked, Selection) else _selection(pool, picked), pool.unused


def _selection(pool: Pool, picked: Picked) -> Selection:
    """Check what a method picked, and lay it out."""
    order = np.argsort(picked.rows, kind="stable")
    rows = np.asarray(picked.rows, np.int64)[order]
    if len(rows) and (rows[0] < 0 or rows[-1] >= pool.n or not pool.valid[rows].all() or (np.diff(rows) == 0).any()):
        message = f"the strategy {pool.method!r} picked rows that are invalid, not there, or picked twice"
        raise ArgumentError(message)
    budget = len(rows) if pool.requested is None else pool.requested
    if len(rows) > budget:
        message = f"the strategy {pool.method!r} picked {len(rows)} rows, more than the budget of {budget}"
        raise BudgetError(message)
    partition = picked.partition or pool.whole()
    labels, k = partition.labels, partition.k
    cluster = labels[rows]
    similarity = np.full(len(rows), np.nan, np.float32) if partition.similarity is None else partition.similarity[rows]
    phase = np.full(len(rows), QUOTA, np.uint8) if picked.phase is None else picked.phase[order].astype(np.uint8)
    counts = np.zeros(k, COUNTS)
    counts["pool"] = np.bincount(labels[pool.valid & (labels >= 0)], minlength=k)
    for field, value in (("quota", QUOTA), ("fill", FILL), ("preselected", PRESELECTED)):
        counts[field] = np.bincount(cluster[(phase == value) & (cluster >= 0)], minlength=k)
    invalid = np.flatnonzero(~pool.valid).astype(np.int64)
    return Selection(rows, cluster, similarity, phase, counts, invalid, budget, k, pool.n)
