"""What the commands share: their options, how they show progress, and how errors end them."""

from __future__ import annotations

import contextlib
import functools
import json
import os
import sys
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Annotated, Any, ParamSpec, TextIO, TypeVar

import typer

from rsprune.encoders.base import Precision as EncoderPrecision
from rsprune.entropy import Gray as GrayRule
from rsprune.errors import RspruneError
from rsprune.runners import JsonLines, NoProgress, Progress, show_progress
from rsprune.selection import Fill as FillRule
from rsprune.selection import Within as WithinRule
from rsprune.sources import SOURCES, source_forms

P = ParamSpec("P")
R = TypeVar("R")

# --- options ----------------------------------------------------------------------------------------------------------

SourceArgument = Annotated[
    list[str],
    typer.Argument(help=f"The images: {source_forms(SOURCES.built_in)}."),
]
OutFolder = Annotated[Path, typer.Option("--out", "-o", help="The run folder. An interrupted run goes on from it.")]
Encoder = Annotated[str, typer.Option("--encoder", "-e", help="The encoder: `rsprune encoders list` names them.")]
Weights = Annotated[Path | None, typer.Option(help="The encoder's weights, where they are not found by themselves.")]
Device = Annotated[
    str | None,
    typer.Option(help="The device of the encoder: cpu, cuda, or cuda:0,cuda:1. Default: every GPU, or the CPU."),
]
Precision = Annotated[
    EncoderPrecision, typer.Option(help="What the encoder computes in. auto: bfloat16 where the device has it.")
]
Compile = Annotated[bool, typer.Option("--compile", help="Compile the encoder: slow to start, faster afterwards.")]
KeepEmbeddings = Annotated[
    bool, typer.Option("--keep-embeddings", help="Keep the embeddings, too, and not only clusters and similarities.")
]
BatchSize = Annotated[int | None, typer.Option(min=1, help="Images in one forward pass.")]
K = Annotated[int, typer.Option("--k", "-k", help="The number of centroids.")]
Keep = Annotated[str, typer.Option(help="The budget: a number of images, or a fraction of the whole collection.")]
EntropyKeep = Annotated[float, typer.Option(help="The fraction of the collection that Stage I keeps.")]
Tau = Annotated[float | None, typer.Option(help="Keep images of this entropy (bits) or more, instead of a fraction.")]
Fill = Annotated[FillRule, typer.Option(help="Who gets what the quotas leave of the budget.")]
Within = Annotated[WithinRule, typer.Option(help="Which images of a cluster come first.")]
MinSimilarity = Annotated[
    float | None, typer.Option(help="Never keep images that are less similar than this to every centroid.")
]
Strategy = Annotated[str, typer.Option(help="How rows are chosen: [bold]rsprune strategies[/bold] lists all ways.")]
StrategyOption = Annotated[
    list[str] | None, typer.Option("--strategy-option", "-O", help="An option of the strategy.", metavar="NAME=VALUE")
]
Seed = Annotated[int, typer.Option(help="The seed of every random draw.")]
Gray = Annotated[GrayRule, typer.Option(help="Grayscale: Pillow's L, a JPEG's own Y (faster), or the mean.")]
Bands = Annotated[str | None, typer.Option(help="The bands to read, counted from 0: 3,2,1.", metavar="B,B,B")]
NoData = Annotated[int | None, typer.Option(help="Leave pixels of this value out of the histogram.")]
ValidRange = Annotated[str | None, typer.Option(help="The range of 16-bit samples: 0,10000.", metavar="LO,HI")]
MaxPixels = Annotated[int | None, typer.Option(min=1, help="Refuse images of more pixels than this.")]
Threads = Annotated[int | None, typer.Option("--threads", "-j", min=1, help="Threads. Default: all cores.")]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="Show nothing but errors.")]
Json = Annotated[bool, typer.Option("--json", help="Write progress and result as JSON lines on standard output.")]


def integers(text: str | None, option: str, count: int | None = None) -> tuple[int, ...] | None:
    """Parse ``3,2,1``."""
    if text is None:
        return None
    try:
        values = tuple(int(part) for part in text.split(","))
    except ValueError:
        values = ()
    if not values or (count is not None and len(values) != count):
        what = "whole numbers" if count is None else f"{count} whole numbers"
        msg = f"{option} takes {what} with commas between them, not {text!r}"
        raise typer.BadParameter(msg)
    return values


def sample_range(text: str | None) -> tuple[int, int] | None:
    """Parse ``0,10000``, the range of 16-bit samples."""
    ends = integers(text, "--valid-range", 2)
    return None if ends is None else (ends[0], ends[1])


def budget(text: str) -> int | float:
    """Parse a budget: ``1890`` is a number of images, ``0.15`` a fraction."""
    for kind in (int, float):
        with contextlib.suppress(ValueError):
            return kind(text)
    msg = f"--keep takes a number of images or a fraction, not {text!r}"
    raise typer.BadParameter(msg)


def settings(words: list[str] | None, option: str) -> dict[str, Any]:
    """Parse ``k=200``, ``topup=false``, ``which=furthest``: values are JSON, or else text."""
    options = {}
    for word in words or []:
        name, equals, text = word.partition("=")
        if not (name and equals):
            msg = f"{option} takes NAME=VALUE, not {word!r}"
            raise typer.BadParameter(msg)
        try:
            options[name] = json.loads(text)
        except ValueError:
            options[name] = text
    return options


def pixels(
    gray: GrayRule, bands: str | None, nodata: int | None, valid_range: str | None, max_pixels: int | None
) -> dict[str, Any]:
    """Collect the keyword arguments of the options that say how pixels are read."""
    return {
        "gray": gray,
        "bands": integers(bands, "--bands"),
        "nodata": nodata,
        "valid_range": sample_range(valid_range),
        "max_pixels": max_pixels,
    }


def one_or_many(source: list[str]) -> str | list[str]:
    """A single argument stands for itself: a folder is no list of one."""
    return source[0] if len(source) == 1 else source


# --- progress and errors ----------------------------------------------------------------------------------------------


@contextlib.contextmanager
def watch(quiet: bool, json: bool) -> Iterator[Progress]:
    """The observer that the flags ask for."""
    if json:
        yield JsonLines()
    elif quiet:
        yield NoProgress()
    else:
        with show_progress(True) as observer:
            yield observer


def show_warning(
    message: Warning | str,
    category: type[Warning],
    filename: str,
    lineno: int,
    file: TextIO | None = None,
    line: str | None = None,
) -> None:
    """Show a warning as one line, without the line of code that gave it: stands in for `warnings.showwarning`."""
    typer.secho(f"warning: {message}", fg="yellow", err=True)


def guarded(command: Callable[P, R]) -> Callable[P, R]:
    """End a command with one clear line instead of a traceback. ``RSPRUNE_TRACEBACK=1`` shows the traceback."""

    @functools.wraps(command)
    def run(*args: P.args, **kwargs: P.kwargs) -> R:
        try:
            with warnings.catch_warnings():
                warnings.showwarning = show_warning
                return command(*args, **kwargs)
        except KeyboardInterrupt:
            typer.secho("\ninterrupted: the same command goes on where it was", fg="yellow", err=True)
            raise typer.Exit(130) from None
        except (RspruneError, OSError, ImportError) as error:
            if os.environ.get("RSPRUNE_TRACEBACK") == "1":
                raise
            typer.secho(f"error: {error}", fg="red", err=True)
            raise typer.Exit(1) from None
        finally:
            sys.stdout.flush()

    return run


def conclude(figures: dict[str, Any], text: str, quiet: bool, json: bool) -> None:
    """Show the result of a command, in the form that the flags ask for."""
    if json:
        JsonLines().write("result", **figures)
    elif not quiet:
        typer.echo(text)
