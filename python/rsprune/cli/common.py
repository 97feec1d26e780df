"""Options, progress and error handling that the commands share."""

from __future__ import annotations

import contextlib
import functools
import os
import signal
import sys
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Annotated, Any, NoReturn, ParamSpec, TextIO, TypeVar

import typer

from rsprune.errors import PartsLeftError, RspruneError, printable
from rsprune.interrupts import orderly_end
from rsprune.runners import JsonLines, NoProgress, Progress, show_progress
from rsprune.sources import SOURCES, source_forms
from rsprune.storage import with_addresses
from rsprune.temporaries import remove_unfinished

P = ParamSpec("P")
R = TypeVar("R")

# --- options ----------------------------------------------------------------------------------------------------------

SourceArgument = Annotated[
    list[str],
    typer.Argument(help=f"The images: {source_forms(SOURCES.built_in)}."),
]
ReferenceOption = Annotated[
    list[str],
    typer.Option(
        "--reference",
        "-r",
        help="Labelled scene images, one set or several; published ones by name (resisc45, ucmerced, aid, whu-rs19, "
        "rsd46-whu); their embeddings (.npy, tables), or centroids (.safetensors); or self, a sample of the "
        "collection.",
    ),
]
OutFolder = Annotated[Path, typer.Option("--out", "-o", help="The run folder. An interrupted run goes on from it.")]
Weights = Annotated[Path | None, typer.Option(help="The encoder's weights, where they are not found by themselves.")]
Seed = Annotated[int, typer.Option(help="The seed of every random draw.")]
Threads = Annotated[int | None, typer.Option("--threads", "-j", min=1, help="Threads. Default: all cores.")]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="Show nothing but errors.")]
Json = Annotated[bool, typer.Option("--json", help="Write progress and result as JSON lines on standard output.")]


def one_or_many(source: list[str]) -> str | list[str]:
    """A single argument stands for itself: a folder is no list of one."""
    return source[0] if len(source) == 1 else source


# --- progress and errors ----------------------------------------------------------------------------------------------


@contextlib.contextmanager
def watch(quiet: bool, json: bool) -> Iterator[Progress]:
    """Yield the progress that the flags ask for; a part of the work that is done ends the command well."""
    try:
        with show_progress(JsonLines() if json else NoProgress() if quiet else True) as observer:
            yield observer
    except PartsLeftError as done:
        conclude(vars(done), str(done), quiet, json)
        raise typer.Exit from None


def show_warning(
    message: Warning | str,
    category: type[Warning],
    filename: str,
    lineno: int,
    file: TextIO | None = None,
    line: str | None = None,
) -> None:
    """Show a warning as one line, without the line of code that gave it: stands in for `warnings.showwarning`."""
    typer.secho(printable(f"warning: {message}"), fg="yellow", err=True)


class Terminated(KeyboardInterrupt):
    """The process was asked to end: SIGTERM."""


def interrupt(number: int) -> NoReturn:
    """End a command as Python ends for SIGINT, so that temporary files are removed on the way out."""
    raise Terminated if number == signal.SIGTERM else KeyboardInterrupt


GOES_ON = "the same command goes on where it was"


def guarded(command: Callable[P, R]) -> Callable[P, R]:
    """End a command with one clear line instead of a traceback. ``RSPRUNE_TRACEBACK=1`` shows the traceback."""

    @functools.wraps(command)
    def run(*args: P.args, **kwargs: P.kwargs) -> R:
        try:
            with orderly_end(interrupt, late=f"\nended: {GOES_ON}\n"), warnings.catch_warnings():
                warnings.showwarning = show_warning
                return command(*args, **kwargs)
        except KeyboardInterrupt as error:
            remove_unfinished()  # it may have come just before one was removed
            word, code = ("terminated", 143) if isinstance(error, Terminated) else ("interrupted", 130)
            typer.secho(f"\n{word}: {GOES_ON}", fg="yellow", err=True)
            raise typer.Exit(code) from None
        except (RspruneError, OSError, ImportError) as error:
            if os.environ.get("RSPRUNE_TRACEBACK") == "1":
                raise
            typer.secho(printable(with_addresses(f"error: {error}")), fg="red", err=True)
            raise typer.Exit(1) from None
        finally:
            sys.stdout.flush()

    return run


def conclude(metrics: dict[str, Any], text: str, quiet: bool, json: bool) -> None:
    """Show the result of a command, in the form that the flags ask for."""
    if json:
        JsonLines().write("result", **metrics)
    elif not quiet:
        typer.echo(printable(with_addresses(text)))
