"""Rows at random."""

from __future__ import annotations

import numpy as np

from rsprune.apportion import apportion
from rsprune.strategies.base import Choice, Inputs, strategy
from rsprune.strategies.ranking import best, best_of_groups

__all__ = ["random"]


@strategy()
def random(inputs: Inputs, *, stratified: bool = False, k: int | None = None) -> Choice:
    """Rows at random, without replacement; stratified: an even share of each class or cluster.

    Row i has the key ``hash64(seed, i)``; the B smallest (key, i) are chosen.

    Parameters
    ----------
    inputs
        Of the embeddings nothing but their number and validity is used, unless stratified.
    stratified
        Share the budget out over the classes of ``labels``, the given centroids, or fitted clusters, by water-filling.
    k
        Fit so many clusters, whatever labels and centroids are given.
    """
    if not stratified:
        return Choice(best(inputs.draws, inputs.candidates, inputs.rows_wanted))
    groups = inputs.groups(k)
    pool = np.bincount(groups.labels[inputs.candidates], minlength=groups.k)
    counts = apportion(inputs.rows_wanted, upper=pool)
    return Choice(best_of_groups(inputs.draws, groups, counts, inputs), groups)
