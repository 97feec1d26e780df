"""What a collection of images is: shards, which hold items in a fixed order."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from rsprune.errors import ArgumentError

__all__ = ["IMAGE_EXTENSIONS", "Item", "Shard", "Source", "check_rows"]

#: File names that are taken for images, in lower case. The decoder looks at the content, never at the name.
IMAGE_EXTENSIONS = (".jpg", ".jpeg", ".png", ".tif", ".tiff", ".webp")


@dataclass(frozen=True, slots=True)
class Shard:
    """The unit of work, of restart and of distribution.

    Attributes
    ----------
    name : str
        Unique in its source, usable as a file name, and the same on every run and machine. A source lists its shards
        by ascending name: that is the order of the rows.
    """

    name: str


@dataclass(frozen=True, slots=True)
class Item:
    """One image.

    Attributes
    ----------
    key : str
        Its name in the collection.
    data : bytes or str
        The encoded image, or the local path of a file with it.
    label : str or None
        The class folder it lies in, where the collection has such.
    """

    key: str
    data: bytes | str
    label: str | None = None


class Source(ABC):
    """A collection of images, cut into shards. It can be pickled, and is never changed once it is open."""

    @property
    @abstractmethod
    def shards(self) -> tuple[Shard, ...]:
        """The shards in the order of the rows."""

    @abstractmethod
    def read(self, shard: Shard, rows: Sequence[int] | None = None) -> Iterator[Item]:
        """Yield the images of a shard.

        Parameters
        ----------
        shard : Shard
            One of :attr:`shards`.
        rows : sequence of int, optional
            Ascending positions within the shard: only these are read. All if not given.

        Raises
        ------
        ArgumentError
            For rows that do not ascend, or that the shard does not have.
        FormatError
            If the shard is damaged as a whole. An image that cannot be decoded is not found here.
        OSError
            If the shard cannot be read.
        """

    @abstractmethod
    def count(self, shard: Shard) -> int:
        """Say how many images a shard has, reading no image for it."""

    @abstractmethod
    def size(self, shard: Shard) -> int:
        """Say how many bytes reading a shard takes from the disk."""

    def total(self) -> int:
        """Say how many images the collection has."""
        return sum(map(self.count, self.shards))

    @abstractmethod
    def fingerprint(self) -> dict[str, Any]:
        """Say what the input is, for the provenance: another answer means another input.

        Returns
        -------
        dict
            ``kind`` and ``shards``: per shard its name and what tells it from another without reading it, the names and
            sizes of its files. A copy of a collection has the same, wherever and whenever it was made. Of joined
            collections ``kind`` and ``sources``, a dict each. Only strings, numbers, lists and dicts.
        """


def check_rows(shard: Shard, rows: Sequence[int] | None, images: int) -> Sequence[int]:
    """Return the positions to read of a shard with ``images`` images, or raise ArgumentError."""
    if rows is None:
        return range(images)
    before = -1
    for row in rows:
        if not before < row < images:
            message = f"rows of shard {shard.name} must ascend and lie in [0, {images}), got {row} after {before}"
            raise ArgumentError(message)
        before = row
    return rows
