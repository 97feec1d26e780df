"""The clients of object storage, the Hub and the web, and what becomes of their errors.

Credentials and endpoints come from the environment, as the tools of each provider read them, and are never part of an
address.
"""

from __future__ import annotations

import errno
import os
import random
import re
import time
from collections.abc import Callable, Iterator
from datetime import timedelta
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple, Protocol, TypeVar

from rsprune.errors import MissingDependencyError, OutputError, SourceChangedError, SourceError, needed_by
from rsprune.waiting import waiting_for

__all__ = ["CutShortError", "Store", "StoredObject", "attempt", "open_store"]

T = TypeVar("T")

#: The schemes of addresses that are read.
SCHEMES = ("s3", "gs", "az", "abfs", "abfss", "https", "http", "hf")
#: Seconds before each further attempt, half as much to half as much again: processes that failed together do not come
#: back together. The client has tried a few times before each of them, in the same way.
DELAYS = (0.5, 2.0, 5.0, 15.0)
#: What a request may take, which asks for 8 MiB at most, and how long a connection may give no byte.
REQUEST, PATIENCE = timedelta(minutes=5), timedelta(seconds=30)


class StoredObject(NamedTuple):
    """An object: its address, its size in bytes, and what changes with its content."""

    uri: str
    size: int
    etag: str | None


class CutShortError(OSError):
    """An answer that is not complete."""


class ChangedError(Exception):
    """An object is not the one that was found before."""


class Store(Protocol):
    """What holds objects. Keys are what follows the root of an address."""

    def find(self, uri: str, key: str) -> StoredObject:
        """Look an object up, whose whole address is ``uri``."""

    def list(self, root: str, prefix: str) -> Iterator[StoredObject]:
        """List the objects whose keys begin with ``prefix``; ``root`` is what stands before the keys."""

    def read(self, key: str, start: int, size: int, etag: str | None) -> bytes:
        """Read part of an object, which has not changed since it had that ``etag``."""

    def write(self, key: str, path: Path) -> None:
        """Write a local file to an object."""


class _ObjectStore:
    """A bucket, a container, or a web server."""

    def __init__(self, root: str) -> None:
        with needed_by(f"reading {root}", "buckets"):
            import obstore
            import obstore.store
        endpoint = os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL") or root
        client = {"allow_http": endpoint.startswith("http://"), "timeout": REQUEST, "read_timeout": PATIENCE}
        retries = {"max_retries": 3, "retry_timeout": timedelta(seconds=60)}
        self._obstore: Any = obstore
        self._store = self._obstore.store.from_url(root, client_options=client, retry_config=retries)

    def find(self, uri: str, key: str) -> StoredObject:
        found = self._obstore.head(self._store, key)
        return StoredObject(uri, found["size"], found["e_tag"])

    def list(self, root: str, prefix: str) -> Iterator[StoredObject]:
        for block in self._obstore.list(self._store, prefix or None, chunk_size=1000):
            yield from (StoredObject(root + one["path"], one["size"], one["e_tag"]) for one in block)

    def read(self, key: str, start: int, size: int, etag: str | None) -> bytes:
        options = {"range": (start, start + size)} | ({"if_match": etag} if etag else {})
        found = self._obstore.get(self._store, key, options=options)
        if etag and found.meta["e_tag"] != etag:  # not every server heeds `if_match`
            raise ChangedError
        return bytes(found.bytes())

    def write(self, key: str, path: Path) -> None:
        self._obstore.put(self._store, key, path)


class _Hub:
    """The repositories of the Hugging Face Hub."""

    def __init__(self, root: str) -> None:
        with needed_by(f"reading {root}", "buckets"):
            from huggingface_hub import HfFileSystem

        self._files: Any = HfFileSystem(endpoint=os.environ.get("HF_ENDPOINT"))
        self._root = root.removeprefix("hf://")

    def find(self, uri: str, key: str) -> StoredObject:
        try:
            return self._object(uri, self._files.info(self._root + key))
        except FileNotFoundError:
            self._files.invalidate_cache()  # it takes the folder for an empty one from now on
            raise

    def list(self, root: str, prefix: str) -> Iterator[StoredObject]:
        for path, one in self._files.find(self._root + prefix, detail=True).items():
            yield self._object("hf://" + path, one)

    def read(self, key: str, start: int, size: int, etag: str | None) -> bytes:
        return bytes(self._files.cat_file(self._root + key, start, start + size))

    def write(self, key: str, path: Path) -> None:
        message = f"hf://{self._root}{key} is only read: upload the files with `hf upload`"
        raise OutputError(message)

    @staticmethod
    def _object(uri: str, found: dict[str, Any]) -> StoredObject:
        if found["type"] != "file":
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), uri)
        return StoredObject(uri, found["size"], found.get("blob_id"))


def open_store(uri: str) -> tuple[Store, str]:
    """Return what holds an object, and its key there."""
    scheme, _, rest = uri.partition("://")
    scheme = scheme.lower()
    if scheme not in SCHEMES:
        known = ", ".join(f"{one}://" for one in SCHEMES)
        message = (
            f"{uri!r}: addresses of the form {scheme}:// are not read; expected {known} or a path on the local disk"
        )
        raise SourceError(message)
    host, _, key = rest.partition("/")
    if scheme in ("http", "https") and ("@" in host or "?" in key):
        shown = f"{scheme}://{host.rpartition('@')[2]}/{key.partition('?')[0]}"
        message = f"an address of {shown} with credentials or a query: give the plain address"
        raise SourceError(message)
    if not host:
        message = f"{uri!r} names no bucket or host"
        raise SourceError(message)
    return _store(os.getpid(), f"{uri[: uri.index('://')]}://{host}" + ("/" if scheme == "hf" else "")), key


@lru_cache(maxsize=64)
def _store(process: int, root: str) -> Store:
    """Return the client of a bucket; a process has its own."""
    return attempt(root, lambda: _Hub(root) if root.startswith("hf://") else _ObjectStore(root))


def attempt(uri: str, work: Callable[[], T]) -> T:
    """Do something, again where it may succeed, and name its errors as Python names those of files."""
    with waiting_for(f"an answer of {'/'.join(uri.split('/')[:3])}"):
        return _attempt(uri, work)


def _attempt(uri: str, work: Callable[[], T]) -> T:
    for delay in (*DELAYS, None):
        try:
            return work()
        except (CutShortError, TimeoutError, ConnectionError) as error:
            cause: Exception = error
        except (MissingDependencyError, OutputError, SourceError):
            raise
        except FileNotFoundError:
            raise FileNotFoundError(errno.ENOENT, "no such object, bucket or repository", uri) from None
        except OSError as error:
            if error.errno not in (None, errno.EIO):
                raise
            cause = error
        except Exception as error:
            final = _final(uri, error)
            if final is not None:
                raise final from None
            cause = error
        if delay is not None:
            time.sleep(delay * random.uniform(0.5, 1.5))
    raise OSError(errno.EIO, _reason(cause), uri) from None


def _final(uri: str, error: Exception) -> Exception | None:
    """Return the built-in error for one that another attempt would not change."""
    name, reason = type(error).__name__, _reason(error)
    # Listing has no error of its own for these.
    if re.search("status code: 404|NoSuchBucket", str(error)):
        return FileNotFoundError(errno.ENOENT, "no such object, bucket or repository", uri)
    if name in ("PermissionDeniedError", "UnauthenticatedError") or re.search("status code: 40[13]", str(error)):
        return PermissionError(errno.EACCES, "access is denied to these credentials", uri)
    if re.search(
        r"credential|/latest/api/token|169\.254\.169\.254|metadata\.google|must be specified", str(error), re.IGNORECASE
    ):
        remedy = "AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or AWS_SKIP_SIGNATURE=true for a public bucket"
        remedy = remedy if uri.startswith("s3") else "the variables of the provider's own tools"
        return PermissionError(errno.EACCES, f"no credentials in the environment: set {remedy}", uri)
    if isinstance(error, ChangedError) or name == "PreconditionError":
        return SourceChangedError(
            f"{uri} has changed since it was listed: a collection must not change while it is read"
        )
    if name not in ("GenericError", "JoinError", "HfHubHTTPError", "HTTPError"):
        return SourceError(f"{uri}: {reason}")
    return None


def _reason(error: BaseException) -> str:
    """Return the first line of what a client says, without queries, which may hold a signature."""
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return re.sub(r"\?[^\s'\"]*", "?...", (str(error) or type(error).__name__).splitlines()[0])
