"""The one door to all methods: checks what is given, runs the method, checks what it gives."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rsprune.assignment import read_assignment
from rsprune.centroids import Centroids
from rsprune.embeddings import Embeddings, as_rows
from rsprune.errors import ArgumentError, BudgetError, DtypeError, EmptyInputError, MissingInputError, ShapeError
from rsprune.selection import COUNTS, FILL, PRESELECTED, QUOTA, Selection, budget_rows
from rsprune.strategies.inputs import Choice, Clusters, FittedClusters, Inputs
from rsprune.strategies.registry import get
from rsprune.strategies.strategy import Strategy, strategy
from rsprune.validation import check_integer, check_threads

__all__ = ["Choice", "Clusters", "FittedClusters", "Inputs", "Strategy", "select", "strategy"]


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

    Every method keeps the same promises: no more rows than the budget, and exactly so many unless one of its options
    says otherwise; ties to the lowest row; the same bytes with any number of threads and however the rows are stored;
    draws by seed and row number alone. ``docs/strategies.md`` has the methods, their formulas and sources.

    Parameters
    ----------
    name
        The method: one of :func:`rsprune.strategies.names`.
    embeds
        (N, D) embeddings of the pool; see :func:`rsprune.embeddings.as_rows`. None for a method that needs none.
    budget
        Rows to select: an integer, or a fraction in (0, 1) of all N rows, rounded down. None for a method with a rule
        of its own.
    assignment
        Clusters and similarities (a :class:`~rsprune.Assignment`) to ``centroids`` that are known already, for
        ``"rsprune"`` in place of the embeddings.
    centroids
        :class:`~rsprune.Centroids` or a (K, D) array: used where the method would otherwise fit clusters on the pool.
    reference
        Embeddings of the reference images; a mapping of names to such, for several sets.
    entropy
        (N,) bits, as :func:`rsprune.entropy` gives them.
    score
        (N,) any score, more is better: of a training run, or of another tool.
    labels
        Integers (N,), 0 or more: a class each row; -1 marks an invalid row.
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

    Raises
    ------
    ArgumentError
        No such method, or no such option, or an option out of range.
    MissingInputError
        The method needs an input that was not given; the message names it.
    BudgetError
        No budget, or one that cannot be met.
    ShapeError, DtypeError, EmptyInputError
        Inputs that are not of N rows, or not of numbers.
    """
    method = get(name)
    method.check(options)
    rows = None if embeds is None else as_rows(embeds)
    bits, scores, classes = _numbers("entropy", entropy), _numbers("score", score), _classes(labels)
    fitted = centroids if centroids is None or isinstance(centroids, Centroids) else Centroids(centroids)
    known = None
    if assignment is not None:
        k = options.get("k") if fitted is None else fitted.k
        if k is None:
            raise MissingInputError(name, "centroids")
        known = read_assignment(assignment[0], assignment[1], k)
    lengths = {"entropy": bits, "score": scores, "labels": classes, "assignment": known and known.labels}
    n = _rows({"embeds": rows, **lengths}, method)
    inputs = Inputs(
        method=name,
        n=n,
        budget=None if budget is None else budget_rows(budget, n),
        embeds=rows,
        references=_sets(reference, rows),
        centroids=fitted,
        entropy=bits,
        score=scores,
        labels=classes,
        assignment=known,
        seed=check_integer("seed", seed, minimum=0),
        threads=check_threads(threads),
    )
    chosen = method(inputs, options)
    return chosen if isinstance(chosen, Selection) else _selection(inputs, chosen)


def _selection(inputs: Inputs, choice: Choice) -> Selection:
    """Check what a method chose, and lay it out."""
    order = np.argsort(choice.rows, kind="stable")
    rows = np.asarray(choice.rows, np.int64)[order]
    if len(rows) and (
        rows[0] < 0 or rows[-1] >= inputs.n or not inputs.valid[rows].all() or (np.diff(rows) == 0).any()
    ):
        message = f"the strategy {inputs.method!r} chose rows that are invalid, not there, or chosen twice"
        raise ArgumentError(message)
    budget = len(rows) if inputs.budget is None else inputs.budget
    if len(rows) > budget:
        message = f"the strategy {inputs.method!r} chose {len(rows)} rows, more than the budget of {budget}"
        raise BudgetError(message)
    whole = Clusters(np.where(inputs.valid, 0, -1).astype(np.int32), 1)
    clusters = choice.clusters or whole
    cluster = clusters.labels[rows]
    similarity = np.full(len(rows), np.nan, np.float32) if clusters.similarity is None else clusters.similarity[rows]
    phase = np.full(len(rows), QUOTA, np.uint8) if choice.phase is None else choice.phase[order].astype(np.uint8)
    counts = np.zeros(clusters.k, COUNTS)
    counts["pool"] = _sizes(clusters.labels[inputs.candidates], clusters.k)
    for field, value in (("quota", QUOTA), ("fill", FILL), ("preselected", PRESELECTED)):
        counts[field] = _sizes(cluster[phase == value], clusters.k)
    invalid = np.flatnonzero(~inputs.valid).astype(np.int64)
    k, n = clusters.k, inputs.n
    return Selection(rows, cluster, similarity, phase, counts, invalid, budget, k, n, outside=choice.outside)


def _sizes(labels: NDArray[np.int32], k: int) -> NDArray[np.int64]:
    """Rows in each group; those in none are not counted."""
    return np.bincount(labels[labels >= 0], minlength=k)


def _rows(given: Mapping[str, Any], method: Strategy) -> int:
    """The number of rows that all inputs agree on."""
    lengths = {name: value.shape[0] for name, value in given.items() if value is not None}
    if not lengths:
        raise MissingInputError(method.name, method.needs[0] if method.needs else "embeds")
    if len(set(lengths.values())) > 1:
        message = f"inputs of different numbers of rows: {', '.join(f'{name} {n}' for name, n in lengths.items())}"
        raise ShapeError(message)
    n = int(next(iter(lengths.values())))
    if n == 0:
        message = "nothing to select from: 0 rows"
        raise EmptyInputError(message)
    return n


def _sets(reference: Any, pool: Embeddings | None) -> dict[str, Embeddings] | None:
    """Read one or several sets of reference embeddings, of the dimension of the pool."""
    if reference is None:
        return None
    named = reference if isinstance(reference, Mapping) else {"reference": reference}
    sets = {str(name): as_rows(embeds) for name, embeds in named.items()}
    if not sets:
        message = "reference is a mapping of no sets; expected at least one"
        raise EmptyInputError(message)
    dim = (pool or next(iter(sets.values()))).shape[1]
    for name, one in sets.items():
        if one.shape[1] != dim:
            message = (
                f"the reference set {name!r} has {one.shape[1]} dimensions, expected {dim}: use one encoder for all"
            )
            raise ShapeError(message)
    return sets


def _column(name: str, values: Any, kinds: str, what: str) -> NDArray[Any]:
    """Read one value a row, of these kinds of dtype; an empty list has none."""
    array = np.asarray(values)
    if array.ndim != 1:
        message = f"{name} of shape {array.shape}; expected (rows,)"
        raise ShapeError(message)
    if array.dtype.kind not in kinds and array.size:
        message = f"{name} of {array.dtype}; expected {what}"
        raise DtypeError(message)
    return array


def _numbers(name: str, values: Any) -> NDArray[np.float64] | None:
    if values is None:
        return None
    array = _column(name, values, "fiu", "numbers")
    # -0.0 and 0.0 are one score.
    numbers: NDArray[np.float64] = array.astype(np.float64) + 0.0
    if np.isinf(numbers).any():
        message = f"{name} holds infinity in row {int(np.flatnonzero(np.isinf(numbers))[0])}; expected finite numbers"
        raise ArgumentError(message)
    return numbers


def _classes(labels: Any) -> NDArray[np.int32] | None:
    if labels is None:
        return None
    array = _column("labels", labels, "iu", "integers")
    wrong = np.flatnonzero((array < -1) | (array >= 2**31 - 1))
    if wrong.size:
        message = f"row {int(wrong[0])} has label {array[wrong[0]]}; expected 0 or more, or -1 for an invalid row"
        raise ArgumentError(message)
    return array.astype(np.int32)
