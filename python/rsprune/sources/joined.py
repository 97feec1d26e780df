"""Several collections as one."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

from rsprune.sources.base import Item, Shard, Source

__all__ = ["JoinedSource"]


class JoinedSource(Source):
    """Collections one after the other, in the order given.

    The number of the collection stands before the names of its shards (``0-part-000000``) and before the keys of its
    images (``0/Airport/airport_1.jpg``): two reference sets may both have that image.
    """

    def __init__(self, sources: Sequence[Source]) -> None:
        self._sources = list(sources)
        width = len(str(len(sources) - 1))
        self._places: dict[str, tuple[str, Source, Shard]] = {}
        shards = []
        for number, source in enumerate(sources):
            prefix = f"{number:0{width}d}"
            for shard in source.shards:
                name = f"{prefix}-{shard.name}"
                self._places[name] = (prefix, source, shard)
                shards.append(replace(shard, name=name))
        self._shards = tuple(shards)

    @property
    def shards(self) -> tuple[Shard, ...]:
        """The shards in the order of the rows."""
        return self._shards

    def read(self, shard: Shard, rows: Sequence[int] | None = None) -> Iterator[Item]:
        """Yield the images of a shard: see :meth:`Source.read`."""
        prefix, source, inner = self._places[shard.name]
        for item in source.read(inner, rows):
            yield replace(item, key=f"{prefix}/{item.key}")

    def count(self, shard: Shard) -> int:
        """Say how many images a shard has."""
        _, source, inner = self._places[shard.name]
        return source.count(inner)

    def size(self, shard: Shard) -> int:
        """Say how many bytes reading a shard takes from the disk."""
        _, source, inner = self._places[shard.name]
        return source.size(inner)

    def fingerprint(self) -> dict[str, Any]:
        """Say what the input is: see :meth:`Source.fingerprint`."""
        return {"kind": "joined", "sources": [source.fingerprint() for source in self._sources]}
