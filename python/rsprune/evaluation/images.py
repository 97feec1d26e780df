"""Images to be compared, read one by one from a collection, an array, or an ``.npz`` file of samples."""

from __future__ import annotations

import zipfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Protocol

import numpy as np
from numpy.typing import NDArray

from rsprune.decoding import decode_images, preprocess_images
from rsprune.errors import EmptyInputError, FormatError, ShapeError, failure
from rsprune.evaluation.features import sample_rows
from rsprune.io import digest, write_npz
from rsprune.runs.reference import digest_of
from rsprune.sources import Item, Source, SourceLike, open_source
from rsprune.sources.batches import batched
from rsprune.sources.filesystem import load_array
from rsprune.sources.folder import FolderSource

__all__ = ["Images", "ImagesLike", "export_npz", "open_images"]

ImagesLike = SourceLike | NDArray[Any]

# Images decoded at a time: whole ones are in memory together.
BATCH = 32


class Images(Protocol):
    """Images in a fixed order."""

    def __len__(self) -> int: ...

    def read(self, rows: NDArray[np.int64]) -> Iterator[NDArray[np.uint8]]:
        """Yield the images of ascending numbers, uint8 (H, W, 3)."""

    def keys(self) -> dict[str, list[str]] | None:
        """The keys of the images by their shard, or None."""

    @property
    def is_folder(self) -> bool:
        """Whether they are the files of a folder, whose order says nothing."""

    def fingerprint(self) -> str:
        """Digest of the images."""


def open_images(images: ImagesLike, size: int | None = None) -> Images:
    """Open anything that holds images.

    Parameters
    ----------
    images
        A uint8 array (N, H, W, 3), or a ``.npy`` or ``.npz`` file of one (of an ``.npz`` its ``arr_0``, the name that
        the ADM suite gives it); anything that :func:`rsprune.sources.open_source` reads.
    size
        Height and width that the images of a collection are brought to, as `rsprune train` does: the shorter side by
        Pillow's bicubic filter, and the middle cut out. As they are if None.

    Raises
    ------
    ShapeError, FormatError, EmptyInputError
        An array of another shape or dtype; an ``.npz`` without ``arr_0``; no images.
    """
    if isinstance(images, (str, Path)) and Path(images).suffix in (".npy", ".npz"):
        images = _load(Path(images))
    if isinstance(images, np.ndarray):
        if images.ndim != 4 or images.shape[3] != 3 or images.dtype != np.uint8:
            message = f"images of shape {images.shape} and {images.dtype}; expected uint8 (N, H, W, 3)"
            raise ShapeError(message)
        found: Images = _Array(images)
    else:
        found = _Collection(open_source(images), size)
    if not len(found):
        message = "no images"
        raise EmptyInputError(message)
    return found


def some(pictures: Images, count: int | None, seed: int) -> NDArray[np.int64]:
    """Draw the numbers of ``count`` images by seed; None stands for all of them."""
    return sample_rows(len(pictures) if count is None else count, len(pictures), seed)


def export_npz(images: ImagesLike, path: str | Path) -> int:
    """Write images one by one as ``arr_0`` of an ``.npz`` file, uint8 (N, H, W, 3), for the evaluation suite of ADM.

    Returns their number. Images of different sizes are a :class:`~rsprune.errors.ShapeError`.
    """
    pictures = open_images(images)
    write_npz(path, pictures.read(np.arange(len(pictures))), len(pictures))
    return len(pictures)


@dataclass(frozen=True, eq=False)
class _Array:
    """Images in memory."""

    array: NDArray[np.uint8]

    def __len__(self) -> int:
        return len(self.array)

    def read(self, rows: NDArray[np.int64]) -> Iterator[NDArray[np.uint8]]:
        for row in rows.tolist():
            yield self.array[row]

    def keys(self) -> None:
        return None

    is_folder: ClassVar[bool] = False

    def fingerprint(self) -> str:
        return digest_of(self.array)


@dataclass(frozen=True, eq=False)
class _Collection:
    """Images of a source. One that cannot be read ends the evaluation: a figure of fewer images is another figure."""

    source: Source
    size: int | None

    def __len__(self) -> int:
        return self.source.total()

    def read(self, rows: NDArray[np.int64]) -> Iterator[NDArray[np.uint8]]:
        first = 0
        for shard in self.source.shards:
            count = self.source.count(shard)
            mine = rows[(rows >= first) & (rows < first + count)] - first
            first += count
            for items in batched(self.source.read(shard, mine.tolist()) if len(mine) else (), BATCH):
                yield from _decode(items, self.size)

    def keys(self) -> dict[str, list[str]]:
        known = ((shard, self.source.read_keys(shard)) for shard in self.source.shards)
        return {
            shard.name: [item.key for item in self.source.read(shard)] if keys is None else keys
            for shard, keys in known
        }

    @property
    def is_folder(self) -> bool:
        return isinstance(self.source, FolderSource)

    def fingerprint(self) -> str:
        return digest([self.source.fingerprint(), self.size])


def _decode(items: Sequence[Item], size: int | None) -> Iterator[NDArray[np.uint8]]:
    data = [item.data for item in items]
    if size is None:
        pixels, failures = decode_images(data)
    else:
        brought = np.zeros((len(data), size, size, 3), np.uint8)
        failures = preprocess_images(data, brought, interpolation="bicubic", resize_to=size)
        pixels = list(brought)
    for number, kind, message in failures:
        raise failure(kind, message, items[number].key)
    for item, image in zip(items, pixels, strict=True):
        assert image is not None
        if image.ndim == 2 or image.shape[2] == 1:
            image = np.repeat(image.reshape(*image.shape[:2], 1), 3, axis=2)
        if image.shape[2] != 3:
            message = f"{item.key} has {image.shape[2]} bands; expected gray or RGB"
            raise ShapeError(message)
        yield image


def _load(path: Path) -> NDArray[Any]:
    loaded = load_array(path, mmap_mode="r")
    try:
        array: NDArray[Any] = loaded["arr_0"] if path.suffix == ".npz" else loaded
    except (ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
        message = f"{path} is not an array of images: {error}"
        raise FormatError(message) from error
    return array
