"""Tar files in the WebDataset layout: one tar file is one shard."""

from __future__ import annotations

import os
import re
import warnings
from collections import Counter, OrderedDict
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple

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
from rsprune.sources.classes import ClassFolders
from rsprune.sources.compressed import UNPACK, open_unpacked
from rsprune.sources.container import ContainerSource
from rsprune.sources.filesystem import Ranges, Readable, join, local_path, open_regular
from rsprune.sources.formats import HEAD, IMAGE_EXTENSIONS, OTHER_EXTENSIONS, is_image
from rsprune.sources.tar import Member, members, read_member
from rsprune.storage import is_remote

if TYPE_CHECKING:
    import pyarrow as pa

__all__ = ["TarSource", "split_member"]

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

#: The last words of the fields that hold text.
TEXTS = frozenset(["json", "jsn", "geojson", "txt", "text", "transcript", "caption", "cap", "cls", "url", "lat", "lon"])
#: The field that names an image in RS5M, and how long a name may be.
NAME_FIELD, LONGEST_NAME = ".img_name", 4096
#: Of how many images the places are kept, in files whose headers cost more to read than those of local ones.
KEPT_IMAGES = 200_000
#: One of so many images of a file at an address is read by itself, and more of them from a copy of the file.
FEW = 8

#: The members of a sample: their numbers in the tar file, their fields, and where they lie.
_Sample = list[tuple[int, str, Member]]


class _Image(NamedTuple):
    """An image, and by field the texts that its sample holds beside it."""

    key: str
    member: Member
    texts: dict[str, Member]


class _Content(NamedTuple):
    """The images of a tar file in the order of its members, and how many members are left out by extension."""

    images: list[_Image]
    skipped: Counter[str]


class TarSource(ContainerSource):
    """Tar files with images.

    The members with the same key are a sample: its image, and what is known of it. Texts are metadata, each a column
    with the name of its field (``json``, ``txt``, ``caption``, ``cls``); masks and the like are passed over. The image
    is the member whose whole field is an image's extension (``x.jpg`` before ``x.seg.png``), or else the only one that
    ends in one, unless such a field stands beside the image in other samples, or else the only one that begins as an
    image. If all images of a tar file lie in folders then those are the classes, of the first level at which they
    differ, and otherwise ``cls``. Where samples have an ``img_name``, as those of RS5M do, it is the key of those that
    no other has. Links stand for the members that they name. A tar file without an image is a shard of no rows.

    Nothing is read before :meth:`read`; that reads the headers of one tar file, and then the images asked for, each
    from its place. A compressed file is unpacked from its beginning to its end for each of these steps.

    The part is the field of the images where samples hold several: ``"jpg"``, ``"rgb.png"``; or several fields, of
    which a sample's image has the first that is there: ``"jpg;png"``.
    """

    reads: ClassVar[str] = "a .tar file, tar files as a pattern ('pool-*.tar') or a range ('pool-{00000..00005}.tar')"

    kind: ClassVar[str] = "webdataset"
    part_kind: ClassVar[str] = "field"
    extensions: ClassVar[tuple[str, ...]] = (".tar", *UNPACK)

    def __init__(self, paths: Sequence[str | os.PathLike[str]], part: str | None = None) -> None:
        super().__init__(paths, part)
        self._fields: dict[str, set[str]] = {}  # of the texts of each shard
        self._known: OrderedDict[str, _Content] = OrderedDict()

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_known": OrderedDict()}

    def read(self, shard: Shard, rows: Sequence[int] | None = None) -> Iterator[Item]:
        """Yield the images of a shard: small ones read from their places in the file, large ones as their places."""
        path = self._paths[shard.name]
        if rows is None:
            self.fetch_next(shard)
        known = self._known.get(path)
        few = known is not None and rows is not None and FEW * len(rows) < len(known.images)
        with _opened(path, few) as file:
            images = self._content(file, path).images
            classes = ClassFolders()
            for image in images:
                classes.add(image.member.path)
            for row in check_rows(shard, rows, len(images)):
                key, member, texts = images[row]
                label = classes.of(member.path)
                if label is None and "cls" in texts and texts["cls"].offset < member.offset:  # in the order of the file
                    label = _text(file, texts["cls"]).strip()
                data = _data(file, path, member)
                if label is None and "cls" in texts:
                    label = _text(file, texts["cls"]).strip()
                yield Item(key, data, label)

    def read_keys(self, shard: Shard) -> list[str]:
        """Return the keys of a shard: reads the headers of its file."""
        path = self._paths[shard.name]
        with _opened(path) as file:
            return [image.key for image in self._content(file, path).images]

    def count(self, shard: Shard) -> int:
        """Count the images of a shard: reads the headers of its file, once.

        Warns
        -----
        SkippedFilesWarning
            For members of samples without an image, masks beside an image, what is no file, and no images at all.
        """
        if shard.name not in self._counts:
            path = self._paths[shard.name]
            with _opened(path) as file:
                images, skipped = self._content(file, path)
            self._counts[shard.name] = len(images)
            self._fields[shard.name] = {field for image in images for field in image.texts}
            message = describe_skipped(path, skipped) if skipped else f"{path} is empty"
            if skipped or not images:
                none = "" if images else ". It has no images, and counts as a shard of no rows"
                warnings.warn(message + none, SkippedFilesWarning, stacklevel=2)
        return self._counts[shard.name]

    @property
    def metadata_schema(self) -> pa.Schema:
        """The fields of the texts beside the images, as strings."""
        import pyarrow as pa

        for shard in self._shards:
            with suppress(FormatError):  # a damaged one is left out, or the end of a run before this
                self.count(shard)
        return pa.schema([(field, pa.string()) for field in sorted(set().union(*self._fields.values()))])

    def read_metadata(self, shard: Shard, rows: Sequence[int]) -> pa.Table:
        """Read the texts beside some images of a shard, and none of the images."""
        import pyarrow as pa

        schema, path = self.metadata_schema, self._paths[shard.name]
        values: dict[str, list[str | None]] = {name: [] for name in schema.names}
        with _opened(path) as file:
            images = self._content(file, path).images
            for row in check_rows(shard, rows, len(images)):
                texts = sorted(images[row].texts.items(), key=lambda one: one[1].offset)
                found = {field: _text(file, member) for field, member in texts}
                for field, column in values.items():
                    column.append(found.get(field))
        return pa.Table.from_pydict(values, schema=schema)

    @property
    def metadata_at_hand(self) -> bool:
        """Whether texts are read from their places in files on a disk."""
        return not any(is_remote(path) or path.lower().endswith(tuple(UNPACK)) for path in self._paths.values())

    def _content(self, file: int | Readable, path: str) -> _Content:
        """Read the headers of a file. Those of compressed and of remote ones are kept, as long as they are few."""
        if isinstance(file, int) and not is_remote(path):
            return self._read_content(file, path)
        if path not in self._known:
            self._known[path] = self._read_content(file, path)
            while len(self._known) > 1 and sum(len(one.images) for one in self._known.values()) > KEPT_IMAGES:
                self._known.popitem(last=False)
        return self._known[path]

    def _read_content(self, file: int | Readable, path: str) -> _Content:
        check_pointer(local_path(path))
        samples: dict[str, _Sample] = {}
        skipped: Counter[str] = Counter()
        for number, member in enumerate(members(file, path, _head_size)):
            name = member.path.rpartition("/")[2]
            if member.problem:
                skipped[f"{_extension(name)} ({member.problem})" if "." in name else member.problem] += 1
            elif not name.startswith("."):  # as in a folder, hidden files are left out
                key, field = split_member(member.path)
                samples.setdefault(key, []).append((number, field, member))
            elif _is_image(name) and not name.startswith("._"):  # what macOS keeps beside each file is no image
                skipped[f"hidden {_extension(name)}"] += 1
        beside = set() if self._part else _fields_beside(samples.values())
        images: list[tuple[int, _Image, str]] = []
        named: Counter[str] = Counter()
        for key, sample in samples.items():
            found = _images(file, sample, self._part, beside)
            if len({member.path for _, _, member in found}) > 1:
                names = ", ".join(member.path for _, _, member in found)
                tars = path if len(self._paths) == 1 else join(os.path.dirname(path), "*.tar")  # noqa: PTH120
                message = (
                    f"the sample {key!r} of {path} has several images: {names}. Name the field of one of them behind "
                    f"the tar files: '{tars}#{found[0][1].lstrip('.')}'"
                )
                raise SourceError(message)
            texts, name = _beside(sample) if len(sample) > 1 else ({}, "")
            named[name] += 1
            images += [(number, _Image(key, member, texts), name) for number, _, member in found]
            if not found:
                skipped.update(_extension(field.lower()) for _, field, _ in sample)
            elif not self._part:
                # Such as x.crop.jpg beside x.jpg: by its name it belongs to x.jpg, but it may be an image of its own.
                image = _extension(found[0][1])
                beside_it = (one[1] for one in sample if one not in found)
                skipped.update(f"{field} beside {image}" for field in beside_it if _extension(field) == image)
        images.sort(key=lambda one: one[0])
        ordered = [image._replace(key=name) if name and named[name] == 1 else image for _, image, name in images]
        return _Content(ordered, skipped)


def split_member(path: str) -> tuple[str, str]:
    """Split the path of a member into the key of its sample and its field, which begins with a dot; or is empty."""
    match = MEMBER.fullmatch(path)
    return (match[1], match[2]) if match else (path, "")


def _head_size(path: str) -> int:
    """Return how much of a member is read with its header: a name, or the head of what may be an image."""
    if path.endswith((".jpg", ".png", ".tif")):  # most of them, without further ado
        return 0
    extension = _extension(path.rpartition("/")[2].lower())
    if extension == NAME_FIELD:
        return LONGEST_NAME
    return 0 if extension in TAR_IMAGE_EXTENSIONS or extension in OTHER_EXTENSIONS else HEAD


def _beside(sample: _Sample) -> tuple[dict[str, Member], str]:
    """Return the texts of a sample by field, and the name that it gives its image; empty if it gives none."""
    texts = {field[1:]: member for _, field, member in sample if _extension(field.lower()).lstrip(".") in TEXTS}
    names = (member.head for _, field, member in sample if field == NAME_FIELD)
    return texts, next(names, b"").decode("utf-8", "backslashreplace").strip()


def _text(file: int | Readable, member: Member) -> str:
    return read_member(file, member).decode("utf-8", "backslashreplace")


@contextmanager
def _opened(path: str, few: bool = False) -> Iterator[int | Readable]:
    """Open a file, for all that it holds or, at an address, for a ``few`` parts of it."""
    if few and is_remote(path) and not path.lower().endswith(tuple(UNPACK)):
        yield Ranges(path)
    elif path.lower().endswith(tuple(UNPACK)):
        with open_unpacked(path) as unpacked:
            yield unpacked
    else:
        with open_regular(path) as fd:
            yield fd


def _data(file: int | Readable, path: str, member: Member) -> ImageData:
    """Read a small image, or say where a large one lies."""
    if member.size > PART_BYTES and not member.pieces and isinstance(file, int):
        return FilePart(local_path(path), member.offset, member.size)
    data = read_member(file, member)
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


def _images(file: int | Readable, sample: _Sample, wanted: str | None, beside: set[str]) -> _Sample:
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
    unknown = [one for one in sample if _extension(one[1].lower()) not in OTHER_EXTENSIONS]
    return [one for one in unknown if is_image(_head(file, one[2]))]


def _head(file: int | Readable, member: Member) -> bytes:
    return read_member(file, member)[:HEAD] if member.pieces else member.head


def _is_image(field: str) -> bool:
    return _extension(field.lower()) in TAR_IMAGE_EXTENSIONS


def _extension(field: str) -> str:
    return field[field.rfind(".") :] if field else ""
