"""Preprocessing: from an image to the pixels that an encoder takes."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

from rsprune.decoding import preprocess_images
from rsprune.errors import ArgumentError, DtypeError, ShapeError
from rsprune.pixels import is_pillow, pillow_samples, samples
from rsprune.sources import ImageData
from rsprune.validation import check_choice, check_integer, check_number

if TYPE_CHECKING:
    from PIL.Image import Image

__all__ = ["ImageLike", "Interpolation", "Mode", "Preprocessing", "core_image"]

#: What is taken for an image: pixels (H, W), (H, W, 1) or (H, W, 3), an encoded file or its path, Pillow's.
ImageLike: TypeAlias = "NDArray[Any] | bytes | str | os.PathLike[str] | Image"


Interpolation = Literal["bicubic", "bilinear"]
Mode = Literal["squash", "crop"]
Middle = Literal["even", "first"]


@dataclass(frozen=True, slots=True)
class Preprocessing:
    """The preprocessing of an encoder: RGB images of one size.

    Images become RGB before they are resized: gray is repeated, palettes are looked up, alpha is dropped without
    blending, as with Pillow's ``convert("RGB")``. A setting that cannot be is an :class:`ArgumentError`.
    """

    size: int  # S, width and height, in pixels
    mean: tuple[float, float, float]  # subtracted from each channel, in units of the 8-bit values
    std: tuple[float, float, float]  # each channel's divisor then, in the same units
    interpolation: Interpolation = "bicubic"  # Pillow's filter
    #: ``"squash"``: the whole image becomes a square, whatever its sides' ratio. Scenes from above have no subject in
    #: their middle that a crop would keep, and what lies at the border counts as much. ``"crop"``: the shorter side is
    #: brought to the square's, and the longer one in proportion.
    mode: Mode = "squash"
    #: The side of that square, at least ``size``, which is the default: S x S pixels are cut from the middle (timm's
    #: ``crop_pct`` is ``size / resize_to``).
    resize_to: int | None = None
    #: Where the middle begins if the margin is odd: at the ``"even"`` one of the two places, as in torchvision's
    #: ``CenterCrop``, or at the ``"first"``, as in the transformers library.
    middle: Middle = "even"

    def __post_init__(self) -> None:
        check_integer("size", self.size)
        check_choice("interpolation", self.interpolation, Interpolation)
        check_choice("mode", self.mode, Mode)
        check_choice("middle", self.middle, Middle)
        for name in ("mean", "std"):
            for value in getattr(self, name):
                check_number(name, value, minimum=-sys.float_info.max, maximum=sys.float_info.max)
        if 0 in self.std:
            message = f"std={self.std} must not be 0, which the pixels are divided by"
            raise ArgumentError(message)
        if self.resize_to is not None and self.resize_to < self.size:
            message = f"resize_to={self.resize_to} must be at least size={self.size}, which is cut from it"
            raise ArgumentError(message)

    def apply(
        self,
        images: Sequence[ImageData],
        *,
        bands: Sequence[int] | None = None,
        valid_range: tuple[float, float] | None = None,
        max_pixels: int | None = None,
        max_bytes: int | None = None,
        threads: int | None = None,
        out: NDArray[np.uint8] | None = None,
    ) -> tuple[NDArray[np.uint8], list[tuple[int, str, str]]]:
        """Decode and resize images, without the GIL: the pixels of Pillow 13's ``resize``, to the bit.

        ``images`` are encoded files, paths, or what :func:`core_image` makes of others. ``bands`` to ``max_bytes`` are
        as for :func:`rsprune.entropy`; ``threads`` are all cores by default, and do not show in the result. ``out``,
        uint8 (n, S, S, 3), contiguous, is memory to write to, such as a pinned buffer.

        Returns the pixels, uint8 (n, S, S, 3), zero where an image failed, and number, kind and message of each image
        that failed, as :func:`rsprune.errors.failure` takes them.
        """
        pixels = np.empty((len(images), self.size, self.size, 3), np.uint8) if out is None else out
        failures = preprocess_images(
            images,
            pixels,
            interpolation=self.interpolation,
            resize_to=self.resize_to or self.size,
            squash=self.mode == "squash",
            middle=self.middle,
            bands=bands,
            valid_range=valid_range,
            max_pixels=max_pixels,
            max_bytes=max_bytes,
            threads=threads,
        )
        return pixels, failures

    def provenance(self) -> dict[str, Any]:
        """Return every setting, JSON-serializable."""
        settings = asdict(self)
        mode, resize_to, middle = (settings.pop(key) for key in ("mode", "resize_to", "middle"))
        cut = {"resize_to": resize_to or self.size} if mode == "crop" or (resize_to or self.size) > self.size else {}
        return {"resize": mode, **cut, **({"middle": middle} if cut and middle != "even" else {}), **settings}


def core_image(image: ImageLike) -> ImageData:
    """Return the image as the core reads it; its pixels are copied only if they do not lie as the core takes them.

    An array that is not (H, W), (H, W, 1) or (H, W, 3) is a :class:`ShapeError`; one of another dtype, a Pillow
    image of other samples and an object that is no image are a :class:`DtypeError`; a masked array is an
    :class:`ArgumentError`, and an image that Pillow cannot read an ``ImageError``.
    """
    if isinstance(image, (str, bytes)):
        return image
    if isinstance(image, os.PathLike):
        return os.fsdecode(image)
    if not is_pillow(image) and not isinstance(image, np.ndarray):
        message = f"expected an image (array, encoded bytes, path or Pillow image), got {type(image).__name__}"
        raise DtypeError(message)
    image = pillow_samples(image, "the image") if is_pillow(image) else samples(image, "the image")
    if not (image.ndim == 2 or (image.ndim == 3 and image.shape[2] in (1, 3))) or not image.size:
        message = f"expected an image of shape (H, W), (H, W, 1) or (H, W, 3), got {image.shape}"
        raise ShapeError(message)
    pixels: NDArray[Any] = np.ascontiguousarray(image)
    return pixels
