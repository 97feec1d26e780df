"""CCS: coverage of all levels of a score, without the hardest."""

from __future__ import annotations

import numpy as np

from rsprune.errors import ArgumentError, BudgetError
from rsprune.strategies.base import Choice, Clusters, Inputs, strategy
from rsprune.strategies.ranking import best, best_of_groups
from rsprune.validation import fraction_of

__all__ = ["ccs"]


@strategy()
def ccs(inputs: Inputs, *, beta: float = 0.2, strata: int = 50, k: int | None = None) -> Choice:
    """Rows at random from equal intervals of a score, after the hardest have been dropped.

    Zheng et al., ICLR 2023. Of N rows the ``floor(beta N)`` hardest are dropped, lowest h first. The range of the score
    s of the others is cut into intervals of equal width, left-closed, the last one closed. Intervals in ascending order
    of size, ties to the lower, get ``min(size, floor(left of B / intervals left))`` rows each, drawn at random.

    Parameters
    ----------
    inputs
        ``score`` is s, and of what makes a row easy to learn (such as AUM). Without it the label-free form: s is
        ``entropy``; without that the cosine distance to the nearest centroid (given ones, or fitted on the pool). h is
        ``entropy`` where given, or else ``score``, or the cosine to that centroid.
    beta
        In [0, 1). The paper takes 0.3 to keep a tenth of ImageNet, 0.2 to keep a fifth.
    strata
        Number of intervals.
    k
        Fit so many clusters for the distance, whatever centroids are given.
    """
    if not 0 <= beta < 1:
        message = f"beta is {beta!r}; expected a fraction in [0, 1)"
        raise ArgumentError(message)
    if isinstance(strata, bool) or not isinstance(strata, int) or strata < 1:
        message = f"strata is {strata!r}; expected a whole number of at least 1"
        raise ArgumentError(message)
    score, ease = inputs.score, inputs.entropy
    if score is None and ease is not None and k is None:
        score = ease
    elif score is None:
        similarity = inputs.clusters(k).similarity
        score = 1.0 - similarity.astype(np.float64)
        ease = similarity.astype(np.float64) if ease is None else ease
    hardest = best(score if ease is None else ease, inputs.candidates, fraction_of(beta, len(inputs.candidates)))
    pool = np.setdiff1d(inputs.candidates, hardest, assume_unique=True)
    if len(pool) < inputs.rows_wanted:
        message = f"beta = {beta} leaves {len(pool)} rows, fewer than the budget of {inputs.rows_wanted}: lower it"
        raise BudgetError(message)
    lowest, highest = score[pool].min(), score[pool].max()
    width = highest - lowest
    if not np.isfinite(width):
        message = f"scores from {lowest} to {highest} have no finite range; scale them down"
        raise ArgumentError(message)
    labels = np.full(inputs.n, -1, np.int32)
    labels[pool] = 0 if width == 0 else np.minimum((score[pool] - lowest) / width * strata, strata - 1)
    sizes = np.bincount(labels[pool], minlength=strata)
    counts = np.zeros(strata, np.int64)
    left = inputs.rows_wanted
    for done, stratum in enumerate(np.argsort(sizes, kind="stable").tolist()):
        counts[stratum] = min(sizes[stratum], left // (strata - done))
        left -= counts[stratum]
    rows = best_of_groups(inputs.draws, Clusters(labels, strata), counts, inputs)
    return Choice(rows, Clusters(labels, strata))
