"""A collection without the shards that are damaged."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from rsprune.errors import FormatError
from rsprune.sources.base import Item, Shard, SkippedFilesWarning, Source, describe_damaged

if TYPE_CHECKING:
    import pyarrow as pa

__all__ = ["IntactShards", "leave_out", "left_out", "whole", "without_damaged", "without_shards"]


class IntactShards(Source):
    """A collection without some of its shards.

    Parameters
    ----------
    source : Source
        The whole collection.
    left_out : mapping of str to str
        What is wrong with each shard that is left out, by its name.
    """

    def __init__(self, source: Source, left_out: Mapping[str, str]) -> None:
        self._source, self.folders = source, source.folders
        self.options = source.options
        self.left_out = dict(left_out)
        self._shards = tuple(shard for shard in source.shards if shard.name not in self.left_out)

    @property
    def shards(self) -> tuple[Shard, ...]:
        """The other shards in the order of the rows."""
        return self._shards

    def read(self, shard: Shard, rows: Sequence[int] | None = None) -> Iterator[Item]:
        """Yield the images of a shard."""
        return self._source.read(shard, rows)

    def read_keys(self, shard: Shard) -> list[str] | None:
        """Return the keys of a shard."""
        return self._source.read_keys(shard)

    def read_labels(self, shard: Shard) -> list[str | None] | None:
        """Return the classes of a shard's images."""
        return self._source.read_labels(shard)

    @property
    def metadata_schema(self) -> pa.Schema:
        """The columns that the collection holds beside the images."""
        return self._source.metadata_schema

    def read_metadata(self, shard: Shard, rows: Sequence[int]) -> pa.Table:
        """Read the metadata of some images of a shard."""
        return self._source.read_metadata(shard, rows)

    @property
    def metadata_at_hand(self) -> bool:
        """Whether reading the metadata of all images costs little."""
        return self._source.metadata_at_hand

    def was_missing(self, shard: Shard, row: int, kind: str) -> bool:
        """Return whether there was no file for an image."""
        return self._source.was_missing(shard, row, kind)

    def check_unchanged(self, shard: Shard) -> None:
        """Compare the files of a shard with what they were when the collection was opened."""
        self._source.check_unchanged(shard)

    @property
    def band_counts(self) -> Mapping[int, str]:
        """The numbers of bands, and a file of each."""
        return self._source.band_counts

    @property
    def passed_over(self) -> Mapping[str, int]:
        """What of the collection is passed over."""
        return self._source.passed_over

    def count(self, shard: Shard) -> int:
        """Count the images of a shard."""
        return self._source.count(shard)

    def size(self, shard: Shard) -> int:
        """Return how many bytes reading a shard takes from the disk."""
        return self._source.size(shard)

    def requests(self, shard: Shard) -> int:
        """Return how many requests it takes to read a shard."""
        return self._source.requests(shard)

    def fingerprint(self) -> dict[str, Any]:
        """Identify the collection, and what is left out of it."""
        return self._source.fingerprint() | {"left_out": sorted(self.left_out)}


def whole(source: Source) -> Source:
    """Return a collection with the shards that are left out of it."""
    return source._source if isinstance(source, IntactShards) else source


def left_out(source: Source) -> Mapping[str, str]:
    """Return what is wrong with each shard that is left out of a collection, by its name."""
    return source.left_out if isinstance(source, IntactShards) else {}


def leave_out(source: Source, reasons: Mapping[str, str]) -> Source:
    """Leave out shards, beside those that are left out already; ``reasons`` say why, by their names."""
    return IntactShards(whole(source), {**left_out(source), **reasons})


def without_shards(source: Source, names: Sequence[str]) -> Source:
    """Leave out the shards of these names, as a run did that found them damaged."""
    return IntactShards(source, dict.fromkeys(names, "damaged")) if names else source


def without_damaged(source: Source) -> Source:
    """Leave out the shards that cannot be read as a whole: those whose headers say that they are damaged.

    Raises
    ------
    FormatError
        All of them are damaged.

    Warns
    -----
    SkippedFilesWarning
        It names them.
    """
    damaged = {}
    for shard in source.shards:
        try:
            source.count(shard)
        except FormatError as error:
            damaged[shard.name] = str(error)
    if not damaged:
        return source
    message = describe_damaged(damaged, len(source.shards))
    if len(damaged) == len(source.shards):
        raise FormatError(message)
    warnings.warn(f"left out: {message}", SkippedFilesWarning, stacklevel=2)
    return IntactShards(source, damaged)
