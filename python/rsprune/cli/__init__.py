"""The command line: one file a command, each a thin face of a function of the package."""

import os
import signal
import sys
from typing import NoReturn

from rsprune.interrupts import SIGNALS, orderly_end
from rsprune.temporaries import remove_unfinished

__all__ = ["main"]


def main() -> None:
    """Run the command line. A signal ends it in order while it is loaded, too, and while it waits for threads."""
    try:
        with orderly_end(leave):
            from rsprune.cli.app import app

            app()
    finally:
        for number in SIGNALS:
            signal.signal(number, vanish)


def leave(number: int) -> NoReturn:
    """End before a command has begun, or after it."""
    sys.stderr.write("terminated\n" if number == signal.SIGTERM else "interrupted\n")
    raise SystemExit(SIGNALS[signal.Signals(number)])


def vanish(number: int, _: object) -> NoReturn:
    """End when all that is left is to wait for threads."""
    remove_unfinished()
    os._exit(SIGNALS[signal.Signals(number)])
