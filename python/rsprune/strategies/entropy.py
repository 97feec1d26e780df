"""Stage I of RS-Prune alone."""

from __future__ import annotations

from rsprune.strategies.base import Picked, Pool, strategy
from rsprune.strategies.grouping import top_rows

__all__ = ["entropy"]


@strategy(needs=("entropy",))
def entropy(pool: Pool) -> Picked:
    """The images of highest entropy: Stage I of RS-Prune alone.

    (H descending, row ascending); RS-Prune (arXiv 2512.23239), Sec. 3.2 and 4.4.1. Needs no embeddings.
    """
    return Picked(top_rows(-pool.require("entropy"), pool.candidates, pool.budget))
