"""The range of samples of more than 8 bits: known before the first image of a run is read for good."""

from __future__ import annotations

import contextlib
import dataclasses
import math
from collections.abc import Iterator
from itertools import islice
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rsprune.decoding import entropy_images, sample_values
from rsprune.errors import ArgumentError, DamagedFileError, RspruneError, ValueRangeError
from rsprune.runners import Progress
from rsprune.runs.config import DecodeOptions, GrayOptions
from rsprune.runs.folder import RunFolder
from rsprune.sources import Item, Source
from rsprune.sources.batches import batched

__all__ = ["settle_gray", "settle_range"]

#: Images that tell whether a range is needed: the first ones.
FIRST = 16
#: Images that the percentiles are of, and shards that they are drawn from.
DRAWN, SHARDS = 256, 16
#: Values that are taken of each of them, about.
VALUES = 1 << 16
#: What lies between these percentiles is the range.
PERCENTILES = (0.1, 99.9)


def settle_range(
    decode: DecodeOptions,
    source: Source,
    folder: RunFolder,
    progress: Progress,
    *,
    section: str,
    seed: int = 0,
    nodata: float | None = None,
    threads: int | None = None,
) -> DecodeOptions:
    """Return the options with two numbers in the place of ``valid_range="auto"``, or None where all images have 8 bits.

    A run that goes on has them in its configuration, in this ``section``. Otherwise they are the 0.1 and 99.9
    percentiles of the values of some images, drawn by ``seed``. Without a range, the first images are looked at.

    Raises
    ------
    ValueRangeError
        Some of the first images need a range: the message names the values seen, and the option to give.
    ArgumentError
        Whole numbers and floating point in one collection, which no range serves.
    """
    with contextlib.suppress(FileNotFoundError, DamagedFileError):
        known = folder.read_config().get(section, {}).get("valid_range")
        if decode.valid_range is None or known is not None:
            lo_hi = tuple(known) if decode.valid_range == "auto" else decode.valid_range
            return dataclasses.replace(decode, valid_range=lo_hi)
    options = {
        "bands": decode.bands,
        "max_pixels": decode.max_pixels,
        "max_bytes": decode.max_bytes,
        "threads": threads,
    }
    if decode.valid_range is None:
        _require_range(source, options | {"nodata": nodata})
        return decode
    if decode.valid_range != "auto":
        return decode
    values = _values(_drawn(source, seed), options | {"nodata": nodata})
    if not values:
        return dataclasses.replace(decode, valid_range=None)
    dtypes = {dtype for dtype, _ in values}
    if len({dtype.startswith("float") for dtype in dtypes}) > 1:
        message = f"valid_range is 'auto', but the collection holds {' and '.join(sorted(dtypes))}: prune them apart"
        raise ArgumentError(message)
    lo, hi = map(float, np.percentile(np.concatenate([some for _, some in values]), PERCENTILES))
    if not dtypes.pop().startswith("float"):
        lo, hi = math.floor(lo), math.ceil(hi)
    hi = hi if hi > lo else lo + 1
    progress.note(f"valid range {lo:g} to {hi:g}: 99.8% of the values of {len(values)} images lie in it")
    return dataclasses.replace(decode, valid_range=(lo, hi))


def settle_gray(gray: GrayOptions, source: Source, folder: RunFolder, progress: Progress, **known: Any) -> GrayOptions:
    """Return the options of Stage I with the range that :func:`settle_range` finds."""
    settled = settle_range(gray.decode, source, folder, progress, section="entropy", nodata=gray.nodata, **known)
    return dataclasses.replace(gray, decode=settled)


def _require_range(source: Source, options: dict[str, Any]) -> None:
    """Fail when some of the first images need a range."""
    items = list(islice(_first(source), FIRST))
    images = [item.data for item in items]
    _, failures = entropy_images(images, gray="mean", **options)
    needing = [number for number, kind, _ in failures if kind == "value_range"]
    if not needing:
        return
    values = _values([items[number] for number in needing], options)
    lo = min(float(some.min()) for _, some in values if len(some))
    hi = max(float(some.max()) for _, some in values if len(some))
    dtypes = " and ".join(sorted({dtype for dtype, _ in values}))
    end = hi if hi > lo else lo + 1
    message = (
        f"{len(needing)} of the first {len(items)} images, {items[needing[0]].key} among them, hold {dtypes} values "
        f"from {lo:g} to {hi:g}, which do not tell the range that they can take; give its ends, for example "
        f"valid_range=({lo:g}, {end:g}) or --valid-range {lo:g},{end:g}, or 'auto' for that of a sample"
    )
    raise ValueRangeError(message)


def _values(items: list[Item] | Iterator[Item], options: dict[str, Any]) -> list[tuple[str, NDArray[np.float64]]]:
    """Return dtype and values of each image of more than 8 bits."""
    found = []
    for batch in batched(items, FIRST):
        sampled = sample_values([item.data for item in batch], count=VALUES, **options)
        found += [one for one in sampled if one is not None and len(one[1])]
        del batch
    return found


def _first(source: Source) -> Iterator[Item]:
    """Yield the first images; what cannot be read is the business of the stage that reads it for good."""
    with contextlib.suppress(RspruneError, OSError):
        for shard in source.shards:
            yield from source.read(shard, list(range(min(FIRST, source.count(shard)))))


def _drawn(source: Source, seed: int) -> Iterator[Item]:
    """Yield some images of some shards, drawn evenly."""
    rng = np.random.default_rng(seed)
    shards = source.shards
    chosen = sorted(rng.permutation(len(shards))[:SHARDS].tolist())
    counts = [source.count(shards[number]) for number in chosen]
    rows = np.sort(rng.permutation(sum(counts))[:DRAWN])
    ends = np.cumsum(counts)
    for number, start, end in zip(chosen, ends - counts, ends, strict=True):
        inside = rows[(rows >= start) & (rows < end)] - start
        if len(inside):
            yield from source.read(shards[number], inside.tolist())
