"""Tar files in the WebDataset layout: one tar file is one shard."""

from __future__ import annotations

import glob
import os
import re
import warnings
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path, PurePath
from typing import Any, ClassVar, NamedTuple
from urllib.parse import quote

from rsprune.errors import FormatError, SourceError
from rsprune.io import check_pointer
from rsprune.sources.base import (
    FilePart,
    ImageData,
    Item,
    Shard,
    SkippedFilesWarning,
    Source,
    check_rows,
    describe_skipped,
)
from rsprune.sources.filesystem import join, local_path, open_regular, read_ahead, regular_size
from rsprune.sources.formats import HEAD, IMAGE_EXTENSIONS, OTHER_EXTENSIONS, is_image
from rsprune.sources.tar import Member, members, read_member
from rsprune.storage import glob_objects, is_remote

__all__ = ["TarSource", "expand_braces"]

#: Extensions that hold images in a tar file: those of image files, and that of RS5M.
TAR_IMAGE_EXTENSIONS = IMAGE_EXTENSIONS | {".img_content"}

#: A member's key and its field. The field is the extension, with the words before it that name a part of a sample, as
#: in ``x.seg.png``; such a word begins with a letter. WebDataset ends the key at the first dot, which would make
#: ``lat38.907_x.jpg`` and ``lat38.911_x.jpg`` parts of one sample ``lat38``: here a dot before a digit belongs to the
#: key. All other keys are WebDataset's.
MEMBER = re.compile(r"(?s)((?:.*/)?[^./][^/]*?)((?:\.[A-Za-z_][\w-]*)*\.(?!\d+\Z)[^./]*)")


#: Larger images than this are read one at a time, when they are decoded: a batch of smaller ones, encoded, takes less
#: memory than its pixels do on their way to an encoder.
PART_BYTES = 1 << 16

#: The members of a sample: their numbers in the tar file, their fields, and where they lie.
_Sample = list[tuple[int, str, Member]]


class _Content(NamedTuple):
    """The images of a tar file by key, in the order of its members, and how many members are left out by extension."""

    images: list[tuple[str, Member]]
    skipped: Counter[str]


class TarSource(Source):
    """Tar files with images.

    The members with the same key are a sample: its image, and what is known of it (captions, metadata, masks), which is
    passed over. The image is the member whose whole field is an image's extension (``x.jpg`` before ``x.seg.png``),
    or else the only one that ends in one, unless such a field stands beside the image in other samples, or else the
    only one that begins as an image. If all images of a tar file lie in folders then those of the first level are the
    classes. Links stand for the members that they name. A tar file without an image is a shard of no rows.

    Nothing is read before :meth:`read`; that reads the headers of one tar file, and then the images asked for, each
    from its place.

    Parameters
    ----------
    paths : sequence of path
        The tar files, or their addresses. Their order does not matter: shards are ordered by name.
    field : str, optional
        The field of the images where samples hold several: ``"jpg"``, ``"rgb.png"``; or several fields, of which a
        sample's image has the first that is there: ``"jpg;png"``.

    Raises
    ------
    SourceError
        If a file is given twice.
    """

    reads: ClassVar[str] = "a .tar file, tar files as a pattern ('pool-*.tar') or a range ('pool-{00000..00005}.tar')"

    def __init__(self, paths: Sequence[str | os.PathLike[str]], field: str | None = None) -> None:
        # resolve() would follow links
        absolute = [path if is_remote(path) else os.path.abspath(path) for path in paths]  # noqa: PTH100
        for path in absolute:
            regular_size(path)  # a missing file is an error now, not hours later
        twice = {path for path in absolute if absolute.count(path) > 1} if len(set(absolute)) < len(absolute) else None
        if twice:
            message = f"given more than once: {', '.join(sorted(twice))}"
            raise SourceError(message)
        self._field = field
        self._paths = dict(sorted(zip(_names(absolute), absolute, strict=True)))
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
        parts = [one for part in ([spec] if isinstance(spec, str) else spec) for one in _split_list(part)]
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
        """Yield the images of a shard: small ones read from their places in the file, large ones as their places."""
        path = self._paths[shard.name]
        if rows is None and (later := self._shards[self._shards.index(shard) + 1 :]):
            read_ahead(self._paths[later[0].name])
        with open_regular(path) as fd:
            images = self._content(fd, path).images
            labelled = all(_folder(member.path) for _, member in images)
            for row in check_rows(shard, rows, len(images)):
                key, member = images[row]
                yield Item(key, _data(fd, path, member), _folder(member.path) if labelled else None)

    def read_keys(self, shard: Shard) -> list[str]:
        """Return the keys of a shard: reads the headers of its file."""
        path = self._paths[shard.name]
        with open_regular(path) as fd:
            return [key for key, _ in self._content(fd, path).images]

    def count(self, shard: Shard) -> int:
        """Count the images of a shard: reads the headers of its file, once.

        Warns
        -----
        SkippedFilesWarning
            For members of samples without an image, masks beside an image, what is no file, and no images at all.
        """
        if shard.name not in self._counts:
            path = self._paths[shard.name]
            with open_regular(path) as fd:
                images, skipped = self._content(fd, path)
            self._counts[shard.name] = len(images)
            message = describe_skipped(path, skipped) if skipped else f"{path} is empty"
            if skipped or not images:
                none = "" if images else ". It has no images, and counts as a shard of no rows"
                warnings.warn(message + none, SkippedFilesWarning, stacklevel=2)
        return self._counts[shard.name]

    def size(self, shard: Shard) -> int:
        """Return the size of a shard's file."""
        return regular_size(self._paths[shard.name])

    def fingerprint(self) -> dict[str, Any]:
        """Identify the tar files by their names and sizes."""
        shards = [{"name": shard.name, "bytes": self.size(shard)} for shard in self._shards]
        return {"kind": "webdataset", "shards": shards} | ({"field": self._field} if self._field else {})

    def _content(self, fd: int, path: str) -> _Content:
        check_pointer(local_path(path))
        samples: dict[str, _Sample] = {}
        skipped: Counter[str] = Counter()
        for number, member in enumerate(members(fd, path)):
            name = member.path.rpartition("/")[2]
            if member.problem:
                skipped[f"{_extension(name)} ({member.problem})" if "." in name else member.problem] += 1
            elif not name.startswith("."):  # as in a folder, hidden files are left out
                match = MEMBER.fullmatch(member.path)
                key, field = match.groups() if match else (member.path, "")
                samples.setdefault(key, []).append((number, field, member))
            elif _is_image(name) and not name.startswith("._"):  # what macOS keeps beside each file is no image
                skipped[f"hidden {_extension(name)}"] += 1
        beside = set() if self._field else _fields_beside(samples.values())
        images: list[tuple[int, str, Member]] = []
        for key, sample in samples.items():
            found = _images(fd, sample, self._field, beside)
            if len({member.path for _, _, member in found}) > 1:
                names = ", ".join(member.path for _, _, member in found)
                tars = path if len(self._paths) == 1 else join(os.path.dirname(path), "*.tar")  # noqa: PTH120
                message = (
                    f"the sample {key!r} of {path} has several images: {names}. Name the field of one of them behind "
                    f"the tar files: '{tars}#{found[0][1].lstrip('.')}'"
                )
                raise SourceError(message)
            images += [(number, key, member) for number, _, member in found]
            if not found:
                skipped.update(_extension(field.lower()) for _, field, _ in sample)
            elif not self._field:
                # Such as x.crop.jpg beside x.jpg: by its name it belongs to x.jpg, but it may be an image of its own.
                image = _extension(found[0][1])
                beside_it = (one[1] for one in sample if one not in found)
                skipped.update(f"{field} beside {image}" for field in beside_it if _extension(field) == image)
        return _Content([(key, member) for _, key, member in sorted(images)], skipped)


def _data(fd: int, path: str, member: Member) -> ImageData:
    """Read a small image, or say where a large one lies."""
    if member.size > PART_BYTES and not member.pieces:
        return FilePart(local_path(path), member.offset, member.size)
    data = read_member(fd, member)
    if len(data) < member.size:
        message = f"{path} was cut short while it was read: {member.path} ends too early"
        raise FormatError(message)
    return data


def _fields_beside(samples: Iterable[_Sample]) -> set[str]:
    """Find the fields of images that stand beside the plain image of a sample: ``.seg.png`` beside ``.jpg``."""
    beside: set[str] = set()
    for sample in samples:
        fields = {field.lower() for _, field, _ in sample}
        if not fields.isdisjoint(TAR_IMAGE_EXTENSIONS):
            beside |= {field for field in fields - TAR_IMAGE_EXTENSIONS if _is_image(field)}
    return beside


def _images(fd: int, sample: _Sample, wanted: str | None, beside: set[str]) -> _Sample:
    """Find the images among the members of a sample."""
    for name in wanted.split(";") if wanted else ():
        exact = [one for one in sample if one[1] == f".{name}"]
        if found := exact or [one for one in sample if one[1].lower() == f".{name.lower()}"]:
            return found
    if wanted:
        return []
    whole = [one for one in sample if one[1].lower() in TAR_IMAGE_EXTENSIONS]
    if ending := whole or [one for one in sample if _is_image(one[1])]:
        return [one for one in ending if one[1].lower() not in beside]
    return [one for one in sample if _extension(one[1].lower()) not in OTHER_EXTENSIONS and is_image(_head(fd, one[2]))]


def _head(fd: int, member: Member) -> bytes:
    return read_member(fd, member if member.pieces else member._replace(size=min(HEAD, member.size)))[:HEAD]


def _is_image(field: str) -> bool:
    return _extension(field.lower()) in TAR_IMAGE_EXTENSIONS


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


def _split_list(spec: str | os.PathLike[str]) -> list[tuple[str, str | None]]:
    """Split ``a.tar::b.tar#jpg``, WebDataset's list, into the tar files and their field, which the last may name."""
    if Path(_split_field(spec)[0]).exists():
        return [_split_field(spec)]
    parts = [_split_field(part) for part in os.fspath(spec).split("::")]
    return [(pattern, field or parts[-1][1]) for pattern, field in parts]


def _tars(spec: str) -> list[str]:
    """List the tar files that a path, a pattern or a range stands for."""
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


def _names(paths: list[str]) -> list[str]:
    """Name the shards: the file names without ``.tar``, or where two are the same the paths below a common folder."""
    places = list(map(PurePath, paths))
    names = [quote(path.name.removesuffix(".tar"), safe="") for path in places]
    if len(set(names)) < len(names):
        root = os.path.commonpath([path.parent for path in places])
        # "+" is what quote() leaves nowhere else: different paths get different names.
        names = ["+".join(quote(part, safe="") for part in path.relative_to(root).parts) for path in places]
        names = [name.removesuffix(".tar") for name in names]
    return names
