"""Pictures of samples."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from rsprune.files import replacing

__all__ = ["grid", "write_grid", "write_image"]


def grid(images: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Images (n, H, W, C) side by side, as square as they go; what is left over is black."""
    count, height, width, channels = images.shape
    columns = math.ceil(count**0.5)
    rows = math.ceil(count / columns)
    cells = np.zeros((rows * columns, height, width, channels), np.uint8)
    cells[:count] = images
    cells = cells.reshape(rows, columns, height, width, channels).swapaxes(1, 2)
    return cells.reshape(rows * height, columns * width, channels)


def write_grid(images: NDArray[np.uint8], path: Path) -> None:
    """Write a grid of images as PNG: of more than three bands the first three, of two the first."""
    write_image(grid(images), path)


def write_image(pixels: NDArray[np.uint8], path: Path) -> None:
    """Write an image (H, W, C) as PNG, atomically."""
    shown = pixels[:, :, :3] if pixels.shape[2] >= 3 else pixels[:, :, 0]
    with replacing(path) as beside:
        Image.fromarray(np.ascontiguousarray(shown)).save(beside, "PNG")
