"""The end of a process that is told to end: in order, with no unfinished file left, and soon."""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

from rsprune.temporaries import remove_unfinished

__all__ = ["GRACE", "SIGNALS", "orderly_end"]

#: Seconds that a process has to end by itself. Then it is ended wherever it is: in a read that does not come back, say.
GRACE = 8.0

#: What a terminal sends for Ctrl-C, and what SLURM, Kubernetes and Ray send; each with the exit code of a shell.
SIGNALS = {signal.SIGINT: 130, signal.SIGTERM: 143}


@contextmanager
def orderly_end(end: Callable[[int], object], *, grace: float = GRACE, late: str = "") -> Iterator[None]:
    """Have ``end(number)`` called in the main thread when a signal comes; it raises what ends the process.

    Only the first signal counts: what is removed and written on the way out is not disturbed by those that follow. A
    process that has not ended ``grace`` seconds later removes its unfinished files, says ``late``, and is gone.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    over = threading.Event()
    told, tell = os.pipe()
    os.set_blocking(tell, False)

    def handle(number: int, _: object) -> None:
        for one in SIGNALS:
            signal.signal(one, signal.SIG_IGN)
        end(number)

    def watch() -> None:
        # The system itself writes the number of the signal there, whatever the main thread is at.
        with suppress(OSError):
            while data := os.read(told, 1):
                if data[0] in SIGNALS and not over.wait(grace):
                    remove_unfinished()
                    with suppress(OSError, ValueError):
                        sys.stderr.write(late)
                        sys.stderr.flush()
                    os._exit(SIGNALS[signal.Signals(data[0])])
        os.close(told)

    before = {number: signal.signal(number, handle) for number in SIGNALS}
    wakeup = signal.set_wakeup_fd(tell, warn_on_full_buffer=False)
    threading.Thread(target=watch, name="rsprune-end", daemon=True).start()
    try:
        yield
    finally:
        over.set()
        signal.set_wakeup_fd(wakeup)
        for number, handler in before.items():
            signal.signal(number, handler)
        os.close(tell)
