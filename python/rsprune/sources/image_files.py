"""Images in files of their own: what a folder and a list have in common."""

from __future__ import annotations

import errno
import hashlib
import os
import zlib
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache, partial
from itertools import islice
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from rsprune.errors import SourceError
from rsprune.sources.base import Item, Shard, Source, check_rows
from rsprune.sources.filesystem import changed, file_size, join, stamp_of
from rsprune.sources.passing import holds_files
from rsprune.storage import StoredObject, is_remote, read_many

__all__ = ["FileSource", "NamedFile"]

#: About a second of work for one core, so that little is lost with a run, and few enough files in a run folder.
SHARD_IMAGES = 4096

#: Threads that ask the system for the sizes of files, and how many files each asks for in a row.
STAT_THREADS, STAT_BLOCK = 16, 256

#: Between the names in a packed shard: the one character that no path holds.
SEPARATOR = "\0"

#: The errors that say that there is no file of a name: a link that leads nowhere among them.
NO_FILE = {errno.ENOENT, errno.ENOTDIR, errno.ELOOP, errno.ENAMETOOLONG, errno.EINVAL}


class NamedFile(NamedTuple):
    """An image file.

    It lies at its key, from the source's root on, or at a path of its own; its size is -1 where it is not known.
    """

    key: str
    label: str
    size: int = -1
    path: str = ""


class _Packed(NamedTuple):
    """The files of a shard. Ten million paths take gigabytes as strings, and some 100 MB like this."""

    keys: bytes
    labels: bytes
    sizes: bytes
    paths: bytes

    @classmethod
    def of(cls, files: Sequence[NamedFile]) -> _Packed:
        keys, labels, sizes, paths = zip(*files, strict=True)
        texts = [SEPARATOR.join(column).encode() for column in (keys, labels, paths)]
        columns = texts[0], texts[1], np.array(sizes, np.int64).tobytes(), texts[2]
        return cls(*(zlib.compress(column, 1) for column in columns))

    @staticmethod
    def unpack(column: bytes) -> list[str]:
        return zlib.decompress(column).decode().split(SEPARATOR)


class FileSource(Source):
    """Image files in a fixed order.

    Parameters
    ----------
    kind : str
        ``"folder"`` or ``"list"``, for the fingerprint.
    root : path
        The folder that the keys are relative to, or its address.
    files : iterable of NamedFile
        The images in the order of the rows. An empty label stands for none, and a collection counts as labelled only
        if every image has one.
    """

    def __init__(self, kind: str, root: str | os.PathLike[str], files: Iterable[NamedFile]) -> None:
        self._kind = kind
        self._root = os.fspath(root)
        self._packed: dict[str, _Packed] = {}
        self._counts: dict[str, int] = {}
        # By shard and row, why there was no file when the fingerprint was taken first.
        self._missing: dict[str, dict[int, str]] = {}
        self._labelled = True
        shards: list[Shard] = []
        stream = iter(files)
        while block := list(islice(stream, SHARD_IMAGES)):
            shard = Shard(f"part-{len(shards):06d}")
            self._packed[shard.name] = _Packed.of(block)
            self._counts[shard.name] = len(block)
            self._labelled = self._labelled and all(file.label for file in block)
            shards.append(shard)
        self._shards = tuple(shards)

    @property
    def shards(self) -> tuple[Shard, ...]:
        """The shards in the order of the rows."""
        return self._shards

    def read(self, shard: Shard, rows: Sequence[int] | None = None) -> Iterator[Item]:
        """Yield the images of a shard: local files as paths, unopened; what lies at addresses as bytes."""
        packed = self._packed[shard.name]
        keys = self.read_keys(shard)
        labels = self._read_labels(packed, keys)
        rows = check_rows(shard, rows, len(keys))
        missing = self._missing.get(shard.name, {})
        places = self._places(shard)
        paths = {row: places[row] for row in rows}
        remote = {row: path for row, path in paths.items() if row not in missing and is_remote(path)}
        sizes = self._sizes(shard)
        read = read_many(StoredObject(path, int(sizes[row]), None) for row, path in remote.items())
        for row, path in paths.items():
            data = next(read) if row in remote else path
            yield Item(keys[row], data, labels[row])

    def _read_labels(self, packed: _Packed, keys: Sequence[str]) -> Sequence[str | None]:
        """Return the classes of a shard's images."""
        return packed.unpack(packed.labels) if self._labelled else [None] * len(keys)

    def read_keys(self, shard: Shard) -> list[str]:
        """Return the keys of a shard."""
        packed = self._packed[shard.name]
        return packed.unpack(packed.keys)

    def read_labels(self, shard: Shard) -> list[str | None]:
        """Return the classes of a shard's images."""
        return list(self._read_labels(self._packed[shard.name], self.read_keys(shard)))

    def count(self, shard: Shard) -> int:
        """Count the images of a shard."""
        return self._counts[shard.name]

    def requests(self, shard: Shard) -> int:
        """Return how many requests it takes to read a shard: one a file."""
        return self.count(shard) if is_remote(self._root) else 0

    def was_missing(self, shard: Shard, row: int, kind: str) -> bool:
        """Return whether there was no file for an image when the fingerprint was taken."""
        missing = self._missing.get(shard.name)
        return super().was_missing(shard, row, kind) if missing is None else missing.get(row) == kind

    def check_unchanged(self, shard: Shard) -> None:
        """Compare the sizes of a shard's local files with those that the fingerprint has."""
        sizes = self._sizes(shard).tolist()
        for path, size in zip(self._places(shard), sizes, strict=True):
            if size >= 0 and not is_remote(path) and (now := stamp_of(path)) is not None and now[0] != size:
                raise changed(path)

    def size(self, shard: Shard) -> int:
        """Return how many bytes the files of a shard have together; those that are missing have none."""
        known = self._sizes(shard)
        sizes = known.tolist() if (known >= 0).all() else [size for *_, size in self._files(shard)]
        return sum(size for size in sizes if not isinstance(size, OSError))

    def fingerprint(self) -> dict[str, Any]:
        """Identify the files by their keys and sizes: a digest a shard."""
        shards = [{"name": s.name, "images": self.count(s), "digest": self._digest(s)} for s in self._shards]
        return {"kind": self._kind, "shards": shards}

    def _digest(self, shard: Shard) -> str:
        """Digest every file's key and size.

        A file that is missing from a folder that holds others is one that the list names in vain. Anything else that
        the system says of a file may pass, and must not become part of what identifies the collection.
        """
        folder_holds_files = lru_cache(maxsize=64)(holds_files)
        digest = hashlib.blake2b(digest_size=16)
        missing = {}
        files = list(self._files(shard))
        for row, (path, key, size) in enumerate(files):
            if isinstance(size, IsADirectoryError):
                missing[row] = "is_directory"
            elif isinstance(size, OSError):
                if size.errno not in NO_FILE:
                    raise size
                if not is_remote(path) and not folder_holds_files(os.path.dirname(path)):  # noqa: PTH120
                    message = (
                        f"{path} is not there, and neither is any other file of its folder: mount or restore the "
                        "folder, or leave its images out of the list"
                    )
                    raise SourceError(message)
                missing[row] = "not_found" if size.errno == errno.ENOENT else "io"
            digest.update(f"{key}{SEPARATOR}{None if isinstance(size, OSError) else size}{SEPARATOR}".encode())
        self._missing.setdefault(shard.name, missing)
        # Whoever asks for sizes from now on need not ask the system once more for each of millions of files.
        sizes = np.array([-1 if isinstance(size, OSError) else size for *_, size in files], np.int64)
        self._packed[shard.name] = self._packed[shard.name]._replace(sizes=zlib.compress(sizes.tobytes(), 1))
        return digest.hexdigest()

    def _sizes(self, shard: Shard) -> NDArray[np.int64]:
        return np.frombuffer(zlib.decompress(self._packed[shard.name].sizes), np.int64)

    def _places(self, shard: Shard) -> list[str]:
        """Return where the files of a shard lie."""
        packed = self._packed[shard.name]
        pairs = zip(packed.unpack(packed.paths), packed.unpack(packed.keys), strict=True)
        return [join(self._root, path or key) for path, key in pairs]

    def _files(self, shard: Shard) -> Iterator[tuple[str, str, int | OSError]]:
        """Yield the path and the key of every file, and its size or what the system says of it."""
        places, sizes = self._places(shard), self._sizes(shard).tolist()
        if any(size < 0 for size in sizes):
            # A network file system is slow to answer one question after another, and quick to answer many at once.
            blocks = [range(start, min(start + STAT_BLOCK, len(sizes))) for start in range(0, len(sizes), STAT_BLOCK)]
            with ThreadPoolExecutor(STAT_THREADS) as pool:
                sizes = [size for block in pool.map(partial(_ask, places, sizes), blocks) for size in block]
        yield from zip(places, self.read_keys(shard), sizes, strict=True)


def _ask(places: list[str], sizes: list[int], rows: range) -> list[int | OSError]:
    """Ask the system for the sizes that are not known of some files."""
    found: list[int | OSError] = []
    for row in rows:
        try:
            found.append(file_size(places[row]) if sizes[row] < 0 else sizes[row])
        except OSError as error:
            found.append(error)
    return found
