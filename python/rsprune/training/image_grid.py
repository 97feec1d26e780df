"""Pictures of samples."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from rsprune.io import atomic_write

__all__ = ["grid", "to_pixels", "write_grid", "write_image"]


def to_pixels(images: Tensor) -> NDArray[np.uint8]:
    """Images (n, C, H, W) from -1 to 1 as uint8 (n, H, W, C)."""
    pixels = (images.float() * 127.5 + 127.5).round().clamp(0, 255).to(torch.uint8)
    out: NDArray[np.uint8] = pixels.permute(0, 2, 3, 1).cpu().numpy()
    return out


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
    write_image(grid(images[..., :3] if images.shape[3] >= 3 else images[..., :1]), path)


def write_image(pixels: NDArray[np.uint8], path: Path) -> None:
    """Write an image of one, three or four bands (H, W, C) as PNG, atomically; the fourth is written as alpha."""
    shown = pixels[:, :, 0] if pixels.shape[2] == 1 else pixels
    with atomic_write(path) as beside:
        Image.fromarray(np.ascontiguousarray(shown)).save(beside, "PNG")
