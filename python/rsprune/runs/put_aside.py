"""Shards that a run is without because worker processes died over them, again and again."""

from __future__ import annotations

import functools
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

from rsprune.errors import LostShardsError
from rsprune.io import read_record, write_record
from rsprune.runs.folder import RunFolder
from rsprune.sources import SkippedFilesWarning, Source
from rsprune.sources.damaged import leave_out
from rsprune.storage import address_of

__all__ = ["leaving_out_lost", "without_put_aside"]

T = TypeVar("T")


def leaving_out_lost(run: Callable[..., T]) -> Callable[..., T]:
    """Make a call that skips damaged shards begin again without those over which its workers died.

    A part of a run does not, nor a run at an address: others know nothing of what it has lost.
    """

    @functools.wraps(run)
    def call(source: Any, *, out: str | Path, options: Any, **others: Any) -> T:
        skips = options.source.on_damaged_shard == "skip"
        while True:
            try:
                result = run(source, out=out, options=options, **others)
            except LostShardsError as error:
                known_to_all = not (options.execution.part or address_of(out))
                if not skips or not known_to_all or error.stage == "reference" or len(error.lost) == error.shards:
                    raise
                put_aside(RunFolder(out), error.lost)
            else:
                if not skips:  # they have been done
                    RunFolder(out).put_aside.unlink(missing_ok=True)
                return result

    return call


def put_aside(folder: RunFolder, lost: Mapping[str, str]) -> None:
    """Remove what a run has made of shards, and write down why it goes on without them."""
    with folder.lock():
        for shard in lost:
            for file in (folder.entropy(shard), folder.assignments(shard), folder.embeddings(shard)):
                folder.record(file).unlink(missing_ok=True)
                file.unlink(missing_ok=True)
        write_record(folder.put_aside, {"shards": {**known(folder), **lost}}, [])


def known(folder: RunFolder) -> dict[str, str]:
    """Return why shards were put aside, by their names."""
    return dict(read_record(folder.put_aside)["shards"]) if folder.put_aside.is_file() else {}


def without_put_aside(source: Source, folder: RunFolder) -> Source:
    """Leave out of a collection the shards that its run has put aside.

    Raises
    ------
    DamagedFileError
        The file that names them is not as it was written.

    Warns
    -----
    SkippedFilesWarning
        It names them.
    """
    names = {shard.name for shard in source.shards}
    lost = {shard: reason for shard, reason in known(folder).items() if shard in names}
    if not lost:
        return source
    message = f"left out: {', '.join(sorted(lost))}, over which workers died; delete {folder.put_aside} to try again"
    warnings.warn(message, SkippedFilesWarning, stacklevel=2)
    return leave_out(source, lost)
