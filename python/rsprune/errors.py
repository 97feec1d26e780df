"""Every error that rsprune raises, one class a cause.

All derive from :class:`RspruneError`, and from the built-in class that a Python programmer would expect
(``ValueError``, ``TypeError``), so that ``except ValueError`` keeps working. Files that cannot be opened raise the
built-in ``FileNotFoundError``, ``PermissionError`` and so on. The compiled core raises these same classes.
"""

from __future__ import annotations

import errno
import html
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, ClassVar

__all__ = [
    "ArgumentError",
    "BandsError",
    "BudgetError",
    "ConfigMismatchError",
    "CorruptImageError",
    "DamagedFileError",
    "DivergedError",
    "DtypeError",
    "DuplicateKeyError",
    "EmptyImageError",
    "EmptyInputError",
    "EncodedTooLargeError",
    "EncoderError",
    "EncoderMismatchError",
    "FormatError",
    "ImageError",
    "ImageMemoryError",
    "ImageTooLargeError",
    "InvalidRowError",
    "KeyMismatchError",
    "LostShardsError",
    "MissingDependencyError",
    "MissingInputError",
    "NoValidPixelsError",
    "NotFiniteError",
    "NotRegularFileError",
    "OutputError",
    "PartsLeftError",
    "RspruneError",
    "ShapeError",
    "SourceError",
    "StorageError",
    "TruncatedImageError",
    "UnfinishedRunError",
    "UnknownImageFormatError",
    "UnknownKeyError",
    "UnreadShardError",
    "UnsupportedImageError",
    "ValueRangeError",
    "WeightsError",
    "WorkerError",
    "failure",
    "first_line",
    "naming",
    "needed_by",
    "printable",
    "shown",
]


#: Longer messages are cut, so that no file, name or value can fill a report.
LONGEST_MESSAGE = 500


def first_line(error: BaseException) -> str:
    """Return the first line of what an error of a library says, or else its name."""
    return next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)


class RspruneError(Exception):
    """Base of all errors of rsprune. A message is one that a terminal can show, see :func:`shown`."""

    def __init__(self, *args: Any) -> None:
        super().__init__(*(shown(one) if isinstance(one, str) else one for one in args))


def printable(text: str) -> str:
    """Escape what a terminal would obey, or show as nothing, in names of files and keys; line feeds stay."""
    return "".join(
        one if one.isprintable() or one == "\n" else one.encode("unicode_escape").decode("ascii") for one in text
    )


def as_html(text: str) -> str:
    """Return text of several lines as a notebook shows it."""
    return f"<pre>{html.escape(printable(text))}</pre>"


def shown(message: str) -> str:
    """Make a message printable, and cut it in its middle to :data:`LONGEST_MESSAGE` characters."""
    for step in (str, printable):  # cut first: what is escaped may be millions of characters, and gets longer
        message = step(message)
        if len(message) > LONGEST_MESSAGE:
            end = LONGEST_MESSAGE // 3  # where a message says what to do
            message = f"{message[: LONGEST_MESSAGE - end - 5]} ... {message[-end:]}"
    return message


class ArgumentError(RspruneError, ValueError):
    """An option has a value that it cannot have."""


class MissingInputError(ArgumentError):
    """A selection method that lacks an input, a key of :attr:`WHAT`; the message names both."""

    # What each input of a method is, in words.
    WHAT: ClassVar[dict[str, str]] = {
        "embeds": "the embeddings of the pool",
        "budget": "a number of rows, or a fraction",
        "reference": "the embeddings of reference images",
        "centroids": "fitted centroids",
        "entropy": "the entropies of the images, from rsprune.entropy",
        "score": "a score for each row, more is better",
        "labels": "a class for each row",
    }

    def __init__(self, method: str, name: str) -> None:
        super().__init__(f"the strategy {method!r} needs {name}=: {self.WHAT.get(name, name)}")


class ShapeError(RspruneError, ValueError):
    """An array has the wrong number of dimensions or the wrong extent."""


class DtypeError(RspruneError, TypeError):
    """An array holds numbers of a kind that is not read."""


class BudgetError(RspruneError, ValueError):
    """A budget that is not a number of rows, or that cannot be met."""


class EmptyInputError(RspruneError, ValueError):
    """Nothing to work on: no rows, no images, an empty folder."""


class InvalidRowError(RspruneError, ValueError):
    """An embedding without a direction: NaN, infinite or all zero."""


class FormatError(RspruneError, ValueError):
    """A file whose content is not what its format demands."""


class NotRegularFileError(RspruneError, OSError):
    """A pipe, a device or a socket, whose reading may never end; only regular files are read."""

    #: The kinds, as the quarantine table names them.
    KINDS: ClassVar[tuple[str, ...]] = ("fifo", "character_device", "block_device", "socket")


class DamagedFileError(FormatError):
    """A file of a run folder whose content is not what was written there."""


class SourceError(RspruneError, ValueError):
    """A collection of images that cannot be read as what it was given as."""


class DuplicateKeyError(SourceError):
    """Two images of a collection share one key."""


class ConfigMismatchError(RspruneError, ValueError):
    """A run folder that was started with a different configuration."""


class KeyMismatchError(ConfigMismatchError):
    """A row of a collection whose key is not the one that it had when the collection was read before."""


class SourceChangedError(ConfigMismatchError, SourceError):
    """A file of a collection that is another one than it was when the collection was opened, or read before."""


class OutputError(RspruneError, ValueError):
    """A place to write to that holds what another command or program made, or what the same command reads."""


class StorageError(RspruneError, OSError):
    """A file system that does not take what a run writes: full, read-only, or gone. What is finished is kept."""


class WorkerError(RspruneError, RuntimeError):
    """A worker process that ended before its work was done, more than once."""


class LostShardsError(WorkerError):
    """Shards over which worker processes died, again and again: ``lost`` says of each how; all others are done.

    ``stage`` is the name of the stage, and ``shards`` the number of all its shards.
    """

    def __init__(self, stage: str, lost: Mapping[str, str], shards: int) -> None:
        self.stage, self.lost, self.shards = stage, dict(lost), shards
        first = min(lost)
        super().__init__(
            f"{len(lost)} of {shards:,} shards were put aside, the first is {first}: {lost[first]}. All others are "
            "done. Make the same call again to try these: with fewer workers if memory was short (SIGKILL), or with "
            "on_damaged_shard='skip' (--on-damaged-shard skip), which leaves out those that fail again"
        )

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.stage, self.lost, self.shards)


class UnfinishedRunError(RspruneError, RuntimeError):
    """A run folder whose run has not come to its end."""


class PartsLeftError(UnfinishedRunError):
    """The part of a stage that a call was to do is done, and shards are left to other parts: no failure.

    ``part`` is the number of the part and how many there are, ``stage`` the name of the stage, ``left`` how many of its
    ``shards`` are left.
    """

    def __init__(self, part: tuple[int, int], stage: str, left: int, shards: int) -> None:
        self.part, self.stage, self.left, self.shards = part, stage, left, shards
        super().__init__(
            f"part {part[0]}/{part[1]} of the stage {stage} is done; {left:,} of {shards:,} shards are left to other "
            "parts: when they have ended, make the same call for each part again, or without a part, which does all "
            "that is left"
        )

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.part, self.stage, self.left, self.shards)


class UnreadShardError(RspruneError, OSError):
    """Shards whose files the system did not give; nothing is stored of them, and the next run reads them again."""


class UnknownKeyError(RspruneError, KeyError):
    """Keys that no image of the run has: ``keys``.

    ``explanations`` has a :class:`rsprune.report.Explanation` of each of the other keys that were asked for, in order.
    """

    def __init__(self, message: str, keys: Sequence[str] = (), explanations: Sequence[Any] = ()) -> None:
        super().__init__(message)
        self.keys = tuple(keys)
        self.explanations = list(explanations)

    def __str__(self) -> str:
        """The message as it is: ``KeyError`` would print it in quotes."""
        return str(self.args[0])


class EncoderError(RspruneError, ValueError):
    """An encoder that is not known or cannot be built."""


class WeightsError(EncoderError):
    """A weights file that is missing, or that is not the encoder's."""


class EncoderMismatchError(RspruneError, ValueError):
    """Embeddings and centroids that come from different encoders."""


class DivergedError(RspruneError, ArithmeticError):
    """A training whose loss is no longer a number."""


class MissingDependencyError(RspruneError, ImportError):
    """An optional dependency that is not installed; the message names the extra that brings it."""


class ImageError(RspruneError, ValueError):
    """An image that yields no samples. ``kind`` names the cause in the quarantine table."""

    kind = "image"


class EmptyImageError(ImageError):
    """No bytes at all."""

    kind = "empty"


class UnknownImageFormatError(ImageError):
    """The first bytes belong to no format that is read."""

    kind = "unknown_format"


class TruncatedImageError(ImageError):
    """The data ends before the image does."""

    kind = "truncated"


class CorruptImageError(ImageError):
    """The data contradicts its format."""

    kind = "corrupt"


class UnsupportedImageError(ImageError):
    """A valid image of a variant that is not read."""

    kind = "unsupported"


class ImageTooLargeError(ImageError):
    """More declared pixels than the limit."""

    kind = "too_large"


class EncodedTooLargeError(ImageError):
    """An encoded image of more bytes than the limit; it was not read."""

    kind = "too_many_bytes"


class ImageMemoryError(ImageError):
    """Not as much memory as the pixels take."""

    kind = "out_of_memory"


class NoValidPixelsError(ImageError):
    """Every pixel is nodata."""

    kind = "no_valid_pixels"


class BandsError(ImageError):
    """The bands that were asked for are not there."""

    kind = "bands"


class ValueRangeError(ImageError):
    """Samples of more than 8 bits whose range is not known, or with a ``valid_range=`` that is not theirs."""

    kind = "value_range"


class NotFiniteError(ImageError):
    """An image that an encoder maps to NaN or infinity."""

    kind = "not_finite"


_IMAGE_ERRORS: dict[str, type[ImageError]] = {error.kind: error for error in ImageError.__subclasses__()}
_SYSTEM_ERRORS = {"not_found": errno.ENOENT, "permission": errno.EACCES, "is_directory": errno.EISDIR}


@contextmanager
def needed_by(what: str, extra: str) -> Iterator[None]:
    """Name the extra that brings a package which ``what`` needs, if it cannot be imported."""
    try:
        yield
    except ImportError as error:
        message = f'{what} needs {error.name}: `pip install "rsprune[{extra}]"`'
        raise MissingDependencyError(message) from error


@contextmanager
def naming(path: str | os.PathLike[str]) -> Iterator[None]:
    """Put the name of a file before what is said of its content."""
    try:
        yield
    except (ArgumentError, DtypeError, EmptyInputError, ShapeError) as error:
        if str(error).startswith(os.fspath(path)):  # the core names the files that it reads
            raise
        message = f"{os.fspath(path)}: {error}"
        raise type(error)(message) from error


def failure(kind: str, message: str, name: str) -> Exception:
    """Return the exception, to be raised, for an image that the core reports as failed.

    ``kind`` and ``message`` are of the core's list of failures, or of the quarantine table: the ``kind`` of a subclass
    of :class:`ImageError`, one of :attr:`NotRegularFileError.KINDS`, or ``"not_found"``, ``"permission"``,
    ``"is_directory"`` or ``"io"`` of a file that could not be read, which make an :class:`OSError`. ``name`` is the
    image: its path or its place in the input.
    """
    if kind in _IMAGE_ERRORS:
        return _IMAGE_ERRORS[kind](f"{name}: {message}")
    if kind in NotRegularFileError.KINDS:
        return NotRegularFileError(message)
    if kind in _SYSTEM_ERRORS:
        return OSError(_SYSTEM_ERRORS[kind], os.strerror(_SYSTEM_ERRORS[kind]), name)
    return OSError(shown(message))
