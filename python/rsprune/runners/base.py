"""What a runner carries out: a stage over shards, each of which gives a summary that merges with the others."""

from __future__ import annotations

import dataclasses
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from pathlib import Path
from types import TracebackType
from typing import Any, Generic, Protocol, TypeVar

from rsprune.errors import EmptyInputError
from rsprune.runners.progress import NoProgress, Progress
from rsprune.sources import Shard

__all__ = ["Advance", "Runner", "Stage", "Summary"]

#: Called with the number of images that have been done since the last call.
Advance = Callable[[int], None]


class Summary(Protocol):
    """Mergeable state: the summary of two sets of shards is the merge of theirs, in any order."""

    def merge(self, other: Any) -> None:
        """Add the state of other shards, which stays as it is."""


S = TypeVar("S", bound=Summary)


class Stage(ABC, Generic[S]):
    """One step of a run, done shard by shard.

    A stage is a dataclass that can be pickled: its fields say what to read, how to work and where to write. Whatever it
    opens (models, files, threads) it opens where and when it works, and keeps outside its fields.
    """

    name: str  # that progress is reported under

    @property
    @abstractmethod
    def shards(self) -> tuple[Shard, ...]:
        """The shards that the stage has to be run on."""

    @abstractmethod
    def count(self, shard: Shard) -> int:
        """Count the images that the stage works on in a shard."""

    @abstractmethod
    def outputs(self, shard: Shard) -> tuple[Path, ...]:
        """Return the files that the stage makes of a shard."""

    @abstractmethod
    def is_done(self, shard: Shard) -> bool:
        """Tell whether an earlier run has finished the shard and its files are as they were written."""

    @abstractmethod
    def summarize(self, shard: Shard) -> S:
        """Summarize a shard that is done from its files."""

    @abstractmethod
    def run(self, shard: Shard, advance: Advance) -> S:
        """Do the work on a shard, write its files, and summarize it."""

    def conclude(self, summary: S) -> None:
        """Raise what the merged summary of all shards has against going on; called when no shard is left to be run."""

    def share(self, workers: int) -> Stage[S]:
        """Return the stage as one of several workers on this machine does it: with fewer threads."""
        return self

    def submit(self, shard: Shard, advance: Advance) -> Future[S]:
        """Do the work on a shard, leaving to a thread what can be finished while the next shard begins."""
        future: Future[S] = Future()
        future.set_result(self.run(shard, advance))
        return future

    def __enter__(self) -> Stage[S]:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close what the stage has opened."""

    def __getstate__(self) -> dict[str, Any]:
        return {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}  # type: ignore[arg-type]


class Runner(ABC):
    """Carries out stages, on whatever processes or machines it has: ``workers`` of them, or as it likes if None."""

    def __init__(self, workers: int | None = None) -> None:
        self.workers = workers

    @abstractmethod
    def run(self, stage: Stage[S], shards: Sequence[Shard], progress: Progress) -> Iterator[S]:
        """Run a stage on shards, and yield their summaries in any order.

        An exception of the stage ends the run, and comes up here. ``progress.advance`` counts the images.
        """

    def map_merge(self, stage: Stage[S], progress: Progress | None = None) -> S:
        """Run a stage on those of its shards that are not done, and merge the summaries of all.

        A stage without shards is an :class:`~rsprune.errors.EmptyInputError`; what the stage raises comes up here.
        """
        progress = progress or NoProgress()
        if not stage.shards:
            message = f"the stage {stage.name!r} has no shards to work on"
            raise EmptyInputError(message)
        done = [shard for shard in stage.shards if stage.is_done(shard)]
        left = [shard for shard in stage.shards if shard not in set(done)]
        progress.start(stage.name, sum(map(stage.count, stage.shards)), sum(map(stage.count, done)))
        merged: S | None = None
        for summaries in (map(stage.summarize, done), self.run(stage, left, progress) if left else ()):
            for summary in summaries:
                if merged is None:
                    merged = summary
                else:
                    merged.merge(summary)
        progress.finish()
        assert merged is not None
        stage.conclude(merged)
        return merged
