"""Entropies and samples against Pillow, scikit-image and tifffile."""

import os
import struct
import tarfile
from io import BytesIO
from itertools import product
from pathlib import Path

import numpy as np
import pytest
import tifffile
from PIL import Image
from skimage.measure import shannon_entropy

from rsprune import _core, entropy
from scenes import encode, png_file, tiles

DATA = os.environ.get("RSPRUNE_DATA")
needs_data = pytest.mark.skipif(DATA is None, reason="RSPRUNE_DATA names no folder")


def pillow_levels(encoded: bytes) -> np.ndarray:
    with Image.open(BytesIO(encoded)) as image:
        return np.asarray(image.convert("L"))


# Of all 16 bits, however dark the scene.
WHOLE = (0, 65535)


def check_entropies(files: list[bytes]) -> None:
    ours = entropy(files, valid_range=WHOLE)
    for encoded, h in zip(files, ours, strict=True):
        levels = pillow_levels(encoded)
        assert h == pytest.approx(Image.fromarray(levels).entropy(), abs=1e-12)
        assert h == pytest.approx(shannon_entropy(levels), abs=1e-12)


def decode(encoded: bytes, **options) -> np.ndarray:
    (image,), failures = _core.decode_images([encoded], **{"valid_range": WHOLE} | options)
    assert not failures
    assert image is not None
    return image


def check_rgb(encoded: bytes) -> None:
    with Image.open(BytesIO(encoded)) as image:
        np.testing.assert_array_equal(decode(encoded), np.asarray(image.convert("RGB")))
    check_entropies([encoded])


@pytest.fixture(scope="module", params=[(128, 128), (61, 47), (1, 1), (8, 300)], ids=str)
def rgb(request) -> Image.Image:
    """Real pixels of an odd size as well as of an even one."""
    height, width = request.param
    return Image.fromarray(tiles(1, 300)[0][:height, :width])


@pytest.mark.parametrize("mode", ["RGB", "L"])
@pytest.mark.parametrize(
    ("quality", "subsampling", "progressive"), [(95, 0, False), (75, 1, False), (75, 2, True), (20, 2, False)]
)
def test_jpeg(rgb, mode, quality, subsampling, progressive):
    check_rgb(encode(rgb.convert(mode), "JPEG", quality=quality, subsampling=subsampling, progressive=progressive))


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA"])
def test_png_modes(rgb, mode):
    image = rgb.convert(mode)
    if mode in ("LA", "RGBA"):
        alpha = np.arange(image.width * image.height, dtype=np.uint8).reshape(image.height, image.width)
        image.putalpha(Image.fromarray(alpha))
    check_rgb(encode(image, "PNG"))


@pytest.mark.parametrize("bits", [1, 2, 4, 8])
def test_png_palettes_of_few_bits(rgb, bits):
    check_rgb(encode(rgb.quantize(2**bits), "PNG", bits=bits))


def test_png_transparency_is_not_blended(rgb):
    check_rgb(encode(rgb, "PNG", transparency=rgb.getpixel((0, 0))))
    check_rgb(encode(rgb.convert("L"), "PNG", transparency=rgb.convert("L").getpixel((0, 0))))
    palette = rgb.quantize(64)
    transparent = encode(palette, "PNG", transparency=bytes(range(64)))
    np.testing.assert_array_equal(decode(transparent), np.asarray(palette.convert("RGB")))


# Samples in a pixel and the bit depths of each kind of PNG.
PNG_KINDS = {"gray": (0, 1, (1, 2, 4, 8, 16)), "RGB": (2, 3, (8, 16)), "LA": (4, 2, (8, 16)), "RGBA": (6, 4, (8, 16))}


@pytest.mark.parametrize("interlaced", [False, True])
@pytest.mark.parametrize(
    ("kind", "bands", "bits"), [(kind, bands, bits) for kind, bands, depths in PNG_KINDS.values() for bits in depths]
)
def test_png_depths_and_interlacing(kind, bands, bits, interlaced):
    scene = np.concatenate([tiles(1)[0]] * 2, axis=2)[:45, :39, :bands].astype(np.uint16)
    scene = scene * 257 - scene[::-1] if bits == 16 else scene >> (8 - bits)
    encoded = png_file(scene, kind, bits, interlaced=interlaced)
    colour = scene[..., : bands - (bands in (2, 4))]
    levels = colour >> 8 if bits == 16 else colour * (255 // (2**bits - 1))
    np.testing.assert_array_equal(decode(encoded), np.broadcast_to(levels, (45, 39, 3)))
    # Pillow clips gray of 16 bits instead of scaling it.
    if not (kind in (0, 4) and bits == 16):
        check_rgb(encoded)


@pytest.mark.parametrize("lossless", [True, False])
@pytest.mark.parametrize("mode", ["RGB", "RGBA"])
@pytest.mark.parametrize("quality", [10, 80, 100])
def test_webp(rgb, mode, lossless, quality):
    image = rgb.convert(mode)
    if mode == "RGBA":
        alpha = np.arange(image.width * image.height, dtype=np.uint8).reshape(image.height, image.width)
        image.putalpha(Image.fromarray(alpha))
    encoded = encode(image, "WEBP", lossless=lossless, quality=quality, exact=True)
    check_rgb(encoded)


@pytest.mark.parametrize("compression", [None, "tiff_lzw", "tiff_adobe_deflate", "tiff_deflate", "packbits"])
@pytest.mark.parametrize("mode", ["1", "L", "P", "RGB"])
def test_tiff_by_pillow(rgb, mode, compression):
    check_rgb(encode(rgb.convert(mode), "TIFF", compression=compression))


@pytest.mark.parametrize(
    ("byteorder", "compression", "predictor", "planar", "tile", "bands", "dtype"),
    [
        case
        for case in product(
            "<>",
            (None, "zlib"),
            (False, True),
            ("contig", "separate"),
            (None, (16, 32)),
            (1, 3, 4, 7),
            (np.uint8, np.uint16),
        )
        if not (case[2] and case[1] is None)
    ],
)
def test_tiff_by_tifffile(byteorder, compression, predictor, planar, tile, bands, dtype):
    scene = np.concatenate([tiles(1)[0]] * 3, axis=2)[:61, :47, :bands]
    scene = scene if dtype == np.uint8 else scene.astype(np.uint16) * 257 - scene[::-1]
    if bands == 1:
        scene, planar = scene[..., 0], None
    elif planar == "separate":
        scene = np.moveaxis(scene, 2, 0)
    stream = BytesIO()
    tifffile.imwrite(
        stream,
        scene,
        byteorder=byteorder,
        compression=compression,
        predictor=predictor,
        planarconfig=planar,
        tile=tile,
        rowsperstrip=None if tile else 16,
        photometric="rgb" if bands >= 3 else "minisblack",
        extrasamples=[2] if bands == 4 else None,
        metadata=None,
    )
    encoded = stream.getvalue()
    stored = tifffile.imread(BytesIO(encoded))
    np.testing.assert_array_equal(stored, scene)
    levels = stored if dtype == np.uint8 else (stored >> 8).astype(np.uint8)
    if planar == "separate":
        levels = np.moveaxis(levels, 0, 2)
    levels = levels.reshape(61, 47, bands)
    for band in range(bands):
        got = decode(encoded, bands=[band])
        np.testing.assert_array_equal(got, np.repeat(levels[:, :, [band]], 3, axis=2))
        ours = entropy([encoded], bands=[band], valid_range=WHOLE)[0]
        assert ours == pytest.approx(shannon_entropy(levels[:, :, band]), abs=1e-12)


def test_big_tiff(rgb):
    stream = BytesIO()
    tifffile.imwrite(stream, np.asarray(rgb), bigtiff=True, metadata=None)
    check_rgb(stream.getvalue())


def test_sixteen_bit_gray_takes_the_high_byte():
    gray = np.arange(65536, dtype=np.uint16).reshape(256, 256)
    for name in ("PNG", "TIFF"):
        encoded = encode(Image.fromarray(gray), name)
        np.testing.assert_array_equal(decode(encoded)[..., 0], gray >> 8)
        # Pillow's own convert("L") of 16 bits clips: all but 256 of these would be white.
        assert entropy([encoded])[0] == 8.0


# --- damage that libjpeg and libpng read over -------------------------------------------------------------------------


def markers(encoded: bytes, *codes: int) -> list[int]:
    """Return where markers of these codes stand, those in segments' contents left out."""
    found, at = [], 2
    while at < len(encoded) - 1:
        if encoded[at] != 0xFF or encoded[at + 1] in (0, 0xFF):
            at += 1
            continue
        if encoded[at + 1] in codes:
            found.append(at)
        alone = encoded[at + 1] == 0xD9 or 0xD0 <= encoded[at + 1] <= 0xD7
        at += 2 if alone else 2 + int.from_bytes(encoded[at + 2 : at + 4], "big")
    return found


# Sizes of whole MCUs and others, with rows and columns of blocks that are there only to fill them.
SIZES = [(128, 128), (61, 47), (40, 72), (8, 8), (9, 300), (17, 17)]


@pytest.mark.parametrize("subsampling", [0, 1, 2])
@pytest.mark.parametrize("mode", ["RGB", "L"])
@pytest.mark.parametrize("quality", [20, 90])
def test_progressive_jpegs_that_end_behind_any_scan(mode, quality, subsampling):
    for i, (height, width) in enumerate(SIZES):
        image = Image.fromarray(tiles(9, 300)[i][:height, :width]).convert(mode)
        encoded = encode(image, "JPEG", quality=quality, subsampling=subsampling, progressive=True)
        for scan in markers(encoded, 0xDA)[1:]:
            check_rgb(encoded[:scan] + b"\xff\xd9")


@pytest.mark.parametrize("progressive", [False, True])
@pytest.mark.parametrize("mode", ["RGB", "L"])
def test_restart_markers_out_of_order(mode, progressive):
    random = np.random.default_rng(5)
    image = Image.fromarray(tiles(2)[1]).convert(mode)
    encoded = encode(image, "JPEG", quality=80, progressive=progressive, restart_marker_blocks=3)
    restarts = markers(encoded, *range(0xD0, 0xD8))
    assert len(restarts) > 20
    read = 0
    for _ in range(60):
        damaged = bytearray(encoded)
        for at in sorted(random.choice(restarts, random.integers(1, 3), replace=False), reverse=True):
            wrong = 0xD0 + int(random.integers(8))
            way = random.integers(4)
            if way == 0:
                damaged[at + 1] = wrong
            elif way == 1:
                del damaged[at : at + 2]
            elif way == 2:
                damaged[at:at] = damaged[at : at + 2]
            else:  # a segment lost with its marker
                del damaged[at : min(other for other in [*restarts, len(encoded)] if other > at)]
        ((image, *_), failures) = _core.decode_images([bytes(damaged)])
        # The end of the scan may come too early, or what is left out of step make no sense.
        if not failures:
            read += 1
            check_rgb(bytes(damaged))
    assert read > 40


def test_quantization_tables_of_any_value():
    random = np.random.default_rng(6)
    for quality, subsampling, tile in [(95, 0, 0), (75, 2, 1), (30, 2, 2)]:
        encoded = encode(Image.fromarray(tiles(3)[tile]), "JPEG", quality=quality, subsampling=subsampling)
        for _ in range(40):
            damaged = bytearray(encoded)
            for table in markers(encoded, 0xDB):
                if random.random() < 0.7:
                    damaged[table + 5 + random.integers(64)] = random.integers(256)
                    damaged[table + 5] = random.choice([damaged[table + 5], 0, 130, 255])
            check_rgb(bytes(damaged))


def test_webp_flags_of_missing_chunks(rgb):
    for options in ({"lossless": True}, {"quality": 80}):
        encoded = encode(rgb, "WEBP", exif=b"Exif\0\0MM\0*", **options)
        assert encoded[12:16] == b"VP8X"
        at = encoded.index(b"EXIF")
        without = bytearray(encoded[:at])
        without[4:8] = struct.pack("<I", len(without) - 8)
        for more in (0x00, 0x04, 0x10, 0x24):
            without[20] = encoded[20] | more
            check_rgb(bytes(without))


@pytest.mark.parametrize("mode", ["1", "L", "P", "RGBA"])
def test_png_without_its_end(rgb, mode):
    encoded = encode(rgb.convert(mode), "PNG")
    for missing in (12, 16):
        check_rgb(encoded[:-missing])


@needs_data
def test_a_thousand_real_jpegs():
    files = []
    for shard in sorted(Path(DATA).glob("*.tar")):
        with tarfile.open(shard) as tar:
            members = [m for m in tar if m.name.endswith(".jpg")][:150]
            files += [tar.extractfile(member).read() for member in members]
    assert len(files) >= 1000
    check_entropies(files)
    for encoded in files[::20]:
        check_rgb(encoded)


@needs_data
def test_real_four_band_geotiffs():
    paths = sorted((Path(DATA) / "naip4").glob("*.tif"))
    assert paths
    for path in paths:
        stored = tifffile.imread(path)
        assert stored.shape[2] == 4
        for band in range(4):
            expected = shannon_entropy(stored[..., band])
            assert entropy([path], bands=[band])[0] == pytest.approx(expected, abs=1e-12)
        (image,), _ = _core.decode_images([str(path)], bands=[3, 0, 1])
        np.testing.assert_array_equal(image, stored[..., [3, 0, 1]])
        expected = shannon_entropy(np.asarray(Image.fromarray(stored[..., :3]).convert("L")))
        assert entropy([path])[0] == pytest.approx(expected, abs=1e-12)
