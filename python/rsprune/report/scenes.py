"""The kinds of scenes on the page: what became of them, in sentences, and of each class folder, source or shard."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rsprune.report.words import plural
from rsprune.runs.coverage import GROUPS, advice_of, coverage_lines, warning_of

__all__ = ["scenes"]


def scenes(summary: Mapping[str, Any]) -> dict[str, Any] | None:
    """Return what became of the kinds of scenes as the template takes it; None for a run that did not look."""
    coverage = summary.get("coverage")
    if coverage is None:
        return None
    lost = len(coverage["lost_by_stage_one"]) + len(coverage["lost_by_stage_two"])
    clusters = plural(coverage["present"], "cluster", "clusters")
    warning = warning_of(summary)
    return {
        "lead": f"{coverage['present'] - lost:,} of the {clusters} that the collection has are in the selection.",
        "sample": sum(coverage["dropped_sample"]),
        "dropped": coverage["dropped"],
        "named": bool(coverage.get("names")),
        "lines": coverage_lines(summary),
        "advice": ([] if warning is None else [warning]) + advice_of(summary),
        "groups": [group_table(one) for one in coverage["kept_by"]],
    }


def group_table(kept_by: Mapping[str, Any]) -> dict[str, Any]:
    """Return what became of each class folder, source, shard or value of a column, and of all that are not listed."""
    count, *sums = kept_by["rest"]
    rows = [("(none)" if name is None else name, counts) for name, *counts in kept_by["largest"]]
    return {
        "title": f"All {GROUPS.get(kept_by['by']) or 'values of ' + kept_by['column']}",
        "head": kept_by.get("column", kept_by["by"]),
        "rows": rows + ([(f"{count:,} others", sums)] if count else []),
    }
