"""Transforms: from encoded images or label maps to pixels of the size that a network is trained on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from rsprune.decoding import decode_images, preprocess_images
from rsprune.errors import ArgumentError
from rsprune.sources import ImageData
from rsprune.training.config import ImageOptions
from rsprune.training.label_maps import Palette

__all__ = ["ImageTransform", "LabelTransform", "Transform"]


@dataclass(frozen=True)
class ImageTransform:
    """Resize the shorter side of an image by Pillow's bicubic filter, and crop the center.

    There must be as many bands as channels, and ``downscale`` must divide the size.
    """

    size: int
    channels: int = 3
    bands: tuple[int, ...] | None = None  # counted from 0; by default RGB, or the first ones
    valid_range: tuple[float, float] | None = None  # of 16-bit samples, as for rsprune.entropy
    #: Factor by which the image is made smaller and then enlarged again, both by Pillow's bicubic filter: the low
    #: resolution that super-resolution starts from.
    downscale: int = 1

    def __post_init__(self) -> None:
        if self.downscale < 1 or self.size % self.downscale:
            message = f"size={self.size} is no multiple of the factor {self.downscale}"
            raise ArgumentError(message)
        if self.bands is not None and len(self.bands) != self.channels:
            message = f"bands is {self.bands}; expected as many as channels, {self.channels}"
            raise ArgumentError(message)

    @classmethod
    def from_options(cls, options: ImageOptions) -> ImageTransform:
        """Make the transform that options ask for."""
        bands = None if options.bands is None else tuple(options.bands)
        low_high = None if options.valid_range is None else (options.valid_range[0], options.valid_range[1])
        return cls(options.size, options.channels, bands, low_high)

    def __call__(self, images: Sequence[ImageData]) -> tuple[NDArray[np.uint8], list[tuple[int, str, str]]]:
        """Decode images, given as paths or as the content of files.

        Returns pixels, uint8 (n, size, size, channels), zero where an image failed, and of each that failed number,
        kind and message.
        """
        pixels = np.zeros((len(images), self.size, self.size, self.channels), np.uint8)
        bands = self.bands or (None if self.channels == 3 else tuple(range(self.channels)))
        failures: dict[int, tuple[int, str, str]] = {}
        for first in range(0, self.channels, 3):  # the core reads three bands at once
            three = np.zeros((*pixels.shape[:3], 3), np.uint8)
            failed = preprocess_images(
                images,
                three,
                interpolation="bicubic",
                resize_to=self.size,
                bands=bands and (bands[first : first + 3] + bands[-1:] * 2)[:3],
                valid_range=self.valid_range,
                threads=1,
            )
            pixels[..., first : first + 3] = three[..., : self.channels - first]
            failures |= {number: failure for failure in failed if (number := failure[0]) not in failures}
        pixels[list(failures)] = 0
        if self.downscale > 1:
            pixels = np.stack([low_resolution(image, self.downscale) for image in pixels])
        return pixels, [failures[number] for number in sorted(failures)]

    def config(self) -> dict[str, Any]:
        """Return what the pixels depend on, JSON-serializable."""
        bands, valid_range = (value and list(value) for value in (self.bands, self.valid_range))
        return {"size": self.size, "bands": bands, "valid_range": valid_range, "reduced": self.downscale}


def low_resolution(image: NDArray[np.uint8], factor: int) -> NDArray[np.uint8]:
    """Make an image (S, S, C) smaller by a factor, and enlarge it again."""
    side = len(image)
    planes = []
    for band in range(image.shape[2]):
        plane = Image.fromarray(np.ascontiguousarray(image[:, :, band]))
        small = plane.resize((side // factor, side // factor), Image.Resampling.BICUBIC)
        planes.append(np.asarray(small.resize((side, side), Image.Resampling.BICUBIC)))
    return np.stack(planes, axis=2)


@dataclass(frozen=True)
class LabelTransform:
    """Resize a label map by nearest neighbor and crop the center, aligned with its image."""

    size: int
    palette: Palette
    painted: bool  # return the colors of the classes, (n, S, S, 3), instead of their numbers, (n, S, S, 1)

    @property
    def channels(self) -> int:
        """Channels of the pixels."""
        return 3 if self.painted else 1

    def config(self) -> dict[str, Any]:
        """Return what the pixels depend on, JSON-serializable."""
        return {"size": self.size, "labels": list(self.palette.names), "painted": self.painted}

    def __call__(self, images: Sequence[ImageData]) -> tuple[NDArray[np.uint8], list[tuple[int, str, str]]]:
        """Decode label maps; see :meth:`ImageTransform.__call__`."""
        out = np.zeros((len(images), self.size, self.size, self.channels), np.uint8)
        decoded, failures = decode_images(images, threads=1)
        for i, pixels in enumerate(decoded):
            if pixels is None:
                continue
            numbers = self.palette.class_numbers(pixels)
            if numbers is None:
                failures.append((i, "palette", f"a value that is none of {len(self.palette.names)} classes"))
                continue
            cropped = resize_nearest(numbers, self.size)
            out[i] = self.palette.paint(cropped) if self.painted else cropped[:, :, None]
        return out, sorted(failures)


def resize_nearest(plane: NDArray[np.uint8], size: int) -> NDArray[np.uint8]:
    """Resize the shorter side to ``size`` and crop the center, taking the value at the center of each pixel."""
    short = min(plane.shape)
    positions = []
    for side in plane.shape:
        resized = int(side * size / short)
        first = round((resized - size) / 2)
        positions.append(((np.arange(first, first + size) + 0.5) * side / resized).astype(np.int64))
    cropped: NDArray[np.uint8] = plane[np.ix_(*positions)]
    return cropped


#: Decodes a batch of files and brings them to one size.
Transform = ImageTransform | LabelTransform
