"""RS-Prune itself."""

from __future__ import annotations

import numpy as np

from rsprune.centroids import fit_centroids
from rsprune.errors import ArgumentError, MissingInputError
from rsprune.selection import Fill, Within, assign, select_assigned
from rsprune.strategies.base import Choice, Clusters, Inputs, strategy
from rsprune.strategies.ranking import best

__all__ = ["rsprune"]


@strategy(needs=("embeds",))
def rsprune(
    inputs: Inputs,
    *,
    entropy_keep: float | None = None,
    k: int = 200,
    fill: Fill = "global",
    within: Within = "nearest",
    min_similarity: float | None = None,
) -> Choice:
    """The paper's method: of the rows around each reference centroid an equal number, nearest first.

    RS-Prune (arXiv 2512.23239), Sec. 3; :func:`rsprune.select` has the formulas of Stage II.

    Parameters
    ----------
    inputs
        Centroids, or reference embeddings to fit them on.
    entropy_keep
        Stage I: first keep this fraction of all rows by ``entropy``, at least the budget. None leaves Stage I out.
    k
        Centroids to fit on the reference embeddings, where no centroids are given.
    fill, within, min_similarity
        See :func:`rsprune.select`.
    """
    pool = inputs.candidates
    if entropy_keep is not None:
        if not 0 < entropy_keep <= 1:
            message = f"entropy_keep is {entropy_keep!r}; expected a fraction in (0, 1], or None"
            raise ArgumentError(message)
        pool = best(-inputs.need("entropy"), pool, max(int(entropy_keep * inputs.n + 1e-9), inputs.rows_wanted))
    centroids = inputs.centroids
    if centroids is None:
        if inputs.references is None:
            raise MissingInputError(inputs.method, "centroids")
        centroids = fit_centroids(inputs.need("reference"), k, seed=inputs.seed, threads=inputs.threads)
    labels, similarity = assign(inputs.embeds, centroids, threads=inputs.threads)
    kept = np.zeros(inputs.n, np.bool_)
    kept[pool] = True
    chosen = select_assigned(
        np.where(kept, labels, -1),
        similarity,
        inputs.rows_wanted,
        k=centroids.k,
        fill=fill,
        within=within,
        min_similarity=min_similarity,
        seed=inputs.seed,
        threads=inputs.threads,
    )
    labels[~inputs.valid] = -1
    return Choice(
        chosen.indices, Clusters(labels, centroids.k, similarity, centroids.vectors), chosen.phase, chosen.outside
    )
