"""The quarantine table: every image that was not read, with its cause."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from rsprune.io import read_table, write_table
from rsprune.runs.options import Work
from rsprune.runs.reader import Pool, keys_of
from rsprune.runs.schema import QUARANTINE_SCHEMA

__all__ = ["write_quarantine"]


def write_quarantine(work: Work, pool: Pool | None = None) -> int:
    """Gather the failures that the shards' tables name, and the repeated keys of ``pool``, in row order.

    Returns
    -------
    int
        How many rows the table has.
    """
    rows = [
        failure
        for stage, folder in (("entropy", "entropy"), ("embed", "embeddings"))
        for path in sorted((work.folder.path / folder).glob("*.parquet"))
        for failure in failures(stage, path.stem, read_table(path))
    ]
    if pool is not None and len(pool.duplicates):
        shard, position = pool.locate(pool.duplicates)
        keys = keys_of(work.folder, pool, pool.duplicates)
        why = {"stage": "keys", "kind": "duplicate", "message": "an earlier image has the same key"}
        rows += [
            {"key": key, "shard": pool.shards[i], "row": int(row), **why}
            for key, i, row in zip(keys, shard, position, strict=True)
        ]
    rows.sort(key=lambda row: (row["shard"], row["row"], row["stage"]))
    write_table(work.folder.quarantine, pa.Table.from_pylist(rows, schema=QUARANTINE_SCHEMA), work.provenance)
    return len(rows)


def failures(stage: str, shard: str, table: pa.Table) -> list[dict[str, Any]]:
    """The failures of one shard's table."""
    failed = pc.is_valid(table["kind"])
    positions = table["row"].filter(failed).to_pylist() if stage == "embed" else np.flatnonzero(failed.to_numpy())
    return [
        {
            "key": row["key"],
            "shard": shard,
            "row": int(at),
            "stage": stage,
            "kind": row["kind"],
            "message": row["message"],
        }
        for at, row in zip(positions, table.filter(failed).to_pylist(), strict=True)
    ]
