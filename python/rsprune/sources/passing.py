"""Failures that pass: what the system says of a file now, and may not say a moment later."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, TypeVar

from numpy.typing import NDArray

from rsprune.errors import RspruneError, UnreadShardError

__all__ = ["PASSING", "is_gone", "read_again", "reading", "reading_source"]

T = TypeVar("T")

#: The kinds of failures that say nothing of the bytes of an image.
PASSING = frozenset({"not_found", "permission", "is_directory", "io"})
#: Kinds that are tried anew. Memory is a cause of its own: an image may be too large for what there is, read alone.
RETRIED = PASSING | {"out_of_memory"}
#: Seconds before each further attempt.
DELAYS = (0.1, 0.2, 0.4)

Failed = list[tuple[int, str, str]]


def read_again(
    read: Callable[[list[Any]], tuple[NDArray[Any], Failed]],
    images: Sequence[Any],
    values: NDArray[Any],
    failed: Failed,
) -> Failed:
    """Read those images anew, one by one, whose failure may pass, and put what they give among ``values``.

    A file that is missing from a folder that holds others is not waited for. Returns the failures that are left.
    """
    left = {number: (kind, message) for number, kind, message in failed}
    for delay in DELAYS:
        tried = [i for i in left if left[i][0] in RETRIED and not (left[i][0] == "not_found" and is_gone(images[i]))]
        if not tried:
            break
        time.sleep(delay)
        for i in tried:
            value, again = read([images[i]])
            values[i] = value[0]
            if again:
                left[i] = again[0][1:]
                if left[i][0] in PASSING:
                    break  # the others wait for the same
            else:
                del left[i]
    return [(i, *left[i]) for i in sorted(left)]


def is_gone(path: Any) -> bool:
    """Tell whether a file is missing from a folder that holds others: a mount point without its disk is empty."""
    return isinstance(path, str) and not os.path.isfile(path) and holds_files(os.path.dirname(path))  # noqa: PTH113, PTH120


def holds_files(folder: str) -> bool:
    """Tell whether a folder is there, can be listed, and is not empty."""
    try:
        with os.scandir(folder or ".") as entries:
            return any(True for _ in entries)
    except OSError:
        return False


@contextmanager
def reading_source() -> Iterator[None]:
    """Tell an error of the system that a source has met from one of a file that is written."""
    try:
        yield
    except RspruneError:
        raise
    except OSError as error:
        raise UnreadShardError(str(error)) from error


def reading(items: Iterator[T]) -> Iterator[T]:
    """Yield what a source reads; see :func:`reading_source`."""
    with reading_source():
        yield from items
