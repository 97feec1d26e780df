"""The embedding feed: decodes and resizes the next images while the encoder works on these."""

from __future__ import annotations

import os
from collections.abc import Generator, Iterable, Sequence
from contextlib import closing
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from rsprune.concurrency import prefetch_map
from rsprune.encoders.base import Encoder
from rsprune.errors import ArgumentError
from rsprune.sources import Item

__all__ = ["Embedded", "Failure", "embed"]


class Failure(NamedTuple):
    """An image that yields no embedding: its position in the feed, the cause's name, and what it says."""

    position: int
    kind: str
    message: str


class Embedded(NamedTuple):
    """What became of one batch of items.

    Attributes
    ----------
    positions : ndarray
        int64 (n,): where in the feed the embedded items stood, ascending from 0.
    embeddings : ndarray
        float32 (n, D), unit rows.
    failures : list of Failure
        The other items.
    """

    positions: NDArray[np.int64]
    embeddings: NDArray[np.float32]
    failures: list[Failure]


class _Ready(NamedTuple):
    """A batch that waits for the encoder."""

    positions: NDArray[np.int64]
    pixels: NDArray[np.uint8]
    failures: list[Failure]


def embed(
    encoder: Encoder,
    items: Iterable[Item],
    *,
    batch_size: int | None = None,
    bands: Sequence[int] | None = None,
    valid_range: tuple[int, int] | None = None,
    max_pixels: int | None = None,
    threads: int | None = None,
    prefetch: int | None = None,
) -> Generator[Embedded, None, None]:
    """Embed items in their order.

    Each batch holds the next ``batch_size`` items less those that fail, so that what goes through the network together
    never depends on threads or timing. Closing the iterator, or an exception in its consumer, stops the threads.

    Parameters
    ----------
    encoder : Encoder
        Runs in the threads that decode if it is :attr:`~Encoder.parallel`, else in :attr:`~Encoder.lanes` others.
    items : iterable of Item
        Read in a thread of its own; closed there at the end if it is a generator.
    batch_size : int, optional
        The encoder's own if not given.
    bands, valid_range, max_pixels : optional
        As for :func:`rsprune.entropy`.
    threads : int, optional
        Threads that decode and resize; all cores if not given.
    prefetch : int, optional
        How many batches may be ready or in the making before the encoder asks for them; two more than ``threads`` if
        not given. Memory: ``prefetch * batch_size * 3 * S * S`` bytes, and for each thread one image as it is decoded:
        a few rows of a JPEG.

    Yields
    ------
    Embedded
        One a batch; every item is in exactly one.

    Raises
    ------
    ArgumentError
        If a number is not positive.
    Exception
        Whatever ``items`` or the encoder raises.
    """
    size = encoder.batch_size if batch_size is None else batch_size
    workers = (os.cpu_count() or 1) if threads is None else threads
    depth = workers + 2 if prefetch is None else prefetch
    for name, value in (("batch_size", size), ("threads", workers), ("prefetch", depth)):
        if value < 1:
            message = f"{name} must be positive, got {value}"
            raise ArgumentError(message)

    def prepare(start: int, batch: list[Item]) -> _Ready:
        """Decode and resize in this thread, without the GIL."""
        pixels, failed = encoder.preprocessing.apply(
            [item.data for item in batch], bands=bands, valid_range=valid_range, max_pixels=max_pixels, threads=1
        )
        positions = np.arange(start, start + len(batch), dtype=np.int64)
        if failed:
            numbers = [number for number, _, _ in failed]
            positions, pixels = np.delete(positions, numbers), np.delete(pixels, numbers, axis=0)
        failures = [Failure(start + number, kind, message) for number, kind, message in failed]
        return _Ready(positions, pixels.transpose(0, 3, 1, 2), failures)

    def forward(ready: _Ready) -> Embedded:
        pixels = ready.pixels
        embeddings = encoder.forward(pixels) if len(pixels) else np.empty((0, encoder.dim), np.float32)
        return Embedded(ready.positions, embeddings, ready.failures)

    if encoder.parallel:
        done = prefetch_map(lambda *batch: forward(prepare(*batch)), items, size, threads=workers, depth=depth)
    else:
        ready = prefetch_map(prepare, items, size, threads=workers, depth=depth)
        lanes = encoder.lanes
        done = prefetch_map(lambda _, batch: forward(batch[0]), ready, 1, threads=lanes, depth=lanes + 1)
    with closing(done):
        yield from done
