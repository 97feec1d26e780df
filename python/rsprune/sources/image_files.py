"""Images in files of their own: what a folder and a list have in common."""

from __future__ import annotations

import errno
import hashlib
import os
import stat
import zlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import islice
from pathlib import Path
from typing import Any

from rsprune.errors import SourceError
from rsprune.sources.base import Item, Shard, Source, check_rows
from rsprune.sources.passing import holds_files

__all__ = ["FileSource", "NamedFile"]

#: About a second of work for one core, so that little is lost with a run, and few enough files in a run folder.
SHARD_IMAGES = 4096

#: Between the names in a packed shard: the one character that no path holds.
SEPARATOR = "\0"

#: The errors that say that there is no file of a name: a link that leads nowhere among them.
NO_FILE = {errno.ENOENT, errno.ENOTDIR, errno.ELOOP, errno.ENAMETOOLONG, errno.EINVAL}

#: (key, label). The file lies at the key, taken from the source's root.
NamedFile = tuple[str, str]


@dataclass(frozen=True, slots=True)
class _Packed:
    """Keys and labels of a shard. Ten million paths take gigabytes as strings, and some 100 MB like this."""

    keys: bytes
    labels: bytes

    @classmethod
    def of(cls, files: Sequence[NamedFile]) -> _Packed:
        return cls(*(zlib.compress(SEPARATOR.join(column).encode(), 1) for column in zip(*files, strict=True)))

    @staticmethod
    def unpack(column: bytes) -> list[str]:
        return zlib.decompress(column).decode().split(SEPARATOR)


class FileSource(Source):
    """Image files in a fixed order.

    Parameters
    ----------
    kind : str
        ``"folder"`` or ``"list"``, for the fingerprint.
    root : Path
        The folder that the keys are relative to.
    files : iterable of (str, str)
        Key and label of each image, in the order of the rows. An empty label stands for none, and a collection counts
        as labelled only if every image has one.
    """

    def __init__(self, kind: str, root: Path, files: Iterable[NamedFile]) -> None:
        self._kind = kind
        self._root = root
        self._packed: dict[str, _Packed] = {}
        self._counts: dict[str, int] = {}
        self._missing: dict[
            str, dict[int, str]
        ] = {}  # by shard and row, why there was no file at the first fingerprint
        self._labelled = True
        shards: list[Shard] = []
        stream = iter(files)
        while block := list(islice(stream, SHARD_IMAGES)):
            shard = Shard(f"part-{len(shards):06d}")
            self._packed[shard.name] = _Packed.of(block)
            self._counts[shard.name] = len(block)
            self._labelled = self._labelled and all(label for _, label in block)
            shards.append(shard)
        self._shards = tuple(shards)

    @property
    def shards(self) -> tuple[Shard, ...]:
        """The shards in the order of the rows."""
        return self._shards

    def read(self, shard: Shard, rows: Sequence[int] | None = None) -> Iterator[Item]:
        """Yield the images of a shard as paths; nothing is opened."""
        packed = self._packed[shard.name]
        keys = self.read_keys(shard)
        labels = packed.unpack(packed.labels)
        for row in check_rows(shard, rows, len(keys)):
            yield Item(keys[row], os.path.join(self._root, keys[row]), labels[row] if self._labelled else None)  # noqa: PTH118

    def read_keys(self, shard: Shard) -> list[str]:
        """Return the keys of a shard."""
        packed = self._packed[shard.name]
        return packed.unpack(packed.keys)

    def count(self, shard: Shard) -> int:
        """Count the images of a shard."""
        return self._counts[shard.name]

    def was_missing(self, shard: Shard, row: int, kind: str) -> bool:
        """Return whether there was no file for an image when the fingerprint was taken."""
        missing = self._missing.get(shard.name)
        return super().was_missing(shard, row, kind) if missing is None else missing.get(row) == kind

    def size(self, shard: Shard) -> int:
        """Return how many bytes the files of a shard have together; those that are missing have none."""
        return sum(status.st_size for *_, status in self._files(shard) if not isinstance(status, OSError))

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
        for row, (path, key, status) in enumerate(self._files(shard)):
            if isinstance(status, OSError):
                if status.errno not in NO_FILE:
                    raise status
                if not folder_holds_files(os.path.dirname(path)):  # noqa: PTH120
                    message = (
                        f"{path} is not there, and neither is any other file of its folder: mount or restore the "
                        "folder, or leave its images out of the list"
                    )
                    raise SourceError(message)
                missing[row] = "not_found" if status.errno == errno.ENOENT else "io"
            elif stat.S_ISDIR(status.st_mode):
                missing[row] = "is_directory"
            size = None if isinstance(status, OSError) else status.st_size
            digest.update(f"{key}{SEPARATOR}{size}{SEPARATOR}".encode())
        self._missing.setdefault(shard.name, missing)
        return digest.hexdigest()

    def _files(self, shard: Shard) -> Iterator[tuple[str, str, os.stat_result | OSError]]:
        """Yield the path and the key of every file, and what the system says of it."""
        for key in self.read_keys(shard):
            path = os.path.join(self._root, key)  # noqa: PTH118
            try:
                yield path, key, os.stat(path)  # noqa: PTH116
            except OSError as error:
                yield path, key, error
