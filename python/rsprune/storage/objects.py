"""Objects at addresses such as ``s3://bucket/key``: finding, listing, reading and writing them.

Every request is tried again, with back-off, until it has been answered in full.
"""

from __future__ import annotations

import errno
import os
import re
from functools import lru_cache
from pathlib import Path
from typing import TypeGuard

from rsprune.storage.clients import CutShortError, StoredObject, attempt, open_store

__all__ = ["find", "glob_objects", "is_remote", "list_objects", "read_range", "recall", "upload"]

#: How an address begins.
ADDRESS = re.compile(r"[a-z][a-z0-9+.-]*://", re.IGNORECASE)


def is_remote(path: object) -> TypeGuard[str]:
    """Tell whether a path is an address, such as ``s3://bucket/key``, and not one of the local disk."""
    return isinstance(path, str) and ADDRESS.match(path) is not None


def find(uri: str) -> StoredObject:
    """Look an object up.

    Raises
    ------
    FileNotFoundError, PermissionError
        It is not there, or not for these credentials.
    OSError
        The storage did not answer.
    """
    store, key = open_store(uri)
    return attempt(uri, lambda: store.find(uri, key))


def recall(uri: str) -> StoredObject:
    """Look an object up once in a process: whoever reads it later is told if it is another one by then."""
    return _recalled(os.getpid(), uri)


@lru_cache(maxsize=1 << 16)
def _recalled(process: int, uri: str) -> StoredObject:
    return find(uri)


def list_objects(folder: str) -> list[StoredObject]:
    """List the objects below a folder, in ascending order of their addresses; the errors are those of :func:`find`."""
    store, key = open_store(folder)
    prefix = key.rstrip("/") + "/" if key.strip("/") else ""
    root = folder[: len(folder) - len(key)].rstrip("/") + "/"
    found = attempt(folder, lambda: list(store.list(root, prefix)))
    return sorted(one for one in found if not one.uri.endswith("/"))  # consoles make empty objects for folders


def glob_objects(pattern: str) -> list[str]:
    """List the addresses that match a pattern, in ascending order: ``*`` and ``?`` within a folder, ``**/`` across."""
    open_store(pattern)  # for its errors: a query looks like a pattern
    folder = re.split(r"[*?[]", pattern, maxsplit=1)[0].rpartition("/")[0]
    # glob.translate() comes with Python 3.13.
    words = {"**/": "(?:.*/)?", "*": "[^/]*", "?": "[^/]"}
    parts = re.split(r"(\*\*/|\*|\?|\[[^]]+\])", pattern)
    regex = re.compile("".join(words.get(one, one if one.startswith("[") else re.escape(one)) for one in parts))
    return [one.uri for one in list_objects(folder) if regex.fullmatch(one.uri)]


def read_range(uri: str, start: int, size: int, etag: str | None = None) -> bytes:
    """Read part of an object, all of it or none; the errors are those of :func:`find`."""
    store, key = open_store(uri)

    def read() -> bytes:
        data = store.read(key, start, size, etag) if size else b""
        if len(data) != size:
            raise CutShortError(errno.EIO, f"{len(data)} bytes in place of {size}", uri)
        return data

    return attempt(uri, read)


def upload(path: Path, uri: str) -> None:
    """Write a local file to an object.

    Raises
    ------
    OutputError
        The address is one that is only read.
    PermissionError, OSError
        See :func:`find`.
    """
    store, key = open_store(uri)
    attempt(uri, lambda: store.write(key, path))
