"""Compressed files, read from their beginning to their end."""

from __future__ import annotations

import bz2
import gzip
import lzma
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import IO, Any

from rsprune.errors import FormatError
from rsprune.sources.filesystem import open_binary

__all__ = ["UNPACK", "Unpacked", "open_unpacked"]

#: By extension, what unpacks a file.
UNPACK: dict[str, Callable[..., Any]] = {
    ".tar.gz": gzip.open,
    ".tgz": gzip.open,
    ".tar.bz2": bz2.open,
    ".tar.xz": lzma.open,
}
#: How much of what is passed over is unpacked at a time.
STEP = 1 << 20


class Unpacked:
    """What a compressed file holds, read by ascending places; going back begins anew, but not within the last part."""

    length: float = float("inf")  # it is not known before the end

    def __init__(self, file: IO[bytes], path: str) -> None:
        self.file, self.path = file, path
        self.start, self.data = 0, b""

    def read_at(self, size: int, offset: int) -> bytes:
        """Read up to ``size`` bytes at ``offset``: fewer only at the end."""
        if offset < self.start:
            self.file.seek(0)
            self.start, self.data = 0, b""
        end = self.start + len(self.data)
        while offset > end and (passed := self._read(min(STEP, offset - end))):
            end += len(passed)
            self.data = b""
            self.start = end
        if offset > end:
            return b""
        kept = self.data[offset - self.start :]
        self.data = kept + self._read(size - len(kept)) if size > len(kept) else kept
        self.start = offset
        return self.data[:size]

    def _read(self, size: int) -> bytes:
        try:
            return self.file.read(size)
        except (EOFError, zlib.error, lzma.LZMAError, OSError) as error:
            if isinstance(error, OSError) and error.errno:
                raise
            message = f"{self.path} is cut short or damaged: {error}"
            raise FormatError(message) from error


@contextmanager
def open_unpacked(path: str) -> Iterator[Unpacked]:
    """Open a compressed file."""
    unpack: Any = next(one for extension, one in UNPACK.items() if path.lower().endswith(extension))
    with open_binary(path) as packed, unpack(packed) as file:
        yield Unpacked(file, path)
