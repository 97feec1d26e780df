"""Preprocessing against Pillow and torchvision, and against the processors of the published models, to the bit."""

from functools import cache
from io import BytesIO

import numpy as np
import open_clip
import pytest
import timm.data
import torch
import torchvision.transforms.functional as tv
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from torchvision.transforms import InterpolationMode
from transformers.models.siglip import SiglipImageProcessorPil

from rsprune.encoders.preprocess import Preprocessing, core_image
from scenes import blue_marble, encode

ZERO, ONE = (0.0, 0.0, 0.0), (1.0, 1.0, 1.0)


def squares(images, size, *, threads=2, **settings) -> np.ndarray:
    preprocessing = Preprocessing(size=size, mean=ZERO, std=ONE, **settings)
    pixels, failures = preprocessing.apply([core_image(image) for image in images], threads=threads)
    assert failures == []
    return pixels


# --- any size ---------------------------------------------------------------------------------------------------------

SIDES = st.one_of(st.integers(1, 9), st.integers(1, 700))
# Upright, lying, and as thin as they get.
EXTENTS = st.one_of(st.tuples(SIDES, SIDES), st.tuples(st.just(1), SIDES), st.tuples(SIDES, st.just(1)))
FILTERS = st.sampled_from(["bicubic", "bilinear"])


@st.composite
def images(draw) -> Image.Image:
    """Real pixels, or noise whose extremes overshoot."""
    height, width = draw(EXTENTS)
    if draw(st.booleans()):
        x, y = draw(st.integers(0, 500)), draw(st.integers(0, 500))
        pixels = blue_marble()[y : y + height, x : x + width]
    else:
        random = np.random.default_rng(draw(st.integers(0, 2**32)))
        pixels = random.choice(np.array([0, 1, 127, 254, 255], np.uint8), (height, width, 3))
    image = Image.fromarray(pixels)
    return image.convert("L") if draw(st.booleans()) else image


@settings(max_examples=150, deadline=None)
@given(images=st.lists(images(), min_size=1, max_size=3), size=st.integers(1, 300), interpolation=FILTERS)
def test_squash_is_pillows_resize(images, size, interpolation):
    # The first once more: what the others left behind must not show.
    images = [*images, images[0]]
    got = squares([np.asarray(image) for image in images], size, interpolation=interpolation)
    for image, pixels in zip(images, got, strict=True):
        want = image.resize((size, size), Image.Resampling[interpolation.upper()]).convert("RGB")
        np.testing.assert_array_equal(pixels, np.asarray(want))


@settings(max_examples=150, deadline=None)
@given(image=images(), size=st.integers(1, 230), more=st.integers(0, 40), interpolation=FILTERS)
def test_crop_is_torchvisions(image, size, more, interpolation):
    if max(image.size) > 100 * min(image.size):
        image = image.crop((0, 0, min(image.width, 100), min(image.height, 100)))
    [got] = squares([np.asarray(image)], size, mode="crop", resize_to=size + more, interpolation=interpolation)
    resized = tv.resize(image, size + more, InterpolationMode(interpolation))
    np.testing.assert_array_equal(got, np.asarray(tv.center_crop(resized, size).convert("RGB")))


def test_files_are_resized_as_their_pixels():
    """JPEG rows are resized as they are decoded; other formats when they are whole."""
    picture = Image.fromarray(blue_marble()[300:677, 200:811])
    files = [
        encode(picture, "JPEG", subsampling=2),
        encode(picture, "JPEG", progressive=True),
        encode(picture.convert("L"), "JPEG"),
        encode(picture.convert("CMYK"), "JPEG"),
        encode(picture, "PNG"),
        encode(picture, "TIFF"),
        encode(picture, "WEBP"),
    ]
    decoded = [np.asarray(Image.open(BytesIO(file)).convert("RGB")) for file in files]
    for settings_ in ({}, {"mode": "crop"}, {"mode": "crop", "resize_to": 150}):
        got = squares(files, 131, **settings_)
        np.testing.assert_array_equal(got, squares(decoded, 131, **settings_))
        for threads in (1, 5):
            np.testing.assert_array_equal(got, squares(files, 131, threads=threads, **settings_))


# --- what the models' own processors do -------------------------------------------------------------------------------

# (width, height): smaller than the square, larger, one side equal, odd, long, high, the datasets' own.
ODD_SIZES = [
    (1, 1),
    (2, 3),
    (17, 31),
    (64, 64),
    (100, 333),
    (223, 225),
    (224, 224),
    (225, 224),
    (224, 511),
    (247, 253),
    (248, 254),
    (255, 257),
    (256, 256),
    (333, 256),
    (256, 999),
    (512, 640),
    (600, 600),
    (601, 599),
    (1000, 37),
    (41, 1200),
]


@cache
def pictures(mode: str) -> list[Image.Image]:
    """An image of each of these sizes, in a mode of Pillow's."""
    found = []
    for i, (width, height) in enumerate(ODD_SIZES):
        image = Image.fromarray(blue_marble()[11 * i : 11 * i + height, 29 * i : 29 * i + width])
        if mode == "RGBA":
            image.putalpha(Image.linear_gradient("L").resize(image.size))
        found.append(image.quantize(64, Image.Quantize.FASTOCTREE) if mode == "P" else image.convert(mode))
    return found


def png(image: Image.Image) -> bytes:
    return encode(image, "PNG", compress_level=1)


@pytest.mark.parametrize(("mode", "size"), [("L", 256), ("RGB", 256), ("RGBA", 256), ("P", 256), ("RGB", 224)])
def test_siglip_processor(mode, size):
    """The published preprocessor_config.json of Git-RSCLIP, of images that were made RGB, as its users do."""
    processor = SiglipImageProcessorPil(
        do_resize=True, resample=3, size={"height": size, "width": size}, do_rescale=False, do_normalize=False
    )
    images = pictures(mode)
    want = processor([image.convert("RGB") for image in images], return_tensors="np")["pixel_values"]
    got = squares([png(image) for image in images], size)
    assert np.array_equal(got.transpose(0, 3, 1, 2), want)
    assert np.array_equal(squares(images, size), got)


@pytest.mark.parametrize(
    ("mode", "interpolation"),
    [("L", "bicubic"), ("RGB", "bicubic"), ("RGBA", "bicubic"), ("P", "bicubic"), ("RGB", "bilinear")],
)
@pytest.mark.parametrize(("resize_mode", "settings_"), [("squash", {}), ("shortest", {"mode": "crop"})])
def test_open_clip_transform(mode, interpolation, resize_mode, settings_):
    transform = open_clip.image_transform(
        224, is_train=False, mean=ZERO, std=ONE, resize_mode=resize_mode, interpolation=interpolation
    )
    images = pictures(mode)
    want = torch.stack([transform(image.convert("RGB")) for image in images]).mul(255).round().byte()
    got = squares([png(image) for image in images], 224, interpolation=interpolation, **settings_)
    assert np.array_equal(got.transpose(0, 3, 1, 2), want.numpy())


@pytest.mark.parametrize(("size", "crop_pct"), [(224, 0.875), (224, 0.9), (240, 0.95), (518, 1.0)])
@pytest.mark.parametrize(("crop_mode", "mode"), [("center", "crop"), ("squash", "squash")])
def test_timm_transform(size, crop_pct, crop_mode, mode):
    settings_ = {"interpolation": "bicubic", "crop_pct": crop_pct, "crop_mode": crop_mode}
    transform = timm.data.create_transform((3, size, size), mean=ZERO, std=ONE, **settings_)
    images = pictures("RGB")[2:]
    want = torch.stack([transform(image) for image in images]).mul(255).round().byte()
    got = squares(images, size, mode=mode, resize_to=int(size / crop_pct))
    assert np.array_equal(got.transpose(0, 3, 1, 2), want.numpy())
