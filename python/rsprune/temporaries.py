"""Temporary files and folders: their names tell whose they are, and so which of them a killed process has left."""

from __future__ import annotations

import atexit
import functools
import hashlib
import os
import platform
import shutil
import tempfile
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

__all__ = ["TEMPORARY", "folder_for_copies", "remove_temporaries", "remove_unfinished", "this_machine", "unfinished"]

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
        return _is_alive(int(process))
    with suppress(FileNotFoundError):
        return time.time() - temporary.stat().st_mtime < ABANDONED
    return False


def _is_alive(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except OSError:  # another user's
        return True
    return True


def folder_for_copies() -> Path:
    """Make a folder for copies of objects in ``RSPRUNE_CACHE``, or where temporary files are.

    It goes with this process. Those that killed processes of this machine have left go now.
    """
    parent = Path(os.environ.get("RSPRUNE_CACHE") or tempfile.gettempdir())
    parent.mkdir(parents=True, exist_ok=True)
    here = f"rsprune-{this_machine()}-"
    for left_over in parent.glob(f"{here}*-*"):
        process = left_over.name.removeprefix(here).partition("-")[0]
        if os.name == "posix" and process.isdecimal() and not _is_alive(int(process)):
            shutil.rmtree(left_over, ignore_errors=True)
    folder = Path(tempfile.mkdtemp(prefix=f"{here}{os.getpid()}-", dir=parent))
    atexit.register(_remove_folder, folder, os.getpid())
    return folder


def _remove_folder(folder: Path, process: int) -> None:
    if os.getpid() == process:  # and not one that it forked
        shutil.rmtree(folder, ignore_errors=True)
