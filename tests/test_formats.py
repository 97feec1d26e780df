"""Formats of this field, against the readers of GDAL, libtiff and Pillow."""

import io
import itertools
import struct

import numpy as np
import pytest
import tifffile
from PIL import Image

import rsprune
from failures import raises
from rsprune import _core, decoding, errors
from rsprune.sources import FilePart

rasterio = pytest.importorskip("rasterio")
from rasterio.io import MemoryFile  # noqa: E402

pytestmark = pytest.mark.filterwarnings("ignore::rasterio.errors.NotGeoreferencedWarning")

INTEGERS = {"uint8": (0, 255), "int8": (-128, 127), "uint16": (0, 4000), "int16": (-300, 4000)}


def waves(bands: int, dtype: str, height=37, width=53) -> np.ndarray:
    """Smooth pixels with some noise, (B, H, W)."""
    y, x = np.mgrid[:height, :width]
    noise = np.random.default_rng(0).normal(0, 0.05, (bands, height, width))
    pixels = np.stack([np.sin(x / 9 + i) + np.cos(y / 7 - i) for i in range(bands)]) + noise
    pixels = (pixels - pixels.min()) / (pixels.max() - pixels.min())
    low, high = INTEGERS.get(dtype, (-30, 70))
    return (pixels * (high - low) + low).astype(dtype)


def geotiff(pixels: np.ndarray, driver: str = "GTiff", **options) -> bytes:
    bands, height, width = pixels.shape
    with MemoryFile() as memory:
        shape = {"count": bands, "height": height, "width": width, "dtype": pixels.dtype}
        with memory.open(driver=driver, **shape, **options) as written:
            written.write(pixels)
        return bytes(memory.read())


def by_gdal(encoded: bytes) -> np.ndarray:
    with MemoryFile(encoded) as memory, memory.open() as opened:
        return opened.read()


def samples(encoded: bytes, bands: int) -> np.ndarray:
    """The samples as rsprune decodes them, (B, H, W); of more than 8 bits as float64."""
    every = list(range(bands))
    (values,), failures = _core.sample_values([encoded], count=1 << 30, bands=every)
    assert failures == []
    if values is None:
        return np.stack([_core.decode_images([encoded], bands=[band])[0][0][..., 0] for band in every])
    return values[1].reshape(-1, bands).T


@pytest.mark.parametrize("dtype", ["uint8", "int8", "uint16", "int16", "float32", "float64"])
def test_samples_are_those_of_gdal(dtype):
    pixels = waves(3, dtype)
    predictors = (1, 2, 3) if np.dtype(dtype).kind == "f" else (1, 2)
    kinds = [(code, predictor) for code in ("deflate", "lzw", "zstd") for predictor in predictors]
    kinds += [("none", 1), ("packbits", 1)]
    layouts = [{"interleave": "pixel"}, {"interleave": "band", "tiled": True, "blockxsize": 16, "blockysize": 32}]
    orders = [{"ENDIANNESS": "LITTLE"}, {"ENDIANNESS": "BIG", "BIGTIFF": "YES"}]
    for (code, predictor), layout, order in itertools.product(kinds, layouts, orders):
        options = {"compress": code, **layout, **order} | ({"predictor": predictor} if predictor > 1 else {})
        encoded = geotiff(pixels, **options)
        expected = by_gdal(encoded).astype(float) + (128 if dtype == "int8" else 0)
        np.testing.assert_array_equal(samples(encoded, 3), expected.reshape(3, -1).reshape(samples(encoded, 3).shape))


@pytest.mark.parametrize("bits", [9, 10, 12, 15])
def test_packed_bits_are_those_of_gdal(bits):
    pixels = waves(1, "uint16") % (1 << bits)
    encoded = geotiff(pixels, NBITS=bits)
    np.testing.assert_array_equal(samples(encoded, 1)[0], pixels.ravel())
    with raises(errors.ValueRangeError, "uint16", pixels.min(), pixels.max()):
        rsprune.entropy([encoded])


def test_half_floats_are_those_of_gdal():
    encoded = geotiff(waves(1, "float32"), NBITS=16, compress="deflate", predictor=3)
    np.testing.assert_array_equal(samples(encoded, 1)[0], by_gdal(encoded).ravel())


@pytest.mark.parametrize("layout", [{}, {"tiled": True, "blockxsize": 32, "blockysize": 16}, {"blockysize": 8}])
@pytest.mark.parametrize("bands", [1, 2, 3, 4])
def test_jpeg_inside_tiff_is_that_of_gdal(bands, layout):
    for quality, interleave in itertools.product((30, 90), ("pixel", "band")):
        encoded = geotiff(waves(bands, "uint8"), compress="jpeg", JPEG_QUALITY=quality, interleave=interleave, **layout)
        np.testing.assert_array_equal(samples(encoded, bands), by_gdal(encoded))


@pytest.mark.parametrize("subsampling", [(1, 1), (2, 1), (2, 2), None])
@pytest.mark.parametrize("tile", [None, (32, 48)])
def test_ycbcr_inside_tiff_is_that_of_pillow(subsampling, tile):
    pixels = waves(3, "uint8", 75, 90)
    if subsampling is None:  # as GDAL writes orthophotos
        options = {"tiled": True, "blockxsize": 48, "blockysize": 32} if tile else {}
        encoded = geotiff(pixels, compress="jpeg", photometric="ycbcr", **options)
    else:
        stream = io.BytesIO()
        tifffile.imwrite(
            stream,
            np.moveaxis(pixels, 0, -1),
            compression="jpeg",
            compressionargs={"level": 80},
            photometric="rgb",
            subsampling=subsampling,
            tile=tile,
            rowsperstrip=None if tile else 16,
        )
        encoded = stream.getvalue()
    by_pillow = Image.open(io.BytesIO(encoded))
    assert rsprune.entropy([encoded])[0] == pytest.approx(by_pillow.convert("L").entropy(), abs=1e-12)
    np.testing.assert_array_equal(samples(encoded, 3), np.moveaxis(np.asarray(by_pillow), -1, 0))


def test_masks_and_overviews_are_passed_over(tmp_path):
    path = tmp_path / "cog.tif"
    pixels = waves(3, "uint8", 300, 280)
    path.write_bytes(geotiff(pixels))
    with rasterio.open(path, "r+") as opened:
        opened.build_overviews([2, 4])
        opened.write_mask(np.full((300, 280), 255, np.uint8))
    np.testing.assert_array_equal(samples(path.read_bytes(), 3), pixels)


def test_bits_in_reverse_are_turned():
    """FillOrder 2: libtiff turns the bits of every byte before it unpacks them."""
    pixels = waves(1, "uint8")[0]
    for compression in (None, "zlib", "lzw"):
        stream = io.BytesIO()
        tifffile.imwrite(stream, pixels, compression=compression)
        encoded = bytearray(stream.getvalue())
        unit = encoded.index(struct.pack("<HHI", 296, 3, 1))  # a tag that may be another one
        encoded[unit : unit + 12] = struct.pack("<HHII", 266, 3, 1, 2)
        page = tifffile.TiffFile(io.BytesIO(encoded)).pages[0]
        turned = np.packbits(np.unpackbits(np.arange(256, dtype=np.uint8)[:, None], axis=1)[:, ::-1], axis=1)[:, 0]
        for at, size in zip(page.dataoffsets, page.databytecounts, strict=True):
            encoded[at : at + size] = turned[np.frombuffer(encoded[at : at + size], np.uint8)].tobytes()
        np.testing.assert_array_equal(samples(bytes(encoded), 1)[0], pixels)


@pytest.mark.parametrize(("compression", "name"), [("lerc", "LERC"), ("jpegxl", "JPEG XL"), ("jpeg2000", "JPEG 2000")])
def test_what_is_not_read_inside_tiff_is_named(compression, name):
    stream = io.BytesIO()
    tifffile.imwrite(stream, waves(1, "uint8")[0], compression=compression)
    with raises(errors.UnsupportedImageError, name, "DEFLATE"):
        rsprune.entropy([stream.getvalue()])


def test_damaged_jpeg_inside_tiff_is_an_error():
    encoded = geotiff(waves(3, "uint8"), compress="jpeg", photometric="ycbcr", tiled=True, blockxsize=32, blockysize=32)
    start = encoded.index(b"\xff\xd8\xff")
    for place, value in [(start + 1, 0), (start + 2, 0)]:
        changed = bytearray(encoded)
        changed[place] = value
        with raises(errors.ImageError, "images[0]"):
            rsprune.entropy([bytes(changed)])


# --- the range of what has more than 8 bits ---------------------------------------------------------------------------


def levels(values: np.ndarray, lo: float, hi: float) -> np.ndarray:
    one = 1 if values.dtype.kind in "ui" else 0
    return np.clip(np.floor((values.astype(float) - lo) * 256 / (hi - lo + one)), 0, 255).astype(np.uint8)


@pytest.mark.parametrize(
    ("dtype", "valid_range"),
    [
        ("int16", (-1000, 10000)),
        ("uint16", (-5, 4200)),
        ("float32", (0, 0.3)),
        ("float64", (-30.5, 70)),
        ("float16", (-30, 70)),
    ],
)
def test_every_form_of_an_image_has_the_entropy_of_its_levels(dtype, valid_range, tmp_path):
    torch = pytest.importorskip("torch")
    pixels = waves(1, dtype)[0]
    stack = np.stack([pixels, pixels[::-1] // 2]).astype(dtype)
    expected = rsprune.entropy(levels(stack, *valid_range))
    stored = stack.astype(np.float32) if dtype == "float16" else stack
    np.save(tmp_path / "stack.npy", stack)
    forms = [
        stack,
        list(stack),
        np.load(tmp_path / "stack.npy", mmap_mode="r"),
        stack.astype(stack.dtype.newbyteorder(">")),
        [geotiff(image[None], compress="zstd") for image in stored],
    ]
    if dtype != "uint16":
        forms += [torch.from_numpy(stack), list(torch.from_numpy(stack))]
    outside = dtype == "uint16"  # of an array the range is one of its values
    for form in forms[1:2] + forms[4:5] if outside else forms:
        np.testing.assert_array_equal(rsprune.entropy(form, valid_range=valid_range), expected)
        with raises(errors.ValueRangeError, "images[0]", "--valid-range"):
            rsprune.entropy(form)


def test_nan_and_nodata_are_left_out():
    pixels = waves(1, "float32")[0]
    expected = rsprune.entropy(levels(pixels, -30, 70)[None, 5:])
    for hole in (np.nan, -9999.0, np.float32(-3.4e38)):
        holed = pixels.copy()
        holed[:5] = hole
        for image in (holed, geotiff(holed[None])):
            options = {"nodata": float(hole), "valid_range": (-30, 70)}
            assert rsprune.entropy([image], **options) == expected
    with raises(errors.NoValidPixelsError, "images[0]", "NaN"):
        rsprune.entropy([np.full((4, 4), np.nan)], valid_range=(0, 1))


def test_mixed_bands_of_floats_become_gray():
    pixels = np.moveaxis(waves(3, "float32"), 0, -1)
    expected = rsprune.entropy(levels(pixels, -30, 70)[None])
    assert rsprune.entropy([pixels], valid_range=(-30, 70)) == expected
    (rgb,), _ = _core.decode_images([np.ascontiguousarray(pixels)], valid_range=(-30, 70))
    np.testing.assert_array_equal(rgb, levels(pixels, -30, 70))


# --- JPEG 2000, and what Pillow reads ---------------------------------------------------------------------------------


@pytest.mark.parametrize("bits", [9, 12, 15, 16])
@pytest.mark.parametrize("bands", [1, 3, 4])
def test_jpeg_2000_is_read_with_all_its_bits(bits, bands):
    pixels = (waves(bands, "uint16", 130, 140).astype(np.uint32) * ((1 << bits) - 1) // 4000).astype(np.uint16)
    options = {"QUALITY": "100", "REVERSIBLE": "YES", "YCBCR420": "NO", "NBITS": bits}
    encoded = geotiff(pixels, "JP2OpenJPEG", **options)
    np.testing.assert_array_equal(samples(encoded, bands), pixels.reshape(bands, -1))
    assert rsprune.entropy([encoded], bands=[0], valid_range=(0, (1 << bits) - 1)) == rsprune.entropy(
        [pixels[0]], valid_range=(0, (1 << bits) - 1)
    )


def test_jpeg_2000_needs_the_range():
    encoded = geotiff(waves(1, "uint16"), "JP2OpenJPEG", QUALITY="100", REVERSIBLE="YES")
    with raises(errors.ValueRangeError, 0, 4000):
        rsprune.entropy([encoded])
    with raises(errors.ImageError, "JPEG 2000"):
        rsprune.entropy([encoded[: len(encoded) // 2]], valid_range=(0, 4000))
    with raises(errors.ImageTooLargeError, "37", "53"):
        rsprune.entropy([encoded], max_pixels=100)


def by_pillow(name: str, **options) -> bytes:
    stream = io.BytesIO()
    picture = Image.fromarray(np.moveaxis(waves(3, "uint8"), 0, -1))
    picture.convert(options.pop("mode", "RGB")).save(stream, name, **options)
    return stream.getvalue()


OTHERS = {
    "bmp": ("BMP", {}),
    "gif": ("GIF", {}),
    "ppm": ("PPM", {}),
    "jp2": ("JPEG2000", {"irreversible": True, "quality_layers": [20]}),
    "avif": ("AVIF", {"quality": 60}),
    "fax": ("TIFF", {"mode": "1", "compression": "group4"}),
    "cmyk": ("TIFF", {"mode": "CMYK"}),
    "old": ("TIFF", {"compression": "jpeg", "mode": "YCbCr"}),
}


@pytest.mark.parametrize("kind", OTHERS)
def test_pillow_reads_what_need_not_be_fast(kind, tmp_path):
    name, options = OTHERS[kind]
    encoded = by_pillow(name, **options)
    path = tmp_path / "image"
    path.write_bytes(encoded)
    (tmp_path / "file").write_bytes(b"before" + encoded + b"behind")
    part = FilePart(str(tmp_path / "file"), 6, len(encoded))
    picture = Image.open(io.BytesIO(encoded))
    expected = picture.convert("RGB").convert("L").entropy()
    np.testing.assert_allclose(rsprune.entropy([encoded, path, part]), [expected] * 3, atol=1e-12)
    (rgb, _), failures = decoding.decode_images([encoded, str(path)])
    assert failures == []
    np.testing.assert_array_equal(rgb, np.asarray(picture.convert("RGB")))
    out = np.empty((2, 16, 16, 3), np.uint8)
    assert decoding.preprocess_images([rgb, encoded], out, interpolation="bicubic", resize_to=16) == []
    np.testing.assert_array_equal(*out)


def test_limits_and_causes_hold_for_what_pillow_reads():
    good, bitmap = by_pillow("PNG"), by_pillow("BMP")
    movie = io.BytesIO()
    Image.new("L", (9, 9)).save(movie, "GIF", save_all=True, append_images=[Image.new("L", (9, 9), 255)])
    files = [good, bitmap, bitmap[:2000], movie.getvalue(), good, b"BM not a bitmap"]
    values, failures = decoding.entropy_images(files, gray="bt601")
    assert np.isnan(values).tolist() == [False, False, True, True, False, True]
    assert [(number, kind) for number, kind, _ in failures] == [
        (2, "truncated"),
        (3, "unsupported"),
        (5, "unknown_format"),
    ]
    assert "2 frames" in failures[1][2]
    with raises(errors.ImageTooLargeError, "53", "37", 100):
        rsprune.entropy([bitmap], max_pixels=100)
    with raises(errors.EncodedTooLargeError, len(bitmap)):
        rsprune.entropy([bitmap], max_bytes=100)
    # A bomb: its header is all that is read.
    header = bytearray(bitmap)
    header[18:26] = struct.pack("<ii", 60_000, 60_000)
    with raises(errors.ImageTooLargeError):
        rsprune.entropy([bytes(header)])


def test_deep_jpeg_2000_never_comes_through_pillow():
    """Pillow doubles bands of 15 bits, and cuts those of colors to 8."""
    encoded = bytearray(geotiff(waves(3, "uint16"), "JP2OpenJPEG", QUALITY="100", REVERSIBLE="YES"))
    start = encoded.index(b"\xff\x4f\xff\x51") + 42
    encoded[start + 3] = 9  # bands that differ in depth
    with raises(errors.UnsupportedImageError, "JPEG 2000"):
        rsprune.entropy([bytes(encoded)], valid_range=(0, 4000))


@pytest.mark.parametrize("dtype", ["float32", "float64", "int16"])
def test_zero_as_white_is_for_whole_numbers_without_a_sign(dtype, tmp_path):
    """Which value is black is not said."""
    path = tmp_path / "x.tif"
    profile = {"driver": "GTiff", "width": 8, "height": 8, "count": 1, "dtype": dtype, "photometric": "MINISWHITE"}
    with rasterio.open(path, "w", **profile) as file:
        file.write(np.arange(64, dtype=dtype).reshape(1, 8, 8))
    with raises(errors.UnsupportedImageError, path):
        rsprune.entropy([path], valid_range=(0, 63))
