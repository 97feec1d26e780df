"""The whole pool."""

from __future__ import annotations

from rsprune.strategies.base import Picked, Pool, strategy

__all__ = ["full"]


@strategy(uses=("entropy", "score", "labels"), budget="none")
def full(pool: Pool) -> Picked:
    """Every valid row: training on the whole collection, for comparison.

    Parameters
    ----------
    pool
        Any of the inputs with a value for each row; they say which rows are valid.
    """
    return Picked(pool.candidates)
