"""Data sets of label maps: where their files lie, and what their values mean."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from rsprune import _core
from rsprune.errors import ArgumentError, SourceError
from rsprune.sources import ImageData
from rsprune.sources.image_files import FileSource
from rsprune.training.autoencoder import Autoencoder

__all__ = ["DATASETS", "Dataset", "LabelReading", "OneHot", "Palette", "open_pairs"]

Dataset = Literal["second", "openearthmap"]


@dataclass(frozen=True)
class Palette:
    """The classes of a data set.

    Attributes
    ----------
    names
        Of the classes, in the order of their numbers.
    colours
        RGB of each.
    indexed
        Whether label files hold the numbers themselves, instead of colours.
    """

    names: tuple[str, ...]
    colours: tuple[tuple[int, int, int], ...]
    indexed: bool

    def numbers(self, pixels: NDArray[np.uint8]) -> NDArray[np.uint8] | None:
        """Label pixels (H, W, 3) as class numbers, uint8 (H, W); None where a value is no class."""
        if self.indexed:
            found: NDArray[np.uint8] = pixels[:, :, 0]
            return found if found.max() < len(self.names) else None
        packed = pixels.astype(np.uint32) @ np.array([1 << 16, 1 << 8, 1], np.uint32)
        known = np.array([(r << 16) | (g << 8) | b for r, g, b in self.colours], np.uint32)
        order = np.argsort(known)
        place = np.searchsorted(known, packed, sorter=order).clip(max=len(known) - 1)
        numbers = order[place]
        return numbers.astype(np.uint8) if np.array_equal(known[numbers], packed) else None

    def paint(self, numbers: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """Class numbers (...) in their colours, uint8 (..., 3)."""
        painted: NDArray[np.uint8] = np.array(self.colours, np.uint8)[numbers]
        return painted


#: SECOND (Yang et al. 2021, semantic change detection) marks classes where something changed between its two dates;
#: OpenEarthMap (Xia et al. 2023) everywhere, by number.
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


def open_pairs(dataset: Dataset, root: str | Path) -> tuple[FileSource, FileSource]:
    """Find the images of a data set and their label maps, row by row.

    Parameters
    ----------
    dataset : str
        ``"second"``: ``im1``, ``im2``, ``label1``, ``label2`` with PNG files of the same names. ``"openearthmap"``:
        ``<region>/images/*.tif`` and ``<region>/labels/*.tif``; images that are not there (those of xBD come from
        elsewhere), and images without labels, are left out.
    root : path
        Its folder.

    Raises
    ------
    ArgumentError
        If there is no such data set.
    SourceError
        If nothing lies there as it should.
    """
    if dataset not in DATASETS:
        message = f"dataset={dataset!r} is unknown: it is one of {', '.join(DATASETS)}"
        raise ArgumentError(message)
    root = Path(root)
    pairs = list(second_pairs(root) if dataset == "second" else openearthmap_pairs(root))
    if not pairs:
        expected = "im1/, im2/, label1/, label2/" if dataset == "second" else "<region>/images/ and <region>/labels/"
        message = f"no images with labels in {root}: expected {expected} with files of the same names"
        raise SourceError(message)
    images, labels = (FileSource("list", root, ((key, "") for key in column)) for column in zip(*pairs, strict=True))
    return images, labels


def second_pairs(root: Path) -> Iterator[tuple[str, str]]:
    """Both dates of SECOND, one after the other."""
    for date in "12":
        for path in sorted((root / f"im{date}").glob("*.png")):
            if (root / f"label{date}" / path.name).is_file():
                yield f"im{date}/{path.name}", f"label{date}/{path.name}"


def openearthmap_pairs(root: Path) -> Iterator[tuple[str, str]]:
    """The regions of OpenEarthMap by name."""
    for path in sorted(root.glob("*/images/*.tif")):
        label = path.parent.parent / "labels" / path.name
        if label.is_file():
            yield str(path.relative_to(root)), str(label.relative_to(root))


@dataclass(frozen=True)
class LabelReading:
    """How label maps become pixels: the nearest of them, never a mixture; in place with the images beside them.

    Attributes
    ----------
    size
        Height and width.
    palette
        What the values mean.
    painted
        Whether to give the colours, (n, S, S, 3), or the numbers, (n, S, S, 1).
    """

    size: int
    palette: Palette
    painted: bool

    @property
    def channels(self) -> int:
        """How many there are."""
        return 3 if self.painted else 1

    def config(self) -> dict[str, Any]:
        """Say how, as JSON takes it."""
        return {"size": self.size, "labels": list(self.palette.names), "painted": self.painted}

    def __call__(self, images: Sequence[ImageData]) -> tuple[NDArray[np.uint8], list[tuple[int, str, str]]]:
        """Decode label maps: see :meth:`rsprune.training.latent_cache.Reading.__call__`."""
        out = np.zeros((len(images), self.size, self.size, self.channels), np.uint8)
        decoded, failures = _core.decode_images(images, threads=1)
        for i, pixels in enumerate(decoded):
            if pixels is None:
                continue
            numbers = self.palette.numbers(pixels)
            if numbers is None:
                failures.append((i, "palette", f"a value that is none of {len(self.palette.names)} classes"))
                continue
            cut = nearest(numbers, self.size)
            out[i] = self.palette.paint(cut) if self.painted else cut[:, :, None]
        return out, sorted(failures)


def nearest(plane: NDArray[np.uint8], size: int) -> NDArray[np.uint8]:
    """Bring the shorter side to ``size`` and cut out the middle, taking the value at each pixel's centre."""
    short = min(plane.shape)
    places = []
    for side in plane.shape:
        whole = int(side * size / short)
        first = round((whole - size) / 2)
        places.append(((np.arange(first, first + size) + 0.5) * side / whole).astype(np.int64))
    cut: NDArray[np.uint8] = plane[np.ix_(*places)]
    return cut


class OneHot(Autoencoder):
    """Class numbers as the share of each class in a latent pixel: (n, 1, H, W) to (n, classes, h, w).

    Parameters
    ----------
    classes, factor : int
        How many classes there are, and how many pixels a latent pixel is wide.
    """

    def __init__(self, classes: int, factor: int) -> None:
        super().__init__()
        self.channels, self.latents, self.moments, self.factor = 1, classes, classes, factor
        self.source = {"autoencoder": "one-hot"}

    def encode(self, images: Tensor) -> Tensor:
        """See :meth:`Autoencoder.encode`; the numbers come scaled as pixels do."""
        numbers = (images[:, 0] * 127.5 + 127.5).round().long()
        shares = nn.functional.one_hot(numbers, self.latents).permute(0, 3, 1, 2).float()
        return nn.functional.avg_pool2d(shares, self.factor)

    def invert(self, latents: Tensor) -> Tensor:
        """The commonest class of each latent pixel, as pixels."""
        numbers = latents.argmax(1, keepdim=True).repeat_interleave(self.factor, 2).repeat_interleave(self.factor, 3)
        return torch.as_tensor(numbers, dtype=torch.float32) / 127.5 - 1
