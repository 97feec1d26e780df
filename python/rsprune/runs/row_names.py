"""The names of embeddings that belong to no run: keys that stand beside them, where there are any."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from rsprune.embedding_tables import is_table, key_column, read_column, split_column
from rsprune.embeddings import as_rows, embedding_files
from rsprune.errors import ArgumentError, ShapeError
from rsprune.runs.summary import key_form
from rsprune.sources.filesystem import open_text
from rsprune.sources.key_lines import key_of_line

__all__ = ["PathOrPaths", "row_names"]

PathOrPaths = str | Path | Sequence[str | Path]


def row_names(embeds: Any, keys: str | Path | None = None) -> pa.ChunkedArray | None:
    """Return the names of rows of embeddings in files, or None where nothing names them.

    They stand in a column of text of the embeddings' table (``key``, ``image_path`` and the like), in a table of the
    same name beside a ``.npy`` file, or in ``metadata/metadata_0.parquet`` for ``img_emb/img_emb_0.npy``. Names that
    repeat from file to file get the name of the file before them, as keys of a run do.

    Parameters
    ----------
    embeds
        A file, folder, pattern or range of files, or a list of these; other embeddings have no names.
    keys
        A file that names the rows: text with a line a row, or a table with a column of keys.

    Raises
    ------
    ShapeError
        As many names as rows are expected, and there are more or fewer.
    ArgumentError
        ``keys`` is a table without a column of keys.
    """
    specs = embeds if isinstance(embeds, list | tuple) else [embeds]
    rows = sum(as_rows(spec).shape[0] for spec in specs) if keys is not None else 0
    if keys is not None:
        return checked(names_in(Path(keys)), rows, keys)
    if not all(isinstance(spec, str | os.PathLike) for spec in specs):
        return None
    files = [file for spec in specs for file in embedding_files(spec)]
    found: list[pa.ChunkedArray] = []
    for file in files:
        table = table_of(file)
        if table is None or (column := key_column(table)) is None:
            return None
        names = column_of(table, column)
        found.append(names if is_table(file) else checked(names, as_rows(file).shape[0], table))
    if len(files) > 1 and key_form(found) == "shard/name":
        stems = [split_column(file)[0].stem for file in files]
        found = [pc.binary_join_element_wise(stem, names, "/") for stem, names in zip(stems, found, strict=True)]
    return pa.chunked_array([chunk for names in found for chunk in names.chunks], pa.string())


def table_of(file: str) -> Path | None:
    """Return the table that may name the rows of a file of embeddings; None if there is none."""
    path = split_column(file)[0]
    if is_table(file):
        return path
    number = re.sub(r"^.*?(\d*)$", r"\1", path.stem)
    beside = [path.with_suffix(".parquet"), path.parent.parent / "metadata" / f"metadata_{number}.parquet"]
    return next((one for one in beside[: 2 if path.parent.name == "img_emb" else 1] if one.is_file()), None)


def names_in(path: Path) -> pa.ChunkedArray:
    """Read the names in a file that holds nothing else, or in a table."""
    if not is_table(path):
        with open_text(path) as file:
            return pa.chunked_array([[key_of_line(line.rstrip("\r\n")) for line in file]], pa.string())
    table, column = split_column(path)
    if (column := column or key_column(table)) is None:
        message = f"{table} has no column of keys: name one, '{table}#column'"
        raise ArgumentError(message)
    return column_of(table, column)


def column_of(table: Path, column: str) -> pa.ChunkedArray:
    """Read a column of text; a row without one is named by an empty text."""
    return pa.chunked_array([one.cast(pa.string()).fill_null("") for one in read_column(table, column)], pa.string())


def checked(names: pa.ChunkedArray, rows: int, where: Any) -> pa.ChunkedArray:
    """Fail where there is not a name for each row."""
    if len(names) != rows:
        message = f"{os.fspath(where)} names {len(names):,} rows, and there are {rows:,} embeddings"
        raise ShapeError(message)
    return names
