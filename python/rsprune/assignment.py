"""Assignment: the nearest centroid of every row."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from rsprune import _core, assignment_gpu
from rsprune.centroids import OnInvalid, as_core, check_order
from rsprune.embeddings import Embeddings, as_rows, host_blocks, is_tensor
from rsprune.errors import ArgumentError
from rsprune.validation import check_choice, check_column, check_threads

__all__ = ["Assignment", "assign", "read_assignment"]


class Assignment(NamedTuple):
    """The nearest centroid of every row.

    Attributes
    ----------
    labels
        int32 (N,): its number; -1 for rows that are NaN, infinite or all zero.
    similarity
        float32 (N,): the similarity to it; NaN for those rows.
    """

    labels: NDArray[np.int32]
    similarity: NDArray[np.float32]


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
    with rows normalized). Dot products are those of float64 over the rows as stored, added in one fixed order, and
    rounded once to float32: the same bits on every machine, with any number of threads.

    Parameters
    ----------
    embeds
        (N, D) embeddings; see :func:`rsprune.embeddings.as_rows`. They are never copied as a whole.
    centroids
        :class:`~rsprune.Centroids`, a (K, D) array, or the path of a file of either. Vectors that are not of unit
        length are normalized, with a warning.
    normalize
        Divide by the norm of the row. With False the similarity is the dot product, as Eq. 4 is written, which prefers
        long rows.
    on_invalid
        Rows that are NaN, infinite or all zero: ``"exclude"`` gives them label -1 and similarity NaN, ``"raise"``
        fails on the first.
    threads
        Number of threads, all cores by default. Results do not depend on it.

    Returns
    -------
    Assignment
        ``labels`` int32 (N,) and ``similarity`` float32 (N,).

    Raises
    ------
    ArgumentError
        The two arguments are swapped: embeddings that are a :class:`~rsprune.Centroids` with centroids that are not,
        or more centroids than rows where some are not of unit length.
    ShapeError
        Embeddings and centroids differ in D.
    InvalidRowError
        A centroid has no direction, or a row has none and ``on_invalid="raise"``.
    DtypeError, EmptyInputError, FormatError, OSError
        See :func:`rsprune.embeddings.as_rows`.
    """
    check_order(embeds, centroids)
    rows = as_rows(embeds)
    core = as_core(centroids, rows=rows.shape[0])
    raise_invalid = check_choice("on_invalid", on_invalid, OnInvalid) == "raise"
    parts = list(_assign_parts(rows, core, bool(normalize), raise_invalid, check_threads(threads), _block_rows))
    if len(parts) == 1:
        return parts[0]
    return Assignment(*(np.concatenate(arrays) for arrays in zip(*parts, strict=True)))


def _assign_parts(
    rows: Embeddings,
    centroids: _core.Centroids,
    normalize: bool,
    raise_invalid: bool,
    threads: int | None,
    block_rows: int | None,
) -> Iterator[Assignment]:
    options: dict[str, Any] = {"normalize": normalize, "raise_invalid": raise_invalid, "threads": threads}
    first_row = 0
    for part in rows.parts:
        if is_tensor(part) and assignment_gpu.supports(part, centroids):
            yield Assignment(*assignment_gpu.assign(part, centroids, first_row=first_row, **options))
            first_row += len(part)
            continue
        for block in host_blocks(part):
            yield Assignment(*_core.assign(block, centroids, first_row=first_row, block_rows=block_rows, **options))
            first_row += block.shape[0]


def read_assignment(labels: Any, similarity: Any, k: int) -> Assignment:
    """Read clusters and similarities that are known already.

    ``labels`` are integers (N,) of any integer type, 0 to ``k - 1``, or -1 for an invalid row; ``similarity`` floating
    numbers (N,), rounded to float32, NaN for an invalid row. Other shapes and types are a ``ShapeError`` and a
    ``DtypeError``, a label that int32 does not hold is an ``ArgumentError``.
    """
    array = check_column("labels", labels, kinds="iu", expected="integers")
    if not np.can_cast(array.dtype, np.int32):
        wrong = np.flatnonzero((array < -1) | (array >= k))
        if wrong.size:
            row = int(wrong[0])
            message = f"row {row} has label {array[row]}; expected 0 to {k - 1} (k = {k}), or -1 for an invalid row"
            raise ArgumentError(message)
    numbers = check_column("similarity", similarity, kinds="f", expected="floating numbers")
    with np.errstate(over="ignore"):
        return Assignment(np.ascontiguousarray(array, dtype=np.int32), np.ascontiguousarray(numbers, dtype=np.float32))
