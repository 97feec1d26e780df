"""The map of the page: where the images lie, of collections that say it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
from markupsafe import Markup
from numpy.typing import NDArray

from rsprune import charts
from rsprune.runs.reader import RunReader
from rsprune.sources import Source

__all__ = ["places"]

#: The columns of metadata with an image's bounds in degrees.
DEGREES = ("west", "south", "east", "north")
CELLS = 72  # along the longer side, at most


@dataclass(frozen=True)
class Places:
    """The middles of images in degrees, float64 (n,), the degrees that they span, and whether each was kept."""

    longitude: NDArray[np.float64]
    latitude: NDArray[np.float64]
    span: NDArray[np.float64]
    kept: NDArray[np.bool_]


def places(run: RunReader, source: Source | None) -> dict[str, Any] | None:
    """Return the map of all images, or of those that were kept if the collection is not at hand; None for no map."""
    parts = [one for one in _tables(run, source) if len(one.kept)]
    if not parts:
        return None
    columns = zip(*(vars(one).values() for one in parts), strict=True)
    every = Places(*map(np.concatenate, columns))
    middle = np.cos(np.radians(every.latitude.mean()))
    x, y = every.longitude * max(middle, 0.01), every.latitude
    # Cells are as large as an image, or, where the map would have too many of these, larger.
    side = max(float(np.median(every.span)), max(np.ptp(x), np.ptp(y)) / (CELLS - 1), 1e-9)
    column, row = np.floor((x - x.min()) / side + 0.5), np.floor((y.max() - y) / side + 0.5)
    cells, of_place = np.unique(np.column_stack([column, row]).astype(np.int64), axis=0, return_inverse=True)
    total = np.bincount(of_place.ravel(), minlength=len(cells))
    kept = np.bincount(of_place.ravel()[every.kept], minlength=len(cells))
    found = [charts.Cell(*map(int, values)) for values in zip(*cells.T, kept, total, strict=True)]
    corners = f"""{degrees(every.longitude.min(), "EW")} to {degrees(every.longitude.max(), "EW")},
{degrees(every.latitude.min(), "NS")} to {degrees(every.latitude.max(), "NS")}"""
    svg = charts.cells("places", "Where the images lie", f"From {corners}.", found)
    return {
        "chart": Markup(svg),
        "corners": corners,
        "kept": int(every.kept.sum()),
        "images": None if source is None else len(every.kept),
    }


def degrees(value: float, letters: str) -> str:
    """Write a longitude or a latitude: ``99.19° W``."""
    value = (value + 180) % 360 - 180 if letters == "EW" else value
    return f"{abs(value):.2f}° {letters[int(value < 0)]}"


def _tables(run: RunReader, source: Source | None) -> Iterator[Places]:
    if source is None:
        if set(DEGREES) <= set(run.metadata_names()):
            table = run.selected(DEGREES)
            yield _places(table, np.ones(len(table), np.bool_))
    elif set(DEGREES) <= set(source.metadata_schema.names):
        for shard in source.shards:
            table = source.read_metadata(shard, range(source.count(shard)))
            kept = np.zeros(len(table), np.bool_)
            if shard.name in run.chosen:
                kept[run.chosen[shard.name][0]] = True
            yield _places(table, kept)


def _places(table: pa.Table, kept: NDArray[np.bool_]) -> Places:
    west, south, east, north = (table[name].to_numpy().astype(np.float64) for name in DEGREES)
    width = np.where(east < west, east - west + 360, east - west)  # across the antimeridian
    known = np.isfinite(west + south + east + north)
    latitude = (south + north) / 2
    return Places((west + width / 2)[known], latitude[known], (north - south)[known], kept[known])
