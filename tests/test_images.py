"""Decoding: bands and ranges for encoders, and bad input of every kind."""

import struct
from io import BytesIO

import numpy as np
import pytest
import tifffile
from PIL import Image

from failures import raises
from rsprune import _core, entropy, errors
from scenes import encode, png_chunk, tiles

TILE = Image.fromarray(tiles(1)[0])
FILES = {
    "jpeg": encode(TILE, "JPEG"),
    "progressive-jpeg": encode(TILE, "JPEG", progressive=True),
    "png": encode(TILE, "PNG"),
    "webp": encode(TILE, "WEBP"),
    "lossless-webp": encode(TILE, "WEBP", lossless=True),
    "tiff": encode(TILE, "TIFF"),
    "lzw-tiff": encode(TILE, "TIFF", compression="tiff_lzw"),
    "deflate-tiff": encode(TILE, "TIFF", compression="tiff_adobe_deflate"),
}


def tiff(samples, **options) -> bytes:
    stream = BytesIO()
    tifffile.imwrite(stream, samples, metadata=None, **options)
    return stream.getvalue()


def failure(encoded: bytes, **options) -> tuple[str, str]:
    (image,), failures = _core.decode_images([encoded], **options)
    assert image is None
    ((i, kind, message),) = failures
    assert i == 0
    return kind, message


# --- what an encoder gets ---------------------------------------------------------------------------------------------


def test_images_come_as_rgb_in_their_order():
    files = list(FILES.values())
    images, failures = _core.decode_images(files)
    assert failures == []
    for encoded, image in zip(files, images, strict=True):
        assert image.dtype == np.uint8
        with Image.open(BytesIO(encoded)) as expected:
            np.testing.assert_array_equal(image, np.asarray(expected.convert("RGB")))


def test_gray_is_repeated_and_bands_are_chosen():
    rgb = tiles(1)[0]
    gray = encode(Image.fromarray(rgb[..., 0]), "PNG")
    four = tiff(np.dstack([rgb, rgb[..., 0]]), photometric="rgb", extrasamples=[2])
    for encoded, bands, expected in [(gray, None, [0, 0, 0]), (four, None, [0, 1, 2]), (four, [3, 2, 2], [0, 2, 2])]:
        (image,), failures = _core.decode_images([encoded], bands=bands)
        assert failures == []
        np.testing.assert_array_equal(image, rgb[..., expected])
    assert failure(four, bands=[0, 1])[0] == "bands"
    assert failure(four, bands=[4])[0] == "bands"
    assert failure(tiff(rgb[..., :2], photometric="minisblack", planarconfig="contig"))[0] == "bands"


def test_sixteen_bits_are_quantised_to_the_valid_range():
    samples = np.arange(65536, dtype=np.uint16).reshape(256, 256)
    (image,), _ = _core.decode_images([tiff(samples)], valid_range=(1000, 10_000))
    expected = np.clip((samples.astype(np.int64) - 1000) * 256 // 9001, 0, 255)
    np.testing.assert_array_equal(image[..., 0], expected)
    assert failure(FILES["png"], valid_range=(1000, 10_000))[0] == "unsupported"


def test_arrays_come_through():
    rgb = tiles(1)[0]
    (image, gray), failures = _core.decode_images([rgb, np.ascontiguousarray(rgb[..., 0])])
    assert failures == []
    np.testing.assert_array_equal(image, rgb)
    np.testing.assert_array_equal(gray, rgb[..., [0, 0, 0]])


# --- what an encoder gets at its size ---------------------------------------------------------------------------------


def squares(items, size, **options) -> tuple[np.ndarray, list]:
    out = np.full((len(items), size, size, 3), 77, np.uint8)
    return out, _core.preprocess_images(items, out, interpolation="bicubic", **options)


def test_squares_are_those_of_the_decoded_images():
    """Whichever way the rows come: decoded one by one, whole, of other bands, of 16 bits."""
    rgb = tiles(1)[0]
    gray = encode(Image.fromarray(rgb[..., 0]), "JPEG")
    cases = [
        (list(FILES.values()), {}),
        ([FILES["jpeg"], FILES["progressive-jpeg"], FILES["png"], rgb], {"bands": [2, 0, 0]}),
        ([gray, FILES["jpeg"], np.ascontiguousarray(rgb[..., 1])], {"bands": [0]}),
        ([gray, np.ascontiguousarray(rgb[..., :1])], {}),
        ([tiff(rgb.astype(np.uint16) * 40), rgb.astype(np.uint16) * 40], {"valid_range": (100, 9000)}),
    ]
    for items, options in cases:
        decoded, failures = _core.decode_images(items, **options)
        assert failures == []
        for threads in (1, 2, 5):
            got, failures = squares(items, 37, threads=threads, **options)
            assert failures == []
            np.testing.assert_array_equal(got, squares(decoded, 37)[0])


def test_squares_fail_where_decoding_does_and_stay_zero():
    random = np.random.default_rng(1)
    damaged = [np.zeros((4, 5, 2), np.uint8), "nowhere.png", FILES["png"]]
    for encoded in FILES.values():
        for _ in range(40):
            changed = bytearray(encoded)
            changed[random.integers(len(changed))] ^= 1 << random.integers(8)
            damaged.append(bytes(changed[: random.integers(len(changed) * 3)]))
    decoded, expected = _core.decode_images(damaged)
    got, failures = squares(damaged, 20, resize_to=23, threads=2)
    assert failures == expected
    assert 100 < len(failures) < len(damaged) - 20
    for image, square in zip(decoded, got, strict=True):
        if image is None:
            assert not square.any()
        else:
            np.testing.assert_array_equal(square, squares([image], 20, resize_to=23)[0][0])


def test_squares_of_eight_bits_have_no_valid_range():
    for item in (FILES["jpeg"], FILES["png"], tiles(1)[0]):
        _, [(i, kind, _)] = squares([item], 8, valid_range=(0, 100))
        assert (i, kind) == (0, "unsupported")
    _, [(_, kind, _)] = squares([FILES["jpeg"]], 8, max_pixels=128 * 128 - 1)
    assert kind == "too_large"


@pytest.mark.parametrize(
    ("shape", "options", "error", "values"),
    [
        ((2, 8, 8, 3), {}, errors.ShapeError, ("[2, 8, 8, 3]", 1, 3)),
        ((1, 8, 9, 3), {}, errors.ShapeError, ()),
        ((1, 8, 8, 4), {}, errors.ShapeError, ()),
        ((1, 0, 0, 3), {}, errors.ArgumentError, ("size=0",)),
        ((1, 8, 8, 3), {"resize_to": 7}, errors.ArgumentError, ("resize_to=7",)),
        ((1, 8, 8, 3), {"interpolation": "nearest"}, errors.ArgumentError, ("nearest",)),
        ((1, 8, 8, 3), {"bands": []}, errors.ArgumentError, ()),
    ],
)
def test_squares_that_cannot_be(shape, options, error, values):
    with raises(error, *values):
        _core.preprocess_images([FILES["png"]], np.empty(shape, np.uint8), **{"interpolation": "bicubic"} | options)


# --- bad input --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", FILES)
def test_a_file_cut_at_any_eighth_is_truncated(name):
    whole = FILES[name]
    for eighth in range(1, 8):
        kind, message = failure(whole[: len(whole) * eighth // 8])
        assert kind == "truncated", (eighth, message)


@pytest.mark.parametrize("name", FILES)
def test_a_file_cut_in_its_first_bytes_is_refused(name):
    for length in range(40):
        kind, _ = failure(FILES[name][:length])
        assert kind in (("empty",) if length == 0 else ("truncated", "unknown_format"))


@pytest.mark.parametrize("name", FILES)
def test_flipped_bits_never_crash(name):
    random = np.random.default_rng(0)
    damaged = []
    for _ in range(300):
        changed = bytearray(FILES[name])
        # Half of the damage to headers, where it does most.
        for _ in range(random.integers(1, 5)):
            place = random.integers(len(changed) if random.random() < 0.5 else 64)
            changed[place] ^= 1 << random.integers(8)
        damaged.append(bytes(changed))
    images, failures = _core.decode_images(damaged)
    known = {"truncated", "corrupt", "unsupported", "too_large", "unknown_format", "bands"}
    assert {kind for _, kind, _ in failures} <= known
    assert sum(image is None for image in images) == len(failures)


@pytest.mark.parametrize(
    ("encoded", "kind", "values"),
    [
        (b"", "empty", (0,)),
        (b"<html>404</html>", "unknown_format", ("<html>404",)),
        (b"\0" * 100, "unknown_format", ()),
        (b"GIF89a" + b"\0" * 100, "unknown_format", ("GIF89a",)),
        (tiff(np.zeros((4, 4), np.float32)), "unsupported", ("32-bit",)),
        (tiff(np.zeros((4, 4), np.uint32)), "unsupported", (32,)),
        (tiff(np.zeros((4, 4), np.int16)), "unsupported", ("16-bit",)),
        (encode(TILE.convert("CMYK"), "TIFF"), "unsupported", ()),
        (encode(TILE, "TIFF", compression="jpeg"), "unsupported", ()),
        (encode(TILE.convert("1"), "TIFF", compression="group4"), "unsupported", ()),
        (encode(TILE, "WEBP", save_all=True, append_images=[TILE.rotate(90)]), "unsupported", ()),
    ],
)
def test_what_is_not_read_is_said(encoded, kind, values):
    got = failure(encoded)
    assert got[0] == kind
    with raises(errors.failure(kind, "", "").__class__, *values):
        entropy([encoded])


def bomb(name: str) -> bytes:
    """Return a few hundred bytes that declare 60,000 x 60,000 pixels."""
    side = 60_000
    small = FILES[name]
    if name == "png":
        return small[:8] + png_chunk(b"IHDR", struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0)) + small[33:]
    if name == "jpeg":
        frame = small.index(b"\xff\xc0")
        return small[: frame + 5] + struct.pack(">HH", side, side) + small[frame + 9 :]
    big = bytearray(small)
    (at,) = struct.unpack_from("<I", big, 4)
    for entry in range(struct.unpack_from("<H", big, at)[0]):
        tag, kind = struct.unpack_from("<HH", big, at + 2 + 12 * entry)
        if tag in (256, 257):
            struct.pack_into(
                "<I" if kind == 4 else "<HH", big, at + 10 + 12 * entry, *([side] if kind == 4 else [side, 0])
            )
    return bytes(big)


@pytest.mark.parametrize("name", ["png", "jpeg", "tiff", "lzw-tiff"])
def test_bombs_are_refused_by_their_headers(name):
    kind, message = failure(bomb(name))
    assert kind == "too_large"
    assert "60000 x 60000" in message
    assert "max_pixels" in message


@pytest.mark.parametrize("name", FILES)
def test_the_limit_is_on_pixels(name):
    assert failure(FILES[name], max_pixels=128 * 128 - 1)[0] == "too_large"
    assert _core.decode_images([FILES[name]], max_pixels=128 * 128)[1] == []


def test_many_bands_are_limited_too():
    encoded = tiff(np.zeros((16, 16, 40), np.uint8), photometric="minisblack", planarconfig="contig")
    assert failure(encoded, max_pixels=1000)[0] == "too_large"
    assert _core.decode_images([encoded], max_pixels=2560)[1] == []


# --- corners of TIFF --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("bits", [1, 2, 4])
@pytest.mark.parametrize("white_is_zero", [False, True])
def test_tiff_of_few_bits_is_scaled(bits, white_is_zero):
    samples = np.arange(15 * 9).reshape(9, 15) % 2**bits
    rows = [np.packbits(np.unpackbits(row.astype(np.uint8)[:, None], axis=1)[:, 8 - bits :]) for row in samples]
    encoded = raw_tiff(b"".join(row.tobytes() for row in rows), 15, 9, bits, photometric=0 if white_is_zero else 1)
    (image,), failures = _core.decode_images([encoded])
    assert failures == []
    levels = samples * (255 // (2**bits - 1))
    np.testing.assert_array_equal(image[..., 0], 255 - levels if white_is_zero else levels)


def test_holes_of_sparse_tiff_are_zero():
    encoded = raw_tiff(b"", 5, 4, 8, sparse=True)
    (image,), failures = _core.decode_images([encoded])
    assert failures == []
    assert image.shape == (4, 5, 3)
    assert not image.any()


def raw_tiff(data: bytes, width: int, height: int, bits: int, *, photometric: int = 1, sparse: bool = False) -> bytes:
    """Write one strip, as nobody's library writes it."""
    entries = [
        (256, width),
        (257, height),
        (258, bits),
        (259, 1),
        (262, photometric),
        (273, 0 if sparse else 8),
        (277, 1),
        (279, len(data)),
    ]
    directory = struct.pack(">H", len(entries)) + b"".join(struct.pack(">HHII", tag, 4, 1, v) for tag, v in entries)
    return b"MM\0\x2a" + struct.pack(">I", 8 + len(data)) + data + directory + bytes(4)
