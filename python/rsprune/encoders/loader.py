"""Embedding a stream of items: the next images are decoded and resized while the encoder works on these."""

from __future__ import annotations

import os
from collections.abc import Generator, Iterable, Sequence
from contextlib import closing
from functools import partial
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from rsprune.concurrency import prefetch_map
from rsprune.encoders.base import NOT_FINITE, Encoder
from rsprune.errors import EncoderError
from rsprune.sources import Item
from rsprune.sources.base import with_reasons
from rsprune.sources.passing import read_again
from rsprune.validation import check_integer

__all__ = ["Embedded", "Failure", "check_finite", "embed_items"]


class Failure(NamedTuple):
    """An image that yields no embedding: its position among the items, the cause's name, and what it says."""

    position: int
    kind: str
    message: str


class Embedded(NamedTuple):
    """The embeddings of one batch of items, and its failures."""

    positions: NDArray[np.int64]  # (n,): the positions of the embedded items among all, ascending from 0
    embeddings: NDArray[np.float32]  # (n, D), unit rows
    failures: list[Failure]  # the other items


class _Ready(NamedTuple):
    """A batch that waits for the encoder."""

    positions: NDArray[np.int64]
    pixels: NDArray[np.uint8]
    failures: list[Failure]


def not_finite(encoder: Encoder) -> str:
    """Say that an encoder gives nothing of use."""
    return f"the encoder {encoder.name} gives no finite number: its weights are damaged, or overflow in its precision"


def check_finite(encoder: Encoder) -> None:
    """Pass one made-up image through an encoder, before any work.

    An embedding of another shape than the encoder says, or one that is not finite, is an :class:`EncoderError`.
    """
    ramp = np.linspace(0, 255, encoder.size).astype(np.uint8)
    pixels = np.broadcast_to(ramp[:, None], (1, 3, encoder.size, encoder.size))
    found = encoder.forward(np.ascontiguousarray(pixels))
    if found.shape != (1, encoder.dim):
        message = f"the encoder {encoder.name} gives an embedding of shape {found.shape}; expected (1, {encoder.dim})"
        raise EncoderError(message)
    if not np.isfinite(found).all():
        raise EncoderError(not_finite(encoder))


def embed_items(
    encoder: Encoder,
    items: Iterable[Item],
    *,
    batch_size: int | None = None,
    bands: Sequence[int] | None = None,
    valid_range: tuple[float, float] | None = None,
    max_pixels: int | None = None,
    max_bytes: int | None = None,
    threads: int | None = None,
    prefetch: int | None = None,
) -> Generator[Embedded, None, None]:
    """Embed items in their order, a batch at a time; every item is in exactly one.

    Each batch holds the next ``batch_size`` items less those that fail, so that what goes through the network together
    never depends on threads or timing. Closing the iterator, or an exception in its consumer, stops the threads.

    ``items`` are read in a thread of its own, which closes them at the end if they are a generator. ``threads``, all
    cores by default, decode and resize; the encoder runs in them if :attr:`~Encoder.one_batch_per_core`, else in
    :attr:`~Encoder.concurrency` others. ``prefetch`` batches, two more than ``threads`` by default, may be ready or in
    the making before the encoder asks for them: they take ``prefetch * batch_size * 3 * S * S`` bytes, and each thread
    one image as it is decoded, a few rows of a JPEG. The other options are those of :func:`rsprune.entropy`.

    Raises
    ------
    ArgumentError
        If a number is not positive.
    EncoderError
        If none of the numbers that the encoder gives for the images of a batch are finite.
    Exception
        Whatever ``items`` or the encoder raises.
    """
    size = encoder.batch_size if batch_size is None else batch_size
    workers = (os.cpu_count() or 1) if threads is None else threads
    depth = workers + 2 if prefetch is None else prefetch
    for name, value in (("batch_size", size), ("threads", workers), ("prefetch", depth)):
        check_integer(name, value)

    def prepare(start: int, batch: list[Item]) -> _Ready:
        """Decode and resize in this thread, without the GIL."""
        images = [item.data for item in batch]
        apply = partial(
            encoder.preprocessing.apply,
            bands=bands,
            valid_range=valid_range,
            max_pixels=max_pixels,
            max_bytes=max_bytes,
            threads=1,
        )
        pixels, failed = apply(images)
        failed = read_again(apply, images, pixels, failed)
        positions = np.arange(start, start + len(batch), dtype=np.int64)
        if failed:
            numbers = [number for number, _, _ in failed]
            positions, pixels = np.delete(positions, numbers), np.delete(pixels, numbers, axis=0)
        failures = [Failure(start + number, kind, message) for number, kind, message in with_reasons(images, failed)]
        return _Ready(positions, pixels.transpose(0, 3, 1, 2), failures)

    def forward(ready: _Ready) -> Embedded:
        if not len(ready.pixels):
            return Embedded(ready.positions, np.empty((0, encoder.dim), np.float32), ready.failures)
        embeddings = encoder.forward(ready.pixels)
        finite = np.isfinite(embeddings.sum(axis=1))
        if len(finite) > 1 and not finite.any():
            raise EncoderError(not_finite(encoder))
        failures = [Failure(position, *NOT_FINITE) for position in ready.positions[~finite].tolist()]
        return Embedded(ready.positions[finite], embeddings[finite], sorted([*ready.failures, *failures]))

    if encoder.one_batch_per_core:
        done = prefetch_map(lambda *batch: forward(prepare(*batch)), items, size, threads=workers, depth=depth)
    else:
        ready = prefetch_map(prepare, items, size, threads=workers, depth=depth)
        threads = encoder.concurrency
        done = prefetch_map(lambda _, batch: forward(batch[0]), ready, 1, threads=threads, depth=threads + 1)
    with closing(done):
        yield from done
