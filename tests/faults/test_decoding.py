"""Images made to take the process down: memory, panics, and time without end."""

import struct
import subprocess
import sys
import time
import zlib

import numpy as np
import pytest
from PIL import Image

import rsprune
from failures import raises
from rsprune import errors

GB = 1 << 30

# Prints the outcome of each image, and by how many bytes the peak grew.
MEASURE = """
import resource, sys
import rsprune
limit = int(sys.argv[1])
resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
for path in sys.argv[2:]:
    try:
        print(rsprune.entropy([path], valid_range=(0, 65535), threads=1)[0])
    except rsprune.errors.ImageError as error:
        print(type(error).__name__)
print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) << 10)
"""


def measure(limit, *paths):
    words = [sys.executable, "-c", MEASURE, str(limit), *map(str, paths)]
    done = subprocess.run(words, capture_output=True, text=True, timeout=100)
    assert done.returncode == 0, done.stderr[-400:]
    *outcomes, grown = done.stdout.split()
    return outcomes, int(grown)


def black_png(path, side):
    """A PNG of four bands of 16 bits, all zero: a megabyte that stands for a thousand."""

    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    packer, row = zlib.compressobj(9), bytes(1 + 8 * side)
    data = b"".join(packer.compress(row) for _ in range(side)) + packer.flush()
    head = struct.pack(">IIBBBBB", side, side, 16, 6, 0, 0, 0)
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", data) + chunk(b"IEND", b""))
    return path


def tiff(path, tags, data):
    """A little-endian TIFF of these tags (tag, value), of which StripOffsets or TileOffsets point to ``data``."""
    at = 8 + len(data)
    entries = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in sorted(tags))
    path.write_bytes(b"II*\0" + struct.pack("<I", at) + data + struct.pack("<H", len(tags)) + entries + bytes(4))
    return path


def test_an_image_without_memory_is_a_failed_image_and_the_next_one_is_read(tmp_path):
    bomb = black_png(tmp_path / "bomb.png", 8000)
    assert bomb.stat().st_size < 1 << 20
    Image.fromarray(np.arange(256, dtype=np.uint8).reshape(16, 16)).save(tmp_path / "good.png")
    outcomes, grown = measure(GB // 2, bomb, tmp_path / "good.png")
    assert outcomes == ["ImageMemoryError", "8.0"]
    assert grown < 64 << 20
    # Where there is enough it is read, in little more than its samples take.
    outcomes, grown = measure(4 * GB, bomb)
    assert outcomes == ["0.0"]
    assert grown < 1.1 * 8 * 8000**2


@pytest.mark.parametrize("side", [1 << 20, (1 << 31) - 1])
def test_impossible_sizes_are_refused_whatever_is_allowed(side, tmp_path):
    strip = [(256, side), (257, side), (258, 8), (259, 8), (262, 1), (273, 8), (277, 1), (278, side), (279, 10)]
    path = tiff(tmp_path / "x.tif", strip, zlib.compress(b""))
    with raises(errors.ImageError):
        rsprune.entropy([path], max_pixels=2**62)


def test_tiles_far_beyond_the_image_are_refused(tmp_path):
    tiles = [(256, 1), (257, 20), (258, 8), (259, 8), (262, 1), (277, 1), (322, 100_000_000), (323, 1)]
    path = tiff(tmp_path / "x.tif", [*tiles, (324, 8), (325, 97_000)], zlib.compress(bytes(10**8)))
    with raises(errors.CorruptImageError):
        rsprune.entropy([path])


def test_all_tiles_together_are_bounded(tmp_path):
    """600 tiles of 1 MiB each for an image one pixel wide."""
    place = tmp_path / "x.tif"
    data = zlib.compress(bytes(1 << 20))
    offsets = 8 + len(data)
    body = data + struct.pack("<600I", *[8] * 600) + struct.pack("<600I", *[len(data)] * 600)
    entries = [
        *[(256, 4, 1, 1), (257, 4, 1, 600 * 16), (258, 3, 1, 8), (259, 3, 1, 8), (262, 3, 1, 1), (277, 3, 1, 1)],
        *[(322, 4, 1, 1 << 16), (323, 4, 1, 16), (324, 4, 600, offsets), (325, 4, 600, offsets + 2400)],
    ]
    directory = struct.pack("<H", len(entries)) + b"".join(struct.pack("<HHII", *one) for one in entries) + bytes(4)
    place.write_bytes(b"II*\0" + struct.pack("<I", 8 + len(body)) + body + directory)
    with raises(errors.CorruptImageError):
        rsprune.entropy([place])


def test_millions_of_tiny_tiles_take_no_minutes(tmp_path):
    """Pillow takes 0.1 s for these 250,000 tiles of one pixel; unpacking each with memory of its own took 1.5 s."""
    side, data = 500, zlib.compress(b"\x07")
    count = side * side
    offsets = 8 + len(data)
    body = data + struct.pack(f"<{count}I", *[8] * count) + struct.pack(f"<{count}I", *[len(data)] * count)
    entries = [
        *[(256, 4, 1, side), (257, 4, 1, side), (258, 3, 1, 8), (259, 3, 1, 8), (262, 3, 1, 1), (277, 3, 1, 1)],
        *[(322, 4, 1, 1), (323, 4, 1, 1), (324, 4, count, offsets), (325, 4, count, offsets + 4 * count)],
    ]
    directory = struct.pack("<H", len(entries)) + b"".join(struct.pack("<HHII", *one) for one in entries) + bytes(4)
    path = tmp_path / "x.tif"
    path.write_bytes(b"II*\0" + struct.pack("<I", 8 + len(body)) + body + directory)
    begun = time.process_time()
    assert rsprune.entropy([path], threads=1) == 0
    assert time.process_time() - begun < 5
