"""What a runner carries out: a stage over shards, each of which gives a summary that merges with the others."""

from __future__ import annotations

import dataclasses
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future
from pathlib import Path
from types import TracebackType
from typing import Any, ClassVar, Generic, Protocol, TypeVar

from rsprune.errors import EmptyInputError, PartsLeftError, WorkerError
from rsprune.runners.parts import Part, share_out
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

    def weight(self, shard: Shard) -> int:
        """Return how much work a shard is, in any unit: shards are shared out by it, and the largest begun first."""
        return self.count(shard)

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

    def give_up(self, shard: Shard, reason: str) -> S:
        """Summarize a shard over which worker processes died, again and again; what died of tells ``reason``.

        Raises
        ------
        WorkerError
            The stage cannot be without the shard: the work ends.
        """
        message = f"{reason}; what other workers finished is kept"
        raise WorkerError(message)

    def conclude(self, summary: S) -> None:
        """Raise what the merged summary of all shards has against going on; called when no shard is left to be run."""

    @property
    def threads(self) -> int | None:
        """How many threads it was told to use; None for all cores."""
        return None

    def with_threads(self, threads: int) -> Stage[S]:
        """Return the stage as it uses so many threads."""
        return self

    @property
    def device(self) -> str | None:
        """The device of the model that it keeps loaded from shard to shard; None if it has no model."""
        return None

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
    """Carries out stages, on whatever processes or machines it has: ``workers`` of them, or as it likes if None.

    Attributes
    ----------
    part
        Which part of the shards of a stage it does, and of how many; None for all shards.
    has_address
        Whether it works on a cluster that has an address.
    address
        That of the cluster; None for the one that it finds by itself.
    """

    part: Part | None = None
    has_address: ClassVar[bool] = False
    address: str | None = None

    def __init__(self, workers: int | None = None) -> None:
        self.workers = workers

    @abstractmethod
    def run(self, stage: Stage[S], shards: Sequence[Shard], progress: Progress) -> Iterator[S]:
        """Run a stage on shards, and yield their summaries in any order.

        An exception of the stage ends the run, and comes up here. ``progress.advance`` counts the images. A shard over
        which workers die is tried again, and then summarized by :meth:`Stage.give_up`; the others are done.
        """

    def map_merge(self, stage: Stage[S], progress: Progress | None = None) -> S:
        """Run a stage on those of its shards that are not done, the largest first, and merge the summaries of all.

        What the stage raises comes up here.

        Raises
        ------
        EmptyInputError
            The stage has no shards.
        PartsLeftError
            The shards of this part are done, those of other parts are not.
        """
        progress = progress or NoProgress()
        if not stage.shards:
            message = f"the stage {stage.name!r} has no shards to work on"
            raise EmptyInputError(message)
        number, parts = self.part or (1, 1)
        shares = share_out([stage.weight(shard) for shard in stage.shards], parts)
        own = [stage.shards[at] for at in shares.pop(number - 1)]
        others = [stage.shards[at] for share in shares for at in share]
        done: list[Shard] = []
        left: list[Shard] = []
        for shard in own:
            (done if stage.is_done(shard) else left).append(shard)
        progress.start(stage.name, sum(map(stage.count, own)), sum(map(stage.count, done)))
        merged: S | None = None

        def merge(summaries: Iterable[S]) -> None:
            nonlocal merged
            for summary in summaries:
                if merged is None:
                    merged = summary
                else:
                    merged.merge(summary)

        merge(map(stage.summarize, done))
        if left:
            merge(self.run(stage, left, progress))
        progress.finish()
        if merged is not None:
            stage.conclude(merged)
        if waiting := _not_done(stage, others):
            raise PartsLeftError((number, parts), stage.name, waiting, len(stage.shards))
        merge(map(stage.summarize, others))
        assert merged is not None
        return merged


def _not_done(stage: Stage[S], shards: Sequence[Shard]) -> int:
    """Count the shards that are not done; their files are looked into only where all of them are there."""
    missing = sum(not all(path.exists() for path in stage.outputs(shard)) for shard in shards)
    return missing or sum(not stage.is_done(shard) for shard in shards)
