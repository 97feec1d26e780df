"""The quarantine table: every image that was not read, with its cause."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from rsprune.io import write_tables
from rsprune.runs.context import RunContext
from rsprune.runs.reader import RunReader
from rsprune.runs.schema import QUARANTINE_SCHEMA
from rsprune.sources.key_lines import line_of_key

__all__ = ["describe_causes", "write_quarantine"]


def write_quarantine(context: RunContext, reader: RunReader) -> dict[str, Any]:
    """Write the failures that the shards' tables name, in row order, and shards that are left out, of the row -1.

    Returns, for ``summary.json``, the number of images among them (``quarantined``) and their ``causes``, the most
    frequent first: ``stage``, ``kind`` and number of ``images``, and of the first of these ``key`` and ``message``.
    """
    causes: dict[tuple[str, str], dict[str, Any]] = {}

    def tables() -> Iterator[pa.Table]:
        for name in sorted({*reader.shards, *context.left_out}):
            if name in context.left_out:
                yield damaged(name, context.left_out[name])
                continue
            table = failures(reader, name)
            for count in table.group_by(["stage", "kind"]).aggregate([([], "count_all")]).to_pylist():
                of = count["stage"], count["kind"]
                if of not in causes:
                    these = pc.and_(pc.equal(table["stage"], of[0]), pc.equal(table["kind"], of[1]))
                    first = table.filter(these).slice(0, 1).to_pylist()[0]
                    causes[of] = {"stage": of[0], "kind": of[1], "images": 0}
                    causes[of] |= {"key": first["key"], "message": first["message"]}
                causes[of]["images"] += count["count_all"]
            yield table

    written = write_tables(context.folder.quarantine, QUARANTINE_SCHEMA, tables(), context.provenance)
    ordered = sorted(causes.values(), key=lambda one: (-one["images"], one["stage"], one["kind"]))
    return {"quarantined": written - len(context.left_out), "causes": ordered}


def describe_causes(summary: Mapping[str, Any], quarantine: Path) -> list[str]:
    """Say in lines, as a table, what kept how many images from being read, each with an example."""
    causes = summary.get("causes", [])
    numbers, kinds = ([f"{one['images']:,}" for one in causes], [one["kind"].replace("_", " ") for one in causes])
    count, kind = (max(map(len, column), default=0) for column in (numbers, kinds))
    lines = [
        f"{number.rjust(count)}  {name.ljust(kind)}  such as {line_of_key(one['key'])}"
        for number, name, one in zip(numbers, kinds, causes, strict=True)
    ]
    return [*lines, os.fspath(quarantine)] if summary["quarantined"] or "left_out" in summary else []


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
