"""RS-Prune itself."""

from __future__ import annotations

import numpy as np

from rsprune.assignment import Assignment, assign
from rsprune.centroids import fit_centroids
from rsprune.options import keywords
from rsprune.selection import Selection, SelectOptions, choose, read_request
from rsprune.strategies.base import Pool, strategy
from rsprune.strategies.grouping import top_rows
from rsprune.validation import check_number, fraction_of

__all__ = ["rsprune"]


@strategy(needs=("embeds", "centroids"), uses=("reference", "entropy", "score"), quotas=True)
@keywords(SelectOptions)
def rsprune(pool: Pool, *, entropy_keep: float | None = None, k: int = 200, options: SelectOptions) -> Selection:
    """The paper's method: the same number of rows from around each reference centroid, nearest first.

    RS-Prune (arXiv 2512.23239), Sec. 3. Without ``entropy_keep`` it is :func:`rsprune.select`, which has the formulas
    of Stage II; ``score`` ranks the rows instead of their similarity, as it does there.

    Parameters
    ----------
    pool
        Centroids, or reference embeddings to fit them on.
    entropy_keep
        Stage I: first keep this fraction of all rows by ``entropy``, at least the budget. None leaves Stage I out.
    k
        Number of centroids to fit on the reference embeddings where no centroids are given.
    """
    if entropy_keep is not None:
        check_number("entropy_keep", entropy_keep, above=0, maximum=1)
    assert pool.requested is not None
    if options.dedup is not None or options.leaks is not None:
        pool.require("embeds")
    request = read_request(pool.n, pool.requested, options, score=pool.score, seed=pool.seed, threads=pool.threads)
    request = request._replace(origin=pool.origin)
    centroids = pool.centroids or fit_centroids(pool.references, k, seed=pool.seed, threads=pool.threads)
    assignment = pool.assignment or assign(
        pool.embeds, centroids, normalize=options.normalize, on_invalid=options.on_invalid, threads=pool.threads
    )
    if not pool.known.all():
        assignment = Assignment(np.where(pool.known, assignment.labels, np.int32(-1)), assignment.similarity)
    if entropy_keep is not None:
        rows = np.flatnonzero(assignment.labels >= 0)
        kept = top_rows(-pool.require("entropy"), rows, max(fraction_of(entropy_keep, pool.n), pool.requested))
        beyond = np.setdiff1d(rows, kept, assume_unique=True)
        request = request._replace(excluded=np.concatenate([request.excluded, beyond]))
    return choose(request, assignment, centroids.k, pool.embeds)
