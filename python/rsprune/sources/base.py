"""Collections of images: a source has shards, which hold items in a fixed order."""

from __future__ import annotations

import os
import warnings
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray
from typing_extensions import Self

from rsprune.errors import ArgumentError, DtypeError, EmptyInputError, FormatError, ImageError, OutputError, SourceError
from rsprune.pixels import DTYPES, EXPECTED
from rsprune.sources.passing import is_gone
from rsprune.storage import address_of, is_remote

if TYPE_CHECKING:
    import pyarrow as pa

__all__ = [
    "FilePart",
    "ImageData",
    "Item",
    "Shard",
    "SkippedFilesWarning",
    "Source",
    "SourceLike",
    "UnreadableImage",
    "check_outside",
    "check_rows",
    "describe_skipped",
    "with_reasons",
]


class FilePart(NamedTuple):
    """An encoded image within a larger file, which is read when it is decoded: ``size`` bytes from ``offset`` on."""

    path: str
    offset: int
    size: int


#: An image as a source gives it, and as the core takes it: encoded, the path of a file, a part of a file, or contiguous
#: pixels.
ImageData: TypeAlias = "bytes | str | FilePart | NDArray[Any]"


@dataclass(frozen=True, slots=True)
class Shard:
    """The unit of work, of restart and of distribution.

    Attributes
    ----------
    name : str
        Unique in its source, usable as a file name, and the same on every run and machine. A source lists its shards
        by ascending name: that is the order of the rows.
    """

    name: str


@dataclass(frozen=True, slots=True)
class Item:
    """One image.

    Attributes
    ----------
    key : str
        Its name in the collection.
    data : bytes, str, FilePart or ndarray
        The encoded image, the local path of a file with it, where it lies in a larger file, or its pixels: uint8,
        uint16, int16, float32 or float64, (H, W) or (H, W, C), contiguous.
    label : str or None
        The class folder it lies in, where the collection has such.
    metadata : mapping
        What else the collection says of the image, by the names of :attr:`Source.metadata_schema`; empty for most.

    Raises
    ------
    DtypeError
        Pixels of another type: a source of another package reads its files without a decoder that would tell.
    ArgumentError
        Pixels that are not contiguous.
    """

    key: str
    data: ImageData
    label: str | None = None
    metadata: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not isinstance(self.data, np.ndarray):
            return
        if self.data.dtype not in DTYPES:
            message = f"the image {self.key!r} has pixels of {self.data.dtype}; {EXPECTED}"
            raise DtypeError(message)
        if not self.data.flags.c_contiguous:
            message = f"the pixels of the image {self.key!r} are not contiguous: pass numpy.ascontiguousarray(pixels)"
            raise ArgumentError(message)


class UnreadableImage(bytes):
    """Stands for an image that its source could not read: no bytes, and why there are none."""

    error: ImageError

    def __new__(cls, error: ImageError) -> Self:
        """Make one of an error, which need not be raised."""
        one = super().__new__(cls)
        one.error = error
        return one


def with_reasons(images: Sequence[Any], failures: Iterable[tuple[int, str, str]]) -> list[tuple[int, str, str]]:
    """Say of the images that the core failed to read why their source could not read them."""
    found = []
    for number, kind, message in failures:
        image = images[number]
        known = isinstance(image, UnreadableImage)
        found.append((number, image.error.kind, str(image.error)) if known else (number, kind, message))
    return found


class Source(ABC):
    """A collection of images, cut into shards.

    A source does not change once it is open. It can be pickled, and read in another process: it keeps no file open
    between two calls, or leaves open files out of its pickled state and opens them again when it reads.
    """

    #: What :meth:`open` takes, as help texts and errors list it: ``"a folder of images"``.
    reads: ClassVar[str] = ""

    #: The folders that are read whole: a file that is written there would become part of the collection.
    folders: Sequence[str | Path] = ()

    #: The names of the options of :meth:`open`; None if it hands any on. Only the sources that have the options given
    #: are asked.
    takes: ClassVar[Sequence[str] | None] = ()

    #: The options that the collection was opened with, by name: those that were given.
    options: Mapping[str, Any] = {}

    _said = False  # what is passed over

    @classmethod
    def matches(cls, spec: str | Sequence[Any]) -> bool:
        """Return whether :meth:`open` is for ``spec``. It need not be there, and is not read for the answer."""
        return False

    @classmethod
    def matches_with_options(cls, spec: str | Sequence[Any]) -> bool:
        """Return whether :meth:`open` is for ``spec`` where options are given that the class :attr:`takes`."""
        return cls.matches(spec)

    @classmethod
    def open(cls, spec: Any) -> Source:
        """Open the collection that ``spec`` names; see :func:`rsprune.sources.open_source` for the errors.

        The options that the class :attr:`takes` are keywords.

        A class that matches nothing need not have it: its sources are made by their constructor.
        """
        message = f"a {cls.__name__} is not opened from {spec!r}: a source that matches a specification defines open()"
        raise SourceError(message)

    @property
    @abstractmethod
    def shards(self) -> tuple[Shard, ...]:
        """The shards in the order of the rows."""

    @abstractmethod
    def read(self, shard: Shard, rows: Sequence[int] | None = None) -> Iterator[Item]:
        """Yield the images of a shard.

        Parameters
        ----------
        shard : Shard
            One of :attr:`shards`.
        rows : sequence of int, optional
            Ascending positions within the shard: only these are read. All if not given.

        Raises
        ------
        ArgumentError
            For rows that do not ascend, or that the shard does not have.
        FormatError
            If the shard is damaged as a whole. An image that cannot be decoded is not found here.
        OSError
            If the shard cannot be read.
        """

    def read_keys(self, shard: Shard) -> list[str] | None:
        """Return the keys of a shard's images in the order of the rows; None if they are only known with the images.

        With them a collection that has changed is told before an image is read, and not only when a row of it is.
        """
        return None

    def read_labels(self, shard: Shard) -> list[str | None] | None:
        """Return the classes of a shard's images in the order of the rows; None if only reading them would tell."""
        return None

    @property
    def metadata_schema(self) -> pa.Schema:
        """The columns that the collection holds beside the images, such as captions; none for most collections.

        They end in the manifest of a run, for the images that are kept.
        """
        import pyarrow as pa

        return pa.schema([])

    def read_metadata(self, shard: Shard, rows: Sequence[int]) -> pa.Table:
        """Read the metadata of some images of a shard: a table of :attr:`metadata_schema`.

        Parameters
        ----------
        shard : Shard
            One of :attr:`shards`.
        rows : sequence of int
            Ascending positions within the shard, each a row of the table.

        Raises
        ------
        ArgumentError, FormatError, OSError
            See :meth:`read`, whose items are read here unless a source can do with less.
        """
        import pyarrow as pa

        schema = self.metadata_schema
        found = [item.metadata for item in self.read(shard, rows)]
        return pa.Table.from_arrays(
            [pa.array([one.get(field.name) for one in found], field.type) for field in schema], schema=schema
        )

    @property
    def metadata_at_hand(self) -> bool:
        """Whether reading the metadata of all images costs little beside reading the images: columns of a table, say.

        Then a run tells what it kept by their values.
        """
        return False

    def was_missing(self, shard: Shard, row: int, kind: str) -> bool:
        """Return whether there was no file for an image when the collection was opened: lists may name files in vain.

        Such a failure is final, and the fingerprint tells it. A file that was there, and that the system does not give
        now, is read again by the next run. A source that does not know answers for a file that is missing now from a
        folder that holds others. ``kind`` is how reading it failed: see :func:`rsprune.errors.failure`.
        """
        return kind == "not_found" and is_gone(next(iter(self.read(shard, [row]))).data)

    def check_unchanged(self, shard: Shard) -> None:  # noqa: B027 - not every source can tell
        """Compare the files of a shard that was read with what they were when the collection was opened.

        A source that does not know does nothing.

        Raises
        ------
        SourceChangedError
            One has another size, or was written to since; the message names it.
        """

    @property
    def passed_over(self) -> Mapping[str, int]:
        """What of the collection is passed over, by what it is; known once the images have been counted."""
        return {}

    @property
    def band_counts(self) -> Mapping[int, str]:
        """The numbers of bands of its arrays, where they are known, and an image or a file of each."""
        return {}

    @abstractmethod
    def count(self, shard: Shard) -> int:
        """Count the images of a shard, reading none of them."""

    @abstractmethod
    def size(self, shard: Shard) -> int:
        """Return how many bytes reading a shard takes from the disk."""

    def requests(self, shard: Shard) -> int:
        """Return how many requests to a storage it takes to read a shard; 0 if it lies on a disk."""
        return 0

    def total(self) -> int:
        """Count the images of the collection.

        Raises
        ------
        FormatError
            If shards are damaged; it names all of them.
        EmptyInputError
            If there are none.

        Warns
        -----
        SkippedFilesWarning
            If some are passed over, the first time.
        """
        total, damaged = 0, {}
        for shard in self.shards:
            try:
                total += self.count(shard)
            except FormatError as error:
                damaged[shard.name] = str(error)
        if damaged:
            remedy = "`--on-damaged-shard skip` of `rsprune prune`, `embed`, `entropy` and `centroids` leaves them out"
            message = f"{describe_damaged(damaged, len(self.shards))}. Write them anew; {remedy}"
            raise FormatError(message)
        if not total:
            message = f"no images in any of the {len(self.shards)} shards: {', '.join(s.name for s in self.shards[:5])}"
            message += "".join(f"; {count:,} {what} are left out" for what, count in self.passed_over.items())
            raise EmptyInputError(message)
        if self.passed_over and not self._said:
            self._said = True
            parts = ", ".join(f"{count:,} {what}" for what, count in self.passed_over.items())
            warnings.warn(f"left out of the collection: {parts}", SkippedFilesWarning, stacklevel=2)
        return total

    @abstractmethod
    def fingerprint(self) -> dict[str, Any]:
        """Identify the input, for the provenance: another answer means another input.

        Returns
        -------
        dict
            ``kind`` and ``shards``: per shard its name and what tells it from another without reading it, the names and
            sizes of its files. A copy of a collection has the same, wherever and whenever it was made. For concatenated
            collections ``kind`` and ``sources``, a dict each. Only strings, numbers, lists and dicts.
        """


#: What :func:`rsprune.sources.open_source` opens.
SourceLike = str | os.PathLike[str] | Source | Sequence["str | os.PathLike[str] | Source"]


class SkippedFilesWarning(UserWarning):
    """Files of a collection were left out because they are no images, or no images of their own."""


def describe_skipped(where: object, skipped: Mapping[str, int]) -> str:
    """Return the text of a :class:`SkippedFilesWarning`.

    Parameters
    ----------
    where
        The folder or tar file.
    skipped
        The number of files by extension.
    """
    counts = sorted(skipped.items(), key=lambda one: (-one[1], one[0]))
    kinds = ", ".join(f"{count} {extension or 'without extension'}" for extension, count in counts)
    return f"{sum(skipped.values())} files in {where} are not read as images: {kinds}"


def describe_damaged(damaged: Mapping[str, str], shards: int) -> str:
    """Return the text of an error about damaged shards: what is wrong with each."""
    return f"{len(damaged)} of {shards} shards are damaged: {'; '.join(damaged.values())}"


def check_outside(path: str | os.PathLike[str], *sources: Source) -> None:
    """Raise an :class:`OutputError` if ``path`` lies in a folder that is read whole, before anything is written."""
    for folder in (folder for source in sources for folder in source.folders):
        if (address := address_of(path)) is not None or is_remote(folder):
            inside = f"{address}/".startswith(f"{folder}/")
        else:
            inside = Path(path).resolve().is_relative_to(Path(folder).resolve())
        if inside:
            message = (
                f"{address or os.fspath(path)} lies in {folder}, whose images are read: what is written there would "
                "become part of the collection. Write to a place outside of it"
            )
            raise OutputError(message)


def check_rows(shard: Shard, rows: Sequence[int] | None, images: int) -> Sequence[int]:
    """Return the positions to read of a shard with ``images`` images, or raise ArgumentError."""
    if rows is None:
        return range(images)
    before = -1
    for row in rows:
        if not before < row < images:
            message = f"rows of shard {shard.name} must ascend and lie in [0, {images}), got {row} after {before}"
            raise ArgumentError(message)
        before = row
    return rows
