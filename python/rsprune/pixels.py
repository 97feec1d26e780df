"""Samples of the images that a caller holds: arrays, and Pillow images."""

from __future__ import annotations

import sys
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rsprune.errors import CorruptImageError, DtypeError, ImageError, TruncatedImageError, UnsupportedImageError
from rsprune.validation import as_array

__all__ = ["DTYPES", "EXPECTED", "is_pillow", "pillow_samples", "samples"]

#: The types of samples that the core takes.
DTYPES = tuple(np.dtype(name) for name in ("uint8", "uint16", "int16", "float32", "float64"))
#: These, in words.
EXPECTED = "expected uint8, uint16, int16, float32 or float64"

# Characters of Pillow's message that an error repeats.
_MAX_MESSAGE = 300


def samples(array: Any, name: str) -> NDArray[Any]:
    """View an array of samples in this machine's byte order; float16 becomes float32.

    Raises
    ------
    DtypeError
        It is of another dtype.
    ArgumentError
        It is masked.
    """
    array = as_array(name, array)
    dtype = array.dtype.newbyteorder("=")
    dtype = np.dtype(np.float32) if dtype == np.float16 else dtype
    if dtype not in DTYPES:
        message = f"{name} is an array of {array.dtype}; {EXPECTED}: convert it"
        raise DtypeError(message)
    native: NDArray[Any] = array.astype(dtype, copy=False)
    return native


def is_pillow(image: Any) -> bool:
    """Return whether it is a Pillow image, without importing Pillow."""
    pillow = sys.modules.get("PIL.Image")
    return pillow is not None and isinstance(image, pillow.Image)


def pillow_samples(image: Any, name: str, *, luma: bool = False) -> NDArray[Any]:
    """Return the samples of a Pillow image as those of its file: without alpha, palettes and rare modes as RGB.

    Parameters
    ----------
    image
        The image, which Pillow may not have read yet.
    name
        What an error calls it.
    luma
        Take the first band of a YCbCr image, which is Pillow's gray of it, instead of RGB.

    Raises
    ------
    DtypeError
        Samples of 32 bits, or of a file whose 16 bits Pillow cuts to 8.
    ImageError
        Pillow cannot read or convert it.
    """
    if not image.mode.startswith("I") and any(";16" in str(tile[3]) for tile in getattr(image, "tile", ())):
        message = f"{name}: Pillow cuts the 16 bits of its samples to 8 (mode {image.mode}): pass the path or the bytes"
        raise DtypeError(message)
    try:
        if image.mode in ("1", "LA", "La") or (luma and image.mode == "YCbCr"):
            image = image.convert("L")
        elif image.mode in ("P", "PA", "RGBA", "RGBa", "RGBX", "CMYK", "YCbCr", "LAB", "HSV"):
            image = image.convert("RGB")
        array = np.asarray(image)
    except MemoryError:
        raise
    # Pillow reads the file here, and its decoders raise whatever comes up.
    except Exception as cause:
        raise _pillow_error(cause, image.mode, name) from cause
    return samples(array, name)


def _pillow_error(cause: Exception, mode: str, name: str) -> ImageError:
    """Return the error of a Pillow image that cannot be read: Pillow has a word, but no class, for each cause."""
    message = f"{name}: a Pillow image of mode {mode}: {str(cause)[:_MAX_MESSAGE]}"
    if "truncated" in message:
        return TruncatedImageError(message)
    if "conversion from" in message:
        return UnsupportedImageError(message)
    return CorruptImageError(message)
