"""Temporary files: their names tell who writes them, and so which of them a killed process has left."""

from __future__ import annotations

import functools
import hashlib
import os
import platform
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

__all__ = ["TEMPORARY", "remove_temporaries", "remove_unfinished", "this_machine", "unfinished"]

#: How the names of unfinished files end; they begin with a dot. A killed process leaves them.
TEMPORARY = ".writing"
#: Those of this process.
_unfinished: set[Path] = set()
#: Seconds without a change after which an unfinished file of another machine is taken for one of a killed process.
ABANDONED = 24 * 3600.0


@contextmanager
def unfinished(target: Path) -> Iterator[Path]:
    """Yield a new path beside ``target`` to write to, and remove what is there at the end.

    Its name tells the machine and the process.
    """
    unique = f"{this_machine()}-{os.getpid()}-{uuid.uuid4().hex[:12]}"
    beside = target.with_name(f".{target.name}.{unique}{TEMPORARY}")
    _unfinished.add(beside)
    try:
        yield beside
    finally:
        _remove(beside)


def remove_unfinished() -> None:
    """Remove the unfinished files of this process, which is about to end."""
    for path in list(_unfinished):
        _remove(path)


def _remove(path: Path) -> None:
    with suppress(OSError):  # a disk that has become read-only, or is gone, is what the command fails of already
        path.unlink(missing_ok=True)
        _unfinished.discard(path)


@functools.cache
def this_machine() -> str:
    """Name the machine as long as it runs, or the container, whose processes have numbers of their own."""
    told = platform.node()
    with suppress(OSError):  # no Linux
        told += Path("/proc/sys/kernel/random/boot_id").read_text() + str(Path("/proc/self/ns/pid").readlink())
    return hashlib.blake2b(told.encode(), digest_size=4).hexdigest()


def remove_temporaries(folder: str | os.PathLike[str], *, shared: bool = False) -> None:
    """Remove the unfinished files that killed processes left anywhere in a folder.

    No other process works on it, unless it is ``shared``: then those stay that may be another one's.
    """
    for left_over in Path(folder).rglob(f".*{TEMPORARY}"):
        if not (shared and _may_be_written(left_over)):
            left_over.unlink(missing_ok=True)


def _may_be_written(temporary: Path) -> bool:
    """Tell whether a process may be at a file: one of this machine that lives, or one of another machine of late."""
    machine, _, rest = temporary.name.removesuffix(TEMPORARY).rpartition(".")[2].partition("-")
    process = rest.partition("-")[0]
    if machine == this_machine() and process.isdecimal() and os.name == "posix":
        try:
            os.kill(int(process), 0)
        except ProcessLookupError:
            return False
        except OSError:  # another user's
            return True
        return True
    with suppress(FileNotFoundError):
        return time.time() - temporary.stat().st_mtime < ABANDONED
    return False
