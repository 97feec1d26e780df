"""The encoded bytes of an image, passed through as they are; only pixels that were never encoded become PNG."""

from __future__ import annotations

import struct
import zlib
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rsprune.errors import DtypeError, ShapeError
from rsprune.sources import FilePart, ImageData
from rsprune.sources.filesystem import open_binary

__all__ = ["encode_png", "encoded"]

#: The PNG color types by the number of bands: gray, gray and alpha, RGB, RGBA.
COLOR_TYPES = {1: 0, 2: 4, 3: 2, 4: 6}


def encoded(key: str, data: ImageData) -> bytes:
    """Return the encoded image: as it is, or pixels as PNG.

    Raises
    ------
    ShapeError, DtypeError
        Pixels that PNG does not hold.
    OSError
        It cannot be read.
    """
    if isinstance(data, bytes):
        return data
    if isinstance(data, np.ndarray):
        return encode_png(key, data)
    with open_binary(data.path if isinstance(data, FilePart) else data) as file:
        if not isinstance(data, FilePart):
            return file.read()
        file.seek(data.offset)
        return file.read(data.size)


def encode_png(key: str, pixels: NDArray[Any]) -> bytes:
    """Encode pixels, uint8 or uint16 (H, W) or (H, W, C) with C up to 4, without loss.

    Pillow does not write more than one band of 16 bits.
    """
    remedy = "rsprune.open(run).dataset(source) gives the pixels of the run as they are"
    if pixels.dtype not in (np.uint8, np.uint16):
        message = f"the pixels of {key!r} are {pixels.dtype}, and PNG holds uint8 and uint16 alone: {remedy}"
        raise DtypeError(message)
    height, width, bands = pixels.shape if pixels.ndim == 3 else (*pixels.shape, 1)
    if bands not in COLOR_TYPES:
        message = f"the image {key!r} has {bands} bands, and PNG holds 1 to 4: {remedy}"
        raise ShapeError(message)
    size = bands * pixels.dtype.itemsize
    lines = pixels.astype(pixels.dtype.newbyteorder(">"), copy=False).reshape(height, -1).view(np.uint8)
    filtered = np.empty((height, lines.shape[1] + 1), np.uint8)
    filtered[:, 0] = 1  # each byte less the one of the pixel before it
    filtered[:, 1 : size + 1] = lines[:, :size]
    np.subtract(lines[:, size:], lines[:, :-size], out=filtered[:, size + 1 :])
    header = struct.pack(">IIBBBBB", width, height, 8 * pixels.dtype.itemsize, COLOR_TYPES[bands], 0, 0, 0)
    chunks = [(b"IHDR", header), (b"IDAT", zlib.compress(filtered.tobytes(), 6)), (b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body)) for name, body in chunks
    )
