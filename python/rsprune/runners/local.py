"""The runner of one machine: shards one after another, each of them on all cores."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TypeVar

__all__ = ["run_shards"]

T = TypeVar("T")


def run_shards(shards: Sequence[T], output: Callable[[T], Path], work: Callable[[T], None]) -> None:
    """Do ``work`` on every shard whose output does not exist yet.

    A shard is the unit of work and of restart: ``work`` writes ``output(shard)`` last and atomically, so that its
    existence says that the shard is done.
    """
    for shard in shards:
        if not output(shard).exists():
            work(shard)
