"""Samples that a caller holds: as those of the same file, or refused; never without their mask."""

import io

import numpy as np
import pytest
from PIL import Image

import rsprune
from failures import raises
from rsprune import errors, strategies
from rsprune.encoders.preprocess import Preprocessing, core_image
from rsprune.validation import as_array

RNG = np.random.default_rng(0)
RGB = RNG.integers(0, 256, (23, 31, 3), np.uint8)
#: All 16 bits are in use, which shows.
DEEP = RNG.integers(0, 65536, (23, 31), np.uint16)
SQUASH = Preprocessing(size=16, mean=(0, 0, 0), std=(1, 1, 1))


def squares(images, **options):
    pixels, failures = SQUASH.apply([core_image(image) for image in images], **options)
    assert failures == []
    return pixels


def file_of(image, name, path):
    path = path / f"image.{name}"
    image.save(path, name)
    return path


def deep_rgb_png():
    """A PNG of three bands of 16 bits, which Pillow reads and does not write."""
    import struct
    import zlib

    height, width = DEEP.shape
    rows = np.repeat(DEEP[..., None], 3, axis=2).astype(">u2")
    raw = b"".join(b"\0" + row.tobytes() for row in rows)
    chunks = [
        (b"IHDR", struct.pack(">2I5B", width, height, 16, 2, 0, 0, 0)),
        (b"IDAT", zlib.compress(raw)),
        (b"IEND", b""),
    ]
    body = b"".join(struct.pack(">I", len(d)) + k + d + struct.pack(">I", zlib.crc32(k + d)) for k, d in chunks)
    return b"\x89PNG\r\n\x1a\n" + body


# --- Pillow images ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("mode", "name"),
    [
        *((mode, "png") for mode in ("1", "L", "LA", "P", "RGB", "RGBA", "I;16")),
        *((mode, "tiff") for mode in ("1", "L", "LA", "P", "RGB", "RGBA", "I;16", "I;16B")),
        *((mode, "jpeg") for mode in ("L", "RGB", "CMYK")),
    ],
)
def test_a_pillow_image_is_the_same_image_as_its_file(tmp_path, mode, name):
    if mode.startswith("I"):
        order = ">" if mode.endswith("B") else "<"
        image = Image.frombytes(mode, DEEP.shape[::-1], DEEP.astype(f"{order}u2").tobytes())
    else:
        image = Image.fromarray(RGB).convert(mode)
    path = file_of(image, name, tmp_path)
    read = Image.open(path)
    read.load()
    by_path, lazy, loaded = squares([path, Image.open(path), read])
    assert np.array_equal(lazy, by_path)
    assert np.array_equal(loaded, by_path)
    np.testing.assert_allclose(*rsprune.entropy([path, Image.open(path)]), atol=1e-12)


def test_a_pillow_image_of_32_bit_integers_is_refused():
    image = Image.fromarray(DEEP.astype(np.int32))
    for call in (core_image, lambda one: rsprune.entropy([one])):
        with raises(errors.DtypeError, "int32"):
            call(image)


def test_a_file_whose_samples_pillow_cuts_is_refused(tmp_path):
    content = deep_rgb_png()
    image = Image.open(io.BytesIO(content))
    assert image.mode == "RGB"
    for call in (core_image, lambda one: rsprune.entropy([one])):
        with raises(errors.DtypeError, "mode RGB", 16, 8):
            call(image)
    assert squares([content]).shape == (1, 16, 16, 3)


def test_samples_of_16_bits_are_stretched_alike(tmp_path):
    path = file_of(Image.fromarray(DEEP), "png", tmp_path)
    want, *others = squares(
        [path, Image.open(path), DEEP, DEEP.astype(">u2"), np.asfortranarray(DEEP)], valid_range=(9, 60000)
    )
    assert all(np.array_equal(other, want) for other in others)
    assert not np.array_equal(squares([DEEP])[0], want)
    _, [(number, kind, _)] = SQUASH.apply([core_image(DEEP // 16)])  # as a file of such samples
    assert (number, kind) == (0, "value_range")


# --- masked arrays ----------------------------------------------------------------------------------------------------

EMBEDS = RNG.standard_normal((60, 8)).astype(np.float32)
CENTROIDS = EMBEDS[:4] / np.linalg.norm(EMBEDS[:4], axis=1, keepdims=True)
LABELS, SIMILARITY = rsprune.assign(EMBEDS, CENTROIDS)


def masked(array):
    """The array with three values masked."""
    mask = np.zeros(array.shape, bool)
    mask.reshape(-1)[:3] = True
    return np.ma.masked_array(array, mask)


CALLS = {
    "images": lambda wrap: rsprune.entropy(wrap(RGB[None])),
    "images[0]": lambda wrap: rsprune.entropy([wrap(RGB)]),
    "the image": lambda wrap: core_image(wrap(RGB)),
    "embeddings": lambda wrap: rsprune.select(wrap(EMBEDS), CENTROIDS, 9),
    "embeddings in a list": lambda wrap: rsprune.assign([EMBEDS, wrap(EMBEDS)], CENTROIDS),
    "embeddings of centroids": lambda wrap: rsprune.assign(EMBEDS, wrap(CENTROIDS)),
    "embeddings that are fitted": lambda wrap: rsprune.fit_centroids(wrap(EMBEDS), k=3),
    "labels": lambda wrap: rsprune.select_assigned(wrap(LABELS), SIMILARITY, 9, k=4),
    "similarity": lambda wrap: rsprune.select_assigned(LABELS, wrap(SIMILARITY), 9, k=4),
    "score": lambda wrap: rsprune.select(EMBEDS, CENTROIDS, 9, score=wrap(SIMILARITY)),
    "exclude": lambda wrap: rsprune.select(EMBEDS, CENTROIDS, 9, exclude=wrap(np.arange(9))),
    "preselected": lambda wrap: rsprune.select(EMBEDS, CENTROIDS, 9, preselected=wrap(np.arange(60) < 9)),
    "groups": lambda wrap: rsprune.select(EMBEDS, CENTROIDS, 48, groups=wrap(LABELS)),
    "logits": lambda wrap: strategies.tdds(wrap(np.ones((12, 5, 3), np.float32))),
    "prior": lambda wrap: strategies.select("a2mae_like", EMBEDS, 9, k=3, prior=wrap(np.ones(60))),
}


@pytest.mark.parametrize("name", CALLS)
def test_masked_values_do_not_count_as_others(name):
    with raises(errors.ArgumentError, name.split(" ")[0], "masked", 3):
        CALLS[name](masked)
    CALLS[name](np.ma.masked_array)  # no value of it is masked


def test_a_list_of_masked_arrays():
    with raises(errors.ArgumentError, "rows", "masked", 3):
        as_array("rows", [masked(SIMILARITY), SIMILARITY])
