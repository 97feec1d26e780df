"""Several collections as one."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, ClassVar

from rsprune.errors import EmptyInputError
from rsprune.sources.base import Item, Shard, Source, check_rows
from rsprune.sources.registry import open_source

if TYPE_CHECKING:
    import pyarrow as pa

__all__ = ["ConcatSource"]


class ConcatSource(Source):
    """Collections one after the other, in the order given.

    The number of the collection stands before the names of its shards (``0-part-000000``) and before the keys of its
    images (``0/Airport/airport_1.jpg``): two reference sets may both have that image.
    """

    reads: ClassVar[str] = "a sequence of these"
    takes: ClassVar[Sequence[str] | None] = None

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
        self.folders = [folder for source in sources for folder in source.folders]

    @classmethod
    def matches(cls, spec: str | Sequence[Any]) -> bool:
        """Return whether ``spec`` is a sequence of other specifications."""
        return isinstance(spec, Sequence) and not isinstance(spec, (str, bytes, bytearray))

    @classmethod
    def open(cls, spec: Any, **options: Any) -> Source:
        """Open each part with the same options and concatenate them; a single one stands for itself."""
        if not spec:
            message = "an empty sequence is no collection of images"
            raise EmptyInputError(message)
        sources = [open_source(part, **options) for part in spec]
        return sources[0] if len(sources) == 1 else cls(sources)

    @property
    def shards(self) -> tuple[Shard, ...]:
        """The shards in the order of the rows."""
        return self._shards

    def read(self, shard: Shard, rows: Sequence[int] | None = None) -> Iterator[Item]:
        """Yield the images of a shard, the number of their collection before their keys."""
        prefix, source, inner = self._places[shard.name]
        if rows is not None:
            rows = check_rows(shard, rows, source.count(inner))  # here, so that an error has the name of this shard
        for item in source.read(inner, rows):
            yield replace(item, key=f"{prefix}/{item.key}")

    def read_keys(self, shard: Shard) -> list[str] | None:
        """Return the keys of a shard, the number of their collection before each."""
        prefix, source, inner = self._places[shard.name]
        keys = source.read_keys(inner)
        return None if keys is None else [f"{prefix}/{key}" for key in keys]

    def check_unchanged(self, shard: Shard) -> None:
        """Compare the files of a shard with what they were when the collection was opened."""
        _, source, inner = self._places[shard.name]
        source.check_unchanged(inner)

    def read_labels(self, shard: Shard) -> list[str | None] | None:
        """Return the classes of a shard's images."""
        _, source, inner = self._places[shard.name]
        return source.read_labels(inner)

    @property
    def metadata_schema(self) -> pa.Schema:
        """The columns of all collections; one whose type is not the same in all of them holds strings."""
        import pyarrow as pa

        types: dict[str, set[pa.DataType]] = {}
        for field in (field for source in self._sources for field in source.metadata_schema):
            types.setdefault(field.name, set()).add(field.type)
        return pa.schema([(name, pa.string() if len(found) > 1 else found.pop()) for name, found in types.items()])

    def read_metadata(self, shard: Shard, rows: Sequence[int]) -> pa.Table:
        """Read the metadata of some images of a shard; null in the columns that only other collections have."""
        import pyarrow as pa

        _, source, inner = self._places[shard.name]
        table = source.read_metadata(inner, check_rows(shard, rows, source.count(inner)))
        schema = self.metadata_schema
        columns = []
        for field in schema:
            if field.name not in table.column_names:
                column = pa.nulls(len(rows), field.type)
            elif (column := table[field.name]).type != field.type:
                column = pa.array([None if value is None else str(value) for value in column.to_pylist()], field.type)
            columns.append(column)
        return pa.Table.from_arrays(columns, schema=schema)

    @property
    def metadata_at_hand(self) -> bool:
        """Whether reading the metadata of all images costs little, of each collection."""
        return all(source.metadata_at_hand for source in self._sources)

    def was_missing(self, shard: Shard, row: int, kind: str) -> bool:
        """Return whether there was no file for an image."""
        _, source, inner = self._places[shard.name]
        return source.was_missing(inner, row, kind)

    @property
    def band_counts(self) -> Mapping[int, str]:
        """The numbers of bands of all collections."""
        return {count: name for source in self._sources for count, name in source.band_counts.items()}

    @property
    def passed_over(self) -> Mapping[str, int]:
        """What of the collections is passed over, added up."""
        return sum((Counter(source.passed_over) for source in self._sources), Counter())

    def count(self, shard: Shard) -> int:
        """Count the images of a shard."""
        _, source, inner = self._places[shard.name]
        return source.count(inner)

    def size(self, shard: Shard) -> int:
        """Return how many bytes reading a shard takes from the disk."""
        _, source, inner = self._places[shard.name]
        return source.size(inner)

    def requests(self, shard: Shard) -> int:
        """Return how many requests it takes to read a shard."""
        _, source, inner = self._places[shard.name]
        return source.requests(inner)

    def fingerprint(self) -> dict[str, Any]:
        """Identify the input by the fingerprints of its parts."""
        return {"kind": "joined", "sources": [source.fingerprint() for source in self._sources]}
