"""Numbers as text."""

from __future__ import annotations

__all__ = ["percent", "plural"]


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
