"""Near-duplicates within a pool, and rows of a pool that evaluation images resemble."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from rsprune import _core
from rsprune.embeddings import Embeddings, as_rows
from rsprune.errors import ArgumentError, ShapeError
from rsprune.validation import check_threads

__all__ = ["leaks", "near_duplicates"]


def leaks(embeds: Any, evaluation: Any, cosine: float, *, threads: int | None = None) -> NDArray[np.int64]:
    """Rows that resemble an image of an evaluation set: to be kept out of training, as ``exclude`` of a selection.

    Every row is compared with every evaluation image, exactly. Embeddings of different encoders differ in what cosine
    a copy has: DINOv2's curation takes 0.45 with those of copy detection (SSCD). Look at some pairs first.

    Parameters
    ----------
    embeds
        (N, D) embeddings of the pool; see :func:`rsprune.embeddings.as_rows`.
    evaluation
        (M, D) embeddings of the evaluation images, by the same encoder.
    cosine
        In [-1, 1]: rows of a similarity above it to any evaluation image are found.
    threads
        All cores by default. Never shows in the result.

    Returns
    -------
    numpy.ndarray
        int64: row numbers, ascending. Rows without a direction resemble nothing.

    Raises
    ------
    ArgumentError
        ``cosine`` out of range.
    ShapeError
        Pool and evaluation set differ in D.
    DtypeError, EmptyInputError, FormatError, OSError
        See :func:`rsprune.embeddings.as_rows`.
    """
    if isinstance(cosine, bool) or not -1 <= cosine <= 1:
        message = f"cosine is {cosine!r}; expected a number from -1 to 1"
        raise ArgumentError(message)
    pool, images = as_rows(embeds), as_rows(evaluation)
    if pool.shape[1] != images.shape[1]:
        message = (
            f"the pool has {pool.shape[1]} dimensions, the evaluation set {images.shape[1]}: use one encoder for both"
        )
        raise ShapeError(message)
    base, threads = images.on_host(), check_threads(threads)
    nearest = [
        _core.nearest_rows(rows, base, k=1, exclude_self=False, threads=threads)[1][:, 0] for rows in pool.blocks()
    ]
    return np.flatnonzero(np.concatenate(nearest) > np.float32(cosine)).astype(np.int64)


def near_duplicates(
    embeds: Embeddings,
    labels: NDArray[np.int32],
    similarity: NDArray[np.float32],
    eps: float,
    *,
    first: NDArray[np.int64],
    exclude: NDArray[np.int64],
    threads: int | None = None,
) -> NDArray[np.int64]:
    """Rows that have a near-duplicate in their cluster which comes before them and stays.

    SemDeDup (Abbas et al., 2023), comparing with rows that stay: each of these is within a cosine distance of ``eps``
    of one that stays, and no two that stay are. Those nearest to their centroid come first, ties to the lower row.

    Parameters
    ----------
    embeds, labels, similarity
        (N, D) rows, and the cluster of each (-1 for none) and its similarity to the centroid.
    eps
        In [0, 1].
    first
        Rows that stay whatever they resemble, and come before all others.
    exclude
        Rows that count as absent.
    threads
        All cores by default. Never shows in the result.

    Returns
    -------
    numpy.ndarray
        int64: row numbers, ascending.
    """
    if isinstance(eps, bool) or not isinstance(eps, (int, float, np.floating)) or not 0 <= eps <= 1:
        message = f"dedup is {eps!r}; expected a cosine distance from 0 to 1, or None"
        raise ArgumentError(message)
    present = labels >= 0
    present[exclude] = False
    rows = np.flatnonzero(present)
    comes_later = np.ones(len(labels), np.bool_)
    comes_later[first] = False
    order = rows[np.lexsort((-similarity[rows], comes_later[rows], labels[rows]))].astype(np.int64)
    starts = np.concatenate([[0], np.cumsum(np.bincount(labels[rows]))]).astype(np.int64)
    threshold = float(np.float32(1 - eps))
    stays = _core.separated_rows(embeds.on_host(), order, starts, threshold=threshold, threads=threads)
    return np.setdiff1d(order[~stays], first)
