"""A lock that several processes hold at once, on one machine or on several that share a file system."""

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

__all__ = ["SharedLock"]

#: Seconds between two attempts.
PAUSE = 0.05
#: What file systems without locks answer.
NO_LOCKS = {errno.ENOSYS, errno.ENOTSUP, errno.ENOLCK, errno.EINVAL}


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
