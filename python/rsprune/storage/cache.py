"""Local copies of objects, and objects read ahead into memory."""

from __future__ import annotations

import os
import re
import tempfile
import threading
from collections import OrderedDict, deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from functools import lru_cache
from pathlib import Path

from rsprune.storage.clients import StoredObject
from rsprune.storage.objects import find, is_remote, read_range, recall
from rsprune.temporaries import folder_for_copies

__all__ = ["download", "fetch", "fetch_ahead", "read_many", "requests_of"]

#: Bytes of one request, and the requests that are under way at a time: of one object, and of all that is read ahead.
RANGE, RANGES, CONNECTIONS = 8 << 20, 8, 32
#: What :func:`read_many` holds in memory; larger objects go to the disk.
READ_AHEAD, LARGE = 64 << 20, 16 << 20
#: Bytes of the disk that fetched objects take, unless ``RSPRUNE_CACHE_BYTES`` says otherwise, and how many of the
#: latest are kept however large they are: readers may still refer to them.
CACHE_BYTES, KEPT = 16 << 30, 4


def fetch(uri: str) -> Path:
    """Return the path of a local copy of an object, which is in the cache for as long as there is room.

    Raises
    ------
    FileNotFoundError, PermissionError, OSError
        See :func:`find`; also a full disk.
    """
    return _cache().fetch(uri)


def requests_of(uri: str, size: int) -> int:
    """Return how many requests it takes to fetch a file of so many bytes; 0 for a local one."""
    return 1 + -(-size // RANGE) if is_remote(uri) else 0


def fetch_ahead(uri: str) -> None:
    """Begin to fetch an object that will be wanted soon. Whatever goes wrong shows when it is."""
    _cache().read_ahead(uri)


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


class _Cache:
    """Copies of objects on the local disk, which go with the process; the oldest make room for new ones."""

    def __init__(self) -> None:
        self._folder = folder_for_copies()
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
            found = recall(uri)
            self._make_room(found.size)
            path = Path(tempfile.mkdtemp(dir=self._folder), re.sub(r"[^\w.-]", "_", uri.rpartition("/")[2])[-80:])
            download(found, path)
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


def download(found: StoredObject, path: Path) -> None:
    """Write an object to a local file, several ranges at a time."""
    with path.open("wb") as file, ThreadPoolExecutor(RANGES, "rsprune-range") as pool:
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
