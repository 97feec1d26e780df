"""Random rows."""

from __future__ import annotations

from rsprune.strategies.base import Picked, Pool, strategy
from rsprune.strategies.grouping import Shares, share_budget, top_per_group, top_rows

__all__ = ["random"]


@strategy(uses=("centroids", "labels", "entropy"))
def random(pool: Pool, *, shares: Shares | None = None, k: int | None = None) -> Picked:
    """Random rows, without replacement; stratified with ``shares``.

    Row i has the key ``hash64(seed, i)``; the B smallest (key, i) are picked.

    Parameters
    ----------
    pool
        Nothing but the number and validity of rows is used, from embeddings or entropies, unless with ``shares``.
    shares
        Share the budget out over the classes of ``labels``, the given centroids, or fitted clusters, and pick at random
        from each: ``"even"`` shares, by water-filling, or shares ``"proportional"`` to their sizes.
    k
        Fit this many clusters, whatever labels and centroids are given.
    """
    if shares is None:
        return Picked(top_rows(pool.random_keys, pool.candidates, pool.budget))
    groups = pool.partition(k)
    counts = share_budget(shares, groups, pool)
    return Picked(top_per_group(pool.random_keys, groups, counts, pool), groups)
