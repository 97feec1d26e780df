"""What the reference images say of each cluster: the least entropy of its scenes, and how many it has."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from rsprune import _core
from rsprune.assignment import assign
from rsprune.centroids import Centroids, as_core
from rsprune.embeddings import as_rows
from rsprune.errors import ArgumentError, EmptyInputError
from rsprune.validation import check_column, check_integer, check_number, check_threads

__all__ = ["calibrate", "rows_below_tau"]


def calibrate(
    centroids: Any,
    ref_embeds: Any,
    entropy: Any,
    *,
    neighbors: int = 20,
    quantile: float = 0.1,
    threads: int | None = None,
) -> Centroids:
    """Give centroids the least entropy of their scenes, ``tau``, and the number of their reference images.

    One cut for all scenes drops those that are smooth by nature, such as deserts and meadows, whole. Here
    ``tau[k]`` is a low quantile of the entropies of the reference images nearest to centroid k: an image of less looks
    empty beside the labelled scenes of its own kind.

    Parameters
    ----------
    centroids
        :class:`Centroids`, a (K, D) array, or the path of a file of either.
    ref_embeds
        (M, D) embeddings of the reference images; see :func:`rsprune.embeddings.as_rows`.
    entropy
        Floating numbers (M,), their entropies in bits. Images of NaN, or without a direction, do not count.
    neighbors
        How many reference images say what is usual around a centroid: all of them, where there are fewer.
    quantile
        The quantile of their entropies that is the least; NumPy's, with linear interpolation.
    threads
        Number of threads, all cores by default. Results do not depend on it.

    Returns
    -------
    Centroids
        With ``tau`` (bits) and ``reference_counts``, and ``calibration`` in their ``meta``.

    Raises
    ------
    EmptyInputError
        No reference image counts.
    ShapeError, DtypeError, ArgumentError
        The arrays do not fit to each other, or an option is out of range.
    """
    neighbors = check_integer("neighbors", neighbors)
    quantile = check_number("quantile", quantile, minimum=0, maximum=1)
    threads = check_threads(threads)
    if not isinstance(centroids, Centroids):
        centroids = Centroids(as_core(centroids).vectors())
    rows = as_rows(ref_embeds)
    bits = check_column("entropy", entropy, rows.shape[0], kinds="f").astype(np.float64)
    known = np.flatnonzero(rows.valid(threads) & ~np.isnan(bits)).astype(np.int64)
    if not len(known):
        message = f"none of {len(bits)} reference images has both an entropy and a direction"
        raise EmptyInputError(message)
    base, count = as_rows(rows.take(known)), min(neighbors, len(known))
    near, _ = _core.knn(
        as_rows(centroids.vectors).on_host(), base.on_host(), k=count, exclude_self=False, threads=threads
    )
    tau = np.quantile(bits[known][near], quantile, axis=1)
    labels = assign(base, centroids, threads=threads).labels
    counts = np.bincount(labels, minlength=centroids.k).astype(np.int64)
    about = {"neighbors": neighbors, "quantile": quantile, "images": len(known)}
    meta = {**centroids.meta, "calibration": about}
    return Centroids(centroids.vectors, meta, tau=tau, reference_counts=counts)


def rows_below_tau(
    labels: NDArray[np.int32], entropy: NDArray[np.float64], centroids: Centroids, budget: int
) -> NDArray[np.int64]:
    """Find the rows below the least entropy of their cluster, ascending: those to leave out.

    Where fewer than ``budget`` rows would stay, so many of them do: those that are least below, then the first ones.
    """
    if centroids.tau is None:
        message = "the centroids have no tau: give those that rsprune.calibrate() returns"
        raise ArgumentError(message)
    valid = np.flatnonzero((labels >= 0) & ~np.isnan(entropy))
    margin = entropy[valid] - centroids.tau[labels[valid]]
    below = valid[margin < 0]
    missing = min(budget - (len(valid) - len(below)), len(below))
    if missing > 0:
        order = np.lexsort((below, -margin[margin < 0]))
        below = np.sort(below[order[missing:]])
    return below.astype(np.int64)
