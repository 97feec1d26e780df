"""Decoding: bands and ranges for encoders, and bad input of every kind."""

import resource
import struct
import zlib
from io import BytesIO

import numpy as np
import pytest
import tifffile
from PIL import Image

from failures import raises
from rsprune import _core, entropy, errors
from scenes import encode, png_chunk, tiff, tiles

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
    # A range is for samples of 16 bits: others are levels already.
    (image,), _ = _core.decode_images([FILES["png"]], valid_range=(1000, 10_000))
    np.testing.assert_array_equal(image, np.asarray(TILE))


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


def test_squares_of_sixteen_bits_need_a_range_and_others_none():
    items = [FILES["jpeg"], FILES["png"], tiles(1)[0]]
    got, failures = squares(items, 8, valid_range=(0, 100))
    assert failures == []
    np.testing.assert_array_equal(got, squares(items, 8)[0])
    dark = tiles(1)[0].astype(np.uint16)
    for item in (dark, tiff(dark, photometric="rgb")):
        assert [failure[:2] for failure in squares([item], 8)[1]] == [(0, "value_range")]
        assert failure(item)[0] == "value_range"
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
    known = {"truncated", "corrupt", "unsupported", "too_large", "unknown_format", "bands", "value_range"}
    assert {kind for _, kind, _ in failures} <= known
    assert sum(image is None for image in images) == len(failures)


@pytest.mark.parametrize(
    ("encoded", "kind", "values"),
    [
        (b"", "empty", (0,)),
        (b"<html>404</html>", "unknown_format", ("HTML",)),
        (b"\0" * 100, "unknown_format", ()),
        (b"\0\0\0\x0cjP  \r\n\x87\n" + b"\0" * 100, "corrupt", ("JPEG 2000",)),
        (b"\0\0\0\x18ftypheic" + b"\0" * 100, "unknown_format", ("HEIF",)),
        (tiff(np.zeros((4, 4), np.uint32)), "unsupported", (32,)),
        (tiff(np.zeros((4, 4), np.int32)), "unsupported", ("32-bit",)),
        (tiff(np.zeros((9, 9), np.uint8), compression="lerc"), "unsupported", ("LERC",)),
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
    assert _core.decode_images([encoded], max_pixels=2560, bands=[39])[1] == []


# --- corners of TIFF --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("bits", [1, 2, 4])
@pytest.mark.parametrize("white_is_zero", [False, True])
def test_tiff_of_few_bits_is_scaled(bits, white_is_zero):
    samples = np.arange(15 * 9).reshape(9, 15) % 2**bits
    rows = [np.packbits(np.unpackbits(row.astype(np.uint8)[:, None], axis=1)[:, 8 - bits :]) for row in samples]
    encoded = raw_tiff(b"".join(row.tobytes() for row in rows), 15, 9, bits, {262: 0 if white_is_zero else 1})
    (image,), failures = _core.decode_images([encoded])
    assert failures == []
    levels = samples * (255 // (2**bits - 1))
    np.testing.assert_array_equal(image[..., 0], 255 - levels if white_is_zero else levels)


@pytest.mark.parametrize(
    ("nodata", "bits", "sample"),
    [
        (None, 8, 0),
        ("255", 8, 255),
        ("7.0 ", 8, 7),
        ("-9999", 8, 0),
        ("300", 8, 255),
        ("nan", 8, 0),
        ("4095", 16, 4095),
    ],
)
@pytest.mark.parametrize("white_is_zero", [False, True])
def test_holes_of_sparse_tiff_hold_the_nodata_value(nodata, bits, sample, white_is_zero):
    """As GDAL reads them: rounded and clipped to what the samples can hold."""
    strips = [bytes([9]) * (10 * bits // 8), b""]
    tags = {262: int(not white_is_zero), 278: 2, 42113: nodata}
    encoded = raw_tiff(strips, 5, 4, bits, tags)
    stored = 9 if bits == 8 else 9 * 257
    most = 2**bits - 1
    rows = [[most - v if white_is_zero else v] * 5 for v in (stored, stored, sample, sample)]
    (image,), failures = _core.decode_images([encoded], valid_range=(0, 65535))
    assert failures == []
    np.testing.assert_array_equal(image[..., 0], np.array(rows) >> (bits - 8))


def raw_tiff(data: bytes | list[bytes], width: int, height: int, bits: int, tags=None) -> bytes:
    """Write strips and tags as no library would; ``tags`` by number, as values or (type, values)."""
    strips = data if isinstance(data, list) else [data]
    starts = np.cumsum([8, *map(len, strips)]).tolist()
    offsets = [start if strip else 0 for start, strip in zip(starts, strips, strict=False)]
    body = b"".join(strips)
    fields = {256: width, 257: height, 258: bits, 259: 1, 262: 1, 273: offsets, 277: 1, 279: [len(s) for s in strips]}
    directory = []
    for tag, value in sorted((fields | (tags or {})).items()):
        if value is None:
            continue
        kind, values = (
            value if isinstance(value, tuple) else (2, value.encode() + b"\0") if isinstance(value, str) else (4, value)
        )
        if kind == 2:
            count, packed = len(values), values
        else:
            values = values if isinstance(values, list) else [values]
            count, packed = (
                len(values),
                struct.pack(f">{len(values)}{ {3: 'H', 4: 'I', 8: 'h', 9: 'i'}[kind] }", *values),
            )
        if len(packed) > 4:
            packed, body = struct.pack(">I", 8 + len(body)), body + packed
        directory.append(struct.pack(">HHI", tag, kind, count) + packed.ljust(4, b"\0"))
    return b"".join(
        [b"MM\0\x2a", struct.pack(">I", 8 + len(body)), body, struct.pack(">H", len(directory)), *directory, bytes(4)]
    )


def gray_of(encoded: bytes, **options) -> np.ndarray:
    (image,), failures = _core.decode_images([encoded], **options)
    assert failures == []
    return image[..., 0]


def test_sizes_may_be_signed_but_not_negative():
    samples = np.arange(20, dtype=np.uint8).reshape(4, 5)
    for kind in (3, 4, 8, 9):
        encoded = raw_tiff(samples.tobytes(), 5, 4, 8, {256: (kind, 5), 257: (kind, 4)})
        np.testing.assert_array_equal(gray_of(encoded), samples)
    assert failure(raw_tiff(samples.tobytes(), 5, 4, 8, {256: (9, -5)}))[0] == "corrupt"


@pytest.mark.parametrize("compression", [5, 8])
@pytest.mark.parametrize("counts", ["right", "zero"])
def test_strips_may_hold_more_than_their_rows_and_need_no_byte_counts(compression, counts):
    samples = np.asarray(TILE.convert("L"))[:50]
    packed = []
    for y in range(0, 50, 16):
        rows = np.vstack([samples, np.full((14, 128), 7, np.uint8)])[y : y + 16]
        strip = encode(Image.fromarray(rows), "TIFF", compression={5: "tiff_lzw", 8: "tiff_adobe_deflate"}[compression])
        with tifffile.TiffFile(BytesIO(strip)) as file:
            tags = file.pages[0]
            packed.append(strip[tags.dataoffsets[0] :][: tags.databytecounts[0]])
    lengths = [0] * 4 if counts == "zero" else [len(p) for p in packed]
    encoded = raw_tiff(packed, 128, 50, 8, {259: compression, 278: 16, 279: lengths})
    np.testing.assert_array_equal(gray_of(encoded), samples)


@pytest.mark.parametrize("bits", [4, 8])
def test_a_color_map_of_eight_bit_values_is_not_black(bits):
    random = np.random.default_rng(3)
    colors = random.integers(0, 256, (3, 2**bits))
    samples = random.integers(0, 2**bits, (6, 8), dtype=np.uint8)
    data = samples.tobytes() if bits == 8 else (samples[:, ::2] << 4 | samples[:, 1::2]).tobytes()
    expected = np.moveaxis(colors[:, samples], 0, 2)
    for entries in (colors, colors * 257):
        encoded = raw_tiff(data, 8, 6, bits, {262: 3, 320: (3, entries.ravel().tolist())})
        (image,), failures = _core.decode_images([encoded])
        assert failures == []
        np.testing.assert_array_equal(image, expected)


def pages(*images, **options) -> bytes:
    """Write pages one after the other, each (samples, options)."""
    stream = BytesIO()
    with tifffile.TiffWriter(stream) as writer:
        for samples, more in images:
            writer.write(samples, metadata=None, contiguous=False, **{"photometric": "minisblack"} | options | more)
    encoded = bytearray(stream.getvalue())
    # tifffile writes no masks: pages that are marked as such stand for them.
    with tifffile.TiffFile(BytesIO(encoded)) as file:
        for page in file.pages:
            if (tag := page.tags.get(254)) is not None and tag.value & 2:
                struct.pack_into("<I", encoded, tag.valueoffset, tag.value + 2)
    return bytes(encoded)


def test_the_image_is_neither_its_thumbnail_nor_its_overviews_nor_its_mask():
    full = np.asarray(TILE.convert("L"))
    small = (full[::4, ::4], {"subfiletype": 1})
    mask = (np.full_like(full, 255), {"subfiletype": 2})
    reduced_mask = (np.full_like(full[::4, ::4], 255), {"subfiletype": 3})
    plain_small = (full[::2, ::2], {})
    for order in (
        [small, (full, {})],
        [(full, {}), small],
        [mask, small, (full, {})],
        [small, reduced_mask, (full, {}), mask],
        [(full, {}), plain_small],
    ):
        np.testing.assert_array_equal(gray_of(pages(*order)), full)
    # Nothing but reduced copies: one of them is read.
    np.testing.assert_array_equal(gray_of(pages(small)), full[::4, ::4])
    # A thumbnail that holds the image in a subdirectory.
    stream = BytesIO()
    with tifffile.TiffWriter(stream) as writer:
        writer.write(small[0], subifds=1, metadata=None, subfiletype=1, photometric="minisblack")
        writer.write(full, metadata=None, photometric="minisblack")
    np.testing.assert_array_equal(gray_of(stream.getvalue()), full)


def test_pages_of_one_size_are_bands_or_an_error():
    stack = np.moveaxis(np.concatenate([tiles(1)[0]] * 2, axis=2), 2, 0)
    for dtype in (np.uint8, np.uint16):
        samples = stack.astype(dtype)
        for count in (2, 5, 6):
            encoded = pages(*[(page, {}) for page in samples[:count]])
            kind, message = failure(encoded, valid_range=(0, 255))
            assert kind == "bands"
            assert str(count) in message
            for band in range(count):
                got = gray_of(encoded, bands=[band], valid_range=(0, 255))
                np.testing.assert_array_equal(got, stack[band])
    rgb = (tiles(1)[0], {"photometric": "rgb"})
    for refused, count in [([rgb, rgb], 2), ([(stack[0], {}), rgb, (stack[0], {})], 3)]:
        kind, message = failure(pages(*refused))
        assert kind == "unsupported"
        assert str(count) in message
    # Of different sizes, none of them a copy of the first.
    assert failure(pages((stack[0][:40], {}), (stack[0], {})))[0] == "unsupported"


def test_gray_and_alpha_are_gray():
    gray = np.asarray(TILE.convert("L"))
    both = np.dstack([gray, gray[::-1]])
    for extra in ("unassalpha", "assocalpha"):
        encoded = tiff(both, photometric="minisblack", planarconfig="contig", extrasamples=[extra])
        np.testing.assert_array_equal(gray_of(encoded), gray)
    assert (
        failure(tiff(both, photometric="minisblack", planarconfig="contig", extrasamples=["unspecified"]))[0] == "bands"
    )


def test_more_than_four_bands_are_a_choice():
    thirteen = np.concatenate([tiles(1)[0]] * 5, axis=2)[..., :13]
    encoded = tiff(thirteen, photometric="minisblack", planarconfig="contig")
    kind, message = failure(encoded)
    assert kind == "bands"
    assert "13" in message
    np.testing.assert_array_equal(_core.decode_images([encoded], bands=[3, 2, 1])[0][0], thirteen[..., [3, 2, 1]])


def test_what_a_small_file_declares_takes_no_memory():
    """Tiles, rows and holes that the file cannot hold, or that its image has no use for."""
    million, wide = zlib.compress(bytes(1_000_000)), zlib.compress(bytes(80_000_000), 9)
    tile = {273: None, 278: None, 279: None}
    for encoded in (
        raw_tiff(million, 13_000, 13_000, 8, {259: 8}),
        raw_tiff(million, 13_000, 13_000, 8, {259: 5}),
        raw_tiff(million, 13_000, 13_000, 8, {259: 32773}),
        raw_tiff([b""], 13_000, 13_000, 8),
        raw_tiff(million, 1, 2, 8, tile | {259: 8, 322: 80_000_000, 323: 1, 324: [8, 8], 325: [len(million)] * 2}),
        raw_tiff(wide, 1, 1, 8, tile | {259: 8, 322: 80_000_000, 323: 1, 324: 8, 325: len(wide)}),
        FILES["png"][:8]
        + png_chunk(b"IHDR", struct.pack(">IIBBBBB", 13_000, 13_000, 8, 2, 0, 0, 0))
        + FILES["png"][33:],
    ):
        before = peak()
        kind, message = failure(encoded)
        assert kind in ("corrupt", "unsupported", "truncated")
        assert len(message) < 300
        assert peak() - before < 64 << 20


def peak() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def test_messages_stay_short():
    mixed = raw_tiff(bytes(3), 1, 1, 8, {258: (3, [8, 16] * 1500), 277: 3000})
    kind, message = failure(mixed)
    assert kind == "unsupported"
    assert len(message) < 200


def test_directories_that_lead_in_a_circle_or_out_of_the_file():
    single = bytearray(raw_tiff(bytes(range(20)), 5, 4, 8))
    (first,) = struct.unpack_from(">I", single, 4)
    for following, kind in [(first, None), (1 << 30, "truncated")]:
        struct.pack_into(">I", single, len(single) - 4, following)
        if kind is None:
            np.testing.assert_array_equal(gray_of(bytes(single)).ravel(), range(20))
        else:
            assert failure(bytes(single))[0] == kind
