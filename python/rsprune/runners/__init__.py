"""Runners carry out the stages of a run, and progress is how they report it."""

from rsprune.registry import Registry
from rsprune.runners.base import Advance, Runner, Stage, Summary
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
