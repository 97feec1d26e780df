"""The command line: one file a command, each a thin face of a function of the package."""

import atexit
import os
import signal
import sys
from typing import NoReturn

from rsprune.interrupts import SIGNALS
from rsprune.temporaries import remove_unfinished

__all__ = ["main"]


def main() -> None:
    """Run the command line. A signal ends it in order before its command has begun, too, and after that has ended."""
    for number in SIGNALS:
        signal.signal(number, leave)
    atexit.register(ignore)
    from rsprune.cli.app import app

    app()


def leave(number: int, _: object) -> NoReturn:
    """End at once, where there is nothing to be finished: modules are imported, or threads waited for."""
    remove_unfinished()
    sys.stderr.write("terminated\n" if number == signal.SIGTERM else "interrupted\n")
    sys.stderr.flush()
    os._exit(SIGNALS[signal.Signals(number)])


def ignore() -> None:
    """Keep the exit code while the interpreter is taken down, which would have the system's handlers back."""
    for number in SIGNALS:
        signal.signal(number, signal.SIG_IGN)
