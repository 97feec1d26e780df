"""Where the members of a tar file lie: its headers, read once, without its data.

The standard library's reader builds an object of twenty fields for each member and checks much that does not matter
here; it reads the maps of sparse files alone, which are rare. Formats: POSIX ustar and pax, GNU long names, base-256
sizes, sparse files of GNU tar and of pax, and several tar files one behind the other.
"""

from __future__ import annotations

import os
import posixpath
import tarfile
from bisect import bisect_left
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

from rsprune.errors import FormatError
from rsprune.sources.filesystem import Readable, read_at

__all__ = ["Member", "members", "read_member"]

BLOCK = 512
ZERO = bytes(BLOCK)
CHECKSUM = slice(148, 156)
#: How much is read at once: a few thousand headers of empty files, or one header and the small files that follow it.
WINDOW = 1 << 18
#: A longer name or pax header than this is damage: it would be read into memory.
LONGEST_EXTENSION = 1 << 20
#: A sparse file takes this much memory at most; a few blocks of a tar file can stand for any number of zeros.
LARGEST_SPARSE = 1 << 30

#: The kinds of members that hold no bytes of an image.
KINDS = {b"1": "hard link", b"2": "symbolic link", b"3": "character device", b"4": "block device", b"6": "fifo"}
FOLDERS = (b"5", b"D", b"V", b"N")
DAMAGED_MAP = "sparse file with a damaged map"


class Member(NamedTuple):
    """A file in a tar file.

    Attributes
    ----------
    path : str
        Its path.
    offset, size : int
        Where its data begins, and how many bytes it has; a link has those of its target.
    pieces : tuple of (int, int)
        Of a sparse file, the place and the size of each piece of data, which lie one behind the other from ``offset``
        on; zeros are between them.
    problem : str
        Why it cannot be read; empty for a file that can.
    head : bytes
        Its first bytes, as many as were asked for.
    """

    path: str
    offset: int
    size: int
    pieces: tuple[tuple[int, int], ...] = ()
    problem: str = ""
    head: bytes = b""


@dataclass(slots=True)
class _Window:
    """The file, read in pieces of at least ``WINDOW`` bytes."""

    file: int | Readable
    start: int = 0
    data: bytes = b""

    def read(self, offset: int, size: int) -> bytes:
        at = offset - self.start
        if at < 0 or at + size > len(self.data):
            self.data = _read_at(self.file, max(size, WINDOW), offset)
            self.start = offset
            at = 0
        return self.data[at : at + size]


def _read_at(file: int | Readable, size: int, offset: int) -> bytes:
    return read_at(file, size, offset) if isinstance(file, int) else file.read_at(size, offset)


def read_member(file: int | Readable, member: Member) -> bytes:
    """Read the bytes of a member; fewer than its size only if the file ends before."""
    if not member.pieces:
        return _read_at(file, member.size, member.offset)
    data, offset = bytearray(member.size), member.offset
    for start, size in member.pieces:
        piece = _read_at(file, size, offset)
        if len(piece) < size:
            return b""
        data[start : start + size] = piece
        offset += size
    return bytes(data)


def members(file: int | Readable, name: str, head: Callable[[str], int] | None = None) -> list[Member]:
    """List the files of an open tar file, in their order. A file of no bytes has none.

    What follows the mark of the end is read on where it is another tar file. ``head`` says how many bytes of the file
    of a path are kept: of a compressed file they are not to be had later without reading it again.

    Raises
    ------
    FormatError
        If it is cut short, or is no tar file; the message has ``name`` and the offset.
    """
    length = os.fstat(file).st_size if isinstance(file, int) else file.length
    window = _Window(file)
    found: list[Member] = []
    links: dict[int, tuple[bytes, str]] = {}
    offset = first = 0
    ended = not window.read(0, BLOCK)
    long: dict[bytes, str] = {}
    pax: dict[str, str] = {}
    common: dict[str, str] = {}
    while True:
        header = window.read(offset, BLOCK)
        if header == ZERO:
            if not ended:
                _follow(found, links)
            offset, ended, common = offset + BLOCK, True, {}
            continue
        if ended and not header.strip(b"\0"):
            return found
        try:
            if len(header) < BLOCK:
                end = min(offset + len(header), length)
                message = f"{name} ends at byte {end} without the mark of its end: it is not complete"
                raise FormatError(message)
            _check(header, name, offset)
        except FormatError:
            if not ended:
                raise
            problem = "piece of data behind the end of the tar file"
            return [*found, Member("", offset, 0, problem=problem)]
        ended = False
        kind = header[156:157]
        if not (long or pax):
            first = offset
        size = int(pax["size"]) if "size" in pax else _number(header[124:136], name, offset)
        if kind in KINDS or kind == b"5":  # no data follows, whatever their size says
            size = 0
        start = offset + BLOCK
        end = start + size
        if size < 0:
            message = f"{name} is damaged: its member at byte {offset} has the size {size}"
            raise FormatError(message)
        sparse = _sparse(file, first) if kind == b"S" or "sparse" in pax else None
        if sparse is not None and kind == b"S":
            end = max(start, sparse.offset) + size  # its map may go on behind the header
        if end > length:
            message = f"{name} is cut short: its member at byte {offset} needs {end} bytes, the file has {length}"
            raise FormatError(message)
        offset = end + -size % BLOCK
        if kind in (b"L", b"K", b"x", b"X", b"g"):
            if size > LONGEST_EXTENSION:
                message = f"{name} is damaged: a header of {size} bytes at byte {start - BLOCK}"
                raise FormatError(message)
            data = window.read(start, size)
            if kind in (b"L", b"K"):
                long[kind] = _text(data)
            elif kind == b"g":
                common |= _pax(data, name, start)
            else:
                pax = _pax(data, name, start)
            continue
        path = pax.get("GNU.sparse.name") or long.get(b"L") or pax.get("path") or common.get("path") or _path(header)
        if sparse is not None:
            if sparse.offset + sum(size for _, size in sparse.pieces) > end:
                sparse = Member(path, start, 0, problem=DAMAGED_MAP)
            found.append(sparse._replace(path=path))
        elif kind in KINDS:
            if kind in (b"1", b"2"):
                links[len(found)] = kind, long.get(b"K") or pax.get("linkpath") or _text(header[157:257])
            found.append(Member(path, start, 0, problem=KINDS[kind]))
        elif kind not in FOLDERS and not path.endswith("/"):  # how the oldest format marks a folder
            problem = "" if kind in (b"0", b"\0", b"7") else f"member of the type {kind!r}"
            first_bytes = window.read(start, min(size, head(path))) if head and size else b""
            found.append(Member(path, start, size, (), problem, first_bytes))
        long, pax = {}, {}


def _follow(found: list[Member], links: dict[int, tuple[bytes, str]]) -> None:
    """Give links the data of the members that they name: hard links that of an earlier one, symbolic ones of the last.

    The links are taken out of ``links``: a tar file behind this one has its own.
    """
    if not links:
        return
    by_path: dict[str, list[int]] = {}
    for number, member in enumerate(found):
        by_path.setdefault(posixpath.normpath(member.path), []).append(number)

    def target(number: int) -> int | None:
        kind, link = links[number]
        hard = kind == b"1"
        path = posixpath.normpath(link if hard else posixpath.join(posixpath.dirname(found[number].path), link))
        candidates = by_path.get(path, [])
        last = bisect_left(candidates, number) if hard else len(candidates)
        return candidates[last - 1] if last else None

    ends: dict[int, int | None] = {}  # of each link that was followed; None of one that leads nowhere
    for number, (kind, _) in links.items():
        way: list[int] = []
        at = number
        while at in links and at not in ends:
            ends[at] = None  # it stays so if it leads back to itself
            way.append(at)
            if (beyond := target(at)) is None:
                break
            at = beyond
        end = ends[at] if at in links else at
        ends |= dict.fromkeys(way, end)
        if end is None:
            found[number] = found[number]._replace(problem=f"{KINDS[kind]} to no file in it")
        else:
            found[number] = found[end]._replace(path=found[number].path)
    links.clear()


def _sparse(fd: int | Readable, offset: int) -> Member:
    """Read the map of the sparse file whose headers begin at ``offset``."""
    if not isinstance(fd, int):
        return Member("", offset, 0, problem="sparse file in a compressed tar file")
    with os.fdopen(os.dup(fd), "rb") as file:
        file.seek(offset)
        try:
            tar = tarfile.TarFile(fileobj=file, encoding="utf-8", errors="backslashreplace")
            info: Any = tar.next()
            pieces = tuple((start, size) for start, size in info.sparse if size)
        except (tarfile.TarError, ValueError, IndexError, TypeError, AttributeError, OverflowError):
            return Member("", offset, 0, problem=DAMAGED_MAP)
    places = [0, *(place for start, size in pieces for place in (start, start + size)), info.size]
    if places != sorted(places):
        return Member("", info.offset_data, 0, problem=DAMAGED_MAP)
    if info.size > LARGEST_SPARSE:
        return Member("", info.offset_data, 0, problem=f"sparse file of {info.size:,} bytes")
    return Member("", info.offset_data, info.size, pieces or ((0, 0),))


def _check(header: bytes, name: str, offset: int) -> None:
    want = _number(header[CHECKSUM], name, offset)
    if want != sum(header) - sum(header[CHECKSUM]) + 8 * ord(" "):
        message = f"{name} is damaged, or no tar file: the checksum of the header at byte {offset} is wrong"
        raise FormatError(message)


def _number(field: bytes, name: str, offset: int) -> int:
    if field[0] == 0x80:  # base 256, for sizes from 8 GiB on
        return int.from_bytes(field[1:], "big")
    try:
        return int(field.split(b"\0", 1)[0].strip() or b"0", 8)
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
    """The records ``<length> <key>=<value>`` that matter: path, link, size, and if it is sparse. Each ends a line."""
    records = {}
    at = 0
    try:
        while at < len(data):
            blank = data.index(b" ", at, at + 20)
            length = int(data[at:blank])
            key, separator, value = data[blank + 1 : at + length - 1].partition(b"=")
            if at + length <= blank or not separator:
                raise ValueError
            if key in (b"path", b"size", b"linkpath", b"GNU.sparse.name"):
                records[key.decode()] = value.decode("utf-8", "backslashreplace")
            if key.startswith(b"GNU.sparse."):
                records["sparse"] = "yes"
            at += length
        int(records.get("size", 0))
    except ValueError:
        message = f"{name} is damaged: the extended header at byte {offset} has no valid record at {at}"
        raise FormatError(message) from None
    return records
