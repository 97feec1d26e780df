"""rsprune.entropy: golden values, a NumPy oracle, every kind of input, every refusal."""

import os
import signal
import subprocess
import sys
import time
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from PIL import Image

import rsprune
from failures import raises
from rsprune import _core, entropy, errors
from rsprune.entropy import top_entropies
from scenes import encode, tiff, tiles

# --- golden values, by hand -------------------------------------------------------------------------------------------


def one(image, **options) -> float:
    return entropy(np.asarray(image, dtype=np.uint8)[None], **options)[0]


def test_one_level_has_no_entropy():
    assert one([[7, 7], [7, 7]]) == 0.0
    assert str(one([[7, 7], [7, 7]])) == "0.0"  # not -0.0


def test_half_and_two_quarters_are_a_bit_and_a_half():
    # -(1/2 log2 1/2 + 2 * 1/4 log2 1/4) = 1/2 + 2 * 1/2
    assert one([[1, 1], [2, 3]]) == 1.5


def test_every_level_once_is_eight_bits():
    assert one(np.arange(256).reshape(16, 16)) == 8.0


def test_colours_of_one_gray_level_are_told_apart_by_nothing():
    # (19595 * 1 + 38470 * 2 + 7471 * 3 + 32768) >> 16 = 2, as of (2, 2, 2).
    assert one([[[1, 2, 3], [2, 2, 2]]]) == 0.0
    assert one([[[1, 2, 3], [2, 2, 3]]], gray="mean") == 0.0  # 6/3 = 2 and 7/3, rounded, = 2
    assert one([[[1, 2, 3], [2, 3, 3]]], gray="mean") == 1.0  # 8/3, rounded, = 3


def test_nodata_leaves_pixels_out():
    assert one([[0, 0], [5, 9]]) == 1.5
    assert one([[0, 0], [5, 9]], nodata=0) == 1.0
    # A pixel is nodata only when all its bands are.
    assert one([[[0, 0, 0], [0, 0, 9], [9, 9, 9]]], nodata=0) == 1.0


def test_valid_range_spans_the_levels():
    twelve_bits = np.arange(4096, dtype=np.uint16).reshape(1, 64, 64)
    assert entropy(twelve_bits, valid_range=(0, 65535))[0] == 4.0  # 16 levels
    assert entropy(twelve_bits, valid_range=(0, 4095))[0] == 8.0
    assert entropy(twelve_bits, valid_range=(0, 16383))[0] == 6.0  # a quarter of the range: 64 levels
    # The upper half saturates: half of the pixels share level 255, which the ramp below takes with 1/512 of them.
    p = np.array([*[1 / 512] * 255, 1 / 2 + 1 / 512])
    expected = -(p * np.log2(p)).sum()
    assert entropy(twelve_bits, valid_range=(0, 2047))[0] == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("highest", [255, 2047, 4095, 10_000, 16_383, 32_767])
@pytest.mark.parametrize("form", ["array", "item", "PNG", "TIFF"])
def test_sixteen_bits_that_are_not_used_need_a_range(highest, form):
    values = np.linspace(3, highest, 64 * 64).astype(np.uint16).reshape(64, 64)
    values[30, :9] = 65535  # a few hot pixels, or a border
    if form in ("array", "item"):
        image = values[None] if form == "array" else [values]
    else:
        image = [encode(Image.fromarray(values), form)]
    with raises(errors.ValueRangeError, "images[0]", 3, 65535, "valid_range"):
        entropy(image)
    assert np.isnan(entropy(image, on_error="nan")).tolist() == [True]
    with raises(errors.ValueRangeError, 3, highest):
        entropy(image, nodata=65535)
    options = {"valid_range": (0, highest), "nodata": 65535}
    assert entropy(image, **options)[0] == pytest.approx(oracle(values, **options), abs=1e-12)


def test_sixteen_bits_that_are_used_need_no_range():
    values = np.linspace(0, 65535, 64 * 64).astype(np.uint16).reshape(1, 64, 64)
    assert entropy(values) == entropy(values, valid_range=(0, 65535)) == entropy((values >> 8).astype(np.uint8))
    # A dark one cannot be told from data of fewer bits.
    both = np.concatenate([values // 3, values])
    assert np.isnan(entropy(both, on_error="nan")).tolist() == [True, False]
    with raises(errors.ValueRangeError, "images[0]", 0, 65535 // 3):
        entropy(both)


def test_a_range_is_for_the_images_of_sixteen_bits_of_a_collection():
    narrow = tiles(1)[0]
    wide = narrow.astype(np.uint16) * 16
    options = {"valid_range": (0, 4095), "nodata": 4095}
    for form in (lambda a: a, lambda a: tiff(a, photometric="rgb")):
        mixed = [
            form(narrow),
            form(wide),
            encode(Image.fromarray(narrow), "JPEG"),
            encode(Image.fromarray(narrow), "PNG"),
        ]
        got = entropy(mixed, **options)
        assert got[0] == got[1] == got[3] == entropy(narrow[None])[0]
        assert got[2] == entropy(mixed[2:3])[0]


# --- a NumPy oracle ---------------------------------------------------------------------------------------------------


def oracle(image, gray="bt601", bands=None, nodata=None, valid_range=None) -> float:
    image = image.reshape(*image.shape[:2], -1).astype(np.int64)
    bands = bands if bands is not None else range(min(3, image.shape[2]))
    chosen = image[..., list(bands)].reshape(-1, len(bands))
    valid = chosen[(chosen != nodata).any(axis=1)] if nodata is not None else chosen
    if valid_range is not None:
        lo, hi = valid_range
        valid = np.clip((valid - lo) * 256 // (hi - lo + 1), 0, 255)
    if valid.shape[1] == 1:
        levels = valid[:, 0]
    elif gray == "mean":
        levels = np.floor(valid.mean(axis=1) + 0.5).astype(np.int64)
    else:
        levels = (valid @ [19595, 38470, 7471] + 32768) >> 16
    p = np.bincount(levels, minlength=256) / len(levels) if len(levels) else np.array([np.nan])
    p = p[p != 0]
    return -(p * np.log2(p)).sum() + 0.0


@st.composite
def cases(draw):
    wide = draw(st.booleans())
    shape = draw(st.tuples(st.integers(1, 3), st.integers(5, 12), st.integers(1, 12), st.sampled_from([1, 3, 4, 9])))
    # Few distinct values: nodata and equal levels have to occur.
    values = st.sampled_from([0, 1, 2, 7, 300, 4095, 40000, 65535] if wide else [0, 1, 2, 7, 100, 254, 255])
    stack = draw(arrays(np.uint16 if wide else np.uint8, shape, elements=values, fill=st.nothing()))
    gray = draw(st.sampled_from(["bt601", "luma", "mean"]))
    size = st.integers(1, 5) if gray == "mean" else st.sampled_from([1, 3])
    some = size.flatmap(lambda n: st.lists(st.integers(0, shape[3] - 1), min_size=n, max_size=n))
    bands = draw(some if shape[3] > 4 else st.none() | some)
    nodata = draw(st.none() | values)
    valid_range = None
    if wide:
        valid_range = tuple(sorted(draw(st.tuples(st.integers(0, 4000), st.integers(4001, 65535)))))
    return stack, {"gray": gray, "bands": bands, "nodata": nodata, "valid_range": valid_range}


@given(cases())
def test_arrays_have_the_entropies_of_numpy(case):
    stack, options = case
    expected = [oracle(image, **options) for image in stack]
    got = entropy(stack, on_error="nan", **options)
    np.testing.assert_allclose(got, expected, rtol=0, atol=1e-12)
    # The same, whatever the memory layout, the number of threads, and the way in.
    strided = np.asfortranarray(np.repeat(stack, 2, axis=1))[:, ::2]
    for other in (strided, stack.astype(stack.dtype.newbyteorder(">")), list(stack)):
        assert entropy(other, on_error="nan", **options).tobytes() == got.tobytes()
    for threads in (1, 2, 7):
        assert entropy(stack, on_error="nan", threads=threads, **options).tobytes() == got.tobytes()


def test_threads_do_not_show_in_the_entropies_of_files():
    files = [encode(Image.fromarray(tile), name) for tile in tiles(8) for name in ("JPEG", "PNG", "WEBP", "TIFF")]
    expected = entropy(files).tobytes()
    for threads in (1, 2, 7):
        assert entropy(files, threads=threads).tobytes() == expected


def test_luma_is_the_y_plane():
    ycc = Image.fromarray(tiles(1)[0]).convert("YCbCr")
    encoded = encode(ycc, "JPEG", quality=100)
    with Image.open(BytesIO(encoded)) as image:
        image.draft("L", image.size)
        assert entropy([encoded], gray="luma")[0] == pytest.approx(image.entropy(), abs=1e-12)
    # With bands, and of any other format, it is bt601.
    assert entropy([encoded], gray="luma", bands=(0, 1, 2)) == entropy([encoded])
    png = encode(Image.fromarray(tiles(1)[0]), "PNG")
    assert entropy([png], gray="luma") == entropy([png])


# --- Pillow images ----------------------------------------------------------------------------------------------------


def in_mode(image: Image.Image, mode: str) -> Image.Image:
    """Return an RGB image in a mode that Pillow may only reach by a detour."""
    detours = {"La": "LA", "RGBa": "RGBA", "PA": "P"}
    if mode == "LAB":
        return Image.frombytes(mode, image.size, image.tobytes())
    return image.convert(detours.get(mode, mode)).convert(mode)


MODES = ["1", "L", "LA", "P", "PA", "RGB", "RGBA", "RGBa", "RGBX", "CMYK", "YCbCr", "HSV"]


@pytest.mark.parametrize("mode", MODES)
def test_a_pillow_image_is_what_pillow_makes_gray_of_it(mode):
    image = in_mode(Image.fromarray(tiles(1)[0]), mode)
    assert entropy([image])[0] == pytest.approx(image.convert("L").entropy(), abs=1e-12)


@pytest.mark.parametrize(
    ("mode", "error"),
    [
        ("La", errors.UnsupportedImageError),
        ("I", errors.DtypeError),
        ("F", errors.ValueRangeError),
        ("I;16", errors.ValueRangeError),
        ("I;16B", errors.ValueRangeError),
    ],
)
def test_a_pillow_image_of_no_levels_is_an_error(mode, error):
    with pytest.raises(error):
        entropy([in_mode(Image.fromarray(tiles(1)[0]), mode)])


def test_a_pillow_image_of_lab_colors_is_converted_or_refused():
    image = in_mode(Image.fromarray(tiles(1)[0]), "LAB")
    try:
        expected = image.convert("RGB").convert("L").entropy()
    except ValueError:
        with pytest.raises(errors.UnsupportedImageError):
            entropy([image])
    else:
        assert entropy([image])[0] == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("name", ["JPEG", "PNG", "TIFF"])
def test_a_pillow_image_that_cannot_be_read_stops_no_other(name):
    tile = Image.fromarray(tiles(1)[0])
    whole = encode(tile, name)

    def images():
        # Read when it is asked for its pixels.
        return [tile, Image.open(BytesIO(whole[: len(whole) * 3 // 4])), tile]

    got = entropy(images(), on_error="nan")
    assert np.isnan(got).tolist() == [False, True, False]
    assert got[0] == got[2] == entropy([tile])[0]
    with raises(errors.ImageError, "images[1]") as caught:
        entropy(images())
    assert caught.value.kind in ("truncated", "corrupt")
    with raises(errors.EmptyImageError, "images[0]"):
        entropy([b"", *images()])


# --- Stage I's cut ----------------------------------------------------------------------------------------------------


@given(st.lists(st.sampled_from([0.0, 1.0, 1.5, np.nan]), max_size=30), st.data())
def test_the_cut_keeps_the_highest_and_of_ties_the_first(values, data):
    entropies = np.array(values, dtype=np.float64)
    ranked = sorted(np.flatnonzero(~np.isnan(entropies)), key=lambda i: (-entropies[i], i))
    count = data.draw(st.integers(0, len(ranked)))
    assert np.flatnonzero(top_entropies(entropies, count)).tolist() == sorted(ranked[:count])
    with raises(errors.ArgumentError):
        top_entropies(entropies, len(ranked) + 1)


# --- ways in ----------------------------------------------------------------------------------------------------------


def test_all_kinds_of_items_may_be_mixed(tmp_path):
    tile = tiles(1)[0]
    image = Image.fromarray(tile)
    encoded = encode(image, "PNG")
    path = tmp_path / "täglich.jpg"  # a wrong name besides
    path.write_bytes(encoded)
    rgba = image.copy()
    rgba.putalpha(7)
    ways = [path, str(path), encoded, bytearray(encoded), memoryview(encoded), tile, tile[:, ::-1], image, rgba]
    ways.append(image.quantize(256, dither=0))
    got = entropy(ways)
    assert set(got[:-1]) == {got[0]}
    assert got[-1] == pytest.approx(got[0], abs=1)
    assert set(entropy(iter(ways[:5]))) == {got[0]}
    assert set(entropy(np.array([str(path)] * 2))) == {got[0]}
    assert entropy([image.convert("L"), image.convert("LA"), np.asarray(image.convert("L"))]).tolist() == [got[0]] * 3


def test_an_iterator_is_read_a_chunk_at_a_time(monkeypatch):
    # The name rsprune.entropy is the function's.
    monkeypatch.setattr(sys.modules["rsprune.entropy"], "_CHUNK", 3)
    files = [encode(Image.fromarray(tile), "PNG") for tile in tiles(8)]
    assert entropy(iter(files)).tolist() == [entropy([file])[0] for file in files]
    with raises(errors.EmptyImageError, "images[7]"):
        entropy(iter([*files[:7], b""]))
    stack = np.stack(tiles(8))
    assert entropy(stack).tolist() == entropy(files).tolist()
    stack[4] = 0
    with raises(errors.NoValidPixelsError, "images[4]"):
        entropy(stack, nodata=0)


@pytest.mark.parametrize(
    "nothing", [[], (), iter([]), np.empty((0, 4, 4), np.uint8), np.empty((0, 4, 4, 3), np.uint16)]
)
def test_nothing_in_nothing_out(nothing):
    got = entropy(nothing)
    assert got.dtype == np.float64
    assert got.shape == (0,)


def test_arrays_are_read_where_they_lie():
    code = """
import resource
import numpy as np
from rsprune import entropy
peak = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
stack = np.ones((256, 1024, 1024), np.uint8)
before = peak()
entropy(stack)
entropy(stack[:, ::-1, ::2])
print((peak() - before) // 1024)
"""
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert int(out.stdout) < 64  # of 256 MB


# --- refusals ---------------------------------------------------------------------------------------------------------

SMALL = np.zeros((1, 5, 5, 3), np.uint8)


@pytest.mark.parametrize(
    ("images", "options", "error", "values"),
    [
        ("a.jpg", {}, errors.ArgumentError, ("str",)),
        (b"\xff\xd8\xff", {}, errors.ArgumentError, ("bytes",)),
        (Path("a.jpg"), {}, errors.ArgumentError, ("entropy([image])",)),
        (Image.new("L", (3, 3)), {}, errors.ArgumentError, ("Image",)),
        (None, {}, errors.ArgumentError, ("NoneType",)),
        ([3], {}, errors.ArgumentError, ("images[0]",)),
        (SMALL.astype(np.complex64), {}, errors.DtypeError, ("complex64", "uint8", "uint16", "float32")),
        (SMALL.astype(np.int64), {}, errors.DtypeError, ("int64",)),
        (SMALL.astype(np.uint32), {}, errors.DtypeError, ("uint32",)),
        (SMALL.astype(bool), {}, errors.DtypeError, ("bool",)),
        ([SMALL[0].astype(np.int32)], {}, errors.DtypeError, ("images[0]", "int32")),
        ([Image.new("I", (3, 3))], {}, errors.DtypeError, ("int32",)),
        (SMALL[0, 0], {}, errors.ShapeError, ("(5, 3)",)),
        (SMALL[None], {}, errors.ShapeError, ("(N, H, W, C)",)),
        ([SMALL], {}, errors.ShapeError, ("images[0]",)),
        (SMALL[:, :0], {}, errors.ShapeError, ()),
        ([SMALL[0][..., :0]], {}, errors.ShapeError, ()),
        (np.moveaxis(SMALL, 3, 1), {}, errors.ShapeError, ("np.moveaxis",)),
        (SMALL[..., :2], {}, errors.BandsError, (2,)),
        (np.zeros((1, 5, 5, 13), np.uint8), {}, errors.BandsError, (13, "bands")),
        (np.zeros((1, 5, 5, 13), np.uint8), {"gray": "mean"}, errors.BandsError, (13, "bands")),
        (SMALL, {"bands": (0, 3, 1)}, errors.BandsError, ("[0, 3, 1]", 3)),
        (SMALL, {"bands": (0, 1)}, errors.ArgumentError, ("bands",)),
        (SMALL, {"bands": ()}, errors.ArgumentError, ("bands",)),
        (SMALL, {"bands": (-1, 0, 1)}, errors.ArgumentError, (-1,)),
        (SMALL, {"bands": 1}, errors.ArgumentError, ("bands=1",)),
        (SMALL, {"bands": "012"}, errors.ArgumentError, ("bands='012'",)),
        (SMALL, {"gray": "bt709"}, errors.ArgumentError, ('"bt601"', '"mean"', '"luma"')),
        (SMALL, {"nodata": 256}, errors.ArgumentError, ("nodata=256",)),
        (SMALL, {"nodata": -1}, errors.ArgumentError, ("nodata=-1",)),
        (SMALL, {"nodata": 0.5}, errors.ArgumentError, ("nodata=0.5",)),
        (SMALL, {"nodata": "0"}, errors.ArgumentError, ("nodata", "'0'")),
        (SMALL, {"valid_range": (0, 255)}, errors.ArgumentError, ("uint8", 255)),
        (SMALL.astype(np.int16), {"valid_range": (-32769, 0)}, errors.ArgumentError, (-32769,)),
        (SMALL.astype(np.uint16), {"valid_range": (0.5, 9)}, errors.ValueRangeError, (0.5, "uint16")),
        (SMALL.astype(float), {"valid_range": (0, np.inf)}, errors.ArgumentError, ("inf",)),
        (SMALL.astype(float), {"valid_range": "auto"}, errors.ArgumentError, ("auto",)),
        (SMALL.astype(np.uint16), {"valid_range": (9, 9)}, errors.ArgumentError, (9,)),
        (SMALL.astype(np.uint16), {"valid_range": 9}, errors.ArgumentError, (9,)),
        (SMALL.astype(np.uint16), {"valid_range": (0, 65536)}, errors.ArgumentError, (65536,)),
        (SMALL, {"threads": 0}, errors.ArgumentError, ("threads=0",)),
        (SMALL, {"threads": -2}, errors.ArgumentError, ("threads=-2",)),
        (SMALL, {"max_pixels": 0}, errors.ArgumentError, ("max_pixels=0",)),
        (SMALL, {"on_error": "skip"}, errors.ArgumentError, ("skip",)),
        (SMALL, {"nodata": 0}, errors.NoValidPixelsError, ("images[0]", "nodata", 0)),
    ],
)
def test_refusals_are_typed_and_say_what_to_do(images, options, error, values):
    with raises(error, *values):
        entropy(images, **options)


def test_one_bad_image_stops_no_other(tmp_path):
    good = encode(Image.fromarray(tiles(1)[0]), "PNG")
    got = entropy([good, b"", tmp_path / "missing.png", good], on_error="nan")
    assert np.isnan(got).tolist() == [False, True, True, False]
    assert got[0] == got[3]
    entropies, failures = _core.entropy_images([good, b"", str(tmp_path / "missing.png")], gray="bt601")
    assert np.isnan(entropies).tolist() == [False, True, True]
    assert [failure[:2] for failure in failures] == [(1, "empty"), (2, "not_found")]


def test_errors_name_the_image(tmp_path):
    path = tmp_path / "broken.png"
    path.write_bytes(encode(Image.fromarray(tiles(1)[0]), "PNG")[:1000])
    with raises(errors.TruncatedImageError, "broken.png"):
        entropy([path])
    with raises(errors.TruncatedImageError, "images[1]"):
        entropy([tiles(1)[0], path.read_bytes()])


def test_files_that_cannot_be_read_raise_what_open_raises(tmp_path):
    with pytest.raises(FileNotFoundError) as caught:
        entropy([tmp_path / "missing.png"])
    assert caught.value.filename == str(tmp_path / "missing.png")
    with pytest.raises(IsADirectoryError):
        entropy([tmp_path])
    with raises(OSError):
        entropy(["a\0b.png"])
    locked = tmp_path / "locked.png"
    locked.touch(mode=0)
    if not os.access(locked, os.R_OK):
        with pytest.raises(PermissionError):
            entropy([locked])


def test_every_kind_of_failure_has_its_class():
    for name in ("empty", "unknown_format", "truncated", "corrupt", "unsupported", "too_large", "bands", "value_range"):
        assert errors.failure(name, "why", "a.png").kind == name
    assert isinstance(errors.failure("permission", "why", "a.png"), PermissionError)
    assert isinstance(errors.failure("io", "why", "a.png"), OSError)


@pytest.mark.skipif(sys.platform == "win32", reason="signals")
def test_ctrl_c_ends_a_long_call():
    code = """
import signal
import numpy as np
from rsprune import entropy
signal.signal(signal.SIGINT, signal.default_int_handler)  # whoever began the tests may ignore it
stack = np.broadcast_to(np.zeros((1, 512, 512, 3), np.uint8), (1_000_000, 512, 512, 3))
print("ready", flush=True)
entropy(stack)
"""
    child = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert child.stdout.readline() == "ready\n"
    time.sleep(0.3)
    sent = time.monotonic()
    child.send_signal(signal.SIGINT)
    _, stderr = child.communicate(timeout=30)
    assert "KeyboardInterrupt" in stderr
    assert time.monotonic() - sent < 5


def test_the_package_names_it():
    assert rsprune.entropy is entropy
