"""A text file that lists image files."""

from __future__ import annotations

import csv
from array import array
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from rsprune.errors import DuplicateKeyError, EmptyInputError, SourceError
from rsprune.sources.files import SEPARATOR, FileSource, NamedFile
from rsprune.sources.keys import repeated

__all__ = ["LIST_EXTENSIONS", "open_list"]

LIST_EXTENSIONS = (".txt", ".lst", ".csv")


def open_list(path: Path) -> FileSource:
    """Open a list of images: one path a line, or CSV with a header, a column ``path`` and if need be one ``label``.

    Paths are taken from the folder of the list. The key of an image is its path as it is written. Blank lines and lines
    that begin with ``#`` are skipped. Files that are missing are found when they are read.

    Raises
    ------
    DuplicateKeyError
        If two lines hold the same path.
    EmptyInputError
        If no line holds a path.
    SourceError
        For a file that is not UTF-8, or CSV without the column ``path``.
    """
    rows = _csv_rows if path.suffix.lower() == ".csv" else _text_rows
    hashes = array("q")

    def files() -> Iterator[NamedFile]:
        for number, key, label in rows(path):
            if SEPARATOR in key + label:
                message = f"{path}, line {number}: a zero byte. Is this a text file?"
                raise SourceError(message)
            hashes.append(hash(key))
            yield key, label

    try:
        source = FileSource("list", path.parent, files())
        if not source.shards:
            message = f"no images in {path}: no line holds a path"
            raise EmptyInputError(message)
        suspects = set(repeated(np.frombuffer(hashes, np.int64)).tolist())
        _refuse_duplicates(path, [(number, key) for number, key, _ in _only(rows(path), suspects)])
    except UnicodeDecodeError as error:
        message = f"{path} is not UTF-8 text: {error.reason} at byte {error.start} of a block"
        raise SourceError(message) from None
    return source


def _lines(path: Path) -> Iterator[tuple[int, str]]:
    """The lines that say something, with their numbers."""
    with path.open(encoding="utf-8-sig", newline="") as file:
        for number, line in enumerate(file, 1):
            text = line.strip()
            if text and not text.startswith("#"):
                yield number, text


def _text_rows(path: Path) -> Iterator[tuple[int, str, str]]:
    return ((number, line, "") for number, line in _lines(path))


def _csv_rows(path: Path) -> Iterator[tuple[int, str, str]]:
    numbers: list[int] = []

    def text() -> Iterator[str]:
        for number, line in _lines(path):
            numbers[:] = [number]
            yield line

    reader = csv.reader(text(), skipinitialspace=True)
    header = [name.strip().lower() for name in next(reader, [])]
    if not header:
        return
    if "path" not in header:
        message = f"{path} has no column 'path' in its header, only {header}"
        raise SourceError(message)
    at = header.index("path")
    label_at = header.index("label") if "label" in header else None
    for row in reader:
        if len(row) != len(header) or not row[at]:
            message = f"{path}, line {numbers[0]}: expected {len(header)} fields with a path among them, got {row}"
            raise SourceError(message)
        yield numbers[0], row[at], "" if label_at is None else row[label_at]


def _only(rows: Iterator[tuple[int, str, str]], wanted: set[int]) -> Iterator[tuple[int, str, str]]:
    return (row for i, row in enumerate(rows) if i in wanted) if wanted else iter(())


def _refuse_duplicates(path: Path, suspects: list[tuple[int, str]]) -> None:
    first: dict[str, int] = {}
    for number, key in suspects:
        if key in first:
            message = f"{path}: lines {first[key]} and {number} hold the same path {key!r}"
            raise DuplicateKeyError(message)
        first[key] = number
