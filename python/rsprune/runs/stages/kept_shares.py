"""How much of each class folder, source, shard and value of a metadata column both stages keep."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from rsprune.runs.coverage import kept_by
from rsprune.runs.stages.entropy import EntropyCut
from rsprune.sources import Shard, Source
from rsprune.sources.concat import ConcatSource
from rsprune.sources.damaged import whole
from rsprune.sources.passing import reading_source

__all__ = ["kept_shares"]

#: A class folder or column of more values is no division of the collection, such as a caption.
MOST_GROUPS = 1000
#: Columns of scenes that say where a window lies in its scene, and nothing of what it shows.
PLACES = {"x", "y", "width", "height"}


class Tally:
    """Counts by group the images of a collection, those that Stage I kept, and those that Stage II kept."""

    def __init__(self) -> None:
        self.counts: dict[str | None, NDArray[np.int64]] = {}
        self.divides = True  # whether there are few enough groups

    def add(self, values: pa.Array, survivors: NDArray[np.int64], kept: NDArray[np.int64]) -> None:
        """Count the images of a shard by their ``values``; the others are positions in it."""
        for stage, part in enumerate((values, values.take(pa.array(survivors)), values.take(pa.array(kept)))):
            found = part.value_counts()
            self.divides = self.divides and len(found) <= MOST_GROUPS
            if self.divides:
                names, times = found.field("values").to_pylist(), found.field("counts").to_pylist()
                for name, count in zip(names, times, strict=True):
                    self.counts.setdefault(name, np.zeros(3, np.int64))[stage] += count
        self.divides = self.divides and len(self.counts) <= MOST_GROUPS


def kept_shares(source: Source, survivors: EntropyCut, kept: Mapping[str, NDArray[np.int64]]) -> list[dict[str, Any]]:
    """Count the images of a collection by all that divides it; see :func:`~rsprune.runs.coverage.kept_by`.

    ``kept`` are the positions by shard of those that Stage II kept. Classes and columns that are only known with the
    images are left out. Memory: a shard, and the groups.
    """
    classes, sets, shards = Tally(), Tally(), Tally()
    columns = {name: Tally() for name in dividing_columns(source)}
    joined = isinstance(whole(source), ConcatSource)
    for shard in source.shards:
        one, two = survivors.rows(shard), kept.get(shard.name, np.empty(0, np.int64))
        numbers = np.array([source.count(shard), len(one), len(two)])
        shards.counts[shard.name] = numbers
        if joined:
            part = shard.name.partition("-")[0]
            sets.counts[part] = sets.counts.get(part, 0) + numbers
        if classes.divides:
            labels = source.read_labels(shard)
            classes.divides = labels is not None
            if labels is not None:
                classes.add(pa.array(labels, pa.string()), one, two)
        if columns:
            for name, values in read_columns(source, shard, list(columns)):
                columns[name].add(values, one, two)
            columns = {name: tally for name, tally in columns.items() if tally.divides}
    told = [("class folder", classes), ("source", sets), ("shard", shards)]
    found = [kept_by(by, tally.counts) for by, tally in told if tally.divides and len(tally.counts) > 1]
    images = sum(int(counts[0]) for counts in shards.counts.values())
    return found + [
        kept_by("column", tally.counts, name)
        for name, tally in columns.items()
        if 1 < len(tally.counts) <= images // 2  # names of single images divide nothing
    ]


def dividing_columns(source: Source) -> list[str]:
    """List the columns whose values may be kinds: no measurements, lists or places."""
    if not source.metadata_at_hand:
        return []
    kinds = pa.types.is_string, pa.types.is_large_string, pa.types.is_integer, pa.types.is_boolean, pa.types.is_date
    return [
        field.name
        for field in source.metadata_schema
        if field.name not in PLACES
        and any(kind(field.type.value_type if pa.types.is_dictionary(field.type) else field.type) for kind in kinds)
    ]


def read_columns(source: Source, shard: Shard, names: list[str]) -> Iterator[tuple[str, pa.Array]]:
    """Read columns of the metadata of a shard as strings."""
    with reading_source():
        table = source.read_metadata(shard, range(source.count(shard)))
    for name in names:
        yield name, table[name].cast(pa.string()).combine_chunks()
