"""Batches of images that are bounded by the bytes they hold, and not only by their number."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any, TypeVar

import numpy as np

from rsprune.sources.base import Item

__all__ = ["BATCH_BYTES", "batched"]

T = TypeVar("T")

#: What the images of a batch hold in memory together, but for the last one.
BATCH_BYTES = 1 << 24


def batched(items: Iterable[T], size: int, max_bytes: float = BATCH_BYTES) -> Iterator[list[T]]:
    """Cut an iterable into lists that end at ``size`` items, or where they hold ``max_bytes`` in memory.

    A batch that its consumer has dropped is not in memory while the next one is read.
    """
    batch: list[T] = []
    held = 0
    for item in items:
        batch.append(item)
        held += held_bytes(item)
        del item
        if len(batch) == size or held >= max_bytes:
            yield batch
            batch, held = [], 0
    if batch:
        yield batch


def held_bytes(item: Any) -> int:
    """Return what an image holds in memory: encoded ones in files hold nothing."""
    data = item.data if isinstance(item, Item) else item
    if isinstance(data, np.ndarray):
        return data.nbytes
    return len(data) if isinstance(data, bytes) else 0
