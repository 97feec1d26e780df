"""The runner of one process: shards one after another, each of them on all cores."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future
from typing import TypeVar

from typing_extensions import override

from rsprune.runners.base import Runner, Stage, Summary
from rsprune.runners.progress import Progress
from rsprune.sources import Shard

__all__ = ["LocalRunner"]

S = TypeVar("S", bound=Summary)


class LocalRunner(Runner):
    """Runs stages in this process; a shard is finished while the next one begins."""

    @override
    def run(self, stage: Stage[S], shards: Sequence[Shard], progress: Progress) -> Iterator[S]:
        pending: deque[Future[S]] = deque()
        with stage:
            for shard in shards:
                pending.append(stage.submit(shard, progress.advance))
                if len(pending) > 1:
                    yield pending.popleft().result()
            while pending:
                yield pending.popleft().result()
