"""The images that a run chose, in the order of its manifest."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from rsprune.errors import KeyMismatchError
from rsprune.runs.reader import RunReader, positions_of
from rsprune.runs.schema import SELECTION_SCHEMA
from rsprune.sources import Item, Shard, Source
from rsprune.sources.keys import read_known

__all__ = ["ChosenImages"]


@dataclass(frozen=True)
class ChosenImages:
    """The images that a run chose, and the collection that they lie in.

    Attributes
    ----------
    reader
        The run.
    source
        The collection of the run; its keys are compared with those of the run.

    Raises
    ------
    KeyMismatchError
        It is another collection.
    """

    reader: RunReader
    source: Source

    def __post_init__(self) -> None:
        known = {shard.name for shard in self.source.shards}
        for shard, _ in self.by_shard:
            if shard not in known:
                message = (
                    f"{self.reader.folder.path} was made from other images: it has a shard {shard}, and there is none. "
                    "Give the images of the run"
                )
                raise KeyMismatchError(message)
        self.reader.check_source(self.source)

    @cached_property
    def manifest(self) -> pa.Table:
        """The manifest, a row each: its fixed columns, and what the collection says of the images."""
        return self.reader.selected().combine_chunks()

    @cached_property
    def keys(self) -> list[str]:
        """The keys."""
        keys: list[str] = self.manifest["key"].to_pylist()
        return keys

    @property
    def metadata_names(self) -> list[str]:
        """The columns of the manifest that the collection has given."""
        return [name for name in self.manifest.column_names if name not in SELECTION_SCHEMA.names]

    @cached_property
    def by_shard(self) -> list[tuple[str, NDArray[np.int64]]]:
        """Each shard that has some of the images, and their places in the manifest, which are neighbors."""
        return sorted(positions_of(self.manifest["shard"]), key=lambda one: int(one[1][0]))

    @cached_property
    def first_items(self) -> list[Item]:
        """The first image of each shard."""
        return [next(self._items(shard, at[:1]))[1] for shard, at in self.by_shard]

    @cached_property
    def has_labels(self) -> bool:
        """Whether the collection has classes."""
        return any(item.label is not None for item in self.first_items)

    def read(self, first: int = 0) -> Iterator[tuple[int, Item]]:
        """Yield the images from one on, by their places in the manifest. Each must have the key that it had.

        Raises
        ------
        KeyMismatchError
            At the first that has another one.
        """
        for shard, at in self.by_shard:
            if len(rest := at[at >= first]):
                yield from self._items(shard, rest)

    def _items(self, shard: str, at: NDArray[np.int64]) -> Iterator[tuple[int, Item]]:
        rows = self.manifest["row"].take(at).to_pylist()
        names = self.reader.as_names(shard, [self.keys[one] for one in at])
        known = read_known(self.source, Shard(shard), rows, names, self.reader.folder.path)
        return zip(at.tolist(), known, strict=True)
