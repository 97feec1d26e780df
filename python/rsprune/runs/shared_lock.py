"""A lock that several processes hold at once, on one machine or on several that share a file system.

The read-write locks of `filelock` are databases or marks in a folder, which a process that is killed leaves behind. The
system lets go of a ``flock`` whatever becomes of the process, and it excludes the :class:`filelock.FileLock` of the
same file.
"""

from __future__ import annotations

import errno
import os
import time
from pathlib import Path

from filelock import Timeout

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

__all__ = ["SharedLock", "why_no_locks"]

#: Seconds between two attempts.
PAUSE = 0.05
#: What file systems without locks answer.
NO_LOCKS = {errno.ENOSYS, errno.ENOTSUP, errno.ENOLCK, errno.EINVAL}


def why_no_locks(path: Path) -> str | None:
    """Return what the file system of ``path`` answers where it has no locks; None if it has them."""
    if fcntl is None:
        return None  # filelock has others
    try:
        descriptor, made = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o644), True
    except FileExistsError:
        descriptor, made = os.open(path, os.O_RDWR | os.O_CLOEXEC), False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno not in NO_LOCKS:
            return None  # it is held, or whoever takes the lock says what is wrong
        if made:
            path.unlink()
        return os.strerror(error.errno)
    finally:
        os.close(descriptor)
    return None


class SharedLock:
    """Excludes a :class:`filelock.FileLock` of the same file, and no other shared lock.

    Both are the system's ``flock``. Where there is none, nothing is excluded.
    """

    def __init__(self, path: Path, timeout: float) -> None:
        self._path, self._timeout = path, timeout
        self._descriptor: int | None = None

    def acquire(self) -> None:
        """Take the lock.

        Raises
        ------
        Timeout
            It is held by one that excludes others.
        """
        end = time.monotonic() + self._timeout
        while self._descriptor is None and fcntl is not None:
            descriptor = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
            try:
                fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
                # Who held it before may have removed the file, and a lock of that excludes nobody.
                if os.path.samestat(os.fstat(descriptor), self._path.stat()):
                    self._descriptor = descriptor
            except FileNotFoundError:
                pass
            except BlockingIOError:
                if time.monotonic() > end:
                    raise Timeout(str(self._path)) from None
                time.sleep(PAUSE)
            except OSError as error:
                if error.errno in NO_LOCKS:
                    return
                raise
            finally:
                if self._descriptor is None:
                    os.close(descriptor)

    def is_held_by_others(self) -> bool:
        """Tell whether other processes hold it; if none does, it excludes them from now on."""
        if self._descriptor is None:
            return True  # who knows
        try:
            fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            return True
        return False

    def release(self) -> None:
        """Let go of it."""
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None
