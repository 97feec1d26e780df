"""The rows of a pool as the searches for similar rows take them."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from rsprune._core import Rows
from rsprune.strategies.base import Pool

__all__ = ["searchable_rows"]


def searchable_rows(pool: Pool, rows: NDArray[np.int64] | None = None) -> tuple[Rows, NDArray[np.int64]]:
    """Return the candidates, or the given ones of them, to be searched, and the row of the pool that each is.

    Rows without a direction are never found, so they may stay where that saves a copy.
    """
    embeds = pool.require("embeds")
    if rows is None and np.array_equal(embeds.valid(pool.threads), pool.valid):
        return embeds.on_host(), np.arange(pool.n)
    wanted = pool.candidates if rows is None else rows
    return Rows([embeds.take(wanted)]), wanted
