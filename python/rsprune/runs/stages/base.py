"""What the stages of a run have in common."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pyarrow as pa
from typing_extensions import Self, override

from rsprune.errors import LostShardsError, UnreadShardError, shown
from rsprune.io import digest, read_record, write_table
from rsprune.runners import Stage
from rsprune.runs.context import RunContext
from rsprune.runs.summary import ShardSummary
from rsprune.sources import Shard, Source
from rsprune.sources.passing import PASSING

__all__ = ["REPEATED", "Failures", "RunStage", "StageResult", "failure_columns", "repeated_names", "require_read"]

#: By position in a shard, why an image failed: the name of the cause, and what it says.
Failures = Mapping[int, tuple[str, str]]

#: Why an image is left out whose name an earlier one of its shard has.
REPEATED = ("duplicate", "an earlier image of the shard has the same name")


@dataclass(frozen=True)
class StageResult:
    """What one stage made: where it is, its metrics, and the same in words."""

    path: Path
    metrics: dict[str, Any]
    text: str


@dataclass(frozen=True)
class RunStage(Stage[ShardSummary]):
    """A stage that writes into a run folder; a shard's record, written last, says that it is done."""

    context: RunContext

    @override
    def is_done(self, shard: Shard) -> bool:
        outputs = self.outputs(shard)
        if not self.context.folder.is_whole(*outputs):
            return False
        record = read_record(self.context.folder.record(outputs[-1]))
        return all(record.get(name) == value for name, value in self.depends_on(shard).items())

    def depends_on(self, shard: Shard) -> dict[str, Any]:
        """Return the digests of what a shard's files depend on beside the configuration, as their record has them."""
        known = self.context.shards.get(shard.name)
        return {} if known is None else {"shard": known}

    @override
    def give_up(self, shard: Shard, reason: str) -> ShardSummary:
        return ShardSummary(lost={shard.name: reason})

    @override
    def conclude(self, summary: ShardSummary) -> None:
        if lost := summary.lost:
            raise LostShardsError(self.name, lost, len(self.shards))
        if unread := summary.unread:
            first = min(unread)
            message = (
                f"{len(unread)} of {len(self.shards)} shards could not be read, the first is {first}: {unread[first]}. "
                "Make its files readable again and make the same call: it goes on with these shards"
            )
            raise UnreadShardError(message)

    @property
    @override
    def threads(self) -> int | None:
        return self.context.threads

    @override
    def with_threads(self, threads: int) -> Self:
        return replace(self, context=replace(self.context, threads=threads))

    def write(self, path: Path, shard: Shard, columns: list[pa.Array], schema: pa.Schema) -> None:
        """Write a table of a shard."""
        table = pa.Table.from_arrays(columns, schema=schema)
        write_table(path, table, {**self.context.provenance, "shard": shard.name})

    def complete(self, shard: Shard, keys: Sequence[str] | None = None) -> None:
        """Write the record of a shard, whose files are all there, with the digest of its images' ``keys``."""
        outputs = self.outputs(shard)
        values = self.depends_on(shard) | ({} if keys is None else {"keys": digest(keys)})
        self.context.folder.complete(self.context.folder.record(outputs[-1]), outputs, values)


def require_read(source: Source, shard: Shard, failures: Iterable[tuple[int, str, str]]) -> None:
    """Fail at an image that the system did not give, unless there was none when the collection was opened.

    Raises
    ------
    UnreadShardError
        It says of which file, and why.
    """
    for row, kind, message in failures:
        if kind in PASSING and not source.was_missing(shard, row, kind):
            raise UnreadShardError(message)


def repeated_names(names: Sequence[str]) -> list[int]:
    """Return the positions of the names that an earlier image of the shard has."""
    seen: set[str] = set()
    return [at for at, name in enumerate(names) if name in seen or seen.add(name)]  # type: ignore[func-returns-value]


def failure_columns(failures: Failures, rows: int) -> tuple[pa.Array, pa.Array]:
    """Make the columns ``kind`` and ``message`` of a shard's table: null where nothing failed."""
    causes = {i: (kind, shown(message)) for i, (kind, message) in failures.items()}
    outcomes = [causes.get(i, (None, None)) for i in range(rows)]
    return pa.array([kind for kind, _ in outcomes], pa.string()), pa.array([why for _, why in outcomes], pa.string())
