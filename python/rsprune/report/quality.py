"""Images that may be of no use: dark, bright, blurred, odd-sized, poorly compressed, by the scores of Stage I."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from rsprune.report.examples import SEED, Example, Extremes, draw_order
from rsprune.runs.reader import NOT_CHOSEN, RunReader
from rsprune.runs.rows import RunIndex, ShardRows
from rsprune.runs.schema import SCORE_FIELDS

__all__ = ["FLAGS", "Flagged", "QualityCounter"]

SHOWN = 8  # examples of each, drawn from what was kept
Scores = Mapping[str, NDArray[np.float64]]


@dataclass(frozen=True)
class Flag:
    """A score that is out of the ordinary; NaN never is."""

    name: str
    bound: str
    holds: Callable[[Scores], NDArray[np.bool_]]


FLAGS = (
    Flag("dark", "mean gray level below 20", lambda one: one["gray_mean"] < 20),
    Flag("bright", "mean gray level above 235", lambda one: one["gray_mean"] > 235),
    Flag("blurred or empty", "variance of the Laplacian below 20", lambda one: one["sharpness"] < 20),
    Flag("small", "a side below 64 pixels", lambda one: np.fmin(one["image_width"], one["image_height"]) < 64),
    Flag(
        "elongated",
        "one side more than twice the other",
        lambda one: (
            np.fmax(one["image_width"], one["image_height"]) > 2 * np.fmin(one["image_width"], one["image_height"])
        ),
    ),
    Flag("poorly compressed", "JPEG quality below 50", lambda one: one["jpeg_quality"] < 50),
)


@dataclass(frozen=True)
class Flagged:
    """The images of a flag."""

    name: str
    bound: str
    images: int
    kept: int
    examples: Sequence[Example]  # of those that were kept


class QualityCounter:
    """Counts the images of each flag, shard by shard."""

    def __init__(self) -> None:
        self._counts = np.zeros((len(FLAGS), 2), np.int64)  # in all, and of those that were kept
        self._drawn = [Extremes(SHOWN) for _ in FLAGS]

    def add(self, run: RunReader, shard: ShardRows) -> None:
        """Add the images of a shard."""
        names = [field.name for field in SCORE_FIELDS]
        table = run.table(run.folder.entropy(shard.name), names)
        scores = {name: table[name].to_numpy().astype(np.float64) for name in names}
        at = np.flatnonzero(shard.phase != NOT_CHOSEN)
        row = shard.row[at]
        for number, flag in enumerate(FLAGS):
            holds = flag.holds(scores)
            mine = holds[row]
            self._counts[number] += np.count_nonzero(holds), np.count_nonzero(mine)
            self._drawn[number].offer(shard, row[mine], draw_order(shard, row[mine], SEED), at=at[mine])

    def found(self, index: RunIndex) -> list[Flagged]:
        """Return what was counted, flag by flag."""
        return [
            Flagged(flag.name, flag.bound, images, kept, drawn.only(index))
            for flag, (images, kept), drawn in zip(FLAGS, self._counts.tolist(), self._drawn, strict=True)
        ]
