"""Where the members of a tar file lie: its headers, read once, without its data.

The standard library's reader builds an object of twenty fields for each member and checks much that does not matter
here. Formats: POSIX ustar and pax, GNU long names, base-256 sizes.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

from rsprune.errors import FormatError
from rsprune.sources.filesystem import read_at

__all__ = ["Member", "members"]

BLOCK = 512
ZERO = bytes(BLOCK)
CHECKSUM = slice(148, 156)
#: How much is read at once: a few thousand headers of empty files, or one header and the small files that follow it.
WINDOW = 1 << 18
#: A longer name or pax header than this is damage: it would be read into memory.
LONGEST_EXTENSION = 1 << 20


class Member(NamedTuple):
    """A regular file in a tar file: its path, and where its data lies, in bytes."""

    path: str
    offset: int
    size: int


@dataclass(slots=True)
class _Window:
    """The file, read in pieces of at least ``WINDOW`` bytes."""

    fd: int
    start: int = 0
    data: bytes = b""

    def read(self, offset: int, size: int) -> bytes:
        at = offset - self.start
        if at < 0 or at + size > len(self.data):
            self.data = read_at(self.fd, max(size, WINDOW), offset)
            self.start = offset
            at = 0
        return self.data[at : at + size]


def members(fd: int, name: str) -> Iterator[Member]:
    """Yield the regular files of the tar file open at ``fd``, in their order.

    Raises
    ------
    FormatError
        If it is cut short, or is no tar file; the message has ``name`` and the offset.
    """
    length = os.fstat(fd).st_size
    window = _Window(fd)
    offset = 0
    longname: str | None = None
    pax: dict[str, str] = {}
    common: dict[str, str] = {}
    while True:
        header = window.read(offset, BLOCK)
        if header == ZERO:
            return
        if len(header) < BLOCK:
            message = f"{name} ends at byte {length} without the mark of its end: it is not complete"
            raise FormatError(message)
        _check(header, name, offset)
        kind = header[156:157]
        size = int(pax["size"]) if "size" in pax else _number(header[124:136], name, offset)
        start = offset + BLOCK
        end = start + size
        if size < 0:
            message = f"{name} is damaged: its member at byte {offset} has the size {size}"
            raise FormatError(message)
        if end > length:
            message = f"{name} is cut short: its member at byte {offset} needs {end} bytes, the file has {length}"
            raise FormatError(message)
        offset = end + -size % BLOCK
        if kind in b"LKxg":
            if size > LONGEST_EXTENSION:
                message = f"{name} is damaged: a header of {size} bytes at byte {start - BLOCK}"
                raise FormatError(message)
            data = window.read(start, size)
            if kind == b"L":
                longname = _text(data)
            elif kind == b"x":
                pax = _pax(data, name, start)
            elif kind == b"g":
                common |= _pax(data, name, start)
            continue
        if kind in (b"0", b"\0", b"7"):
            path = longname or pax.get("path") or common.get("path") or _path(header)
            if not path.endswith("/"):  # how the oldest format marks a folder
                yield Member(path, start, size)
        longname, pax = None, {}


def _check(header: bytes, name: str, offset: int) -> None:
    want = _number(header[CHECKSUM], name, offset)
    if want != sum(header) - sum(header[CHECKSUM]) + 8 * ord(" "):
        message = f"{name} is damaged, or no tar file: the checksum of the header at byte {offset} is wrong"
        raise FormatError(message)


def _number(field: bytes, name: str, offset: int) -> int:
    if field[0] == 0x80:  # base 256, for sizes from 8 GiB on
        return int.from_bytes(field[1:], "big")
    try:
        return int(field.rstrip(b"\0 ").strip() or b"0", 8)
    except ValueError:
        message = f"{name} is damaged, or no tar file: {field!r} in the header at byte {offset} is not a number"
        raise FormatError(message) from None


def _text(field: bytes) -> str:
    return field.split(b"\0", 1)[0].decode("utf-8", "backslashreplace")


def _path(header: bytes) -> str:
    path = _text(header[:100])
    prefix = _text(header[345:500]) if header[257:263] == b"ustar\0" else ""
    return f"{prefix}/{path}" if prefix else path


def _pax(data: bytes, name: str, offset: int) -> dict[str, str]:
    """The records ``<length> <key>=<value>`` that matter: path and size. Each ends in a line feed."""
    records = {}
    at = 0
    try:
        while at < len(data):
            digits, _, _ = data[at:].partition(b" ")
            length = int(digits)
            key, separator, value = data[at + len(digits) + 1 : at + length - 1].partition(b"=")
            if length <= len(digits) or not separator:
                raise ValueError
            if key in (b"path", b"size"):
                records[key.decode()] = value.decode("utf-8", "backslashreplace")
            at += length
        int(records.get("size", 0))
    except ValueError:
        message = f"{name} is damaged: the extended header at byte {offset} has no valid record at {at}"
        raise FormatError(message) from None
    return records
