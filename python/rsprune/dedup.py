"""Near-duplicates within a pool, and rows of a pool that evaluation images resemble."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from rsprune import _core
from rsprune.embeddings import Embeddings, as_rows
from rsprune.errors import ShapeError
from rsprune.validation import check_number, check_threads

__all__ = ["leaks", "near_duplicates"]


def leaks(embeds: Any, evaluation: Any, eps: float, *, threads: int | None = None) -> NDArray[np.int64]:
    """Find the rows that resemble an image of an evaluation set, to be kept out of training with ``exclude=``.

    Every row is compared with every evaluation image, exactly. How near a copy is depends on the encoder: DINOv2's
    curation takes ``eps=0.55`` with embeddings made for copy detection (SSCD). Look at some pairs first.

    Parameters
    ----------
    embeds
        (N, D) embeddings of the pool; see :func:`rsprune.embeddings.as_rows`.
    evaluation
        (M, D) embeddings of the evaluation images, by the same encoder.
    eps
        Cosine distance, from 0 to 2: rows nearer than this to any evaluation image are found.
    threads
        Number of threads, all cores by default. Results do not depend on it.

    Returns
    -------
    numpy.ndarray
        int64: row numbers, ascending. Rows without a direction resemble nothing.

    Raises
    ------
    ArgumentError
        ``eps`` is out of range.
    ShapeError
        Pool and evaluation set differ in D.
    DtypeError, EmptyInputError, FormatError, OSError
        See :func:`rsprune.embeddings.as_rows`.
    """
    eps = check_number("eps", eps, minimum=0, maximum=2)
    pool, images = as_rows(embeds), as_rows(evaluation)
    if pool.shape[1] != images.shape[1]:
        message = (
            f"the pool has {pool.shape[1]} dimensions, the evaluation set {images.shape[1]}: use one encoder for both"
        )
        raise ShapeError(message)
    base, threads = images.on_host(), check_threads(threads)
    nearest = [_core.knn(rows, base, k=1, exclude_self=False, threads=threads)[1][:, 0] for rows in pool.blocks()]
    return np.flatnonzero(np.concatenate(nearest) > np.float32(1 - eps)).astype(np.int64)


def near_duplicates(
    embeds: Embeddings,
    labels: NDArray[np.int32],
    similarity: NDArray[np.float32],
    eps: float,
    *,
    preselected: NDArray[np.int64],
    excluded: NDArray[np.int64],
    threads: int | None = None,
) -> NDArray[np.int64]:
    """Find the rows that have a near-duplicate in their cluster which comes before them and stays: int64, ascending.

    SemDeDup (Abbas et al., 2023), except that rows are compared with those that stay: each row found is within a cosine
    distance of ``eps`` (0 to 1) of a row that stays, and no two that stay are. Rows come in descending order of
    similarity to their centroid, ties to the lower row.

    ``labels`` and ``similarity`` are the cluster of each row (-1 for none) and the similarity to its centroid.
    ``preselected`` rows come before all others, and stay whatever they resemble; ``excluded`` ones count as absent.
    """
    present = labels >= 0
    present[excluded] = False
    rows = np.flatnonzero(present)
    comes_later = np.ones(len(labels), np.bool_)
    comes_later[preselected] = False
    order = rows[np.lexsort((-similarity[rows], comes_later[rows], labels[rows]))].astype(np.int64)
    starts = np.concatenate([[0], np.cumsum(np.bincount(labels[rows]))]).astype(np.int64)
    threshold = float(np.float32(1 - eps))
    stays = _core.greedy_dedup(embeds.on_host(), order, starts, threshold=threshold, threads=threads)
    return np.setdiff1d(order[~stays], preselected)
