"""A text file that lists image files."""

from __future__ import annotations

import csv
from array import array
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from rsprune.errors import DuplicateKeyError, EmptyInputError, SourceError
from rsprune.sources.filesystem import open_text
from rsprune.sources.image_files import SEPARATOR, FileSource, NamedFile

__all__ = ["ListSource", "duplicate_candidates"]

LIST_EXTENSIONS = (".txt", ".lst", ".csv")


class ListSource(FileSource):
    """The images that a text file lists: one path a line, or CSV with a column ``path`` and perhaps one ``label``.

    Paths are relative to the folder of the list. The key of an image is its path as it is written. Blank lines and
    lines that begin with ``#`` are skipped. Files that are missing are found when they are read.

    Parameters
    ----------
    path : Path
        The list.

    Raises
    ------
    DuplicateKeyError
        If two lines hold the same path.
    EmptyInputError
        If no line holds a path.
    SourceError
        For a file that is not UTF-8, or CSV without the column ``path``.
    """

    reads: ClassVar[str] = "a list of images (.txt, .lst, .csv)"

    def __init__(self, path: Path) -> None:
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
            super().__init__("list", path.parent, files())
            if not self.shards:
                message = f"no images in {path}: no line holds a path"
                raise EmptyInputError(message)
            suspects = set(duplicate_candidates(np.frombuffer(hashes, np.int64)).tolist())
            if suspects:
                _refuse_duplicates(path, (row for i, row in enumerate(rows(path)) if i in suspects))
        except UnicodeDecodeError as error:
            message = f"{path} is not UTF-8 text: {error.reason} at byte {error.start} of a block"
            raise SourceError(message) from None

    @classmethod
    def matches(cls, spec: str | Sequence[Any]) -> bool:
        """Return whether ``spec`` is the path of a list file that exists."""
        return isinstance(spec, str) and spec.lower().endswith(LIST_EXTENSIONS) and Path(spec).exists()

    @classmethod
    def open(cls, spec: Any) -> ListSource:
        """Open the list at a path."""
        return cls(Path(spec))


def duplicate_candidates(hashes: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return the positions of the values that occur more than once, ascending.

    Keys that are equal have equal hashes, and few others have: this takes 16 bytes a key, where a set of keys takes
    hundreds.
    """
    order = np.argsort(hashes, kind="stable")
    same = hashes[order[1:]] == hashes[order[:-1]]
    return np.unique(np.concatenate([order[1:][same], order[:-1][same]])).astype(np.int64)


def _lines(path: Path) -> Iterator[tuple[int, str]]:
    """Yield the lines that are neither blank nor comments, with their numbers."""
    with open_text(path, encoding="utf-8-sig") as file:
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


def _refuse_duplicates(path: Path, suspects: Iterator[tuple[int, str, str]]) -> None:
    first: dict[str, int] = {}
    for number, key, _ in suspects:
        if key in first:
            message = f"{path}: lines {first[key]} and {number} hold the same path {key!r}"
            raise DuplicateKeyError(message)
        first[key] = number
