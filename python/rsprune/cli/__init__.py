"""The command line: one file a command, each a thin face of a function of the package."""

import atexit
import os
import signal
import sys
import threading
from typing import NoReturn

from rsprune.interrupts import SIGNALS
from rsprune.temporaries import remove_unfinished

__all__ = ["main"]

#: Seconds that threads have to end after a command that was told to.
LAST = 1.5


def main() -> None:
    """Run the command line. A signal ends it in order before its command has begun, too, and after that has ended."""
    for number in SIGNALS:
        signal.signal(number, leave)
    atexit.register(ignore)
    from rsprune.cli.app import app

    try:
        app()
    except SystemExit as end:
        if end.code in SIGNALS.values():  # threads may be at reads that take long
            last = threading.Timer(LAST, vanish, [end.code])
            last.daemon = True
            last.start()
        raise


def leave(number: int, _: object) -> NoReturn:
    """End at once, where there is nothing to be finished: modules are imported, or threads waited for."""
    sys.stderr.write("terminated\n" if number == signal.SIGTERM else "interrupted\n")
    sys.stderr.flush()
    vanish(SIGNALS[signal.Signals(number)])


def vanish(code: int) -> NoReturn:
    """End without waiting for anything."""
    remove_unfinished()
    os._exit(code)


def ignore() -> None:
    """Keep the exit code while the interpreter is taken down, which would have the system's handlers back."""
    for number in SIGNALS:
        signal.signal(number, signal.SIG_IGN)
