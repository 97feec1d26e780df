"""RS-Prune itself."""

from __future__ import annotations

import numpy as np

from rsprune.assignment import Assignment, assign
from rsprune.centroids import fit_centroids
from rsprune.errors import MissingInputError
from rsprune.options import keywords
from rsprune.selection import Selection, SelectOptions, choose, read_request
from rsprune.strategies.base import Inputs, strategy
from rsprune.strategies.ranking import best
from rsprune.validation import check_number, fraction_of

__all__ = ["rsprune"]


@strategy()
@keywords(SelectOptions)
def rsprune(
    inputs: Inputs, *, entropy_keep: float | None = None, k: int | None = None, options: SelectOptions
) -> Selection:
    """The paper's method: from the rows around each reference centroid an equal number, nearest first.

    RS-Prune (arXiv 2512.23239), Sec. 3. Without ``entropy_keep`` this is :func:`rsprune.select`, which has the formulas
    of Stage II; ``score`` ranks rows instead of their similarity, as it does there.

    Parameters
    ----------
    inputs
        Centroids, or reference embeddings to fit them on.
    entropy_keep
        Stage I: first keep this fraction of all rows by ``entropy``, at least the budget. None leaves Stage I out.
    k
        Number of centroids to fit on the reference embeddings where none are given, 200 by default.
    """
    assert inputs.budget is not None
    request = read_request(
        inputs.n, inputs.budget, options, score=inputs.score, seed=inputs.seed, threads=inputs.threads
    )
    centroids = inputs.centroids
    if inputs.assignment is None:
        rows = inputs.need("embeds")
        if centroids is None:
            if inputs.references is None:
                raise MissingInputError(inputs.method, "centroids")
            centroids = fit_centroids(
                inputs.need("reference"), 200 if k is None else k, seed=inputs.seed, threads=inputs.threads
            )
        assignment = assign(
            rows, centroids, normalize=options.normalize, on_invalid=options.on_invalid, threads=inputs.threads
        )
    else:
        assignment = inputs.assignment
        if options.dedup is not None:
            inputs.need("embeds")
    clusters = k if centroids is None else centroids.k
    assert clusters is not None
    if inputs.entropy is not None:
        labels = np.where(np.isnan(inputs.entropy), np.int32(-1), assignment.labels)
        assignment = Assignment(labels, assignment.similarity)
    if entropy_keep is not None:
        check_number("entropy_keep", entropy_keep, above=0, maximum=1)
        entropy = inputs.need("entropy")
        pool = np.flatnonzero(assignment.labels >= 0)
        kept = best(-entropy, pool, max(fraction_of(entropy_keep, inputs.n), inputs.budget))
        beyond = np.setdiff1d(pool, kept, assume_unique=True)
        request = request._replace(excluded=np.concatenate([request.excluded, beyond]))
    return choose(request, assignment, clusters, inputs.embeds)
