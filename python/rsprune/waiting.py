"""What is waited for is said: a line when something that is out of our hands takes more than two seconds."""

from __future__ import annotations

import itertools
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

__all__ = ["saying", "waiting_for"]

#: Seconds before a wait is said.
PATIENCE = 2.0

#: How often the waits are looked at, and for how long after the last one.
PERIOD, IDLE = 0.25, 10.0

# Who shows the lines, the last that asked; without any they go to standard error. What has been said is not repeated.
_listeners: list[Callable[[str], None]] = []
_said: set[str] = set()
_waits: dict[int, tuple[float, str, int]] = {}
_numbers = itertools.count()
_watcher: threading.Thread | None = None
_starting = threading.Lock()


@contextmanager
def saying(show: Callable[[str], None]) -> Iterator[None]:
    """Have ``show`` called with the lines meanwhile."""
    _listeners.append(show)
    try:
        yield
    finally:
        _listeners.remove(show)


@contextmanager
def waiting_for(what: str) -> Iterator[None]:
    """Say once in a process that ``what`` is waited for, if this takes long."""
    global _watcher
    if what in _said:
        yield
        return
    number = next(_numbers)
    _waits[number] = time.monotonic(), what, threading.get_ident()
    with _starting:
        if _watcher is None or not _watcher.is_alive():
            _watcher = threading.Thread(target=_watch, name="rsprune-waits", daemon=True)
            _watcher.start()
    try:
        yield
    finally:
        _waits.pop(number, None)


def _watch() -> None:
    """Look at all waits, until there have been none for a while: a thread for each would cost more than most waits."""
    last = time.monotonic()
    while time.monotonic() - last < IDLE:
        time.sleep(PERIOD)
        innermost = {thread: (begun, what) for begun, what, thread in list(_waits.values())}
        for begun, what in innermost.values():
            last = time.monotonic()
            if last - begun >= PATIENCE and what not in _said:
                _said.add(what)
                _say(f"waiting for {what}")


def _say(line: str) -> None:
    if _listeners:
        _listeners[-1](line)
    else:
        print(f"rsprune: {line}", file=sys.stderr, flush=True)
