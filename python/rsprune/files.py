"""Writing files so that nobody ever sees half of one."""

from __future__ import annotations

import os
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

__all__ = ["TEMPORARY", "replacing", "sweep"]

#: How the names of unfinished files end; they begin with a dot. A killed process leaves them.
TEMPORARY = ".writing"


@contextmanager
def replacing(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Give a path to write to, beside ``path``; rename it to ``path`` at the end, or remove it after an error.

    Whoever reads ``path`` meanwhile, or after the process was killed, finds the old file or the new one.
    """
    target = Path(path)
    target.parent.mkdir(parents=True, exist_ok=True)
    beside = target.with_name(f".{target.name}.{uuid.uuid4().hex}{TEMPORARY}")
    try:
        yield beside
        # Onto the disk before the name points to it: after a power cut the name must not lead to an empty file.
        with beside.open("rb+") as file:
            os.fsync(file.fileno())
        beside.replace(target)
    finally:
        beside.unlink(missing_ok=True)


def sweep(folder: str | os.PathLike[str]) -> None:
    """Remove the unfinished files that killed processes left anywhere in a folder, which no process works on."""
    for left_over in Path(folder).rglob(f".*{TEMPORARY}"):
        left_over.unlink(missing_ok=True)
