"""Runners carry out the stages of a run, and progress is how they report it."""

from __future__ import annotations

from rsprune.errors import ArgumentError
from rsprune.registry import Registry
from rsprune.runners.base import Advance, Runner, Stage, Summary
from rsprune.runners.parts import Part
from rsprune.runners.progress import JsonLines, NoProgress, Progress, ProgressBars, ProgressLines, show_progress

__all__ = [
    "RUNNERS",
    "Advance",
    "JsonLines",
    "NoProgress",
    "Progress",
    "ProgressBars",
    "ProgressLines",
    "Runner",
    "Stage",
    "Summary",
    "open_runner",
    "show_progress",
]

#: The runners that are known by name.
RUNNERS: Registry[type[Runner]] = Registry(
    "runner",
    "rsprune.runners",
    {
        "local": "rsprune.runners.local:LocalRunner",
        "processes": "rsprune.runners.processes:ProcessRunner",
        "ray": "rsprune.runners.ray:RayRunner",
    },
    check=lambda member: isinstance(member, type) and issubclass(member, Runner),
    expected="a subclass of rsprune.runners.Runner",
)


def open_runner(name: str, workers: int | None, part: Part | None, address: str | None) -> Runner:
    """Make a runner; it is an error to give an address to one that has none."""
    runner = RUNNERS.get(name)(workers)
    if address is not None and not runner.has_address:
        message = f"address is {address!r}, but the runner {name!r} has none; expected one such as 'ray'"
        raise ArgumentError(message)
    runner.part, runner.address = part, address
    return runner
