"""Charts as SVG text: pure functions of their numbers, styled by the classes of ``page.css``.

Lengths across are percentages and lengths down are pixels, so that a chart fills any width while its text keeps its
size. The shapes lie in a nested SVG that is stretched to the plot; the text does not.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

__all__ = ["Level", "Mark", "Series", "Step", "columns", "funnel", "nice_step"]

PLOT_HEIGHT = 220  # pixels
UNITS = 1000  # of height in the stretched SVG
THINNEST = 4  # units: a bar of one image among a million can still be seen
GAPS_UP_TO = 100  # columns; more of them touch, or the gaps would show as stripes
FUNNEL_HEIGHT = 96


@dataclass(frozen=True)
class Series:
    """One colour of a chart: ``style`` is its class in the style sheet."""

    style: str
    name: str
    values: Sequence[int]


@dataclass(frozen=True)
class Mark:
    """An upright line: ``at`` is its place as a fraction of the width."""

    at: float
    label: str


@dataclass(frozen=True)
class Level:
    """A level line: ``value`` is its height as a number of images."""

    value: int
    label: str


@dataclass(frozen=True)
class Step:
    """One step of a funnel."""

    label: str
    value: int
    note: str


def columns(
    name: str,
    title: str,
    description: str,
    series: Sequence[Series],
    *,
    labels: Sequence[str],
    ticks: Sequence[tuple[float, str]],
    axis: str,
    mark: Mark | None = None,
    level: Level | None = None,
) -> str:
    """Draw stacked columns: a histogram, or bars.

    Parameters
    ----------
    name
        An identifier that no other chart of the page has.
    title, description
        What a screen reader says.
    series
        The colours, the lowest of the stack first; their values are one number of images for each column.
    labels
        What each column is called when it is pointed at.
    ticks
        Labels under the plot, with their places as fractions of the width.
    axis
        What is along the width, with its unit.
    mark, level
        Lines across the plot.

    Returns
    -------
    str
        An ``<svg>`` element.
    """
    stacks = [list(values) for values in zip(*(one.values for one in series), strict=True)]
    highest = max([1, *map(sum, stacks), level.value if level else 0])
    step = nice_step(highest)
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
            level_line(level, top) if level else "",
            mark_line(mark) if mark else "",
            *(tick(at, text, minor=(len(ticks) - i) % 2 == 0) for i, (at, text) in enumerate(ticks)),
            f'<text class="unit" x="50%" y="{PLOT_HEIGHT + 40}" text-anchor="middle">{escape(axis)}</text>',
            "</svg>",
        ]
    )


def funnel(name: str, title: str, steps: Sequence[Step]) -> str:
    """Draw how many images each step leaves of the first step's, as a stream that narrows.

    Returns
    -------
    str
        An ``<svg>`` element.
    """
    width = 100 / len(steps)
    whole = max(steps[0].value, 1)
    description = ", ".join(f"{step.label}: {step.value:,}" for step in steps)
    halves = [max(UNITS * step.value / whole, 2 * THINNEST) / 2 for step in steps]
    befores = [halves[0], *halves[:-1]]
    styles = ["flow"] * (len(steps) - 1) + ["kept"]
    lost = [f'<path class="lost" d="{stream(i, before, before)}"/>' for i, before in enumerate(befores)]
    left = [
        f'<path class="{style}" d="{stream(i, before, half)}"/>'
        for i, (style, before, half) in enumerate(zip(styles, befores, halves, strict=True))
    ]
    text = [
        f'<text x="{percent(i * width)}" y="16"><tspan class="label">{escape(step.label)}</tspan>'
        f'<tspan class="figure" x="{percent(i * width)}" dy="26">{step.value:,}</tspan>'
        f'<tspan class="label" x="{percent(i * width)}" dy="19">{escape(step.note)}</tspan></text>'
        for i, step in enumerate(steps)
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


def nice_step(highest: int) -> int:
    """The step of 1, 2 or 5 times a power of ten that cuts ``highest`` into at most five."""
    power = int(10 ** max(len(str(highest)) - 2, 0))
    steps = [power * factor for factor in (1, 2, 5, 10, 20, 50)]
    return next(step for step in steps if highest <= 5 * step)


def scaled(value: int, top: int) -> int:
    """The height of a bar in units; something that is there is seen."""
    return max(round(UNITS * value / top), THINNEST) if value else 0


def outline(heights: Sequence[int]) -> str:
    """The outline of columns of width 1: bars with gaps, or when they are many one staircase."""
    if len(heights) <= GAPS_UP_TO:
        return "".join(
            f"M{x + 0.06:.2f} {UNITS}V{UNITS - height}h.88V{UNITS}z" for x, height in enumerate(heights) if height
        )
    return f"M0 {UNITS}" + "".join(f"V{UNITS - height}h1" for height in heights) + f"V{UNITS}z"


def stream(step: int, start: float, end: float) -> str:
    """A band around the middle that goes from one half-width to another early in its step, and keeps it.

    It reaches a little under the next step's: where two shapes only touch, a seam shows.
    """
    x, middle = step * 100, UNITS / 2
    up, down = f"{middle - end:.0f}", f"{middle + end:.0f}"
    return (
        f"M{x} {middle - start:.0f}C{x + 14} {middle - start:.0f} {x + 14} {up} {x + 28} {up}H{x + 101}V{down}H{x + 28}"
        f"C{x + 14} {down} {x + 14} {middle + start:.0f} {x} {middle + start:.0f}z"
    )


def hint(x: int, label: str, stack: Sequence[int], series: Sequence[Series]) -> str:
    """An unseen bar as high as the plot, which tells the numbers of its column when it is pointed at."""
    parts = ", ".join(f"{value:,} {one.name}" for value, one in zip(stack, series, strict=True) if value)
    title = f"<title>{escape(f'{label}: {parts}')}</title>"
    return f'<rect class="hint" x="{x}" width="1" height="{UNITS}">{title}</rect>'


def grid_line(value: int, top: int) -> str:
    """A level line at a number of images, with the number beside it."""
    y = percent(100 - 100 * value / top)
    style = "grid" if value else "ground"
    return (
        f'<line class="{style}" x1="0" x2="100%" y1="{y}" y2="{y}"/>'
        f'<text x="-8" y="{y}" dy="4" text-anchor="end">{compact(value)}</text>'
    )


def level_line(level: Level, top: int) -> str:
    """A dashed level line, with its label at the right."""
    y = percent(100 - 100 * level.value / top)
    return (
        f'<line class="level" x1="0" x2="100%" y1="{y}" y2="{y}"/>'
        f'<text class="note" x="100%" y="{y}" dy="-7" text-anchor="end">{escape(level.label)}</text>'
    )


def mark_line(mark: Mark) -> str:
    """An upright line, with its label on the side where there is more room."""
    x = percent(100 * mark.at)
    anchor, shift = ("end", -6) if mark.at > 0.5 else ("start", 6)
    return (
        f'<line class="mark" x1="{x}" x2="{x}" y1="-22" y2="100%"/>'
        f'<text class="note" x="{x}" y="-13" dx="{shift}" text-anchor="{anchor}">{escape(mark.label)}</text>'
    )


def tick(at: float, text: str, *, minor: bool) -> str:
    """A label under the plot; the minor ones give way on a narrow screen."""
    anchor = "start" if at <= 0 else "end" if at >= 1 else "middle"
    style = ' class="minor"' if minor else ""
    return f'<text{style} x="{percent(100 * at)}" y="{PLOT_HEIGHT + 18}" text-anchor="{anchor}">{escape(text)}</text>'


def percent(value: float) -> str:
    """A length as SVG writes it."""
    return f"{value:.2f}".rstrip("0").rstrip(".") + "%"


def compact(value: int) -> str:
    """A round number of images in at most five characters."""
    for unit, letter in ((10**9, "G"), (10**6, "M"), (10**3, "k")):
        if value >= unit:
            return f"{value / unit:g}{letter}"
    return str(value)
