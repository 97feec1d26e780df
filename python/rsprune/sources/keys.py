"""Keys that occur more than once, found without holding all keys."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

__all__ = ["repeated"]


def repeated(hashes: NDArray[np.int64]) -> NDArray[np.int64]:
    """The positions of values that occur more than once, ascending.

    Of 64-bit hashes they are the only keys that can be equal, and few: 16 bytes a key, where a set of keys takes
    hundreds.
    """
    order = np.argsort(hashes, kind="stable")
    same = hashes[order[1:]] == hashes[order[:-1]]
    return np.unique(np.concatenate([order[1:][same], order[:-1][same]])).astype(np.int64)
