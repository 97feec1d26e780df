"""The quarantine table: every image that was not read, with its cause."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from rsprune.io import write_table
from rsprune.runs.config import RunContext
from rsprune.runs.reader import RunReader
from rsprune.runs.schema import QUARANTINE_SCHEMA

__all__ = ["write_quarantine"]


def write_quarantine(
    context: RunContext, reader: RunReader, repeated: Mapping[str, NDArray[np.int64]] | None = None
) -> int:
    """Write the failures that the shards' tables name, and the repeated keys, in row order.

    Parameters
    ----------
    context
        The run.
    reader
        A reader of its folder.
    repeated
        By shard, the positions of images whose key an earlier image has.

    Returns
    -------
    int
        The number of rows of the table.
    """
    rows = [row for shard in reader.shards for row in failures(reader, shard)]
    why = {"stage": "keys", "kind": "duplicate", "message": "an earlier image has the same key"}
    for shard, positions in (repeated or {}).items():
        keys = reader.keys(shard)
        rows += [{"key": keys[row].as_py(), "shard": shard, "row": row, **why} for row in positions.tolist()]
    rows.sort(key=lambda row: (row["shard"], row["row"], row["stage"]))
    table = pa.Table.from_pylist(rows, schema=QUARANTINE_SCHEMA)
    write_table(context.folder.quarantine, table, context.provenance)
    return len(rows)


def failures(reader: RunReader, shard: str) -> Iterator[dict[str, Any]]:
    """Yield the failures of one shard."""
    for stage, path in (("entropy", reader.folder.entropy(shard)), ("embed", reader.folder.assignments(shard))):
        if path.exists():
            table = reader.table(path)
            failed = pc.is_valid(table["kind"])
            rows = table["row"].to_numpy() if stage == "embed" else np.arange(len(table))
            for row, one in zip(rows[failed.to_numpy()], table.filter(failed).to_pylist(), strict=True):
                where = {"key": one["key"], "shard": shard, "row": int(row), "stage": stage}
                yield where | {"kind": one["kind"], "message": one["message"]}
