"""Tables with a column of images: what Arrow and Parquet files have in common."""

from __future__ import annotations

import json
import os
import posixpath
from abc import abstractmethod
from bisect import bisect_left
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from functools import cached_property
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple

from typing_extensions import Self

from rsprune.errors import FormatError, SourceError
from rsprune.sources.base import ImageData, Item, Shard, check_rows
from rsprune.sources.container import ContainerSource
from rsprune.sources.filesystem import check_regular, file_size, join
from rsprune.sources.formats import HEAD, IMAGE_EXTENSIONS, is_image
from rsprune.storage import is_remote, read_range

if TYPE_CHECKING:
    import pyarrow as pa

__all__ = ["TableSource"]

#: Columns of text that name an image, if a table has one of them; the first is meant.
NAME_COLUMNS = ("__key__", "key", "img_name", "image_name", "file_name", "filename")
#: Columns that name the class of an image.
LABEL_COLUMNS = ("label", "class", "class_name")
#: What the images of a batch take at most, by the average of their file.
BATCH_BYTES, BATCH_ROWS = 1 << 22, 1024


class _Columns(NamedTuple):
    """Which columns of a table are what."""

    image: str
    is_struct: bool  # struct<bytes, path>, in any order, or one of them
    name: str | None
    label: str | None
    classes: Sequence[str] | None  # the names that numbers in the column ``label`` stand for
    metadata: pa.Schema


class TableSource(ContainerSource):
    """Files of a table with a row an image.

    The images are a column of encoded images, or of structs of ``bytes`` and ``path`` (the feature ``Image`` of the
    library ``datasets``), or of paths, which are taken from the folder of the file. The part names the column where
    there are several. A key is what a column of names says (``img_name``, ``file_name`` and the like), or else the
    path; where there is none, or an earlier or later row of the file has the same, the number of the row in the
    collection. A null is an image that cannot be read. All other columns are metadata.
    """

    part_kind: ClassVar[str] = "column"
    takes: ClassVar[Sequence[str] | None] = ("image_column",)

    @classmethod
    def open(cls, spec: Any, image_column: str | None = None) -> Self:
        """Open the files that ``spec`` stands for, whose images are in the column of this name."""
        return super().open(spec).with_column(image_column)

    def with_column(self, image_column: str | None) -> Self:
        """Take the images from a column of this name, before anything is read; None leaves it at what is known."""
        self._part = image_column or self._part
        return self

    @abstractmethod
    def read_schema(self, path: str) -> pa.Schema:
        """Read the columns of a file."""

    @abstractmethod
    def count_rows(self, path: str) -> int:
        """Count the rows of a file; a file that is cut short raises an ArrowException or an OSError."""

    @abstractmethod
    def batches(self, path: str, columns: Sequence[str], rows: Sequence[int]) -> Iterator[tuple[int, pa.RecordBatch]]:
        """Yield the batches that hold some of ascending ``rows``, and the number of each one's first row.

        A column may be a leaf of a struct (``image.path``); its struct then has that leaf, and perhaps others.
        """

    def read(self, shard: Shard, rows: Sequence[int] | None = None) -> Iterator[Item]:
        """Yield the images of a shard, a batch of its file in memory at a time."""
        path, columns = self._paths[shard.name], self._columns
        if rows is None:
            self.fetch_next(shard)
        rows = check_rows(shard, rows, self.count(shard))
        keys = self.read_keys(shard) if len(rows) else []
        wanted = [columns.image, *([columns.label] if columns.label else [])]
        for row, batch, at in self._cells(path, wanted, rows):
            image = batch.column(columns.image)[at].as_py()
            label = None if columns.label is None else self._class_of(batch.column(columns.label)[at].as_py())
            yield Item(keys[row], self._data(path, image), label)

    def read_keys(self, shard: Shard) -> list[str]:
        """Return the keys of a shard: reads the column of names, or the paths, but no image."""
        path, (image, is_struct, name, *_) = self._paths[shard.name], self._columns
        count = self.count(shard)
        column = name or (f"{image}.path" if is_struct else image)
        names: list[str | None] = [None] * count
        if name or self._has_paths:
            with self._damage(path):
                for first, batch in self._batches(path, [column], range(count)):
                    names[first : first + batch.num_rows] = self._names(batch, column)
        often = Counter(names)
        first = 0
        for before in self._shards[: self._shards.index(shard)]:
            with suppress(FormatError):  # a damaged file, which is left out
                first += self.count(before)
        return [one if one and often[one] == 1 else f"{first + row:08d}" for row, one in enumerate(names)]

    def count(self, shard: Shard) -> int:
        """Count the rows of a shard; nothing but their number is read."""
        if shard.name not in self._counts:
            path = self._paths[shard.name]
            with self._damage(path):
                _check_local(path)
                self._check_columns(path)
                self._counts[shard.name] = self.count_rows(path)
        return self._counts[shard.name]

    @property
    def metadata_schema(self) -> pa.Schema:
        """All columns but those of images."""
        return self._columns.metadata

    def read_metadata(self, shard: Shard, rows: Sequence[int]) -> pa.Table:
        """Read the metadata of some rows of a shard, but no image."""
        import pyarrow as pa

        path, schema = self._paths[shard.name], self.metadata_schema
        rows = check_rows(shard, rows, self.count(shard))
        parts = [schema.empty_table()]
        if len(schema):
            with self._damage(path):
                there = [name for name in schema.names if name in self.read_schema(path).names]
                for first, batch in self._batches(path, there, rows):
                    start, end = (bisect_left(rows, row) for row in (first, first + batch.num_rows))
                    inside = pa.array([row - first for row in rows[start:end]], pa.int64())
                    columns = [
                        batch.column(field.name).cast(field.type).take(inside)
                        if field.name in there
                        else pa.nulls(len(inside), field.type)
                        for field in schema
                    ]
                    parts.append(pa.Table.from_arrays(columns, schema=schema))
        return pa.concat_tables(parts).combine_chunks()

    @property
    def metadata_at_hand(self) -> bool:
        """Whether the files lie on a disk."""
        return not any(map(is_remote, self._paths.values()))

    @cached_property
    def _columns(self) -> _Columns:
        """The columns of the first file that is not damaged."""
        path, schema = self._first
        with self._damage(path):
            return self._columns_of(path, schema)

    def _columns_of(self, path: str, schema: pa.Schema) -> _Columns:
        import pyarrow as pa

        # Which of several columns of one name is meant cannot be said.
        once = [field for field in schema if schema.names.count(field.name) == 1]
        schema = pa.schema(once, schema.metadata)
        features = _features(schema)
        image = self._image_column(path, schema, features)
        metadata = [
            pa.field(field.name, _plain(field.type))
            for field in schema
            if field.name != image and not _holds_bytes(field.type)
        ]
        classes = {name: one.get("names") for name, one in features.items() if one.get("_type") == "ClassLabel"}
        labels = [name for name in LABEL_COLUMNS if name in schema.names] or list(classes)
        label = next((name for name in labels if not pa.types.is_nested(schema.field(name).type)), None)
        return _Columns(
            image,
            pa.types.is_struct(_plain(schema.field(image).type)),
            next((name for name in NAME_COLUMNS if name in schema.names and _is_text(schema.field(name).type)), None),
            label,
            classes.get(label) if label else None,
            pa.schema(metadata),
        )

    @cached_property
    def _first(self) -> tuple[str, pa.Schema]:
        """The first file that is not damaged, and its schema."""
        damage: FormatError | None = None
        for path in self._paths.values():
            try:
                with self._damage(path):
                    _check_local(path)
                    self.count_rows(path)
                    return path, self.read_schema(path)
            except FormatError as error:
                damage = damage or error
        assert damage is not None
        raise damage

    def _check_columns(self, path: str) -> None:
        """Fail at a file that lacks a column which the first one has."""
        import pyarrow as pa

        columns, there = self._columns, self.read_schema(path)
        for name in filter(None, (columns.image, columns.name, columns.label)):
            if name not in there.names or (
                name == columns.image and columns.is_struct != pa.types.is_struct(_plain(there.field(name).type))
            ):
                first, _ = self._first
                message = f"{path} has no column {name!r} as {first} has; its columns are {', '.join(there.names)}"
                raise SourceError(message)

    def _image_column(self, path: str, schema: pa.Schema, features: Mapping[str, Mapping[str, Any]]) -> str:
        listed = ", ".join(f"{field.name} ({field.type!s:.60})" for field in schema) or "none"
        if self._part is not None:
            if self._part in schema.names and _may_be_images(schema.field(self._part).type):
                return self._part
            what = "holds no images" if self._part in schema.names else "is not there"
            message = f"the column {self._part!r} of {path} {what}. Its columns: {listed}"
            raise SourceError(message)
        found = [name for name in schema.names if features.get(name, {}).get("_type") == "Image"] or [
            field.name for field in schema if _may_be_images(field.type) and not _is_text(field.type)
        ]
        if len(found) > 1:  # a column of bytes may hold anything
            found = [name for name in found if self._begins(path, name, is_image)] or found
        if not found:
            texts = [field.name for field in schema if _is_text(field.type)]
            found = [name for name in texts if self._begins(path, name, _is_path)]
        if not found:
            message = (
                f"{path} has no column of images (encoded ones, structs of bytes and path, or paths). Its columns: "
                f"{listed}"
            )
            raise SourceError(message)
        if len(found) > 1:
            message = (
                f"{path} has several columns of images: {', '.join(found)}. Name the one that is meant: "
                f"--image-column {found[0]}"
            )
            raise SourceError(message)
        return str(found[0])

    def _begins(self, path: str, name: str, test: Callable[[Any], bool]) -> bool:
        """Whether the first value of a column that is not null is an image."""
        with self._damage(path):
            for _, batch in self.batches(path, [name], range(self.count_rows(path))):
                for value in batch.column(name).drop_null()[:1]:
                    cell = value.as_py()
                    cell = cell.get("bytes", cell.get("path")) if isinstance(cell, dict) else cell
                    return cell is not None and test(cell[:HEAD] if isinstance(cell, bytes) else cell)
                break
        return False

    @cached_property
    def _has_paths(self) -> bool:
        """Whether the column of images holds paths, beside bytes or in place of them."""
        type = self._first[1].field(self._columns.image).type
        return "path" in [field.name for field in type] if self._columns.is_struct else _is_text(type)

    def _names(self, batch: pa.RecordBatch, column: str) -> list[str | None]:
        """Read names: of an absolute path beside an image, which is that of another machine, only the end counts."""
        import pyarrow.compute as pc

        if column in batch.schema.names:
            found: list[str | None] = batch.column(column).to_pylist()
            return found
        paths = pc.struct_field(batch.column(self._columns.image), "path").to_pylist()
        return [posixpath.basename(path) if path and path.startswith("/") else path for path in paths]

    def _batches(self, path: str, columns: Sequence[str], rows: Sequence[int]) -> Iterator[tuple[int, pa.RecordBatch]]:
        """Yield :meth:`batches`, and fail where these do not hold all of the rows: the file names more than it has."""
        import pyarrow as pa

        held = 0
        for first, batch in self.batches(path, columns, rows):
            if held < len(rows) and rows[held] < first:
                break
            yield first, batch
            held = bisect_left(rows, first + batch.num_rows)
        if held < len(rows):
            message = f"it names a row {rows[held]}, but does not hold it"
            raise pa.ArrowInvalid(message)

    def _cells(
        self, path: str, columns: Sequence[str], rows: Sequence[int]
    ) -> Iterator[tuple[int, pa.RecordBatch, int]]:
        """Yield each row, the batch that holds it, and its place in there."""
        position = 0
        with self._damage(path):
            for first, batch in self._batches(path, columns, rows):
                while position < len(rows) and rows[position] < first + batch.num_rows:
                    yield rows[position], batch, rows[position] - first
                    position += 1

    def _data(self, path: str, cell: Any) -> ImageData:
        """Return the image of a cell; one that is not there is as an empty file."""
        if isinstance(cell, dict):
            cell = cell.get("path") if cell.get("bytes") is None else cell["bytes"]
        if isinstance(cell, str) and cell:
            place = join(os.path.dirname(path), cell)  # noqa: PTH120
            return read_range(place, 0, file_size(place)) if is_remote(place) else place
        return cell or b""

    def _class_of(self, value: Any) -> str | None:
        names = self._columns.classes
        if names and isinstance(value, int):
            return names[value] if 0 <= value < len(names) else None
        return None if value is None else str(value)

    @contextmanager
    def _damage(self, path: str) -> Iterator[None]:
        """Tell damage from what the system says of a file."""
        import pyarrow as pa

        try:
            yield
        except (pa.ArrowException, OSError, UnicodeDecodeError) as error:  # names of columns are bytes in a file
            if isinstance(error, OSError) and error.errno:
                raise
            message = f"{path} is cut short or damaged, or no {self.kind} file: {error}"
            raise FormatError(message) from error


def _check_local(path: str) -> None:
    if not is_remote(path):
        check_regular(path)


def _features(schema: pa.Schema) -> dict[str, dict[str, Any]]:
    """Read what the library ``datasets`` says of the columns."""
    try:
        features = json.loads((schema.metadata or {})[b"huggingface"])["info"]["features"]
        return {name: one for name, one in features.items() if isinstance(one, dict)}
    except (KeyError, TypeError, ValueError, AttributeError):
        return {}


def _plain(type: pa.DataType) -> pa.DataType:
    """Return the type that a column has in a manifest: no dictionaries, extensions or variants of strings."""
    import pyarrow as pa

    if isinstance(type, pa.ExtensionType):
        return _plain(type.storage_type)
    if pa.types.is_dictionary(type):
        return _plain(type.value_type)
    if pa.types.is_large_string(type) or pa.types.is_string_view(type):
        return pa.string()
    return pa.binary() if pa.types.is_large_binary(type) or pa.types.is_binary_view(type) else type


def _is_text(type: pa.DataType) -> bool:
    import pyarrow as pa

    return bool(pa.types.is_string(_plain(type)))


def _is_bytes(type: pa.DataType) -> bool:
    import pyarrow as pa

    return bool(pa.types.is_binary(_plain(type)))


def _may_be_images(type: pa.DataType) -> bool:
    """Whether a column of this type can hold images."""
    import pyarrow as pa

    if pa.types.is_struct(type):
        leaves = {field.name: field.type for field in type}
        held = leaves.pop("bytes", pa.null())
        return _is_bytes(held) or (pa.types.is_null(held) and list(leaves) == ["path"] and _is_text(leaves["path"]))
    return _is_bytes(type) or _is_text(type)


def _holds_bytes(type: pa.DataType) -> bool:
    """Whether a column of this type holds bytes, which are no metadata, or what Parquet does not hold."""
    import pyarrow as pa

    type = _plain(type)
    if pa.types.is_nested(type) and not pa.types.is_union(type):
        return any(_holds_bytes(type.field(i).type) for i in range(type.num_fields))
    other = pa.types.is_fixed_size_binary(type) or pa.types.is_union(type) or pa.types.is_interval(type)
    return _is_bytes(type) or other


def _is_path(value: Any) -> bool:
    return isinstance(value, str) and posixpath.splitext(value)[1].lower() in IMAGE_EXTENSIONS
