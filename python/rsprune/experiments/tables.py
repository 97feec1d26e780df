"""Tables of metrics as text, Markdown and CSV."""

from __future__ import annotations

import csv
import io
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rsprune.io import write_text

__all__ = ["Column", "Mean", "csv_table", "markdown_table", "text_table", "write_results"]

#: Letters of a line of text.
WIDTH = 100

Rows = Sequence[tuple[str, Mapping[str, Any]]]


@dataclass(frozen=True)
class Mean:
    """The mean of several trials and their standard deviation, None for a single one."""

    value: float
    spread: float | None

    @classmethod
    def of(cls, values: Sequence[float]) -> Mean:
        """Return the mean of some values."""
        mean = statistics.fmean(values)
        return cls(mean, statistics.stdev(values) if len(values) > 1 else None)


@dataclass(frozen=True)
class Column:
    """A column of a table, and perhaps a panel of its figure."""

    name: str  # of the metric
    head: str
    digits: int  # decimals
    scale: float = 1.0  # factor of the values shown
    better: str | None = None  # which values are better, in words; None for a metric without a panel

    def show(self, value: Any) -> str:
        """Format a value."""
        if value is None:
            return ""
        if isinstance(value, str):
            return value
        if isinstance(value, Mean):
            spread = "" if value.spread is None else f" ± {self.show(value.spread)}"
            return self.show(value.value) + spread
        return f"{value * self.scale:,.{self.digits}f}"


def text_table(columns: Sequence[Column], rows: Rows, width: int = WIDTH) -> str:
    """Make a table of aligned columns; those that are too many for ``width`` letters follow below, in a further table.

    A single column beside long names may be wider.
    """
    cells = [["", *(column.head for column in columns)], *_cells(columns, rows)]
    first, *widths = (max(len(row[i]) for row in cells) for i in range(len(columns) + 1))
    tables: list[list[int]] = [[]]
    for i, _ in enumerate(widths):
        if tables[-1] and first + sum(widths[j] + 2 for j in [*tables[-1], i]) > width:
            tables.append([])
        tables[-1].append(i)

    def line(row: list[str], some: list[int]) -> str:
        return "  ".join([row[0].ljust(first), *(row[i + 1].rjust(widths[i]) for i in some)]).rstrip()

    return "\n\n".join("\n".join(line(row, some) for row in cells) for some in tables)


def markdown_table(columns: Sequence[Column], rows: Rows, first: str = "strategy") -> str:
    """Make a table of GitHub's Markdown, the first column under the head ``first``."""
    head = [first, *(column.head for column in columns)]
    lines = [head, ["---", *("--:" for _ in columns)], *_cells(columns, rows)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def csv_table(names: Sequence[str], rows: Sequence[Mapping[str, Any]]) -> str:
    """Make CSV with all digits, and empty cells where there is no value."""
    out = io.StringIO()
    writer = csv.DictWriter(out, names, restval="", lineterminator="\n")
    writer.writeheader()
    writer.writerows({name: "" if row.get(name) is None else row[name] for name in names} for row in rows)
    return out.getvalue()


def write_results(stem: Path, text: str, markdown: str, table: str, figure: str) -> None:
    """Write results in every form: ``<stem>.txt``, ``.md``, ``.csv`` and ``.svg``."""
    for suffix, content in (("txt", text + "\n"), ("md", markdown + "\n"), ("csv", table), ("svg", figure)):
        write_text(f"{stem}.{suffix}", content)


def _cells(columns: Sequence[Column], rows: Rows) -> list[list[str]]:
    return [[name, *(column.show(metrics.get(column.name)) for column in columns)] for name, metrics in rows]
