"""Data sets of label maps: the layout of their files, and the meaning of their values."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from typing_extensions import override

from rsprune.errors import SourceError
from rsprune.sources.image_files import FileSource, NamedFile
from rsprune.training.autoencoder import Autoencoder
from rsprune.training.config import Dataset
from rsprune.validation import check_choice

__all__ = ["DATASETS", "OneHot", "Palette", "open_pairs"]


@dataclass(frozen=True)
class Palette:
    """The classes of a data set, in the order of their numbers."""

    names: tuple[str, ...]
    colors: tuple[tuple[int, int, int], ...]  # RGB
    indexed: bool  # whether label files hold class numbers instead of colors

    def class_numbers(self, pixels: NDArray[np.uint8]) -> NDArray[np.uint8] | None:
        """Convert label pixels (H, W, 3) to class numbers, uint8 (H, W); None if a value is no class."""
        if self.indexed:
            first: NDArray[np.uint8] = pixels[:, :, 0]
            return first if first.max() < len(self.names) else None
        packed = pixels.astype(np.uint32) @ np.array([1 << 16, 1 << 8, 1], np.uint32)
        known = np.array([(r << 16) | (g << 8) | b for r, g, b in self.colors], np.uint32)
        order = np.argsort(known)
        place = np.searchsorted(known, packed, sorter=order).clip(max=len(known) - 1)
        numbers = order[place]
        return numbers.astype(np.uint8) if np.array_equal(known[numbers], packed) else None

    def paint(self, numbers: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """Convert class numbers (...) to their colors, uint8 (..., 3)."""
        painted: NDArray[np.uint8] = np.array(self.colors, np.uint8)[numbers]
        return painted


#: SECOND (Yang et al. 2021, semantic change detection) labels only what changed between its two dates, by color;
#: OpenEarthMap (Xia et al. 2023) labels everything, by number.
DATASETS: dict[Dataset, Palette] = {
    "second": Palette(
        ("unchanged", "water", "non-vegetated ground", "low vegetation", "tree", "building", "playground"),
        ((255, 255, 255), (0, 0, 255), (128, 128, 128), (0, 128, 0), (0, 255, 0), (128, 0, 0), (255, 0, 0)),
        indexed=False,
    ),
    "openearthmap": Palette(
        (
            "unknown", "bareland", "rangeland", "developed", "road", "tree", "water", "agriculture", "building",
        ),
        (
            (0, 0, 0), (128, 0, 0), (0, 255, 36), (148, 148, 148), (255, 255, 255), (34, 97, 38), (0, 69, 255),
            (75, 181, 73), (222, 31, 7),
        ),
        indexed=True,
    ),
}  # fmt: skip


#: Where the images of a data set are, and beside their folder that of their label maps, in the order of the samples.
LAYOUTS: dict[Dataset, tuple[tuple[str, str], ...]] = {
    "second": (("im1/*.png", "label1"), ("im2/*.png", "label2")),
    "openearthmap": (("*/images/*.tif", "labels"),),
}


def open_pairs(dataset: Dataset, root: str | Path) -> tuple[FileSource, FileSource]:
    """Open the images of a data set, whose folder is ``root``, and their label maps as two sources of the same rows.

    ``"second"`` has ``im1``, ``im2``, ``label1``, ``label2`` with PNG files of the same names, ``"openearthmap"``
    ``<region>/images/*.tif`` and ``<region>/labels/*.tif``. Labels without an image (those of xBD are distributed
    elsewhere) and images without labels are skipped; a folder without such files is a :class:`SourceError`.
    """
    check_choice("dataset", dataset, Dataset)
    root = Path(root)
    pairs = []
    for pattern, labels in LAYOUTS[dataset]:
        for path in sorted(root.glob(pattern)):
            label = path.parent.parent / labels / path.name
            if label.is_file():
                pairs.append((str(path.relative_to(root)), str(label.relative_to(root))))
    if not pairs:
        expected = " and ".join(f"{pattern} with {labels}/" for pattern, labels in LAYOUTS[dataset])
        message = f"no images with labels in {root}: expected {expected}, files of the same names"
        raise SourceError(message)
    images, maps = (
        FileSource("list", root, (NamedFile(key, "") for key in column)) for column in zip(*pairs, strict=True)
    )
    return images, maps


class OneHot(Autoencoder):
    """Encode class numbers as the share of each class in a latent pixel: (n, 1, H, W) to (n, classes, h, w).

    ``factor`` is the side of a latent pixel in pixels.
    """

    def __init__(self, classes: int, factor: int) -> None:
        super().__init__()
        self.channels, self.latents, self.moments, self.factor = 1, classes, classes, factor
        self.values = classes
        self.source = {"autoencoder": "one-hot"}

    @override
    def encode(self, images: Tensor) -> Tensor:
        # Class numbers arrive scaled to [-1, 1] as pixels are.
        numbers = (images[:, 0] * 127.5 + 127.5).round().long()
        shares = nn.functional.one_hot(numbers, self.latents).permute(0, 3, 1, 2).float()
        return nn.functional.avg_pool2d(shares, self.factor)

    @override
    def invert(self, latents: Tensor) -> Tensor:
        # The most common class of each latent pixel.
        numbers = latents.argmax(1, keepdim=True).repeat_interleave(self.factor, 2).repeat_interleave(self.factor, 3)
        return torch.as_tensor(numbers, dtype=torch.float32) / 127.5 - 1
