"""Charts as SVG text: pure functions of their numbers, and the one place where charts are written.

:func:`columns`, :func:`cells` and :func:`funnel` are parts of an HTML page and take their colors from the classes of
its style sheet, ``report/templates/page.css``. Their horizontal lengths are percentages and their vertical ones pixels,
so that a chart fills any width while its text keeps its size; the shapes lie in a nested SVG that is stretched to the
plot. :func:`dots` and :func:`lines` are documents of their own, with colors and a fixed size.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

import numpy as np
from numpy.typing import NDArray

__all__ = [
    "Bubble",
    "Cell",
    "Dots",
    "Line",
    "Panel",
    "Series",
    "cells",
    "columns",
    "dots",
    "funnel",
    "lines",
    "nice_step",
    "scatter",
    "ticks",
]

PLOT_HEIGHT = 220  # pixels
UNITS = 1000  # of height in the stretched SVG
THINNEST = 4  # units: a bar of one image among a million can still be seen
GAPS_UP_TO = 100  # columns; more of them touch, or the gaps would show as stripes
FUNNEL_HEIGHT = 96
BUBBLE = 34  # units: the radius of the largest bubble
MAP_HEIGHT, MAP_CELL = 420, 40  # pixels: of a map, and of its squares at most

# Shades of one hue from dark to light, distinct in print and for the color-blind.
SHADES = ("#08306b", "#2878b8", "#8fc1e3", "#c9c9c9")
ROW_HEIGHT, PANEL_WIDTH, GAP, TOP, BOTTOM = 17, 118, 16, 74, 34
LETTER_WIDTH = 6.3  # pixels of an average letter at 11 px
LINE_WIDTH, LINE_HEIGHT = 300, 190
DOTS_UP_TO = 20  # points of a line; more of them are drawn as a curve without dots
DOCUMENT_STYLE = (
    "text{font:11px system-ui,sans-serif;fill:#333}.title{font-size:14px;font-weight:600;fill:#111}"
    ".head{font-weight:600}.tick{font-size:9px;fill:#777}line{stroke:#ddd}.ground{stroke:#999}.mark{stroke:#c0392b;"
    "stroke-dasharray:4 3}"
)


@dataclass(frozen=True)
class Series:
    """The values of one color of a chart; ``style`` is its class in the style sheet."""

    style: str
    name: str
    values: Sequence[int]


@dataclass(frozen=True)
class Cell:
    """A square of a map: its place, counted from the left and from the top, and how many of its images were kept."""

    column: int
    row: int
    kept: int
    total: int


@dataclass(frozen=True)
class Dots:
    """The points of one color of a map, (n, 2) in its units; see :class:`Series`."""

    style: str
    name: str
    places: NDArray[np.float64]


@dataclass(frozen=True)
class Bubble:
    """A disc of a map whose area is a number of images, of which a smaller disc inside is what was kept."""

    x: float
    y: float
    kept: int
    total: int
    label: str


@dataclass(frozen=True)
class Panel:
    """One measure of a dot chart: ``values[series][name]``, None where a value is missing."""

    head: str
    better: str
    values: Sequence[Sequence[float | None]]


@dataclass(frozen=True)
class Line:
    """One plot of a line chart: ``y`` over ``x``, with a band of ``spread`` to either side where it is given."""

    head: str
    axis: str
    x: Sequence[float]
    y: Sequence[float]
    spread: Sequence[float] = ()
    mark: float | None = None


def columns(
    name: str,
    title: str,
    description: str,
    series: Sequence[Series],
    *,
    labels: Sequence[str],
    ticks: Sequence[tuple[float, str]],
    axis: str,
    mark: tuple[float, str] | None = None,
    level: tuple[int, str] | None = None,
) -> str:
    """Draw stacked columns, a histogram or bars, as an ``<svg>`` element.

    ``name`` is an identifier that no other chart of the page has; ``title`` and ``description`` are read aloud by
    screen readers. The ``series`` are the colors, from the bottom of the stack up, each with a number of images for
    each column; ``labels`` are the names of the columns, shown when the pointer is on one. ``ticks`` are positions
    along the width, as fractions of it, with their labels, and ``axis`` is the label of the axis, with its unit.
    ``mark`` is a vertical line at a fraction of the width, ``level`` a horizontal one at a number of images, each with
    its label.
    """
    stacks = [list(values) for values in zip(*(one.values for one in series), strict=True)]
    highest = max([1, *map(sum, stacks), level[0] if level else 0])
    step = count_step(highest)
    top = step * math.ceil(highest / step)
    # Each series is drawn from the ground up to the top of its part of the stack, the highest behind: no seams.
    shapes = []
    for i in reversed(range(len(series))):
        heights = [scaled(sum(stack[: i + 1]), top) for stack in stacks]
        shapes.append(f'<path class="{series[i].style}" d="{outline(heights)}"/>')
    hints = [hint(x, labels[x], stack, series) for x, stack in enumerate(stacks) if sum(stack)]
    return "".join(
        [
            f'<svg class="plot" role="img" aria-labelledby="{name}-title {name}-desc" height="{PLOT_HEIGHT}">',
            f'<title id="{name}-title">{escape(title)}</title><desc id="{name}-desc">{escape(description)}</desc>',
            *(grid_line(value, top) for value in range(0, top + 1, step)),
            '<text class="unit" x="-8" y="-14" text-anchor="end">images</text>',
            f'<svg width="100%" height="100%" viewBox="0 0 {len(stacks)} {UNITS}" preserveAspectRatio="none">',
            *shapes,
            *hints,
            "</svg>",
            level_line(*level, top) if level else "",
            mark_line(*mark) if mark else "",
            *(tick(at, text, minor=(len(ticks) - i) % 2 == 0) for i, (at, text) in enumerate(ticks)),
            f'<text class="unit" x="50%" y="{PLOT_HEIGHT + 40}" text-anchor="middle">{escape(axis)}</text>',
            "</svg>",
        ]
    )


def cells(name: str, title: str, description: str, places: Sequence[Cell]) -> str:
    """Draw a map of squares, of each of which is filled what was kept of its images; see :func:`columns`."""
    width = 1 + max(place.column for place in places)
    height = 1 + max(place.row for place in places)
    shapes = []
    for place in places:
        side = 0.92 * math.sqrt(place.kept / place.total)
        x, y = place.column + 0.5 - side / 2, place.row + 0.5 - side / 2
        shapes.append(
            f'<rect class="rest" x="{place.column + 0.04:.2f}" y="{place.row + 0.04:.2f}" width=".92" height=".92">'
        )
        shapes.append(f"<title>{place.kept:,} of {place.total:,} kept</title></rect>")
        if place.kept:
            shapes.append(f'<rect class="kept" x="{x:.3f}" y="{y:.3f}" width="{side:.3f}" height="{side:.3f}"/>')
    return "".join(
        [
            f'<svg class="map" role="img" aria-labelledby="{name}-title {name}-desc" viewBox="0 0 {width} {height}" ',
            f'width="100%" height="{min(MAP_HEIGHT, MAP_CELL * height)}">',
            f'<title id="{name}-title">{escape(title)}</title><desc id="{name}-desc">{escape(description)}</desc>',
            *shapes,
            "</svg>",
        ]
    )


def scatter(
    name: str, title: str, series: Sequence[Dots], bubbles: Sequence[Bubble], *, width: int, height: int
) -> str:
    """Draw a map of points, the last color on top, and of bubbles over them; see :func:`columns`."""
    description = ", ".join(f"{len(one.places):,} {one.name}" for one in series if len(one.places))
    # A line of no length with round ends is a dot, and a path of thousands of them is one shape.
    shapes = [
        f'<path class="dots {one.style}" d="{"".join(f"M{x:g} {y:g}h0" for x, y in one.places.tolist())}"/>'
        for one in series
        if len(one.places)
    ]
    largest = max([1, *(one.total for one in bubbles)])
    for one in sorted(bubbles, key=lambda one: -one.total):
        radii = [("rest", one.total), ("kept", one.kept)]
        discs = "".join(
            f'<circle class="{style}" cx="{one.x:g}" cy="{one.y:g}" r="{BUBBLE * math.sqrt(count / largest):.1f}"/>'
            for style, count in radii
            if count
        )
        shapes.append(f"<g><title>{escape(one.label)}</title>{discs}</g>")
    labels = f'aria-labelledby="{name}-title {name}-desc"'
    return "".join(
        [
            f'<svg class="scatter" role="img" {labels} viewBox="0 0 {width} {height}">',
            f'<title id="{name}-title">{escape(title)}</title><desc id="{name}-desc">{escape(description)}</desc>',
            *shapes,
            "</svg>",
        ]
    )


def funnel(name: str, title: str, steps: Sequence[tuple[str, int, str]]) -> str:
    """Draw the number of images that remains after each step as a stream that narrows: an ``<svg>`` element.

    A step is its label, its number of images, and a note.
    """
    width = 100 / len(steps)
    whole = max(steps[0][1], 1)
    description = ", ".join(f"{label}: {value:,}" for label, value, _ in steps)
    halves = [max(UNITS * value / whole, 2 * THINNEST) / 2 for _, value, _ in steps]
    befores = [halves[0], *halves[:-1]]
    styles = ["flow"] * (len(steps) - 1) + ["kept"]
    lost = [f'<path class="lost" d="{stream(i, before, before)}"/>' for i, before in enumerate(befores)]
    left = [
        f'<path class="{style}" d="{stream(i, before, half)}"/>'
        for i, (style, before, half) in enumerate(zip(styles, befores, halves, strict=True))
    ]
    text = [
        f'<text x="{percent(i * width)}" y="16"><tspan class="label">{escape(label)}</tspan>'
        f'<tspan class="figure" x="{percent(i * width)}" dy="26">{value:,}</tspan>'
        f'<tspan class="label" x="{percent(i * width)}" dy="19">{escape(note)}</tspan></text>'
        for i, (label, value, note) in enumerate(steps)
    ]
    return "".join(
        [
            f'<svg class="funnel" role="img" aria-labelledby="{name}-title {name}-desc" height="{FUNNEL_HEIGHT + 80}">',
            f'<title id="{name}-title">{escape(title)}</title><desc id="{name}-desc">{escape(description)}</desc>',
            *text,
            f'<svg y="76" width="100%" height="{FUNNEL_HEIGHT}" viewBox="0 0 {len(steps) * 100} {UNITS}" ',
            'preserveAspectRatio="none">',
            *lost,
            *left,
            "</svg></svg>",
        ]
    )


def dots(title: str, names: Sequence[str], series: Sequence[str], panels: Sequence[Panel]) -> str:
    """Draw an SVG document: a panel for each measure, with a row for each name and a dot for each series.

    The axis of a panel begins at 0, or below it where values are negative.
    """
    height = TOP + ROW_HEIGHT * len(names) + BOTTOM
    start = GAP + 8 + LETTER_WIDTH * max(map(len, names), default=0)
    width = start + len(panels) * (PANEL_WIDTH + GAP) + GAP
    body = [f'<text class="title" x="{GAP}" y="22">{escape(title)}</text>']
    for i, name in enumerate(series):
        x: float = GAP + 110 * i
        body.append(f'<circle cx="{x + 5}" cy="40" r="4" fill="{SHADES[i % len(SHADES)]}"/>')
        body.append(f'<text x="{x + 14}" y="44">{escape(name)}</text>')
    middles = [TOP + ROW_HEIGHT * row + ROW_HEIGHT / 2 for row in range(len(names))]
    for y, name in zip(middles, names, strict=True):
        body.append(f'<text x="{start - 8:.1f}" y="{y + 4}" text-anchor="end">{escape(name)}</text>')
    for number, panel in enumerate(panels):
        left = start + number * (PANEL_WIDTH + GAP)
        finite = [value for values in panel.values for value in values if value is not None and math.isfinite(value)]
        marks = ticks(min([0.0, *finite]), max([0.0, *finite]) if finite else 1.0)
        body.append(f'<text class="head" x="{left:.1f}" y="{TOP - 14}">{escape(panel.head)}</text>')
        body.append(f'<text class="tick" x="{left:.1f}" y="{TOP - 3}">{escape(panel.better)}</text>')
        for mark in marks:
            x = _place(mark, marks, left, left + PANEL_WIDTH)
            body.append(f'<line x1="{x:.1f}" x2="{x:.1f}" y1="{TOP}" y2="{height - BOTTOM}"/>')
        for mark, x, anchor in ((marks[0], left, "start"), (marks[-1], left + PANEL_WIDTH, "end")):
            body.append(
                f'<text class="tick" x="{x:.1f}" y="{height - BOTTOM + 12}" text-anchor="{anchor}">{mark:g}</text>'
            )
        # The last series is drawn first, so that the darkest lies on top.
        for i in reversed(range(len(panel.values))):
            for y, name, value in zip(middles, names, panel.values[i], strict=True):
                if value is not None and math.isfinite(value):
                    x = _place(value, marks, left, left + PANEL_WIDTH)
                    body.append(_dot(x, y, 4, SHADES[i % len(SHADES)], f"{name}, {series[i]}: {value:.4g}"))
    return _document(width, height, body)


def lines(title: str, plots: Sequence[Line]) -> str:
    """Draw an SVG document of plots side by side."""
    body = [f'<text class="title" x="{GAP}" y="22">{escape(title)}</text>']
    for number, plot in enumerate(plots):
        body += _line_plot(plot, GAP * 4 + number * (LINE_WIDTH + 4 * GAP))
    return _document(GAP + len(plots) * (LINE_WIDTH + 4 * GAP), TOP + LINE_HEIGHT + 50, body)


def _line_plot(plot: Line, left: int) -> list[str]:
    right, ground = left + LINE_WIDTH, TOP + LINE_HEIGHT
    low = [value - spread for value, spread in zip(plot.y, plot.spread, strict=False)]
    high = [value + spread for value, spread in zip(plot.y, plot.spread, strict=False)]
    heights = [*plot.y, *low, *high]
    across, up = ticks(min(plot.x), max(plot.x)), ticks(min(heights), max(heights))
    body = [f'<text class="head" x="{left:.1f}" y="{TOP - 12}">{escape(plot.head)}</text>']
    for mark in up:
        y = _place(mark, up, ground, TOP)
        body.append(f'<line x1="{left}" x2="{right}" y1="{y:.1f}" y2="{y:.1f}"/>')
        body.append(f'<text class="tick" x="{left - 5}" y="{y + 3:.1f}" text-anchor="end">{mark:g}</text>')
    for mark in across:
        x = _place(mark, across, left, right)
        body.append(f'<text class="tick" x="{x:.1f}" y="{ground + 14}" text-anchor="middle">{mark:g}</text>')
    axis = f'y="{ground + 32}" text-anchor="middle">{escape(plot.axis)}'
    body.append(f'<text x="{left + LINE_WIDTH / 2}" {axis}</text>')
    xs = [_place(value, across, left, right) for value in plot.x]

    def points(values: Sequence[float]) -> list[str]:
        ys = (_place(value, up, ground, TOP) for value in values)
        return [f"{x:.1f},{y:.1f}" for x, y in zip(xs, ys, strict=True)]

    if low:
        band = " ".join([*points(low), *reversed(points(high))])
        body.append(f'<polygon points="{band}" fill="{SHADES[2]}" opacity="0.5"/>')
    body.append(f'<polyline points="{" ".join(points(plot.y))}" fill="none" stroke="{SHADES[0]}" stroke-width="2"/>')
    if len(xs) <= DOTS_UP_TO:
        for x, value, height in zip(xs, plot.x, plot.y, strict=True):
            body.append(_dot(x, _place(height, up, ground, TOP), 3.5, SHADES[0], f"{value:g}: {height:.4g}"))
    if plot.mark is not None:
        x = _place(plot.mark, across, left, right)
        body.append(f'<line class="mark" x1="{x:.1f}" x2="{x:.1f}" y1="{TOP}" y2="{ground}"/>')
        body.append(f'<text x="{x + 4:.1f}" y="{TOP + 10}">{plot.mark:.2g}</text>')
    return body


def _dot(x: float, y: float, radius: float, fill: str, hint: str) -> str:
    title = f"<title>{escape(hint)}</title>"
    return f'<circle cx="{x:.1f}" cy="{y:.1f}" r="{radius:g}" fill="{fill}">{title}</circle>'


def _place(value: float, marks: Sequence[float], start: float, end: float) -> float:
    """Map a value to a coordinate, on an axis whose first and last marks lie at ``start`` and ``end``."""
    return start + (end - start) * (value - marks[0]) / ((marks[-1] - marks[0]) or 1)


def _document(width: float, height: float, body: Sequence[str]) -> str:
    """Make an SVG document on a white ground."""
    size = f'width="{width:g}" height="{height:g}" viewBox="0 0 {width:g} {height:g}"'
    head = f'<svg xmlns="http://www.w3.org/2000/svg" {size}><style>{DOCUMENT_STYLE}</style>'
    return "\n".join([head, f'<rect width="{width:g}" height="{height:g}" fill="#fff"/>', *body, "</svg>\n"])


def nice_step(span: float) -> float:
    """Return the smallest step of 1, 2 or 5 times a power of ten that cuts ``span`` into at most five."""
    power = 10.0 ** (math.floor(math.log10(span)) - 1)
    return next(power * factor for factor in (1, 2, 5, 10, 20, 50) if span <= 5 * power * factor * (1 + 1e-9))


def count_step(highest: int) -> int:
    """Return the step of an axis of counts from 0 to ``highest``: see :func:`nice_step`, and at least 1."""
    return max(1, round(nice_step(highest)))


def ticks(low: float, high: float) -> list[float]:
    """Return round numbers in at most five even steps, from at most ``low`` to at least ``high``.

    An empty range is widened by half of its value on each side, but never across zero: an axis of amounts starts at 0.
    """
    if not high > low:
        low, high = (0.0, 1.0) if low == 0 else (low - abs(low) / 2, high + abs(high) / 2)
    step = nice_step(high - low)
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    if last - first > 5:
        step = nice_step(5 * step * (1 + 1e-6))
        first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    return [round(step * i, 12) for i in range(first, last + 1)]


def scaled(value: int, top: int) -> int:
    """Scale a bar to units; a value above 0 stays visible."""
    return max(round(UNITS * value / top), THINNEST) if value else 0


def outline(heights: Sequence[int]) -> str:
    """Outline columns of width 1: bars with gaps, or one staircase where there are many."""
    if len(heights) <= GAPS_UP_TO:
        return "".join(
            f"M{x + 0.06:.2f} {UNITS}V{UNITS - height}h.88V{UNITS}z" for x, height in enumerate(heights) if height
        )
    return f"M0 {UNITS}" + "".join(f"V{UNITS - height}h1" for height in heights) + f"V{UNITS}z"


def stream(step: int, start: float, end: float) -> str:
    """Outline a band around the middle that changes from one half-width to another early in its step.

    It reaches a little under the band of the next step: a seam shows where two shapes merely touch.
    """
    x, middle = step * 100, UNITS / 2
    up, down = f"{middle - end:.0f}", f"{middle + end:.0f}"
    return (
        f"M{x} {middle - start:.0f}C{x + 14} {middle - start:.0f} {x + 14} {up} {x + 28} {up}H{x + 101}V{down}H{x + 28}"
        f"C{x + 14} {down} {x + 14} {middle + start:.0f} {x} {middle + start:.0f}z"
    )


def hint(x: int, label: str, stack: Sequence[int], series: Sequence[Series]) -> str:
    """Make an invisible bar as high as the plot that shows the numbers of its column as a tooltip."""
    parts = ", ".join(f"{value:,} {one.name}" for value, one in zip(stack, series, strict=True) if value)
    title = f"<title>{escape(f'{label}: {parts}')}</title>"
    return f'<rect class="hint" x="{x}" width="1" height="{UNITS}">{title}</rect>'


def grid_line(value: int, top: int) -> str:
    """Draw a horizontal grid line at a number of images, with the number beside it."""
    y = percent(100 - 100 * value / top)
    style = "grid" if value else "ground"
    return (
        f'<line class="{style}" x1="0" x2="100%" y1="{y}" y2="{y}"/>'
        f'<text x="-8" y="{y}" dy="4" text-anchor="end">{compact(value)}</text>'
    )


def level_line(value: int, label: str, top: int) -> str:
    """Draw a dashed horizontal line, with its label at the right."""
    y = percent(100 - 100 * value / top)
    return (
        f'<line class="level" x1="0" x2="100%" y1="{y}" y2="{y}"/>'
        f'<text class="note" x="100%" y="{y}" dy="-7" text-anchor="end">{escape(label)}</text>'
    )


def mark_line(at: float, label: str) -> str:
    """Draw a vertical line, with its label on the side that has more room."""
    x = percent(100 * at)
    anchor, shift = ("end", -6) if at > 0.5 else ("start", 6)
    return (
        f'<line class="mark" x1="{x}" x2="{x}" y1="-22" y2="100%"/>'
        f'<text class="note" x="{x}" y="-13" dx="{shift}" text-anchor="{anchor}">{escape(label)}</text>'
    )


def tick(at: float, text: str, *, minor: bool) -> str:
    """Draw a label under the plot; minor ones are hidden on a narrow screen."""
    anchor = "start" if at <= 0 else "end" if at >= 1 else "middle"
    style = ' class="minor"' if minor else ""
    return f'<text{style} x="{percent(100 * at)}" y="{PLOT_HEIGHT + 18}" text-anchor="{anchor}">{escape(text)}</text>'


def percent(value: float) -> str:
    """Write a length in percent as SVG does."""
    return f"{value:.2f}".rstrip("0").rstrip(".") + "%"


def compact(value: int) -> str:
    """Abbreviate a round number of images to at most five characters."""
    for unit, letter in ((10**9, "G"), (10**6, "M"), (10**3, "k")):
        if value >= unit:
            return f"{value / unit:g}{letter}"
    return str(value)
