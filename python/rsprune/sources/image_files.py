"""Images in files of their own: what a folder and a list have in common."""

from __future__ import annotations

import hashlib
import os
import zlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

from rsprune.sources.base import Item, Shard, Source, check_rows

__all__ = ["FileSource", "NamedFile"]

#: About a second of work for one core, so that little is lost with a run, and few enough files in a run folder.
SHARD_IMAGES = 4096

#: Between the names in a packed shard: the one character that no path holds.
SEPARATOR = "\0"

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

    def size(self, shard: Shard) -> int:
        """Return how many bytes the files of a shard have together; those that are missing have none."""
        return sum(size for _, size in self._sizes(shard) if size is not None)

    def fingerprint(self) -> dict[str, Any]:
        """Identify the files by their keys and sizes: a digest a shard."""
        shards = [{"name": s.name, "images": self.count(s), "digest": self._digest(s)} for s in self._shards]
        return {"kind": self._kind, "shards": shards}

    def _digest(self, shard: Shard) -> str:
        """Digest every file's key and size."""
        digest = hashlib.blake2b(digest_size=16)
        for key, size in self._sizes(shard):
            digest.update(f"{key}{SEPARATOR}{size}{SEPARATOR}".encode())
        return digest.hexdigest()

    def _sizes(self, shard: Shard) -> Iterator[tuple[str, int | None]]:
        """Yield the key and the size of every file; None where it is missing."""
        packed = self._packed[shard.name]
        for key in packed.unpack(packed.keys):
            try:
                yield key, os.stat(os.path.join(self._root, key)).st_size  # noqa: PTH116, PTH118
            except OSError:
                yield key, None
