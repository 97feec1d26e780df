"""HTML elements, and numbers as text."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from html import escape

__all__ = ["figure", "percent", "plural", "table"]


def figure(svg: str, caption: str, legend: Sequence[tuple[str, str]]) -> str:
    """Wrap a chart in a figure with legend and caption."""
    entries = "".join(f'<li class="{style}">{escape(name)}</li>' for style, name in legend)
    return f'<figure>\n<ul class="legend">{entries}</ul>\n{svg}\n<figcaption>{caption}</figcaption>\n</figure>'


def table(head: Sequence[str], rows: Iterable[str]) -> str:
    """Make a table from rows whose cells are HTML."""
    cells = "".join(f"<th>{name}</th>" for name in head)
    body = "\n".join(f"<tr>{row}</tr>" for row in rows)
    return f'<div class="wide"><table>\n<thead><tr>{cells}</tr></thead>\n<tbody>\n{body}\n</tbody>\n</table></div>'


def plural(value: int, one: str, many: str) -> str:
    """Format a count with its noun in the singular or plural."""
    return f"{value:,} {one if value == 1 else many}"


def percent(part: int, whole: int) -> str:
    """Format a share to a tenth of a percent; 0.0 and 100.0 stand for none and all alone."""
    if not whole:
        return "0 %"
    tenths = round(1000 * part / whole)
    if part and not tenths:
        return "under 0.1 %"
    if part < whole and tenths == 1000:
        return "over 99.9 %"
    return f"{tenths / 10:.1f} %"
