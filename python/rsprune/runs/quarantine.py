"""The quarantine table: every image that was not read, with its cause."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from rsprune.io import write_tables
from rsprune.runs.context import RunContext
from rsprune.runs.reader import RunReader
from rsprune.runs.schema import QUARANTINE_SCHEMA

__all__ = ["write_quarantine"]


def write_quarantine(context: RunContext, reader: RunReader) -> int:
    """Write the failures that the shards' tables name, in row order, and shards that are left out, of the row -1.

    Returns the number of images among them.
    """
    names = sorted({*reader.shards, *context.left_out})
    tables = (
        damaged(name, context.left_out[name]) if name in context.left_out else failures(reader, name) for name in names
    )
    written = write_tables(context.folder.quarantine, QUARANTINE_SCHEMA, tables, context.provenance)
    return written - len(context.left_out)


def damaged(shard: str, message: str) -> pa.Table:
    """Make the row of a shard that is left out."""
    row = {"key": "", "shard": shard, "row": -1, "stage": "source", "kind": "damaged_shard"}
    message = message.rpartition("/")[2]  # no path of this machine
    return pa.Table.from_pylist([{**row, "message": message}], schema=QUARANTINE_SCHEMA)


def failures(reader: RunReader, shard: str) -> pa.Table:
    """Read the failures of one shard."""
    found = [QUARANTINE_SCHEMA.empty_table()]
    for stage, path in (("entropy", reader.folder.entropy(shard)), ("embed", reader.folder.assignments(shard))):
        if path.exists() and len(reader.table(path, ["kind"])["kind"].drop_null()):
            columns = ["key", "kind", "message", *(["row"] if stage == "embed" else [])]
            table = reader.table(path, columns)
            if stage == "entropy":
                table = table.append_column("row", pa.array(np.arange(len(table))))
            table = table.filter(pc.is_valid(table["kind"]))
            keys = reader.as_keys(shard, table["key"])
            places = [pa.repeat(shard, len(table)), table["row"], pa.repeat(stage, len(table))]
            columns = [keys, *places, table["kind"], table["message"]]
            found.append(pa.Table.from_arrays(columns, schema=QUARANTINE_SCHEMA))
    return pa.concat_tables(found).sort_by([("row", "ascending"), ("stage", "ascending")])
