"""The one place where the files of a collection are opened: regular files only.

Opening a pipe waits for a writer, and a device such as ``/dev/zero`` never ends: a link to one of these, or its name in
a list, would hang a run for ever. Of an address, such as ``s3://bucket/key``, a local copy is opened.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, BinaryIO, Literal, Protocol, TextIO

import numpy as np

from rsprune.errors import FormatError, NotRegularFileError, SourceChangedError
from rsprune.io import check_pointer
from rsprune.storage import fetch, fetch_ahead, find, is_remote, read_range, recall

__all__ = [
    "Ranges",
    "Readable",
    "changed",
    "check_regular",
    "file_size",
    "join",
    "load_array",
    "local_path",
    "open_binary",
    "open_regular",
    "open_text",
    "read_ahead",
    "read_at",
    "read_head",
    "regular_size",
    "stamp_of",
]

#: Flags that another system lacks do not matter there.
FLAGS = ("O_NONBLOCK", "O_CLOEXEC", "O_BINARY")

Path = str | os.PathLike[str]


class Readable(Protocol):
    """A file that has no descriptor."""

    length: float

    def read_at(self, size: int, offset: int) -> bytes:
        """Read up to ``size`` bytes at ``offset``: fewer only at the end of the file."""


class Ranges:
    """What is at an address, of which each part is read when it is asked for."""

    def __init__(self, uri: str) -> None:
        self.uri = uri
        self.length: float = recall(uri).size

    def read_at(self, size: int, offset: int) -> bytes:
        """Read up to ``size`` bytes at ``offset``: fewer only at the end."""
        return read_range(self.uri, offset, max(0, min(size, int(self.length) - offset)))


@contextmanager
def open_regular(path: Path) -> Iterator[int]:
    """Open a regular file for reading; give its descriptor.

    Raises
    ------
    NotRegularFileError
        It is a pipe, a device or a socket.
    OSError
        It is a folder, or cannot be opened; what is raised while it is open has its name, too.
    """
    fd = _open(path)
    try:
        yield fd
    except OSError as error:
        if error.errno is not None and error.filename is None:  # reading from a descriptor names none
            error.filename = os.fspath(path)
        raise
    finally:
        os.close(fd)


def open_binary(path: Path) -> BinaryIO:
    """Open a regular file for reading bytes; see :func:`open_regular`."""
    return open(path, "rb", opener=lambda path, _: _open(path))


def open_text(path: Path, encoding: str = "utf-8") -> TextIO:
    """Open a regular file for reading text with its line ends as they are; see :func:`open_regular`."""
    return open(path, encoding=encoding, newline="", opener=lambda path, _: _open(path))


def check_regular(path: Path) -> None:
    """Raise what :func:`open_regular` would, or a FormatError, before another library opens a path."""
    os.close(_open(path))
    check_pointer(local_path(path))


def local_path(path: Path) -> str:
    """Return the path itself, or that of a local copy of what is at an address."""
    return os.fspath(fetch(path) if is_remote(path) else path)


def read_ahead(path: Path) -> None:
    """Begin to fetch what is at an address, which will be wanted next; a local file needs none of it."""
    if is_remote(path):
        fetch_ahead(path)


def join(folder: str, key: str) -> str:
    """Return where the file is that ``key`` names, taken from a folder: keys may be whole paths or addresses."""
    if is_remote(key):
        return key
    return f"{folder.rstrip('/')}/{key}" if is_remote(folder) else os.path.join(folder, key)  # noqa: PTH118 (millions)


def load_array(path: Path, mmap_mode: Literal["r"] | None = None) -> Any:
    """Load a ``.npy`` or ``.npz`` file without unpickling anything; see :func:`numpy.load`.

    Raises
    ------
    FormatError
        It is no such file.
    OSError
        See :func:`open_regular`.
    """
    check_regular(path)
    try:
        loaded = np.load(local_path(path), mmap_mode=mmap_mode, allow_pickle=False)
    except OSError:
        raise
    except Exception as error:  # damage shows as ValueError, SyntaxError, MemoryError, BadZipFile and more
        # NumPy takes any other file for a pickle, and says how to read it all the same.
        cause = "it is of another format, or holds Python objects" if "pickle" in str(error) else error
        message = f"{os.fspath(path)} is not an array that NumPy saved: {cause}"
        raise FormatError(message) from error
    if not isinstance(loaded, np.ndarray) and not os.fspath(path).endswith(".npz"):
        loaded.close()
        message = f"{os.fspath(path)} is an archive of arrays: give the .npy file of one of them"
        raise FormatError(message)
    return loaded


def file_size(path: Path) -> int:
    """Return the size of what lies at a path, be it a file or a pipe, but not of a folder: that is an OSError."""
    if is_remote(path):
        return find(path).size
    found = os.stat(path)  # noqa: PTH116
    if stat.S_ISDIR(found.st_mode):
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), os.fspath(path))
    return found.st_size


def stamp_of(path: str) -> tuple[int, int] | None:
    """Return the size of a local file, and when it was written; None if the system does not say."""
    try:
        found = os.stat(path)  # noqa: PTH116
    except OSError:
        return None
    return found.st_size, found.st_mtime_ns


def changed(path: str) -> SourceChangedError:
    """Make the error of a file that was written to since the collection was opened."""
    message = (
        f"{path} was written to since the collection was opened: a collection must not change while it is read. "
        "What was read of other files is kept; make the call again when it is whole"
    )
    return SourceChangedError(message)


def regular_size(path: Path) -> int:
    """Return the size of a file in bytes without opening it; the errors are those of :func:`open_regular`."""
    if is_remote(path):
        return recall(path).size
    found = os.stat(path)  # noqa: PTH116
    _check(path, found.st_mode)
    return found.st_size


def read_at(fd: int, size: int, offset: int) -> bytes:
    """Read up to ``size`` bytes at ``offset``: fewer only at the end of the file."""
    data = os.pread(fd, size, offset)
    if len(data) == size or not data:
        return data
    parts = [data]  # a signal, or a network disk, may cut a read short
    got = len(data)
    while got < size and (data := os.pread(fd, size - got, offset + got)):
        parts.append(data)
        got += len(data)
    return b"".join(parts)


def read_head(path: Path, size: int) -> bytes:
    """Read the first ``size`` bytes of a file, or fewer if it has no more."""
    if is_remote(path):
        return read_range(path, 0, min(size, recall(path).size))
    with open_regular(path) as fd:
        return read_at(fd, size, 0)


def _open(path: Path) -> int:
    flags = os.O_RDONLY | sum(getattr(os, flag, 0) for flag in FLAGS)
    try:
        fd = os.open(local_path(path), flags)
    except OSError as error:
        if error.errno in (errno.ENXIO, errno.EOPNOTSUPP):  # how a system says that a socket cannot be opened
            regular_size(path)
        raise
    try:
        # Of the open file: nothing can be put in its place between the check and the reading.
        _check(path, os.fstat(fd).st_mode)
    except OSError:
        os.close(fd)
        raise
    return fd


def _check(path: Path, mode: int) -> None:
    kinds = {stat.S_IFIFO: "fifo", stat.S_IFCHR: "character device", stat.S_IFBLK: "block device"}
    if stat.S_ISDIR(mode):
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), os.fspath(path))
    if not stat.S_ISREG(mode):
        message = f"{os.fspath(path)} is a {kinds.get(stat.S_IFMT(mode), 'socket')}; only regular files are read"
        raise NotRegularFileError(message)
