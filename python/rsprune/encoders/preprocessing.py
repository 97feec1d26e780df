"""From an image to the pixels that an encoder takes."""

from __future__ import annotations

import os
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from rsprune import _core
from rsprune.errors import DtypeError, ImageError, ShapeError

if TYPE_CHECKING:
    from PIL.Image import Image

__all__ = ["ImageLike", "Preprocessing", "rgb"]

#: What is taken for an image: pixels (H, W), (H, W, 1) or (H, W, 3) uint8, an encoded file or its path, Pillow's.
ImageLike: TypeAlias = "NDArray[np.uint8] | bytes | str | os.PathLike[str] | Image"


@dataclass(frozen=True, slots=True)
class Preprocessing:
    """How an encoder wants its images.

    The whole image is squashed to a square. Scenes from above have no subject in their middle that a crop would keep,
    and what lies at the border counts as much.

    Attributes
    ----------
    size : int
        Width and height, in pixels.
    mean, std : tuple of float
        What is taken from, and then divided out of, each channel: in units of the 8-bit values.
    interpolation : str
        Name of Pillow's filter.
    """

    size: int
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    interpolation: str = "bicubic"

    def resize(self, image: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """Squash an (H, W, 3) uint8 image to (size, size, 3), to the bit as Pillow does."""
        from PIL import Image

        if image.shape[:2] == (self.size, self.size):
            return image
        method = Image.Resampling[self.interpolation.upper()]
        return np.asarray(Image.fromarray(image).resize((self.size, self.size), method))

    def provenance(self) -> dict[str, Any]:
        """Every setting, as JSON takes it."""
        return {"resize": "squash", **asdict(self)}


def rgb(image: ImageLike) -> NDArray[np.uint8]:
    """Return the (H, W, 3) uint8 pixels of an image.

    Raises
    ------
    ShapeError
        For an array that is not (H, W), (H, W, 1) or (H, W, 3).
    DtypeError
        For an array that is not uint8, or an object that is no image.
    ImageError
        For a file that cannot be decoded: a sub-class that names the cause.
    OSError
        For a file that cannot be read.
    """
    if isinstance(image, (str, os.PathLike)):
        return _decode(Path(image).read_bytes())
    if isinstance(image, bytes):
        return _decode(image)
    if hasattr(image, "convert"):
        return np.asarray(image.convert("RGB"))
    if not isinstance(image, np.ndarray):
        message = f"expected an image (uint8 array, encoded bytes, path or Pillow image), got {type(image).__name__}"
        raise DtypeError(message)
    if image.dtype != np.uint8:
        message = f"expected uint8 pixels, got {image.dtype}: scale the values to 0..255 first"
        raise DtypeError(message)
    pixels = image[:, :, None] if image.ndim == 2 else image
    if pixels.ndim != 3 or pixels.shape[2] not in (1, 3) or not pixels.size:
        message = f"expected an image of shape (H, W), (H, W, 1) or (H, W, 3), got {image.shape}"
        raise ShapeError(message)
    return np.ascontiguousarray(np.broadcast_to(pixels, (*pixels.shape[:2], 3)))


def _decode(data: bytes) -> NDArray[np.uint8]:
    [image], failures = _core.decode_images([data], threads=1)
    for _, kind, message in failures:
        raise next((c for c in ImageError.__subclasses__() if c.kind == kind), ImageError)(message)
    assert image is not None
    return image
