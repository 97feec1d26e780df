"""What the files of a run folder may hold: types and ranges, checked wherever they are read."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from rsprune.errors import DamagedFileError
from rsprune.runs.schema import EMBEDDING_SCHEMA, QUARANTINE_SCHEMA

__all__ = ["REMEDY", "check_config", "check_summary", "check_table"]

REMEDY = "Make the call that began the run again: it goes on, and makes anew what is damaged"

#: The lowest and the highest value of a column. A row of -1 in the quarantine stands for a whole shard.
RANGES: dict[str, tuple[float, float]] = {
    "entropy": (0, 8),
    "similarity": (-1, 1),
    "label": (-1, 2**31),
    "cluster": (-1, 2**31),
    "row": (-1, 2**48),
    "phase": (0, 2),
    "gray_mean": (0, 255),
    "gray_std": (0, 127.5),
    "sharpness": (0, 1020**2),
    "jpeg_quality": (1, 100),
}

NUMBER = (int, float)
COUNTS = [int]
#: What values are: a type, several, a list of values of one type, or an object.
CONFIG: dict[str, Any] = {
    "source": {"images": int, "kind": str, "left_out": [str], "options": {}},
    "entropy": {},
    "encoder": {"batch_size": int, "name": str, "dim": int, "weights": (dict, type(None))},
    "centroids": (dict, str, type(None)),
    "keep_embeddings": bool,
    "selection": {
        "images": int,
        "budget": int,
        "seed": int,
        "fill": str,
        "within": str,
        "strategy": str,
        "strategy_options": {},
        "min_similarity": (*NUMBER, type(None)),
    },
}
SUMMARY: dict[str, Any] = {
    "images": int,
    "quarantined": int,
    "survivors": int,
    "budget": int,
    "selected": int,
    "quota": (int, type(None)),
    "fill_cut": (*NUMBER, type(None)),
    "phases": {"quota": int, "fill": int},
    "clusters": {"pool": COUNTS, "quota": COUNTS, "fill": COUNTS, "quota_cut": [*NUMBER, type(None)]},
    "invalid": {"rows": int, "first": COUNTS},
    "causes": [dict],
    "outside": int,
    "strategy": str,
    "keys": str,
    "left_out": [str],
    "passed_over": {},
    "coverage": {"kept_by": [dict]},
    "excluded": {},
    "groups": {},
}


#: What the summaries of some runs lack.
OPTIONAL = {
    "invalid",
    "causes",
    "outside",
    "strategy",
    "keys",
    "left_out",
    "passed_over",
    "coverage",
    "excluded",
    "groups",
}


def check_config(path: Path, config: Mapping[str, Any]) -> None:
    """Fail where the configuration of a run holds values of other types."""
    # A latent cache has the digest of a manifest as its selection, or none.
    own = {name: kind for name, kind in CONFIG.items() if name != "selection" or "autoencoder" not in config}
    _check_values(path, config, own)


def check_summary(path: Path, summary: Mapping[str, Any], *, needs: Mapping[str, Any] | None = None) -> None:
    """Fail where the metrics of a run hold values of other types, or lack one of ``needs``."""
    _check_values(path, summary, SUMMARY)
    for name in SUMMARY if needs is None else needs:
        if name not in summary and name not in OPTIONAL:
            _damaged(path, f"it lacks {name!r}")
    if summary.get("keys", "name") not in ("name", "shard/name"):
        _damaged(path, f"keys is {summary['keys']!r}")
    clusters = summary.get("clusters", {})
    if len({len(values) for values in clusters.values()}) > 1:
        _damaged(path, "its clusters are of different lengths")


def _check_values(path: Path, values: Mapping[str, Any], kinds: Mapping[str, Any], where: str = "") -> None:
    for name, kind in kinds.items():
        if name not in values:
            continue
        value = values[name]
        if isinstance(kind, dict):
            if not isinstance(value, dict):
                _damaged(path, f"{where}{name} is {value!r:.60}, not an object")
            if kinds is SUMMARY and (missing := kind.keys() - value.keys()):
                _damaged(path, f"{name} lacks {min(missing)!r}")
            _check_values(path, value, kind, f"{where}{name}.")
            continue
        types = tuple(kind) if isinstance(kind, (list, tuple)) else (kind,)
        for one in value if isinstance(kind, list) and isinstance(value, list) else [value]:
            is_list = isinstance(kind, list) and not isinstance(value, list)
            number = isinstance(one, NUMBER) and not isinstance(one, bool)
            if is_list or type(one) not in types or (number and int in types and not 0 <= abs(one) < 2**63):
                _damaged(path, f"{where}{name} is {value!r:.60}")
            if kind in (int, COUNTS) and one < 0:
                _damaged(path, f"{where}{name} is {value!r:.60}, a negative number")
        if kind is not str and name == "quota_cut" and not isinstance(value, list):
            _damaged(path, f"{where}{name} is {value!r:.60}")


def check_table(path: Path, table: pa.Table, schema: pa.Schema, *, whole: bool) -> None:
    """Fail where a table of a run lacks columns, or holds values of other types, missing ones, or out of range."""
    for column in schema:
        if column.name not in table.column_names:
            if whole:
                _damaged(path, f"it has no column {column.name!r}")
            continue
        values = table[column.name]
        if values.type != column.type:
            _damaged(path, f"{column.name} is of {values.type}, not {column.type}")
        if not column.nullable and values.null_count:
            _damaged(path, f"{column.name} has missing values")
        if column.name in RANGES and values.null_count < len(values):
            low, high = RANGES[column.name]
            if column.name == "row" and schema is not QUARANTINE_SCHEMA:
                low = 0
            numbers = values.to_numpy()
            wrong = (numbers < low - 1e-6) | (numbers > high + 1e-6)
            if wrong.any():
                at = int(np.flatnonzero(wrong)[0])
                _damaged(path, f"{column.name} is {numbers[at]} in row {at}, not in [{low:g}, {high:g}]")
    if schema is EMBEDDING_SCHEMA and "row" in table.column_names and (np.diff(table["row"].to_numpy()) <= 0).any():
        _damaged(path, "its rows do not ascend")


def _damaged(path: Path, what: str) -> None:
    message = f"{path} is damaged: {what}. {REMEDY}"
    raise DamagedFileError(message)
