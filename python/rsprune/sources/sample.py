"""Some images of a collection, as a collection of their own."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from rsprune.sources.base import Item, Shard, Source, check_rows

if TYPE_CHECKING:
    import pyarrow as pa

__all__ = ["ImageSubset", "spread_sample"]

#: A sample is taken from so many shards at most, and so many places in each: runs of neighbors are read faster than
#: single images, and neighbors are alike.
SHARDS, PLACES = 16, 8


class ImageSubset(Source):
    """Some rows of a collection, and the shards that have them.

    Parameters
    ----------
    source : Source
        The collection.
    rows : mapping of str to sequence of int
        By the names of shards, ascending positions in them.
    """

    def __init__(self, source: Source, rows: Mapping[str, Sequence[int]]) -> None:
        self._source = source
        self.options = source.options
        self._rows = {name: list(some) for name, some in rows.items() if len(some)}
        self._shards = tuple(shard for shard in source.shards if shard.name in self._rows)

    @property
    def shards(self) -> tuple[Shard, ...]:
        """The shards that have some of the rows."""
        return self._shards

    def read(self, shard: Shard, rows: Sequence[int] | None = None) -> Iterator[Item]:
        """Yield the images of the subset in a shard."""
        return self._source.read(shard, self._there(shard, rows))

    def read_keys(self, shard: Shard) -> list[str] | None:
        """Return the keys of the images of the subset in a shard."""
        keys = self._source.read_keys(shard)
        return None if keys is None else [keys[row] for row in self._rows[shard.name]]

    @property
    def metadata_schema(self) -> pa.Schema:
        """The columns that the collection holds beside the images."""
        return self._source.metadata_schema

    def read_metadata(self, shard: Shard, rows: Sequence[int]) -> pa.Table:
        """Read the metadata of some images of the subset in a shard."""
        return self._source.read_metadata(shard, self._there(shard, rows))

    @property
    def metadata_at_hand(self) -> bool:
        """Whether reading the metadata of all images costs little."""
        return self._source.metadata_at_hand

    def was_missing(self, shard: Shard, row: int, kind: str) -> bool:
        """Return whether there was no file for an image."""
        return self._source.was_missing(shard, self._rows[shard.name][row], kind)

    def check_unchanged(self, shard: Shard) -> None:
        """Compare the files of a shard with what they were when the collection was opened."""
        self._source.check_unchanged(shard)

    @property
    def band_counts(self) -> Mapping[int, str]:
        """The numbers of bands, and a file of each."""
        return self._source.band_counts

    def count(self, shard: Shard) -> int:
        """Count the images of the subset in a shard."""
        return len(self._rows[shard.name])

    def size(self, shard: Shard) -> int:
        """Return how many bytes of a shard the subset takes, all images being of one size."""
        return self._source.size(shard) * self.count(shard) // self._source.count(shard)

    def read_labels(self, shard: Shard) -> list[str | None] | None:
        """Return the classes of the images of the subset in a shard."""
        labels = self._source.read_labels(shard)
        return None if labels is None else [labels[row] for row in self._rows[shard.name]]

    def requests(self, shard: Shard) -> int:
        """Return how many requests it takes to read a shard."""
        return self._source.requests(shard)

    def fingerprint(self) -> dict[str, Any]:
        """Identify the collection and the rows."""
        return {**self._source.fingerprint(), "rows": self._rows}

    def _there(self, shard: Shard, rows: Sequence[int] | None) -> list[int]:
        own = self._rows[shard.name]
        return [own[row] for row in check_rows(shard, rows, len(own))]


def spread_sample(source: Source, images: int) -> ImageSubset:
    """Return about so many images from all over a collection."""
    filled = [shard for shard in source.shards if source.count(shard)]
    taken = [filled[at] for at in np.unique(np.linspace(0, len(filled) - 1, SHARDS).astype(int))]
    fraction = min(1.0, images / sum(map(source.count, taken)))
    return ImageSubset(source, {shard.name: _spread(source.count(shard), fraction) for shard in taken})


def _spread(count: int, fraction: float) -> list[int]:
    """Return ascending positions of runs of neighbors, evenly spread over ``count`` ones."""
    wanted = max(1, round(count * fraction))
    places = min(PLACES, wanted)
    runs = [(at * count // places, (at + 1) * wanted // places - at * wanted // places) for at in range(places)]
    return [row for start, length in runs for row in range(start, start + length)]
