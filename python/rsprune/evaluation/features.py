"""Features as float64, read in blocks of bounded size."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rsprune import _core
from rsprune.embeddings import Embeddings, as_rows
from rsprune.errors import InvalidRowError, ShapeError
from rsprune.validation import check_integer, fraction_of

__all__ = ["as_pair", "blocks", "check_same_dim", "row_blocks", "sample_rows", "split_rows"]

# Rows summed at a time. Fixed: the last bits of a sum depend on it.
BLOCK_ROWS = 1024

# Memory for a block of the matrix between all rows of two sets.
_PAIRS_BYTES = 64 << 20


def blocks(features: Any) -> Iterator[NDArray[np.float64]]:
    """Yield all rows of (N, D) features in order, 1,024 at a time; NaN or infinity is an ``InvalidRowError``."""
    first = 0
    for rows in as_rows(features).blocks():
        n = rows.shape[0]
        for start in range(0, n, BLOCK_ROWS):
            block = rows.read(start, min(n, start + BLOCK_ROWS))
            if not np.isfinite(block).all():
                row = first + start + int(np.flatnonzero(~np.isfinite(block).all(axis=1))[0])
                message = f"row {row} of the features holds NaN or infinity; leave out what could not be embedded"
                raise InvalidRowError(message)
            yield block
        first += n


def as_array(features: Any) -> NDArray[np.float64]:
    """Return all rows at once: float64 (N, D)."""
    return np.concatenate(list(blocks(features)))


def as_pair(a: Any, b: Any) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return all rows of two sets: float64 (N, D) and (M, D)."""
    x, y = as_array(a), as_array(b)
    check_same_dim(x.shape[1], y.shape[1])
    return x, y


def check_same_dim(a: int, b: int) -> None:
    """Refuse features of different extractors."""
    if a != b:
        message = f"features of {a} and of {b} dimensions; both sets must come from one extractor"
        raise ShapeError(message)


def row_blocks(rows: int, columns: int) -> Iterator[slice]:
    """Cut ``rows`` so that a block of a float64 matrix of so many columns stays within 64 MB."""
    step = max(1, _PAIRS_BYTES // (8 * max(columns, 1)))
    for start in range(0, rows, step):
        yield slice(start, min(rows, start + step))


def split_rows(
    rows: Embeddings, share: float, seed: int, threads: int | None = None
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Split the valid rows by seed: those that remain, and a ``share`` of at least one row that is held out."""
    valid = np.flatnonzero(rows.valid(threads))
    out = sample_rows(max(fraction_of(share, len(valid)), 1), len(valid), seed)
    return np.delete(valid, out), valid[out]


def sample_rows(count: int, rows: int, seed: int, turn: int = 0) -> NDArray[np.int64]:
    """Sample ``count`` of ``rows`` row numbers without replacement, ascending; ``turn`` numbers independent samples."""
    if count >= rows:
        return np.arange(rows)
    draws = _core.hash64(check_integer("seed", seed, minimum=0), turn * rows, (turn + 1) * rows)
    return np.sort(np.argsort(draws, kind="stable")[:count])
