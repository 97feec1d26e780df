"""Figures as SVG files that stand for themselves: dots in panels beside one list of names, and lines."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

__all__ = ["Line", "Panel", "dots", "lines", "ticks"]

# Shades of one hue, dark to light, which remain apart in print and to the colour-blind.
SHADES = ("#08306b", "#2878b8", "#8fc1e3", "#c9c9c9")
ROW, PANEL, GAP, TOP, BOTTOM = 17, 118, 16, 74, 34
LETTER = 6.3  # about the width of one at 11 px
PLOT_WIDTH, PLOT_HEIGHT = 300, 190
MARKED = 20  # points of a line: more of them are a curve
STYLE = (
    "text{font:11px system-ui,sans-serif;fill:#333}.title{font-size:14px;font-weight:600;fill:#111}"
    ".head{font-weight:600}.tick{font-size:9px;fill:#777}line{stroke:#ddd}.ground{stroke:#999}.mark{stroke:#c0392b;"
    "stroke-dasharray:4 3}"
)


@dataclass(frozen=True)
class Panel:
    """One measure of a dot figure: ``values[series][name]``, None where there is none."""

    head: str
    better: str
    values: Sequence[Sequence[float | None]]


@dataclass(frozen=True)
class Line:
    """One plot of a line figure: ``y`` over ``x``, with a band from ``low`` to ``high`` where given."""

    head: str
    axis: str
    x: Sequence[float]
    y: Sequence[float]
    low: Sequence[float] = ()
    high: Sequence[float] = ()
    mark: float | None = None


def dots(title: str, names: Sequence[str], series: Sequence[str], panels: Sequence[Panel]) -> str:
    """Draw a panel for each measure, with a line for each name and a dot for each series.

    Returns
    -------
    str
        An SVG document.
    """
    height = TOP + ROW * len(names) + BOTTOM
    start = GAP + 8 + LETTER * max(map(len, names), default=0)
    width = start + len(panels) * (PANEL + GAP) + GAP
    body = [f'<text class="title" x="{GAP}" y="22">{escape(title)}</text>']
    for i, name in enumerate(series):
        x: float = GAP + 110 * i
        body.append(f'<circle cx="{x + 5}" cy="40" r="4" fill="{SHADES[i % len(SHADES)]}"/>')
        body.append(f'<text x="{x + 14}" y="44">{escape(name)}</text>')
    for row, name in enumerate(names):
        y: float = TOP + ROW * row + ROW / 2
        body.append(f'<text x="{start - 8:.1f}" y="{y + 4}" text-anchor="end">{escape(name)}</text>')
    for number, panel in enumerate(panels):
        left = start + number * (PANEL + GAP)
        found = [value for values in panel.values for value in values if value is not None and math.isfinite(value)]
        marks = ticks(min(found, default=0.0), max(found, default=1.0))
        low, span = marks[0], (marks[-1] - marks[0]) or 1
        body.append(f'<text class="head" x="{left:.1f}" y="{TOP - 14}">{escape(panel.head)}</text>')
        body.append(f'<text class="tick" x="{left:.1f}" y="{TOP - 3}">{escape(panel.better)}</text>')
        for mark in marks:
            x = left + PANEL * (mark - low) / span
            body.append(f'<line x1="{x:.1f}" x2="{x:.1f}" y1="{TOP}" y2="{height - BOTTOM}"/>')
        for mark in (marks[0], marks[-1]):
            x = left + PANEL * (mark - low) / span
            anchor = "start" if mark == marks[0] else "end"
            body.append(
                f'<text class="tick" x="{x:.1f}" y="{height - BOTTOM + 12}" text-anchor="{anchor}">{mark:g}</text>'
            )
        # The last series first, so that the darkest lies on top.
        for i in reversed(range(len(panel.values))):
            for row, value in enumerate(panel.values[i]):
                if value is not None and math.isfinite(value):
                    x, y = left + PANEL * (value - low) / span, TOP + ROW * row + ROW / 2
                    shade = SHADES[i % len(SHADES)]
                    body.append(
                        f'<circle cx="{x:.1f}" cy="{y:.1f}" r="4" fill="{shade}"><title>'
                        f"{escape(f'{names[row]}, {series[i]}: {value:.4g}')}</title></circle>"
                    )
    return document(width, height, body)


def lines(title: str, plots: Sequence[Line]) -> str:
    """Draw plots side by side.

    Returns
    -------
    str
        An SVG document.
    """
    width, height = GAP + len(plots) * (PLOT_WIDTH + 4 * GAP), TOP + PLOT_HEIGHT + 50
    body = [f'<text class="title" x="{GAP}" y="22">{escape(title)}</text>']
    for number, plot in enumerate(plots):
        left = GAP * 4 + number * (PLOT_WIDTH + 4 * GAP)
        across, up = ticks(min(plot.x), max(plot.x)), ticks(*bounds([*plot.y, *plot.low, *plot.high]))
        body.append(f'<text class="head" x="{left:.1f}" y="{TOP - 12}">{escape(plot.head)}</text>')
        for mark in up:
            y = place(mark, up, TOP + PLOT_HEIGHT, TOP)
            body.append(f'<line x1="{left}" x2="{left + PLOT_WIDTH}" y1="{y:.1f}" y2="{y:.1f}"/>')
            body.append(f'<text class="tick" x="{left - 5}" y="{y + 3:.1f}" text-anchor="end">{mark:g}</text>')
        for mark in across:
            x = place(mark, across, left, left + PLOT_WIDTH)
            label = f'y="{TOP + PLOT_HEIGHT + 14}" text-anchor="middle">{mark:g}'
            body.append(f'<text class="tick" x="{x:.1f}" {label}</text>')
        axis = f'y="{TOP + PLOT_HEIGHT + 32}" text-anchor="middle">{escape(plot.axis)}'
        body.append(f'<text x="{left + PLOT_WIDTH / 2}" {axis}</text>')
        xs = [place(value, across, left, left + PLOT_WIDTH) for value in plot.x]

        def path(values: Sequence[float], up: Sequence[float] = up, xs: Sequence[float] = xs) -> list[str]:
            ys = [place(value, up, TOP + PLOT_HEIGHT, TOP) for value in values]
            return [f"{x:.1f},{y:.1f}" for x, y in zip(xs, ys, strict=True)]

        if plot.low:
            band = " ".join([*path(plot.low), *reversed(path(plot.high))])
            body.append(f'<polygon points="{band}" fill="{SHADES[2]}" opacity="0.5"/>')
        body.append(f'<polyline points="{" ".join(path(plot.y))}" fill="none" stroke="{SHADES[0]}" stroke-width="2"/>')
        marked = list(zip(path(plot.y), plot.x, plot.y, strict=True)) if len(xs) <= MARKED else []
        for point, x, y in marked:
            cx, cy = point.split(",")
            body.append(
                f'<circle cx="{cx}" cy="{cy}" r="3.5" fill="{SHADES[0]}"><title>{x:g}: {y:.4g}</title></circle>'
            )
        if plot.mark is not None:
            x = place(plot.mark, across, left, left + PLOT_WIDTH)
            body.append(f'<line class="mark" x1="{x:.1f}" x2="{x:.1f}" y1="{TOP}" y2="{TOP + PLOT_HEIGHT}"/>')
            body.append(f'<text x="{x + 4:.1f}" y="{TOP + 10}">{plot.mark:.2g}</text>')
    return document(width, height, body)


def document(width: float, height: float, body: Sequence[str]) -> str:
    """An SVG document on white."""
    size = f'width="{width:g}" height="{height:g}" viewBox="0 0 {width:g} {height:g}"'
    head = f'<svg xmlns="http://www.w3.org/2000/svg" {size}><style>{STYLE}</style>'
    return "\n".join([head, f'<rect width="{width:g}" height="{height:g}" fill="#fff"/>', *body, "</svg>\n"])


def ticks(low: float, high: float) -> list[float]:
    """Round numbers from at most ``low`` to at least ``high``, in at most five even steps."""
    if not high > low:
        low, high = low - (abs(low) or 1) / 2, high + (abs(high) or 1) / 2
    power = 10.0 ** (math.floor(math.log10(high - low)) - 1)
    for factor in (1, 2, 5, 10, 20, 50):
        step = power * factor
        first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
        if last - first <= 5:
            break
    return [round(step * i, 12) for i in range(first, last + 1)]


def bounds(values: Sequence[float]) -> tuple[float, float]:
    """The smallest and the largest."""
    return min(values), max(values)


def place(value: float, marks: Sequence[float], start: float, end: float) -> float:
    """Where a value lies between the first and the last mark."""
    return start + (end - start) * (value - marks[0]) / ((marks[-1] - marks[0]) or 1)
