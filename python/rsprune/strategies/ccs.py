"""CCS: coverage of all levels of a score, without the hardest."""

from __future__ import annotations

import numpy as np

from rsprune.errors import ArgumentError, BudgetError
from rsprune.strategies.base import Partition, Picked, Pool, strategy
from rsprune.strategies.grouping import top_per_group, top_rows
from rsprune.validation import check_number, fraction_of

__all__ = ["ccs"]


@strategy(uses=("centroids", "entropy", "score"))
def ccs(pool: Pool, *, beta: float = 0.2, strata: int = 50, k: int | None = None) -> Picked:
    """Random rows from equal intervals of a score, after the hardest have been dropped.

    Zheng et al., ICLR 2023. Of N rows the ``floor(beta N)`` hardest are dropped, lowest h first. The range of the score
    s of the others is cut into intervals of equal width, left-closed, the last one closed. Intervals in ascending order
    of size, ties to the lower, get ``min(size, floor(left of B / intervals left))`` rows each, picked at random.

    Parameters
    ----------
    pool
        ``score`` is s, a measure of how easy a row is to learn (such as AUM). Without it the label-free form: s is
        ``entropy``, or without that the cosine distance to the nearest centroid (given ones, or fitted on the pool).
        h is ``entropy`` where given, or else ``score``, or the cosine to that centroid.
    beta
        In [0, 1). The paper takes 0.3 to keep a tenth of ImageNet, 0.2 to keep a fifth.
    strata
        Number of intervals.
    k
        Fit this many clusters for the distance, whatever centroids are given.
    """
    check_number("beta", beta, minimum=0, below=1)
    score, ease = pool.score, pool.entropy
    if score is None and ease is not None and k is None:
        score = ease
    elif score is None:
        similarity = pool.cluster(k).similarity
        score = 1.0 - similarity.astype(np.float64)
        ease = similarity.astype(np.float64) if ease is None else ease
    hardest = top_rows(score if ease is None else ease, pool.candidates, fraction_of(beta, len(pool.candidates)))
    rows = np.setdiff1d(pool.candidates, hardest, assume_unique=True)
    if len(rows) < pool.budget:
        message = f"beta = {beta} leaves {len(rows)} rows, fewer than the budget of {pool.budget}: lower it"
        raise BudgetError(message)
    lowest, highest = score[rows].min(), score[rows].max()
    width = highest - lowest
    if not np.isfinite(width):
        message = f"scores from {lowest} to {highest} have no finite range; scale them down"
        raise ArgumentError(message)
    labels = np.full(pool.n, -1, np.int32)
    labels[rows] = 0 if width == 0 else np.minimum((score[rows] - lowest) / width * strata, strata - 1)
    sizes = np.bincount(labels[rows], minlength=strata)
    counts = np.zeros(strata, np.int64)
    left = pool.budget
    for done, stratum in enumerate(np.argsort(sizes, kind="stable").tolist()):
        counts[stratum] = min(sizes[stratum], left // (strata - done))
        left -= counts[stratum]
    intervals = Partition(labels, strata)
    return Picked(top_per_group(pool.random_keys, intervals, counts, pool), intervals)
