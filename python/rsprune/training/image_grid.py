"""Write generated images, singly or as a grid."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from rsprune.io import atomic_write

__all__ = ["image_grid", "to_pixels", "write_grid", "write_image"]


def to_pixels(images: Tensor) -> NDArray[np.uint8]:
    """Convert images (n, C, H, W) in [-1, 1] to uint8 (n, H, W, C)."""
    pixels = (images.float() * 127.5 + 127.5).round().clamp(0, 255).to(torch.uint8)
    out: NDArray[np.uint8] = pixels.permute(0, 2, 3, 1).cpu().numpy()
    return out


def image_grid(images: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Arrange images (n, H, W, C) in a grid that is as square as possible; unused cells are black."""
    count, height, width, channels = images.shape
    columns = math.ceil(count**0.5)
    rows = math.ceil(count / columns)
    cells = np.zeros((rows * columns, height, width, channels), np.uint8)
    cells[:count] = images
    cells = cells.reshape(rows, columns, height, width, channels).swapaxes(1, 2)
    return cells.reshape(rows * height, columns * width, channels)


def write_grid(images: NDArray[np.uint8], path: Path) -> None:
    """Write a grid of images as PNG: the first three bands, or the first if there are fewer than three."""
    write_image(image_grid(images[..., :3] if images.shape[3] >= 3 else images[..., :1]), path)


def write_image(pixels: NDArray[np.uint8], path: Path) -> None:
    """Write an image (H, W, C) of one, three or four bands as PNG, atomically; the fourth is written as alpha."""
    image = pixels[:, :, 0] if pixels.shape[2] == 1 else pixels
    with atomic_write(path) as temporary:
        Image.fromarray(np.ascontiguousarray(image)).save(temporary, "PNG")
