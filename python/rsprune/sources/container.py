"""Files that hold many images each: tar files, tables, stacks of pixels. One file is one shard."""

from __future__ import annotations

import glob
import os
import re
from collections.abc import Sequence
from pathlib import Path, PurePath
from typing import Any, ClassVar
from urllib.parse import quote

from typing_extensions import Self

from rsprune.errors import SourceError
from rsprune.sources.base import Shard, Source
from rsprune.sources.filesystem import changed, read_ahead, regular_size, stamp_of
from rsprune.storage import glob_objects, is_remote, requests_of

__all__ = ["ContainerSource", "expand_braces", "find_files"]


class ContainerSource(Source):
    """Files of one kind, given as one file, a pattern, a range, or a list of these.

    Parameters
    ----------
    paths : sequence of path
        The files, or their addresses. Their order does not matter: shards are ordered by name.
    part : str, optional
        Which of the things in each file are the images, where it holds several: what stands behind ``#``.

    Raises
    ------
    SourceError
        If a file is given twice.
    """

    #: The name of the layout, and of what ``#`` picks, in the fingerprint.
    kind: ClassVar[str]
    part_kind: ClassVar[str]
    #: How the files' names end, in lower case; a longer ending stands before those that it ends in.
    extensions: ClassVar[tuple[str, ...]]
    #: The extension of other files of the layout, which are no surprise in a folder of it.
    beside: ClassVar[str] = ""

    def __init__(self, paths: Sequence[str | os.PathLike[str]], part: str | None = None) -> None:
        # resolve() would follow links
        absolute = [path if is_remote(path) else os.path.abspath(path) for path in paths]  # noqa: PTH100
        for path in absolute:
            self._check(path)
        twice = {path for path in absolute if absolute.count(path) > 1} if len(set(absolute)) < len(absolute) else None
        if twice:
            message = f"given more than once: {', '.join(sorted(twice))}"
            raise SourceError(message)
        self._part = part
        self._paths = dict(sorted(zip(_names(absolute, self.extensions), absolute, strict=True)))
        self._shards = tuple(map(Shard, self._paths))
        self._counts: dict[str, int] = {}
        self._stamps = {path: stamp_of(path) for path in absolute if not is_remote(path)}

    @classmethod
    def names(cls, spec: str | os.PathLike[str]) -> bool:
        """Return whether ``spec`` ends as the names of these files do, but for a part behind it."""
        return cls._split_part(spec)[0].lower().endswith(cls.extensions)

    @classmethod
    def matches(cls, spec: str | os.PathLike[str] | Sequence[Any]) -> bool:
        """Return whether ``spec`` is the name of such a file, a pattern, a range, or a sequence of these."""
        if isinstance(spec, (str, os.PathLike)):
            return cls.names(spec)
        paths = isinstance(spec, Sequence) and not isinstance(spec, (bytes, bytearray)) and bool(spec)
        return paths and all(isinstance(part, (str, os.PathLike)) and cls.matches(part) for part in spec)

    @classmethod
    def open(cls, spec: Any) -> Self:
        """Open the files that ``spec`` stands for."""
        specs = [spec] if isinstance(spec, str) else spec
        patterns = [one for part in specs for one in cls._split_list(part)]
        parts = {part for _, part in patterns}
        if len(parts) > 1:
            message = (
                f"{cls.kind} files of one collection with different {cls.part_kind}s of their images: "
                f"{sorted(map(str, parts))}"
            )
            raise SourceError(message)
        return cls([path for pattern, _ in patterns for path in find_files(pattern)], parts.pop())

    @classmethod
    def open_folder(cls, root: str, paths: Sequence[str]) -> Self:
        """Open the files of this kind that lie below a folder."""
        return cls(paths)

    @property
    def shards(self) -> tuple[Shard, ...]:
        """The shards in the order of the rows."""
        return self._shards

    def path_of(self, shard: Shard) -> str:
        """Return the path of a shard's file, or its address."""
        return self._paths[shard.name]

    def size(self, shard: Shard) -> int:
        """Return the size of a shard's file."""
        return regular_size(self._paths[shard.name])

    def file_of(self, shard: Shard) -> str:
        """Return the file that a shard is, or is a part of."""
        return self._paths[shard.name]

    def check_unchanged(self, shard: Shard) -> None:
        """Compare the size of a shard's file, and when it was written, with those that it had."""
        path = self.file_of(shard)
        if path in self._stamps and (now := stamp_of(path)) is not None and now != self._stamps[path]:
            raise changed(path)

    def requests(self, shard: Shard) -> int:
        """Return how many requests it takes to fetch a shard's file, which is read whole."""
        return requests_of(self._paths[shard.name], self.size(shard))

    def fingerprint(self) -> dict[str, Any]:
        """Identify the files by their names and sizes."""
        shards = [{"name": shard.name, "bytes": self.size(shard)} for shard in self._shards]
        return {"kind": self.kind, "shards": shards} | ({self.part_kind: self._part} if self._part else {})

    @classmethod
    def _check(cls, path: str) -> None:
        regular_size(path)  # a missing file is an error now, not hours later

    def fetch_next(self, shard: Shard) -> None:
        """Begin to fetch the file of the shard behind this one, which is read whole, if it lies at an address."""
        for later in self._shards[self._shards.index(shard) + 1 :][:1]:
            read_ahead(self._paths[later.name])

    @classmethod
    def _split_part(cls, spec: str | os.PathLike[str]) -> tuple[str, str | None]:
        """Split ``pool-*.tar#rgb.png`` into the pattern and the part."""
        for extension in cls.extensions:
            pattern, mark, part = os.fspath(spec).rpartition(f"{extension}#")
            if mark:
                return f"{pattern}{extension}", part
        return os.fspath(spec), None

    @classmethod
    def _split_list(cls, spec: str | os.PathLike[str]) -> list[tuple[str, str | None]]:
        """Split ``a.tar::b.tar#jpg``, WebDataset's list, into the files and their part, which the last may name."""
        if Path(cls._split_part(spec)[0]).exists():
            return [cls._split_part(spec)]
        parts = [cls._split_part(part) for part in os.fspath(spec).split("::")]
        return [(pattern, part or parts[-1][1]) for pattern, part in parts]


def find_files(spec: str) -> list[str]:
    """List the files that a path, a pattern or a range stands for."""
    if spec.startswith("pipe:"):
        message = f"{spec!r} is not on a local disk: copy or mount it"
        raise SourceError(message)
    found = []
    for pattern in [spec] if Path(spec).exists() else expand_braces(spec):
        if not glob.has_magic(pattern) or Path(pattern).exists():
            found.append(pattern)
            continue
        matches = glob_objects(pattern) if is_remote(pattern) else sorted(glob.glob(pattern, recursive=True))  # noqa: PTH207
        if not matches:
            message = f"no file matches {pattern!r}"
            raise FileNotFoundError(message)
        found += matches
    return found


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


def _names(paths: list[str], extensions: tuple[str, ...]) -> list[str]:
    """Name the shards: the file names without extension, or where two are the same the paths below a common folder."""

    def stem(name: str) -> str:
        return name.removesuffix(next((one for one in extensions if name.endswith(one)), ""))

    places = list(map(PurePath, paths))
    names = [stem(quote(path.name, safe="")) for path in places]
    if len(set(names)) < len(names):
        root = os.path.commonpath([path.parent for path in places])
        # "+" is what quote() leaves nowhere else: different paths get different names.
        names = ["+".join(quote(part, safe="") for part in path.relative_to(root).parts) for path in places]
        if len(set(map(stem, names))) == len(names):  # or else they differ in their extensions alone
            names = list(map(stem, names))
    return names
