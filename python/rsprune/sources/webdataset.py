"""Tar files in the WebDataset layout: one tar file is one shard."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import quote

from rsprune.errors import EmptyInputError, FormatError, SourceError
from rsprune.sources.base import IMAGE_EXTENSIONS, Item, Shard, Source, check_rows
from rsprune.sources.tar import Member, members, read_at

__all__ = ["TarSource", "expand_braces"]

#: Extensions that hold images in a tar file: those of image files, and that of RS5M.
TAR_IMAGE_EXTENSIONS = frozenset((*IMAGE_EXTENSIONS, ".img_content"))

#: A member's key is its path up to the first dot of its file name, which may not begin with one; the rest is its kind.
SAMPLE = re.compile(r"(?s)((?:.*/)?[^./][^./]*)(\.[^/]*)")


class TarSource(Source):
    """Tar files with images.

    The key of an image is WebDataset's: its path in the tar file up to the first dot of its file name. What is not an
    image (captions, metadata) is passed over. If all images of a tar file lie in folders then those of the first level
    are the classes. Nothing is read before :meth:`read`; that reads the headers of one tar file, and then the images
    asked for, each from its place.

    Parameters
    ----------
    paths : sequence of Path
        The tar files. Their order does not matter: shards are ordered by name.

    Raises
    ------
    SourceError
        If a file is given twice.
    """

    def __init__(self, paths: Sequence[Path]) -> None:
        absolute = [Path(os.path.abspath(path)) for path in paths]  # noqa: PTH100 (resolve() would follow links)
        for path in absolute:
            path.stat()  # a missing file is an error now, not hours later
        twice = {path for path in absolute if absolute.count(path) > 1} if len(set(absolute)) < len(absolute) else None
        if twice:
            message = f"given more than once: {', '.join(sorted(map(str, twice)))}"
            raise SourceError(message)
        self._root = Path(os.path.commonpath([path.parent for path in absolute]))
        self._paths = dict(sorted(zip(_names(absolute, self._root), absolute, strict=True)))
        self._shards = tuple(map(Shard, self._paths))
        self._counts: dict[str, int] = {}

    @property
    def shards(self) -> tuple[Shard, ...]:
        """The shards in the order of the rows."""
        return self._shards

    def read(self, shard: Shard, rows: Sequence[int] | None = None) -> Iterator[Item]:
        """Yield the images of a shard: see :meth:`Source.read`."""
        path = self._paths[shard.name]
        with _opened(path) as fd:
            images = list(_images(fd, path))
            labelled = all(_folder(member.path) for _, member in images)
            for row in check_rows(shard, rows, len(images)):
                key, member = images[row]
                data = read_at(fd, member.size, member.offset)
                if len(data) < member.size:
                    message = f"{path} was cut short while it was read: {member.path} ends too early"
                    raise FormatError(message)
                yield Item(key, data, _folder(member.path) if labelled else None)

    def count(self, shard: Shard) -> int:
        """Say how many images a shard has: reads the headers of its file, once."""
        if shard.name not in self._counts:
            path = self._paths[shard.name]
            with _opened(path) as fd:
                self._counts[shard.name] = sum(1 for _ in _images(fd, path))
        return self._counts[shard.name]

    def size(self, shard: Shard) -> int:
        """Say how many bytes a shard has."""
        return self._paths[shard.name].stat().st_size

    def fingerprint(self) -> dict[str, Any]:
        """Say what the input is: see :meth:`Source.fingerprint`."""
        shards = [{"name": shard.name, "bytes": self.size(shard)} for shard in self._shards]
        return {"kind": "webdataset", "shards": shards}


def expand_braces(pattern: str) -> list[str]:
    """Spell out ``{00000..00005}`` and ``{train,val}``, wherever they occur, as the shell does; zeros in front stay.

    >>> expand_braces("{a,b}-{08..10}.tar")
    ['a-08.tar', 'a-09.tar', 'a-10.tar', 'b-08.tar', 'b-09.tar', 'b-10.tar']
    """
    match = re.search(r"\{(?:(\d+)\.\.(\d+)|([^{}]*,[^{}]*))\}", pattern)
    if not match:
        return [pattern]
    if match[3] is not None:
        choices = match[3].split(",")
    else:
        width = len(match[1]) if match[1].startswith("0") else 0
        first, last = int(match[1]), int(match[2])
        if last < first:
            message = f"the range {match[0]} in {pattern!r} runs backwards"
            raise SourceError(message)
        choices = [f"{number:0{width}d}" for number in range(first, last + 1)]
    rests = expand_braces(pattern[match.end() :])
    return [pattern[: match.start()] + choice + rest for choice in choices for rest in rests]


def _names(paths: list[Path], root: Path) -> list[str]:
    """Names of shards: the file names without ``.tar``, or where two are the same the paths below ``root``."""
    names = [quote(path.name.removesuffix(".tar"), safe="") for path in paths]
    if len(set(names)) < len(names):
        # "+" is what quote() leaves nowhere else: different paths get different names.
        names = ["+".join(quote(part, safe="") for part in path.relative_to(root).parts) for path in paths]
        names = [name.removesuffix(".tar") for name in names]
    return names


@contextmanager
def _opened(path: Path) -> Iterator[int]:
    fd = os.open(path, os.O_RDONLY | getattr(os, "O_CLOEXEC", 0))
    try:
        yield fd
    finally:
        os.close(fd)


def _images(fd: int, path: Path) -> Iterator[tuple[str, Member]]:
    """Key and place of each image."""
    empty = True
    for member in members(fd, str(path)):
        match = SAMPLE.fullmatch(member.path)
        if match and match[2].lower() in TAR_IMAGE_EXTENSIONS:
            empty = False
            yield match[1], member
    if empty:
        extensions = ", ".join(sorted(TAR_IMAGE_EXTENSIONS))
        message = f"no images in {path}: after the first dot of its name no member ends in one of {extensions}"
        raise EmptyInputError(message)


def _folder(path: str) -> str | None:
    """The first folder of a path in a tar file."""
    folder, slash, _ = path.removeprefix("./").partition("/")
    return folder if slash else None
