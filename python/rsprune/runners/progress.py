"""Progress reporting: a stage calls four methods, whatever shows its progress."""

from __future__ import annotations

import contextlib
import json
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, TextIO

from typing_extensions import override

from rsprune.errors import printable
from rsprune.waiting import saying

if TYPE_CHECKING:
    from rich.progress import TaskID

__all__ = ["JsonLines", "NoProgress", "Progress", "ProgressBars", "ProgressLines", "describe_seconds", "show_progress"]


class Progress:
    """Shows how far a run is: the base of what does, which shows nothing itself."""

    def start(self, stage: str, total: int, done: int) -> None:
        """Begin a stage of ``total`` images, ``done`` of which an earlier run has finished."""

    def advance(self, images: int) -> None:
        """Count ``images`` more of the current stage as done."""

    def finish(self) -> None:
        """End the current stage."""

    def note(self, message: str) -> None:
        """Tell the user something that is no error."""


class NoProgress(Progress):
    """Shows nothing."""


@dataclass
class StageTimer:
    """Measures the speed of one stage: images done since it began, and the seconds that took."""

    stage: str
    total: int
    done: int
    images: int = 0
    begun: float = field(default_factory=time.perf_counter)

    @property
    def seconds(self) -> float:
        """Seconds since the stage began."""
        return time.perf_counter() - self.begun

    @property
    def rate(self) -> float:
        """Images a second."""
        return self.images / max(self.seconds, 1e-9)

    @property
    def seconds_left(self) -> float:
        """Seconds until the stage is done, at this speed."""
        return (self.total - self.done - self.images) / max(self.rate, 1e-9)


class _Lines(Progress):
    """Writes lines: two of one stage are at least ``period`` seconds apart."""

    def __init__(self, out: TextIO, period: float) -> None:
        self.out = out
        self.period = period
        self.timer = StageTimer("", 0, 0)
        self.written = 0.0

    @override
    def start(self, stage: str, total: int, done: int) -> None:
        self.timer = StageTimer(stage, total, done)
        self.written = 0.0

    @override
    def advance(self, images: int) -> None:
        self.timer.images += images
        if self.timer.seconds - self.written >= self.period:
            self.written = self.timer.seconds
            self.report(self.timer)

    def report(self, timer: StageTimer) -> None:
        """Write how far the stage is."""


class ProgressLines(_Lines):
    """Writes a line of text a minute, for logs: to ``out``, by default standard error. Short stages write none."""

    def __init__(self, out: TextIO | None = None, period: float = 60.0) -> None:
        super().__init__(sys.stderr if out is None else out, period)

    def write(self, text: str) -> None:
        """Write one line."""
        print(printable(text), file=self.out, flush=True)

    @override
    def report(self, timer: StageTimer) -> None:
        done = timer.done + timer.images
        speed = f"{timer.rate:,.0f}" if timer.rate >= 10 else f"{timer.rate:.2g}"
        left = describe_seconds(timer.seconds_left)
        self.write(f"{timer.stage}: {done:,} of {timer.total:,} images, {speed} images/s, {left} left")

    @override
    def finish(self) -> None:
        if self.written:
            self.write(f"{self.timer.stage}: done in {describe_seconds(self.timer.seconds)}")

    @override
    def note(self, message: str) -> None:
        self.write(message)


class JsonLines(_Lines):
    """Writes one JSON object a line, for batch jobs and other programs: to ``out``, by default standard output."""

    def __init__(self, out: TextIO | None = None, period: float = 5.0) -> None:
        super().__init__(sys.stdout if out is None else out, period)

    def write(self, event: str, **values: object) -> None:
        """Write one line."""
        print(json.dumps({"event": event, **values}, default=str), file=self.out, flush=True)

    @override
    def start(self, stage: str, total: int, done: int) -> None:
        super().start(stage, total, done)
        self.write("start", stage=stage, total=total, done=done)

    @override
    def report(self, timer: StageTimer) -> None:
        self.write(
            "progress",
            stage=timer.stage,
            done=timer.done + timer.images,
            total=timer.total,
            images_per_second=round(timer.rate, 1),
            seconds_left=round(timer.seconds_left, 1),
        )

    @override
    def finish(self) -> None:
        timer = self.timer
        rate = round(timer.rate, 1)
        self.write(
            "finish", stage=timer.stage, images=timer.images, seconds=round(timer.seconds, 3), images_per_second=rate
        )

    @override
    def note(self, message: str) -> None:
        self.write("note", message=message)


class ProgressBars(Progress):
    """Draws a bar for each stage on the terminal, with images a second and the time left."""

    def __init__(self) -> None:
        from rich import progress as rich
        from rich.console import Console

        self.console = Console(stderr=True)
        self.bars = rich.Progress(
            rich.TextColumn("{task.description:<10}"),
            rich.BarColumn(),
            rich.MofNCompleteColumn(),
            rich.TextColumn("{task.fields[rate]:>14}"),
            rich.TimeRemainingColumn(elapsed_when_finished=True),
            console=self.console,
        )
        self.task: TaskID | None = None
        self.timer = StageTimer("", 0, 0)

    @override
    def start(self, stage: str, total: int, done: int) -> None:
        self.bars.start()
        self.timer = StageTimer(stage, total, done)
        self.task = self.bars.add_task(stage, total=total, completed=done, rate="")

    @override
    def advance(self, images: int) -> None:
        self.timer.images += images
        if self.task is not None:
            self.bars.update(self.task, advance=images, rate=f"{self.timer.rate:,.0f} images/s")

    @override
    def finish(self) -> None:
        if self.task is not None:
            self.bars.update(self.task, completed=self.timer.total)

    @override
    def note(self, message: str) -> None:
        self.console.print(message, style="yellow")

    def stop(self) -> None:
        """Leave the bars as they are."""
        self.bars.stop()


@contextlib.contextmanager
def show_progress(progress: bool | Progress) -> Iterator[Progress]:
    """Yield bars on a terminal and lines elsewhere for True, nothing for False, and any other ``progress`` itself."""
    if not isinstance(progress, bool):
        shown = progress
    elif not progress:
        shown = NoProgress()
    else:
        shown = ProgressBars() if sys.stderr.isatty() else ProgressLines()
    try:
        with saying(shown.note):
            yield shown
    finally:
        if shown is not progress and isinstance(shown, ProgressBars):
            shown.stop()


def describe_seconds(seconds: float) -> str:
    """Print a time, in two units at most: 3 min 20 s."""
    if seconds < 1:
        return f"{seconds:.1g} s"
    minutes, left = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    days, hours = divmod(hours, 24)
    units = [(days, "d"), (hours, "h"), (minutes, "min"), (left, "s")]
    first = next(at for at, (count, _) in enumerate(units) if count)
    return " ".join(f"{count} {unit}" for count, unit in units[first : first + 2] if count)
