"""Processes whose system calls a test answers: each call may fail as that of a full or lost disk does, or be the last.

The kernel asks the test (seccomp's user notification, Linux 5.0) before it carries out a call of those that were named,
whoever makes it: Python, Arrow, NumPy, the compiled core, a thread or a process that was started by the process.
"""

import contextlib
import ctypes
import errno
import fcntl
import os
import platform
import select
import signal
import struct
import sys
import time
from collections.abc import Callable
from multiprocessing import forkserver, get_context, reduction
from pathlib import Path
from typing import NamedTuple

import pytest

__all__ = ["READS", "SHORT", "WRITES", "Call", "Ended", "kill", "needs_linux", "run"]

needs_linux = pytest.mark.skipif(
    sys.platform != "linux" or platform.machine() != "x86_64", reason="the calls are those of Linux on x86-64"
)

#: By number, the name of a call, and which argument is the file: a descriptor, or a path where it is negative.
WRITES = {
    1: ("write", 0),
    18: ("pwrite64", 0),
    20: ("writev", 0),
    74: ("fsync", 0),
    82: ("rename", -1),
    83: ("mkdir", -1),
    87: ("unlink", -1),
    257: ("openat", -2),
    263: ("unlinkat", -2),
}
READS = {0: ("read", 0), 17: ("pread64", 0), 257: ("openat", -2)}

OPENAT = 257

#: In place of an error number: the call reads half of what it was asked for.
SHORT = -1

#: Seconds after which a process that has not ended is killed, and the test fails.
PATIENCE = 60.0

# struct seccomp_notif, seccomp_notif_resp and the requests of linux/seccomp.h.
NOTIFICATION, RECEIVE, SEND = struct.Struct("=QIIiIQ6Q"), 0xC0502100, 0xC0182101
ANSWER, CONTINUE = struct.Struct("=QqiI"), 1


class Call(NamedTuple):
    """A call that waits for its answer."""

    process: int
    name: str
    path: str


class Ended(NamedTuple):
    """How a process ended, and what it wrote."""

    code: int
    said: str


def run(
    work: Callable[[], int],
    log: Path,
    answer: Callable[[Call], int] = lambda call: 0,
    calls: dict[int, tuple[str, int]] = WRITES,
) -> Ended:
    """Do ``work``, a function that a new process can import, where ``answer`` gives each call 0 or its error number.

    It ends when the process has ended, and all that it has started.
    """
    _start_server()
    ours, theirs = get_context("forkserver").Pipe()
    process = get_context("forkserver").Process(target=_work, args=(theirs, work, log, tuple(calls)))
    begun = time.perf_counter()
    process.start()
    theirs.close()
    listener = reduction.recv_handle(ours)
    try:  # whatever happens, no process is left that waits for an answer
        poll = select.poll()
        poll.register(listener, select.POLLIN)
        while True:
            ready = poll.poll(1000 * PATIENCE)
            if not ready or time.perf_counter() - begun > PATIENCE:
                process.kill()
                pytest.fail(f"not ended after {PATIENCE} s: {log.read_text()}")
            if ready[0][1] & select.POLLIN:
                _answer(listener, answer, calls)
            elif ready[0][1]:  # nobody is left who could call
                break
    finally:
        os.close(listener)
    process.join()
    return Ended(process.exitcode, log.read_text())


def _start_server() -> None:
    """Start the process that the others are forked from, which has imported what they need."""
    if forkserver._forkserver._forkserver_pid is None:
        forkserver.set_forkserver_preload(["faulty_imports"])
        before = os.environ.get("PYTHONPATH")
        os.environ["PYTHONPATH"] = os.pathsep.join(sys.path)
        try:
            forkserver.ensure_running()
        finally:
            os.environ.pop("PYTHONPATH")
            if before is not None:
                os.environ["PYTHONPATH"] = before


def _work(connection, work, log, numbers) -> None:
    descriptor = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    os.dup2(descriptor, 1)
    os.dup2(descriptor, 2)
    reduction.send_handle(connection, _listen(numbers), None)
    sys.exit(work())


def _listen(numbers) -> int:
    """Have the calls of these numbers wait for an answer; return the descriptor that tells of them."""
    load, equal, any_bit, end = 0x20, 0x15, 0x45, 0x06
    others = [number for number in numbers if number != OPENAT]
    program = [(load, 0, 0, 0)]
    program += [(equal, len(others) - at + 3, 0, number) for at, number in enumerate(others)]
    program += [(equal, 0, 2 if OPENAT in numbers else 1, OPENAT), (load, 0, 0, 16 + 2 * 8)]
    program += [(any_bit, 1, 0, os.O_WRONLY | os.O_RDWR if 1 in numbers else 0xFFFFFFFF)]
    program += [(end, 0, 0, 0x7FFF0000), (end, 0, 0, 0x7FC00000)]  # SECCOMP_RET_ALLOW, SECCOMP_RET_USER_NOTIF
    code = ctypes.create_string_buffer(b"".join(struct.pack("=HBBI", *one) for one in program))
    libc = ctypes.CDLL(None, use_errno=True)
    libc.prctl(38, 1, 0, 0, 0)  # PR_SET_NO_NEW_PRIVS
    filters = struct.pack("H6xP", len(program), ctypes.addressof(code))
    listener = libc.syscall(317, 1, 8, filters)  # seccomp(SECCOMP_SET_MODE_FILTER, SECCOMP_FILTER_FLAG_NEW_LISTENER)
    if listener < 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()), "seccomp")
    return listener


def _answer(listener: int, answer, calls) -> None:
    asked = bytearray(NOTIFICATION.size)
    try:
        fcntl.ioctl(listener, RECEIVE, asked, True)
        number, process, _, call, _, _, *arguments = NOTIFICATION.unpack(asked)
        name, where = calls[call]
        error = answer(Call(process, name, _path(process, arguments, where))) or 0
        if error == SHORT:
            says = ANSWER.pack(number, _read_half(process, name, arguments), 0, 0)
            fcntl.ioctl(listener, SEND, bytearray(says))
            return
        says = ANSWER.pack(number, 0, -error, 0 if error else CONTINUE)
        fcntl.ioctl(listener, SEND, bytearray(says))
    except OSError as gone:  # the process was killed meanwhile
        if gone.errno != errno.ENOENT:
            raise


def _read_half(process: int, name: str, arguments) -> int:
    """Carry out a read in the place of the process, of half of what it asked for."""
    descriptor, place, size, offset = arguments[:4]
    status = Path(f"/proc/{process}/status").read_text()
    watched = os.pidfd_open(int(status.split("Tgid:")[1].split()[0]))  # of the whole process, where a thread reads
    own = ctypes.CDLL(None).syscall(438, watched, descriptor, 0)  # pidfd_getfd: the same file, at the same position
    os.close(watched)
    size = max(size // 2, 1)
    data = os.read(own, size) if name == "read" else os.pread(own, size, offset)
    os.close(own)
    with Path(f"/proc/{process}/mem").open("rb+", buffering=0) as memory:
        memory.seek(place)
        memory.write(data)
    return len(data)


def _path(process: int, arguments, where: int) -> str:
    try:
        if where >= 0:
            return str(Path(f"/proc/{process}/fd/{arguments[where]}").readlink())
        with Path(f"/proc/{process}/mem").open("rb", buffering=0) as memory:
            memory.seek(arguments[-1 - where])
            return memory.read(4096).split(b"\0")[0].decode(errors="replace")
    except OSError:
        return ""


def kill(process: int, number: int = signal.SIGKILL) -> None:
    """Send a signal to a process that may have ended."""
    with contextlib.suppress(ProcessLookupError):
        os.kill(process, number)
