"""Object storage, the Hub and the web: the one place that knows what ``s3://`` and the like stand for.

Whole objects are fetched into a cache on the local disk, in ranges that several connections read; small ones are read
into memory, some ahead. Every request is tried again, with back-off, until it has been answered in full. Credentials
and endpoints come from the environment, as the tools of each provider read them, and are never part of an address.
"""

from __future__ import annotations

import atexit
import errno
import importlib
import os
import re
import shutil
import tempfile
import threading
import time
from collections import OrderedDict, deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from datetime import timedelta
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple, Protocol, TypeGuard, TypeVar

from rsprune.errors import MissingDependencyError, OutputError, SourceError

__all__ = [
    "StoredObject",
    "fetch",
    "fetch_ahead",
    "find",
    "glob_objects",
    "is_remote",
    "list_objects",
    "read_many",
    "read_range",
    "upload",
]

T = TypeVar("T")

#: The schemes of addresses, and who reads them.
SCHEMES = {"s3": "obstore", "s3a": "obstore", "gs": "obstore", "az": "obstore", "abfs": "obstore", "abfss": "obstore"}
SCHEMES |= {"http": "obstore", "https": "obstore", "hf": "huggingface_hub"}
#: How an address begins.
ADDRESS = re.compile(r"([a-z][a-z0-9+.-]*)://", re.IGNORECASE)

#: Bytes of one request, and the requests that are under way at a time.
RANGE, CONNECTIONS = 8 << 20, 32
#: What :func:`read_many` holds in memory; larger objects go to the disk.
READ_AHEAD, LARGE = 64 << 20, 16 << 20
#: Seconds before each further attempt. The client has tried several times before each of them.
DELAYS = (0.2, 1.0, 3.0)
#: Seconds without a byte after which a connection is given up.
PATIENCE = 30
#: Bytes of the disk that fetched objects take, unless ``RSPRUNE_CACHE_BYTES`` says otherwise, and how many of the
#: latest are kept however large they are: readers may still refer to them.
CACHE_BYTES, KEPT = 16 << 30, 4


class StoredObject(NamedTuple):
    """An object: its address, its size in bytes, and what changes with its content."""

    uri: str
    size: int
    etag: str | None


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
    store, key = _open(uri)
    return _try(uri, lambda: store.find(uri, key))


def list_objects(folder: str) -> list[StoredObject]:
    """List the objects below a folder, in ascending order of their addresses; the errors are those of :func:`find`."""
    store, key = _open(folder)
    prefix = key.rstrip("/") + "/" if key.strip("/") else ""
    found = _try(folder, lambda: list(store.list(folder[: len(folder) - len(key)], prefix)))
    return sorted(one for one in found if not one.uri.endswith("/"))  # consoles make empty objects for folders


def glob_objects(pattern: str) -> list[str]:
    """List the addresses that match a pattern, in ascending order: ``*`` and ``?`` within a folder, ``**/`` across."""
    folder = re.split(r"[*?[]", pattern, maxsplit=1)[0].rpartition("/")[0]
    # glob.translate() comes with Python 3.13.
    words = {"**/": "(?:.*/)?", "*": "[^/]*", "?": "[^/]"}
    parts = re.split(r"(\*\*/|\*|\?|\[[^]]+\])", pattern)
    regex = re.compile("".join(words.get(one, one if one.startswith("[") else re.escape(one)) for one in parts))
    return [one.uri for one in list_objects(folder) if regex.fullmatch(one.uri)]


def read_range(uri: str, start: int, size: int, etag: str | None = None) -> bytes:
    """Read part of an object, all of it or none; the errors are those of :func:`find`."""
    store, key = _open(uri)

    def read() -> bytes:
        data = store.read(key, start, size, etag) if size else b""
        if len(data) != size:
            raise _CutShort(errno.EIO, f"{len(data)} bytes in place of {size}", uri)
        return data

    return _try(uri, read)


def read_many(objects: Iterable[StoredObject]) -> Iterator[bytes | str]:
    """Yield the content of each object, in order; of a large one, the path of a local copy.

    At most 64 MiB and 64 objects are read ahead. A size below 0 is one that is not known.
    """
    pending: deque[tuple[Future[bytes | str], int]] = deque()
    held = 0

    def read(one: StoredObject) -> bytes | str:
        if one.size < 0:
            one = find(one.uri)
        return os.fspath(fetch(one.uri)) if one.size > LARGE else read_range(one.uri, 0, one.size, one.etag)

    with ThreadPoolExecutor(CONNECTIONS, "rsprune-read") as pool:
        try:
            for one in objects:
                size = max(one.size, 0) if one.size <= LARGE else 0
                while pending and (held + size > READ_AHEAD or len(pending) >= 2 * CONNECTIONS):
                    future, done = pending.popleft()
                    held -= done
                    yield future.result()
                pending.append((pool.submit(read, one), size))
                held += size
            while pending:
                yield pending.popleft()[0].result()
        finally:
            pool.shutdown(wait=False, cancel_futures=True)


def fetch(uri: str) -> Path:
    """Return the path of a local copy of an object, which is in the cache for as long as there is room.

    Raises
    ------
    FileNotFoundError, PermissionError, OSError
        See :func:`find`; also a full disk.
    """
    return _cache().fetch(uri)


def fetch_ahead(uri: str) -> None:
    """Begin to fetch an object that will be wanted soon. Whatever goes wrong shows when it is."""
    _cache().read_ahead(uri)


def upload(path: Path, uri: str) -> None:
    """Write a local file to an object.

    Raises
    ------
    OutputError
        The address is one that is only read.
    PermissionError, OSError
        See :func:`find`.
    """
    store, key = _open(uri)
    _try(uri, lambda: store.write(key, path))


class _CutShort(OSError):
    """An answer that is not complete."""


class _Store(Protocol):
    """What holds objects. Keys are what follows the root of an address."""

    def find(self, uri: str, key: str) -> StoredObject: ...

    def list(self, root: str, prefix: str) -> Iterator[StoredObject]: ...

    def read(self, key: str, start: int, size: int, etag: str | None) -> bytes: ...

    def write(self, key: str, path: Path) -> None: ...


class _ObjectStore:
    """A bucket, a container, or a web server."""

    def __init__(self, root: str) -> None:
        obstore = _import("obstore", "buckets")
        endpoint = os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL") or root
        # No limit for a whole request: ranges of a slow connection take what they take, as long as bytes come.
        client = {"allow_http": endpoint.startswith("http://"), "timeout": "1h", "read_timeout": f"{PATIENCE}s"}
        retries = {"max_retries": 8, "retry_timeout": timedelta(seconds=60)}
        importlib.import_module("obstore.store")
        self._store = obstore.store.from_url(root, client_options=client, retry_config=retries)
        self._obstore = obstore

    def find(self, uri: str, key: str) -> StoredObject:
        found = self._obstore.head(self._store, key)
        return StoredObject(uri, found["size"], found["e_tag"])

    def list(self, root: str, prefix: str) -> Iterator[StoredObject]:
        for block in self._obstore.list(self._store, prefix or None, chunk_size=1000):
            yield from (StoredObject(root + one["path"], one["size"], one["e_tag"]) for one in block)

    def read(self, key: str, start: int, size: int, etag: str | None) -> bytes:
        options = {"range": (start, start + size)} | ({"if_match": etag} if etag else {})
        return bytes(self._obstore.get(self._store, key, options=options).bytes())

    def write(self, key: str, path: Path) -> None:
        self._obstore.put(self._store, key, path)


class _Hub:
    """The repositories of the Hugging Face Hub."""

    def __init__(self, root: str) -> None:
        self._files: Any = _import("huggingface_hub", "buckets").HfFileSystem()
        self._root = root.removeprefix("hf://")

    def find(self, uri: str, key: str) -> StoredObject:
        return self._object(uri, self._files.info(self._root + key))

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


def _import(name: str, extra: str) -> Any:
    try:
        return importlib.import_module(name)
    except ImportError as error:
        message = f"reading addresses needs {name}: pip install 'rsprune[{extra}]'"
        raise MissingDependencyError(message) from error


def _open(uri: str) -> tuple[_Store, str]:
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
    return _stores(os.getpid(), f"{uri[: uri.index('://')]}://{host}" + ("/" if scheme == "hf" else "")), key


@lru_cache(maxsize=64)
def _stores(process: int, root: str) -> _Store:
    """Return the client of a bucket; a process has its own."""
    return _try(root, lambda: _Hub(root) if root.startswith("hf://") else _ObjectStore(root))


def _try(uri: str, work: Callable[[], T]) -> T:
    """Do something, again where it may succeed, and name its errors as Python names those of files."""
    for delay in (*DELAYS, None):
        try:
            return work()
        except (_CutShort, TimeoutError, ConnectionError) as error:
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
            time.sleep(delay)
    raise OSError(errno.EIO, _reason(cause), uri) from None


def _final(uri: str, error: Exception) -> Exception | None:
    """Return the built-in error for one that another attempt would not change."""
    name, reason = type(error).__name__, _reason(error)
    # Listing has no error of its own for these.
    if re.search("status code: 404|NoSuchBucket", str(error)):
        return FileNotFoundError(errno.ENOENT, "no such object, bucket or repository", uri)
    if name in ("PermissionDeniedError", "UnauthenticatedError") or re.search("status code: 40[13]", str(error)):
        return PermissionError(errno.EACCES, "access is denied to these credentials", uri)
    if re.search(r"credential|169\.254\.169\.254|metadata\.google|must be specified", str(error), re.IGNORECASE):
        remedy = "AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or AWS_SKIP_SIGNATURE=true for a public bucket"
        remedy = remedy if uri.startswith("s3") else "the variables of the provider's own tools"
        return PermissionError(errno.EACCES, f"no credentials in the environment: set {remedy}", uri)
    if name == "PreconditionError":
        return SourceError(f"{uri} has changed since it was listed: a collection must not change while it is read")
    if name not in ("GenericError", "JoinError", "HfHubHTTPError", "HTTPError"):
        return SourceError(f"{uri}: {reason}")
    return None


def _reason(error: BaseException) -> str:
    """Return the first line of what a client says, without queries, which may hold a signature."""
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return re.sub(r"\?[^\s'\"]*", "?...", (str(error) or type(error).__name__).splitlines()[0])


class _Cache:
    """Copies of objects on the local disk, which go with the process; the oldest make room for new ones."""

    def __init__(self) -> None:
        parent = os.environ.get("RSPRUNE_CACHE") or None
        if parent:
            Path(parent).mkdir(parents=True, exist_ok=True)
        self._folder = Path(tempfile.mkdtemp(prefix="rsprune-", dir=parent))
        atexit.register(shutil.rmtree, self._folder, ignore_errors=True)
        self._limit = int(os.environ.get("RSPRUNE_CACHE_BYTES") or CACHE_BYTES)
        self._copies: OrderedDict[str, Future[tuple[Path, int]]] = OrderedDict()
        self._lock = threading.Lock()
        self._ahead = ThreadPoolExecutor(1, "rsprune-fetch")

    def fetch(self, uri: str) -> Path:
        copy, own = self._copy(uri)
        if own:
            self._fill(uri, copy)
        return copy.result()[0]

    def read_ahead(self, uri: str) -> None:
        copy, own = self._copy(uri)
        if own:
            self._ahead.submit(self._fill, uri, copy)

    def _copy(self, uri: str) -> tuple[Future[tuple[Path, int]], bool]:
        """Return the copy of an object that is there or under way, and whether the caller is to make it."""
        with self._lock:
            if own := uri not in self._copies:
                self._copies[uri] = Future()
            self._copies.move_to_end(uri)
            return self._copies[uri], own

    def _fill(self, uri: str, copy: Future[tuple[Path, int]]) -> None:
        try:
            found = find(uri)
            self._make_room(found.size)
            path = Path(tempfile.mkdtemp(dir=self._folder), re.sub(r"[^\w.-]", "_", uri.rpartition("/")[2])[-80:])
            _download(found, path)
            copy.set_result((path, found.size))
        except BaseException as error:
            with self._lock:
                self._copies.pop(uri, None)
            copy.set_exception(error)

    def _make_room(self, size: int) -> None:
        with self._lock:
            there = [
                (uri, *copy.result()) for uri, copy in self._copies.items() if copy.done() and not copy.exception()
            ]
            held = size + sum(one for *_, one in there)
            for uri, path, one in there[:-KEPT]:
                if held <= self._limit:
                    break
                del self._copies[uri]
                path.unlink(missing_ok=True)
                held -= one


def _download(found: StoredObject, path: Path) -> None:
    """Write a copy of an object, several ranges at a time."""
    with path.open("wb") as file, ThreadPoolExecutor(min(8, CONNECTIONS), "rsprune-range") as pool:
        descriptor = file.fileno()

        def copy(start: int) -> None:
            data = read_range(found.uri, start, min(RANGE, found.size - start), found.etag)
            os.pwrite(descriptor, data, start)

        try:
            for done in [pool.submit(copy, start) for start in range(0, found.size, RANGE)]:
                done.result()
        except BaseException:
            pool.shutdown(cancel_futures=True)
            path.unlink(missing_ok=True)
            raise


@lru_cache(maxsize=1)
def _cache_of(process: int) -> _Cache:
    return _Cache()


def _cache() -> _Cache:
    return _cache_of(os.getpid())
