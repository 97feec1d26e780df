"""The quarantine table: every image that was not read, with its cause."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from rsprune.io import write_table
from rsprune.runs.config import RunContext
from rsprune.runs.reader import RunReader
from rsprune.runs.schema import QUARANTINE_SCHEMA

__all__ = ["write_quarantine"]


def write_quarantine(context: RunContext, reader: RunReader) -> int:
    """Write the failures that the shards' tables name, in row order, and shards that are left out, of the row -1.

    Returns the number of images among them.
    """
    rows = [row for shard in reader.shards for row in failures(reader, shard)]
    damaged = {"key": "", "row": -1, "stage": "source", "kind": "damaged_shard"}
    for shard, message in context.left_out.items():
        rows.append({**damaged, "shard": shard, "message": message.rpartition("/")[2]})  # no path of this machine
    rows.sort(key=lambda row: (row["shard"], row["row"], row["stage"]))
    table = pa.Table.from_pylist(rows, schema=QUARANTINE_SCHEMA)
    write_table(context.folder.quarantine, table, context.provenance)
    return len(rows) - len(context.left_out)


def failures(reader: RunReader, shard: str) -> Iterator[dict[str, Any]]:
    """Yield the failures of one shard."""
    for stage, path in (("entropy", reader.folder.entropy(shard)), ("embed", reader.folder.assignments(shard))):
        if path.exists():
            table = reader.table(path)
            failed = pc.is_valid(table["kind"])
            rows = table["row"].to_numpy() if stage == "embed" else np.arange(len(table))
            table = table.set_column(table.column_names.index("key"), "key", reader.as_keys(shard, table["key"]))
            for row, one in zip(rows[failed.to_numpy()], table.filter(failed).to_pylist(), strict=True):
                where = {"key": one["key"], "shard": shard, "row": int(row), "stage": stage}
                yield where | {"kind": one["kind"], "message": one["message"]}
