"""Tar files in the WebDataset layout: one tar file is one shard."""

from __future__ import annotations

import glob
import os
import re
import warnings
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, ClassVar, NamedTuple
from urllib.parse import quote

from rsprune.errors import EmptyInputError, FormatError, SourceError
from rsprune.sources.base import Item, Shard, SkippedFilesWarning, Source, check_rows, describe_skipped
from rsprune.sources.filesystem import open_regular, read_at, regular_size
from rsprune.sources.formats import HEAD, IMAGE_EXTENSIONS, OTHER_EXTENSIONS, is_image
from rsprune.sources.tar import Member, members

__all__ = ["TarSource", "expand_braces"]

#: Extensions that hold images in a tar file: those of image files, and that of RS5M.
TAR_IMAGE_EXTENSIONS = IMAGE_EXTENSIONS | {".img_content"}

#: A member's key and its field. The field is the extension, with the words before it that name a part of a sample, as
#: in ``x.seg.png``; such a word begins with a letter. WebDataset ends the key at the first dot, which would make
#: ``lat38.907_x.jpg`` and ``lat38.911_x.jpg`` parts of one sample ``lat38``: here a dot before a digit belongs to the
#: key. All other keys are WebDataset's.
MEMBER = re.compile(r"(?s)((?:.*/)?[^./][^/]*?)((?:\.[A-Za-z_][\w-]*)*\.(?!\d+\Z)[^./]*)")


class _Content(NamedTuple):
    """The images of a tar file by key, in the order of its members, and how many members are none by extension."""

    images: list[tuple[str, Member]]
    skipped: Counter[str]


class TarSource(Source):
    """Tar files with images.

    The members with the same key are a sample: its image, and what is known of it (captions, metadata, masks), which is
    passed over. The image is the member whose whole field is an image's extension (``x.jpg`` before ``x.seg.png``),
    or else the only one that ends in one, or else the only one that begins as an image. If all images of a tar file lie
    in folders then those of the first level are the classes.

    Nothing is read before :meth:`read`; that reads the headers of one tar file, and then the images asked for, each
    from its place.

    Parameters
    ----------
    paths : sequence of Path
        The tar files. Their order does not matter: shards are ordered by name.
    field : str, optional
        The field of the images where samples hold several: ``"jpg"``, ``"rgb.png"``.

    Raises
    ------
    SourceError
        If a file is given twice.
    """

    reads: ClassVar[str] = "a .tar file, tar files as a pattern ('pool-*.tar') or a range ('pool-{00000..00005}.tar')"

    def __init__(self, paths: Sequence[Path], field: str | None = None) -> None:
        absolute = [Path(os.path.abspath(path)) for path in paths]  # noqa: PTH100 (resolve() would follow links)
        for path in absolute:
            regular_size(path)  # a missing file is an error now, not hours later
        twice = {path for path in absolute if absolute.count(path) > 1} if len(set(absolute)) < len(absolute) else None
        if twice:
            message = f"given more than once: {', '.join(sorted(map(str, twice)))}"
            raise SourceError(message)
        self._field = field
        self._root = Path(os.path.commonpath([path.parent for path in absolute]))
        self._paths = dict(sorted(zip(_names(absolute, self._root), absolute, strict=True)))
        self._shards = tuple(map(Shard, self._paths))
        self._counts: dict[str, int] = {}

    @classmethod
    def matches(cls, spec: str | os.PathLike[str] | Sequence[Any]) -> bool:
        """Return whether ``spec`` is the name of a tar file, a pattern, a range, or a sequence of these."""
        if isinstance(spec, (str, os.PathLike)):
            return _split_field(spec)[0].lower().endswith(".tar")
        paths = isinstance(spec, Sequence) and not isinstance(spec, (bytes, bytearray)) and bool(spec)
        return paths and all(isinstance(part, (str, os.PathLike)) and cls.matches(part) for part in spec)

    @classmethod
    def open(cls, spec: Any) -> TarSource:
        """Open the tar files that ``spec`` stands for."""
        parts = [_split_field(part) for part in ([spec] if isinstance(spec, str) else spec)]
        fields = {field for _, field in parts}
        if len(fields) > 1:
            message = f"tar files of one collection with different fields of their images: {sorted(map(str, fields))}"
            raise SourceError(message)
        return cls([path for pattern, _ in parts for path in _tars(pattern)], fields.pop())

    @property
    def shards(self) -> tuple[Shard, ...]:
        """The shards in the order of the rows."""
        return self._shards

    def read(self, shard: Shard, rows: Sequence[int] | None = None) -> Iterator[Item]:
        """Yield the images of a shard, each read from its place in the file."""
        path = self._paths[shard.name]
        with open_regular(path) as fd:
            images = self._content(fd, path).images
            labelled = all(_folder(member.path) for _, member in images)
            for row in check_rows(shard, rows, len(images)):
                key, member = images[row]
                data = read_at(fd, member.size, member.offset)
                if len(data) < member.size:
                    message = f"{path} was cut short while it was read: {member.path} ends too early"
                    raise FormatError(message)
                yield Item(key, data, _folder(member.path) if labelled else None)

    def count(self, shard: Shard) -> int:
        """Count the images of a shard: reads the headers of its file, once.

        Warns
        -----
        SkippedFilesWarning
            For members of samples without an image.
        """
        if shard.name not in self._counts:
            path = self._paths[shard.name]
            with open_regular(path) as fd:
                images, skipped = self._content(fd, path)
            self._counts[shard.name] = len(images)
            if skipped:
                warnings.warn(describe_skipped(path, skipped), SkippedFilesWarning, stacklevel=2)
        return self._counts[shard.name]

    def size(self, shard: Shard) -> int:
        """Return the size of a shard's file."""
        return regular_size(self._paths[shard.name])

    def fingerprint(self) -> dict[str, Any]:
        """Identify the tar files by their names and sizes."""
        shards = [{"name": shard.name, "bytes": self.size(shard)} for shard in self._shards]
        return {"kind": "webdataset", "shards": shards} | ({"field": self._field} if self._field else {})

    def _content(self, fd: int, path: Path) -> _Content:
        samples: dict[str, list[tuple[str, Member]]] = {}
        for member in members(fd, str(path)):
            if not member.path.rpartition("/")[2].startswith("."):  # as in a folder, hidden files are left out
                match = MEMBER.fullmatch(member.path)
                key, field = match.groups() if match else (member.path, "")
                samples.setdefault(key, []).append((field.lower(), member))
        images: list[tuple[str, Member]] = []
        skipped: Counter[str] = Counter()
        for key, sample in samples.items():
            found = _images(fd, sample, self._field)
            if len({member.path for member in found}) > 1:
                names = ", ".join(member.path for member in found)
                message = (
                    f"the sample {key!r} of {path} has several images: {names}. Name the field of one of them: "
                    f"'{path.name}#{found[0].path.removeprefix(key).lstrip('.')}'"
                )
                raise SourceError(message)
            images += [(key, member) for member in found]
            if not found:
                skipped.update(_extension(field) for field, _ in sample)
        if not images:
            message = f"no images in {path}: no member is an image by its extension or its first bytes"
            raise EmptyInputError(message)
        return _Content(sorted(images, key=lambda image: image[1].offset), skipped)


def _images(fd: int, sample: list[tuple[str, Member]], field: str | None) -> list[Member]:
    """Find the images among the members of a sample."""
    if field is not None:
        return [member for its, member in sample if its == f".{field.lower()}"]
    whole = [member for its, member in sample if its in TAR_IMAGE_EXTENSIONS]
    ending = whole or [member for its, member in sample if _extension(its) in TAR_IMAGE_EXTENSIONS]
    return ending or [
        member
        for its, member in sample
        if _extension(its) not in OTHER_EXTENSIONS and is_image(read_at(fd, min(HEAD, member.size), member.offset))
    ]


def _extension(field: str) -> str:
    return field[field.rfind(".") :] if field else ""


def _folder(path: str) -> str | None:
    """Return the first folder of a path in a tar file."""
    folder, slash, _ = path.removeprefix("./").partition("/")
    return folder if slash else None


def _split_field(spec: str | os.PathLike[str]) -> tuple[str, str | None]:
    """Split ``pool-*.tar#rgb.png`` into the pattern and the field."""
    pattern, mark, field = os.fspath(spec).rpartition(".tar#")
    return (f"{pattern}.tar", field) if mark else (os.fspath(spec), None)


def _tars(spec: str) -> list[Path]:
    """List the tar files that a path, a pattern or a range stands for."""
    found = []
    for pattern in [spec] if Path(spec).exists() else expand_braces(spec):
        if Path(pattern).exists() or not glob.has_magic(pattern):
            found.append(Path(pattern))
            continue
        matches = sorted(glob.glob(pattern, recursive=True))  # noqa: PTH207 (absolute patterns)
        if not matches:
            message = f"no file matches {pattern!r}"
            raise FileNotFoundError(message)
        found += map(Path, matches)
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


def _names(paths: list[Path], root: Path) -> list[str]:
    """Name the shards: the file names without ``.tar``, or where two are the same the paths below ``root``."""
    names = [quote(path.name.removesuffix(".tar"), safe="") for path in paths]
    if len(set(names)) < len(names):
        # "+" is what quote() leaves nowhere else: different paths get different names.
        names = ["+".join(quote(part, safe="") for part in path.relative_to(root).parts) for path in paths]
        names = [name.removesuffix(".tar") for name in names]
    return names
