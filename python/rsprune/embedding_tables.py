"""Embeddings in tables: a column of vectors of a Parquet or Arrow file, read batch by batch, and the keys beside it."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from rsprune.errors import ArgumentError, EmptyInputError, FormatError, ShapeError
from rsprune.io import check_pointer
from rsprune.sources.filesystem import check_regular
from rsprune.sources.table import NAME_COLUMNS

if TYPE_CHECKING:
    import pyarrow as pa

__all__ = [
    "TABLES",
    "VectorColumn",
    "is_table",
    "is_vectors",
    "key_column",
    "read_column",
    "split_column",
    "vector_columns",
]

#: How tables that may hold embeddings end.
TABLES = (".parquet", ".arrow", ".feather")
#: Columns of text that name the image of a row, the first that is there; those that embeddings come with, too.
KEY_COLUMNS = (*NAME_COLUMNS, "id", "image_id", "image_path", "path", "name", "url")
#: Rows that are read at a time.
BATCH_ROWS = 1 << 14
FILE_MARK = b"ARROW1"


@dataclass(frozen=True)
class VectorColumn:
    """(N, D) embeddings in a column of a table, as lists of floating numbers. A null is a row of NaN.

    Memory: a row group of a Parquet file, a batch of an Arrow file.
    """

    path: Path
    column: str
    shape: tuple[int, int]  # (N, D)

    @classmethod
    def open(cls, spec: str | os.PathLike[str]) -> VectorColumn:
        """Open a table, or ``table#column`` where it has several columns of vectors.

        Raises
        ------
        FormatError
            It is damaged, or no such file.
        ArgumentError
            No column of vectors, several and none is named, or none of that name.
        EmptyInputError
            No rows, or none with a vector.
        """
        path, column = split_column(spec)
        check_regular(path)
        check_pointer(path)
        with _reading(path):
            schema, rows = _head(path)
        found = vector_columns(schema)
        listed = ", ".join(f"{field.name} ({field.type!s:.60})" for field in schema) or "none"
        if column is None and len(found) > 1:
            message = f"{path} has several columns of vectors: {', '.join(found)}. Name one: '{path}#{found[0]}'"
            raise ArgumentError(message)
        if not found or column not in (None, *found):
            what = "has no column of vectors" if column is None else f"has no column {column!r} of vectors"
            message = f"{path} {what}, which are lists of floating numbers. Its columns: {listed}"
            raise ArgumentError(message)
        name = column or found[0]
        dim = _list_size(schema.field(name).type)
        if dim is None:
            for batch in read_column(path, name):
                if len(there := batch.drop_null()):
                    dim = len(there[0])
                    break
        if not rows or not dim:
            message = f"{path} has no vectors in its column {name!r}: {rows} rows"
            raise EmptyInputError(message)
        return cls(path, name, (rows, dim))

    def arrays(self) -> Iterator[NDArray[np.floating[Any]]]:
        """Yield the rows in order, a bounded number at a time: float16, float32 or float64 as they are stored.

        Raises
        ------
        ShapeError
            A vector of another length than the first; the message names its row.
        """
        row = 0
        for batch in read_column(self.path, self.column):
            yield self._vectors(batch, row)
            row += len(batch)

    def _vectors(self, batch: pa.Array, first: int) -> NDArray[np.floating[Any]]:
        import pyarrow.compute as pc

        lengths = pc.list_value_length(batch).fill_null(self.shape[1]).to_numpy()
        if (wrong := np.flatnonzero(lengths != self.shape[1])).size:
            row = int(wrong[0])
            message = (
                f"row {first + row} of {self.path} has a vector of {lengths[row]} numbers in the column "
                f"{self.column!r}; expected {self.shape[1]} as in the rows before"
            )
            raise ShapeError(message)
        values = batch.flatten().to_numpy(zero_copy_only=False).reshape(-1, self.shape[1])
        if not batch.null_count:
            return np.ascontiguousarray(values)
        rows = np.full((len(batch), self.shape[1]), np.nan, values.dtype)
        rows[batch.is_valid().to_numpy(zero_copy_only=False)] = values
        return rows


def split_column(spec: str | os.PathLike[str]) -> tuple[Path, str | None]:
    """Split ``table#column``, unless a file has that very name."""
    path, mark, column = os.fspath(spec).rpartition("#")
    return (Path(path), column) if mark and not Path(spec).exists() else (Path(spec), None)


def is_table(spec: str | os.PathLike[str]) -> bool:
    """Tell by its name whether a file is a table."""
    return split_column(spec)[0].suffix.lower() in TABLES


def vector_columns(schema: pa.Schema) -> list[str]:
    """List the columns whose values are lists of floating numbers."""
    import pyarrow as pa

    def is_vector(kind: pa.DataType) -> bool:
        kind = kind.storage_type if isinstance(kind, pa.BaseExtensionType) else kind
        lists = pa.types.is_list, pa.types.is_large_list, pa.types.is_fixed_size_list
        return any(of(kind) for of in lists) and pa.types.is_floating(kind.value_type)

    return [field.name for field in schema if is_vector(field.type)]


def is_vectors(spec: str | os.PathLike[str]) -> bool:
    """Whether a table holds embeddings and no images: no column of bytes, unless one of vectors is named."""
    import pyarrow as pa

    path, column = split_column(spec)
    check_regular(path)
    with _reading(path):
        schema, _ = _head(path)
    may_be_images = pa.types.is_binary, pa.types.is_large_binary, pa.types.is_struct
    found = vector_columns(schema)
    if column is not None:
        return column in found
    return bool(found) and not any(test(field.type) for field in schema for test in may_be_images)


def key_column(path: Path) -> str | None:
    """Return the column of a table that names its rows; None if there is none."""
    import pyarrow as pa

    with _reading(path):
        schema, _ = _head(path)
    texts = (pa.types.is_string, pa.types.is_large_string)
    return next(
        (name for name in KEY_COLUMNS if name in schema.names and any(of(schema.field(name).type) for of in texts)),
        None,
    )


def read_column(path: Path, column: str) -> Iterator[pa.Array]:
    """Yield a column of a table in batches; an extension type as what it is stored as."""
    import pyarrow as pa

    with _reading(path):
        for batch in _batches(path, [column]):
            array = batch.column(column)
            yield array.storage if isinstance(array, pa.ExtensionArray) else array


def _list_size(kind: pa.DataType) -> int | None:
    import pyarrow as pa

    kind = kind.storage_type if isinstance(kind, pa.BaseExtensionType) else kind
    return int(kind.list_size) if pa.types.is_fixed_size_list(kind) else None


@contextmanager
def _reading(path: Path) -> Iterator[None]:
    """Tell damage from what the system says of a file."""
    import pyarrow as pa

    try:
        yield
    except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
        if isinstance(error, OSError) and error.errno:
            raise
        message = f"{path} is cut short or damaged, or no table of embeddings: {error}"
        raise FormatError(message) from error


def _head(path: Path) -> tuple[pa.Schema, int]:
    """Read the columns of a table, and count its rows."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    if path.suffix.lower() == ".parquet":
        with pa.OSFile(os.fspath(path)) as file, pq.ParquetFile(file) as table:
            return table.schema_arrow, table.metadata.num_rows
    with pa.memory_map(os.fspath(path)) as file, _ipc(file) as reader:
        return reader.schema, sum(batch.num_rows for batch in _all(reader))


def _batches(path: Path, columns: Sequence[str]) -> Iterator[pa.RecordBatch]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    if path.suffix.lower() == ".parquet":
        with pa.OSFile(os.fspath(path)) as file, pq.ParquetFile(file) as table:
            # One after the other: Arrow keeps what it has read of those that it is given.
            for group in range(table.num_row_groups):
                yield from table.iter_batches(BATCH_ROWS, row_groups=[group], columns=list(columns))
        return
    with pa.memory_map(os.fspath(path)) as file, _ipc(file) as reader:
        for batch in _all(reader):
            batch.validate(full=True)
            for start in range(0, batch.num_rows, BATCH_ROWS):
                yield batch.select(list(columns)).slice(start, BATCH_ROWS)


def _ipc(file: Any) -> Any:
    """Open either of Arrow's formats."""
    from pyarrow import ipc

    mark = file.read(len(FILE_MARK))
    file.seek(0)
    return ipc.open_file(file) if mark == FILE_MARK else ipc.open_stream(file)


def _all(reader: Any) -> Iterator[pa.RecordBatch]:
    if hasattr(reader, "num_record_batches"):
        return map(reader.get_batch, range(reader.num_record_batches))
    return iter(reader)
