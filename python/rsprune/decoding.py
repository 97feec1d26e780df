"""Decoding: by the core, and by Pillow what the core does not read.

The functions are those of the core, with the same options. Pillow reads one image at a time: no format of which a
collection has millions comes to it.
"""

from __future__ import annotations

import io
import re
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from rsprune import _core
from rsprune.errors import (
    CorruptImageError,
    DtypeError,
    ImageError,
    ImageMemoryError,
    ImageTooLargeError,
    UnsupportedImageError,
)
from rsprune.pixels import pillow_samples

__all__ = ["decode_images", "entropy_images", "preprocess_images", "sample_values", "score_images"]

Failures = list[tuple[int, str, str]]

#: The formats that Pillow is asked for. It has others, some of which call programs.
FORMATS = ("AVIF", "BMP", "DIB", "GIF", "JPEG", "JPEG2000", "PPM", "TIFF")
#: Those of which the core knows better why an image is not read.
KNOWN = frozenset({"JPEG", "TIFF"})
#: The kinds of failures that Pillow may not share.
OTHERS = frozenset({"unknown_format", "unsupported"})
#: The limit of the core where none is given.
MAX_PIXELS = 178_956_970


def entropy_images(items: Sequence[Any], **options: Any) -> tuple[NDArray[np.float64], Failures]:
    """Return the entropy of each image, NaN where it failed, and the failures."""
    return _measured(_core.entropy_images, items, options)


def score_images(items: Sequence[Any], **options: Any) -> tuple[NDArray[np.float64], Failures]:
    """Return the :data:`~rsprune.entropy.SCORES` of each image, a row of NaN where it failed, and the failures."""
    return _measured(_core.score_images, items, options)


def _measured(
    measure: Callable[..., tuple[NDArray[np.float64], Failures]], items: Sequence[Any], options: dict[str, Any]
) -> tuple[NDArray[np.float64], Failures]:
    values, failures = measure(items, **options)

    def again(number: int, image: NDArray[Any]) -> Failures:
        value, failed = measure([image], **options)
        values[number] = value[0]
        return failed

    return values, _through_pillow(items, failures, again, options.get("max_pixels"))


def decode_images(items: Sequence[Any], **options: Any) -> tuple[list[NDArray[np.uint8] | None], Failures]:
    """Return each image as RGB, uint8 (H, W, 3), or None where it failed, and the failures."""
    images, failures = _core.decode_images(items, **options)

    def again(number: int, image: NDArray[Any]) -> Failures:
        (images[number],), failed = _core.decode_images([image], **options)
        return failed

    return images, _through_pillow(items, failures, again, options.get("max_pixels"))


def preprocess_images(items: Sequence[Any], out: NDArray[np.uint8], **options: Any) -> Failures:
    """Write each image to its place in ``out``, zeros where it failed, and return the failures."""

    def again(number: int, image: NDArray[Any]) -> Failures:
        return _core.preprocess_images([image], out[number : number + 1], **options)

    failures = _core.preprocess_images(items, out, **options)
    return _through_pillow(items, failures, again, options.get("max_pixels"))


def sample_values(items: Sequence[Any], **options: Any) -> list[tuple[str, NDArray[np.float64]] | None]:
    """Return dtype and some values of each image of more than 8 bits; None for one of 8 bits, or that failed."""
    # What Pillow reads has 8 bits.
    return _core.sample_values(items, **options)[0]


def _through_pillow(
    items: Sequence[Any],
    failures: Failures,
    again: Callable[[int, NDArray[Any]], Failures],
    max_pixels: int | None,
) -> Failures:
    """Read those images with Pillow that the core does not read, and return the failures that are left."""
    left: Failures = []
    for number, kind, message in failures:
        failed = [(0, kind, message)]
        if kind in OTHERS and not isinstance(items[number], np.ndarray):
            try:
                image = _read(items[number], max_pixels or MAX_PIXELS)
            except ImageError as error:
                failed = [(0, error.kind, str(error))]
            else:
                failed = failed if image is None else again(number, image)
        left += [(number, kind, message) for _, kind, message in failed]
    return left


def _read(item: Any, max_pixels: int) -> NDArray[Any] | None:
    """Read an image, uint8 (H, W) or (H, W, 3). None where the core has said what is wrong with it.

    Raises
    ------
    ImageError
        Pillow knows the format, but cannot read the image.
    """
    from PIL import Image, UnidentifiedImageError

    try:
        with _opened(item) as file, warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of large images, whose limit is ours, and of what metadata lacks
            try:
                image = Image.open(file, formats=FORMATS)
            except Image.DecompressionBombError as error:
                raise ImageTooLargeError(str(error)) from error
            width, height = image.size
            if width * height > max_pixels:
                message = (
                    f"{width} x {height} pixels are more than the limit of {max_pixels}; cut it into tiles, or raise "
                    "max_pixels"
                )
                raise ImageTooLargeError(message)
            if image.format == "JPEG2000" and _is_deep(file):
                return None  # Pillow cuts or doubles what has more than 8 bits
            if (frames := getattr(image, "n_frames", 1)) > 1:
                if image.format in KNOWN:
                    return None
                message = f"an animation of {frames} frames; save one of them as a still"
                raise UnsupportedImageError(message)
            try:
                pixels = pillow_samples(image, f"{image.format} image")
            except ImageError:
                if image.format in KNOWN:
                    return None
                raise
            return np.ascontiguousarray(pixels) if pixels.dtype == np.uint8 and pixels.size else None
    except MemoryError as error:
        message = "there is no memory for its pixels"
        raise ImageMemoryError(message) from error
    except ImageError:
        raise
    except (UnidentifiedImageError, DtypeError, OSError):
        return None
    # Pillow reads the header here, and raises whatever comes up.
    except Exception as error:
        message = f"its header: {error}"
        raise CorruptImageError(message) from error


def _opened(item: Any) -> BinaryIO:
    """Open an encoded image, given as bytes, as a path, or as a part of a file."""
    if isinstance(item, bytes):
        return io.BytesIO(item)
    if isinstance(item, tuple):
        path, offset, length = item
        with Path(path).open("rb") as file:
            file.seek(offset)
            return io.BytesIO(file.read(length))
    return Path(item).open("rb")


def _is_deep(file: BinaryIO) -> bool:
    """Tell whether any band of a JPEG 2000 image has more than 8 bits (ISO/IEC 15444-1 A.5.1)."""
    place = file.tell()
    file.seek(0)
    found = re.search(rb"\xff\x4f\xff\x51.{36}(..)", file.read(1 << 16), re.DOTALL)
    count = int.from_bytes(found[1], "big") if found else 0
    start = found.end() if found else 0
    file.seek(0)
    depths = file.read(start + 3 * count)[start::3]
    file.seek(place)
    return not depths or any((depth & 0x7F) + 1 > 8 for depth in depths)
