"""Parts: the shards of a stage shared out among calls that know nothing of each other, as the tasks of an array job."""

from __future__ import annotations

import heapq
import os
from collections.abc import Sequence
from typing import Any

from rsprune.errors import ArgumentError
from rsprune.validation import check_integer

__all__ = ["Part", "check_part", "parse_part", "share_out"]

#: The number of a part, from 1 on, and how many there are.
Part = tuple[int, int]

EXPECTED = "expected a part and their number, such as 3/16, or slurm"


def parse_part(text: str) -> Part | str:
    """Parse a part: ``3/16``, or ``slurm``."""
    number, slash, count = text.partition("/")
    if text == "slurm":
        return text
    if not (slash and number.isdecimal() and count.isdecimal()):
        message = f"{text!r}: {EXPECTED}"
        raise ValueError(message)
    return int(number), int(count)


def check_part(part: Any) -> Part | None:
    """Check a part: a pair of integers, or as text ``"3/16"``; ``"slurm"`` is that of the task of a SLURM array job.

    Raises
    ------
    ArgumentError
        Anything else, or there is no such task.
    """
    if part is None:
        return None
    if part == "slurm":
        return _slurm_part()
    try:
        pair: Any = parse_part(part) if isinstance(part, str) else part
        number, count = pair
    except (TypeError, ValueError):
        message = f"part is {part!r}; {EXPECTED}"
        raise ArgumentError(message) from None
    count = check_integer("the number of parts", count)
    return check_integer("part", number, maximum=count), count


def _slurm_part() -> Part:
    names = ("TASK_ID", "TASK_MIN", "TASK_MAX", "TASK_COUNT")
    values = [os.environ.get(f"SLURM_ARRAY_{name}", "") for name in names]
    if not all(value.isdecimal() for value in values):
        message = "part is 'slurm', but SLURM_ARRAY_TASK_ID and its kin are not set: this is no task of an array job"
        raise ArgumentError(message)
    number, first, last, count = map(int, values)
    step = int(os.environ.get("SLURM_ARRAY_TASK_STEP") or 1)
    if last - first != (count - 1) * step:
        message = (
            f"part is 'slurm', but the array job has {count} tasks from {first} to {last}, not all between them: "
            "name the part, such as --part $SLURM_ARRAY_TASK_ID/16"
        )
        raise ArgumentError(message)
    return (number - first) // step + 1, count


def share_out(sizes: Sequence[int], parts: int) -> list[list[int]]:
    """Share out pieces of work evenly: each, the largest first, to the part that has the least so far.

    Returns
    -------
    list of list of int
        For each part the numbers of its pieces, the largest first. No part has more than 4/3 of what the best division
        gives its largest (R. L. Graham, Bounds on multiprocessing timing anomalies, 1969).
    """
    shares: list[list[int]] = [[] for _ in range(parts)]
    loads = [(0, part) for part in range(parts)]
    for piece in sorted(range(len(sizes)), key=lambda number: -sizes[number]):
        load, part = loads[0]
        shares[part].append(piece)
        heapq.heapreplace(loads, (load + sizes[piece] + 1, part))  # pieces of no size are shared out, too
    return shares
