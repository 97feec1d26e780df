"""Tar files in the WebDataset layout: one tar file is one shard."""

from __future__ import annotations

import os
import re
import warnings
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from typing import ClassVar, NamedTuple

from rsprune.errors import FormatError, SourceError
from rsprune.io import check_pointer
from rsprune.sources.base import (
    FilePart,
    ImageData,
    Item,
    Shard,
    SkippedFilesWarning,
    check_rows,
    describe_skipped,
)
from rsprune.sources.container import ContainerSource
from rsprune.sources.filesystem import join, local_path, open_regular, read_ahead
from rsprune.sources.formats import HEAD, IMAGE_EXTENSIONS, OTHER_EXTENSIONS, is_image
from rsprune.sources.tar import Member, members, read_member

__all__ = ["TarSource"]

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


class TarSource(ContainerSource):
    """Tar files with images.

    The members with the same key are a sample: its image, and what is known of it (captions, metadata, masks), which is
    passed over. The image is the member whose whole field is an image's extension (``x.jpg`` before ``x.seg.png``),
    or else the only one that ends in one, unless such a field stands beside the image in other samples, or else the
    only one that begins as an image. If all images of a tar file lie in folders then those of the first level are the
    classes. Links stand for the members that they name. A tar file without an image is a shard of no rows.

    Nothing is read before :meth:`read`; that reads the headers of one tar file, and then the images asked for, each
    from its place.

    The part is the field of the images where samples hold several: ``"jpg"``, ``"rgb.png"``; or several fields, of
    which a sample's image has the first that is there: ``"jpg;png"``.
    """

    reads: ClassVar[str] = "a .tar file, tar files as a pattern ('pool-*.tar') or a range ('pool-{00000..00005}.tar')"

    kind: ClassVar[str] = "webdataset"
    part_kind: ClassVar[str] = "field"
    extensions: ClassVar[tuple[str, ...]] = (".tar",)

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
        beside = set() if self._part else _fields_beside(samples.values())
        images: list[tuple[int, str, Member]] = []
        for key, sample in samples.items():
            found = _images(fd, sample, self._part, beside)
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
            elif not self._part:
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
