"""Who watches a run. Progress goes through four calls, whatever shows it."""

from __future__ import annotations

import contextlib
import json
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol, TextIO

if TYPE_CHECKING:
    from rich.progress import TaskID

__all__ = ["Bars", "JsonLines", "Observer", "Silent", "observe"]


class Observer(Protocol):
    """Something that shows how far a run is."""

    def start(self, stage: str, total: int, done: int) -> None:
        """Begin a stage of ``total`` images, ``done`` of which an earlier run has finished."""

    def advance(self, images: int) -> None:
        """Count ``images`` more of the current stage as done."""

    def finish(self) -> None:
        """End the current stage."""

    def note(self, message: str) -> None:
        """Tell the user something that is no error."""


class Silent:
    """Shows nothing."""

    def start(self, stage: str, total: int, done: int) -> None:
        """Show nothing."""

    def advance(self, images: int) -> None:
        """Show nothing."""

    def finish(self) -> None:
        """Show nothing."""

    def note(self, message: str) -> None:
        """Show nothing."""


@dataclass
class Clock:
    """The speed of one stage: images that this process did, and the seconds that it took for them."""

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


class JsonLines:
    """Writes one JSON object a line: for batch jobs and other programs.

    Parameters
    ----------
    out
        Where to.
    period
        Seconds between two lines of one stage.
    """

    def __init__(self, out: TextIO | None = None, period: float = 5.0) -> None:
        self.out = sys.stdout if out is None else out
        self.period = period
        self.clock = Clock("", 0, 0)
        self.written = 0.0

    def write(self, event: str, **values: object) -> None:
        """Write one line."""
        print(json.dumps({"event": event, **values}), file=self.out, flush=True)

    def start(self, stage: str, total: int, done: int) -> None:
        """Write that a stage begins."""
        self.clock = Clock(stage, total, done)
        self.written = 0.0
        self.write("start", stage=stage, total=total, done=done)

    def advance(self, images: int) -> None:
        """Write how far the stage is, once a period."""
        self.clock.images += images
        if self.clock.seconds - self.written >= self.period:
            self.written = self.clock.seconds
            done = self.clock.done + self.clock.images
            left = (self.clock.total - done) / max(self.clock.rate, 1e-9)
            self.write(
                "progress",
                stage=self.clock.stage,
                done=done,
                total=self.clock.total,
                images_per_second=round(self.clock.rate, 1),
                seconds_left=round(left, 1),
            )

    def finish(self) -> None:
        """Write that the stage is done, and how fast it was."""
        clock = self.clock
        rate = round(clock.rate, 1)
        self.write(
            "finish", stage=clock.stage, images=clock.images, seconds=round(clock.seconds, 3), images_per_second=rate
        )

    def note(self, message: str) -> None:
        """Write the message."""
        self.write("note", message=message)


class Bars:
    """Draws a bar for each stage on the terminal, with images a second and the time left."""

    def __init__(self) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

        self.console = Console(stderr=True)
        self.bars = Progress(
            TextColumn("{task.description:<10}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[rate]:>14}"),
            TimeRemainingColumn(elapsed_when_finished=True),
            console=self.console,
        )
        self.task: TaskID | None = None
        self.clock = Clock("", 0, 0)

    def start(self, stage: str, total: int, done: int) -> None:
        """Draw the bar of a new stage."""
        self.bars.start()
        self.clock = Clock(stage, total, done)
        self.task = self.bars.add_task(stage, total=total, completed=done, rate="")

    def advance(self, images: int) -> None:
        """Move the bar."""
        self.clock.images += images
        if self.task is not None:
            self.bars.update(self.task, advance=images, rate=f"{self.clock.rate:,.0f} images/s")

    def finish(self) -> None:
        """Fill the bar."""
        if self.task is not None:
            self.bars.update(self.task, completed=self.clock.total)

    def note(self, message: str) -> None:
        """Print the message above the bars."""
        self.console.print(message, style="yellow")

    def stop(self) -> None:
        """Leave the bars as they are."""
        self.bars.stop()


@contextlib.contextmanager
def observe(progress: bool | Observer) -> Iterator[Observer]:
    """The observer that ``progress`` stands for: bars on a terminal, nothing elsewhere, or one that was made before."""
    if not isinstance(progress, bool):
        yield progress
    elif progress and sys.stderr.isatty():
        bars = Bars()
        try:
            yield bars
        finally:
            bars.stop()
    else:
        yield Silent()
