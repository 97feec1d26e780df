"""A text file that lists image files, or files that hold images."""

from __future__ import annotations

import csv
import os
from array import array
from collections.abc import Iterator, Sequence
from itertools import count
from pathlib import Path
from typing import Any, ClassVar, TextIO

import numpy as np
from numpy.typing import NDArray

from rsprune.errors import DuplicateKeyError, EmptyInputError, SourceError, shown
from rsprune.io import check_pointer
from rsprune.sources.base import Source
from rsprune.sources.container_kinds import container_of
from rsprune.sources.filesystem import join, local_path, open_text
from rsprune.sources.image_files import SEPARATOR, FileSource, NamedFile
from rsprune.sources.key_lines import key_of_line, line_of_key
from rsprune.storage import is_remote

__all__ = ["ListSource", "duplicate_candidates", "listed_files"]

LIST_EXTENSIONS = (".txt", ".lst", ".csv")

#: A longer line is no path with a label.
LONGEST_LINE = 1 << 16

#: The number of a line, the path in it, its label, and its key; these may be empty.
_Row = tuple[int, str, str, str]


class ListSource(FileSource):
    """The images that a text file lists: one path a line, or CSV with a column ``path``.

    Paths are relative to the folder of the list. CSV may have the columns ``label`` and ``key``; where there is no key
    it is the path as it is written. A line that is a JSON string, as ``selected.txt`` has for keys with line feeds,
    stands for what it says. Blank lines and lines that begin with ``#`` are skipped. Some of the files may be missing,
    which is found when they are read.

    Parameters
    ----------
    path : str or Path
        The list, or its address.

    Raises
    ------
    DuplicateKeyError
        If two lines hold the same path.
    EmptyInputError
        If no line holds a path.
    SourceError
        For a file that is not UTF-8, CSV without the column ``path``, or images and tar files in one list.
    FileNotFoundError
        If none of the files is there.
    """

    reads: ClassVar[str] = "a list of images or of files that hold some (.txt, .lst, .csv)"

    def __init__(self, path: str | Path) -> None:
        hashes = array("q")
        path = os.fspath(path)
        root, found = os.path.dirname(path), is_remote(path)  # noqa: PTH120 (an address)

        def files() -> Iterator[NamedFile]:
            nonlocal found
            for number, place, label, name in _rows_of(path):
                key = name or place
                if SEPARATOR in place + label + name:
                    message = f"{path}, line {number}: a zero byte. Is this a text file?"
                    raise SourceError(message)
                if container_of(place):
                    message = f"{path}, line {number}: {place!r}, which holds images, among images; list them apart"
                    raise SourceError(message)
                found = found or is_remote(place) or os.path.exists(join(root, place))  # noqa: PTH110 (millions of paths)
                hashes.append(hash(key))
                yield NamedFile(key, label, path=place if name else "")

        super().__init__("list", root, files())
        if not self.shards:
            message = f"no images in {path}: no line holds a path"
            raise EmptyInputError(message)
        suspects = set(duplicate_candidates(np.frombuffer(hashes, np.int64)).tolist())
        if suspects:
            _refuse_duplicates(path, (row for i, row in enumerate(_rows_of(path)) if i in suspects))
        if not found:
            raise _none_found(path, next(place for _, place, *_ in _rows_of(path)), len(hashes))

    @classmethod
    def matches(cls, spec: str | Sequence[Any]) -> bool:
        """Return whether ``spec`` is the path of a list file that exists."""
        is_list = isinstance(spec, str) and spec.lower().endswith(LIST_EXTENSIONS)
        return is_list and (is_remote(spec) or os.path.exists(str(spec)))  # noqa: PTH110 (as below)

    @classmethod
    def open(cls, spec: Any) -> Source:
        """Open the list at a path: its images, or those in the tar files, tables or stacks that it names."""
        path = os.fspath(spec)
        kind = container_of(next((place for _, place, *_ in _rows_of(path)), ""))
        if kind is None:
            return cls(path)
        files = list(_rows_of(path))
        for number, key, *_ in files:
            if container_of(key) is not kind:
                message = f"{path}, line {number}: {key!r} is no file of {kind.kind}, as those before; list them apart"
                raise SourceError(message)
        return kind.open(listed_files(path))


def listed_files(path: str) -> list[str]:
    """Return where the files are that a list names."""
    return [join(os.path.dirname(path), key) for _, key, *_ in _rows_of(path)]  # noqa: PTH120 (an address)


def _none_found(path: str, first: str, count: int) -> FileNotFoundError:
    message = (
        f"none of the {count:,} files that {path} lists is there. The first is {first!r}, looked for in the folder of "
        f"the list: {line_of_key(os.fspath(Path(path).parent / first))}"
    )
    if os.path.exists(first):  # noqa: PTH110 (a name that is too long is an error to Path)
        message += ". It is there from the current folder: move the list here, or write absolute paths"
    return FileNotFoundError(shown(message))


def duplicate_candidates(hashes: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return the positions of the values that occur more than once, ascending.

    Keys that are equal have equal hashes, and few others have: this takes 16 bytes a key, where a set of keys takes
    hundreds.
    """
    order = np.argsort(hashes, kind="stable")
    same = hashes[order[1:]] == hashes[order[:-1]]
    return np.unique(np.concatenate([order[1:][same], order[:-1][same]])).astype(np.int64)


def _is_passed_over(line: str) -> bool:
    """Whether a line is blank or a comment."""
    return not line.strip() or line.lstrip().startswith("#")


def _rows_of(path: str) -> Iterator[_Row]:
    """Yield the number of each line that lists a file, its path, its label, and its key."""
    check_pointer(local_path(path))
    with open_text(path, encoding="utf-8-sig") as file:
        try:
            if path.lower().endswith(".csv"):
                yield from _csv_rows(path, file)
                return
            for number, line in _lines(path, file):
                if not _is_passed_over(line):
                    yield number, key_of_line(line.strip()), "", ""
        except UnicodeDecodeError as error:
            message = f"{path} is not UTF-8 text: {error.reason} at byte {error.start} of a block"
            raise SourceError(message) from None
        except csv.Error as error:
            message = f"{path} is not CSV: {error}"
            raise SourceError(message) from None


def _lines(path: str, file: TextIO) -> Iterator[tuple[int, str]]:
    """Yield the lines and their numbers; one that is longer than any path is not read to its end."""
    for number in count(1):
        line = file.readline(LONGEST_LINE + 1)
        if len(line) > LONGEST_LINE:
            message = f"{path}, line {number} has more than {LONGEST_LINE:,} characters: it is no list of files"
            raise SourceError(message)
        if not line:
            return
        yield number, line


def _csv_rows(path: str, file: TextIO) -> Iterator[_Row]:
    number, begins = 0, True

    def lines() -> Iterator[str]:
        nonlocal number, begins
        for number, line in _lines(path, file):  # noqa: B007 (nonlocal)
            if not begins:  # a field in quotation marks goes on
                yield line
            elif not _is_passed_over(line):
                begins = False
                yield line.lstrip() if line.count('"') % 2 else f"{line.strip()}\n"

    reader = csv.reader(lines(), skipinitialspace=True)
    header = [name.strip().lower() for name in next(reader, [])]
    if not header:
        return
    if "path" not in header:
        message = f"{path} has no column 'path' in its header, only {header}"
        raise SourceError(message)
    at = header.index("path")
    others = [header.index(name) if name in header else None for name in ("label", "key")]
    begins = True
    for row in reader:
        if len(row) != len(header) or not row[at]:
            message = f"{path}, line {number}: expected {len(header)} fields with a path among them, got {row}"
            raise SourceError(message)
        begins = True
        label, key = ("" if column is None else row[column] for column in others)
        yield number, row[at], label, key


def _refuse_duplicates(path: str, suspects: Iterator[_Row]) -> None:
    first: dict[str, int] = {}
    for number, place, _, name in suspects:
        key = name or place
        if key in first:
            message = f"{path}: lines {first[key]} and {number} hold the same {'key' if name else 'path'} {key!r}"
            raise DuplicateKeyError(message)
        first[key] = number
