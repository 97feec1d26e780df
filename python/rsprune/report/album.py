"""The images of the page, with their captions."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from html import escape

import pyarrow as pa

from rsprune.report.finished import FinishedRun
from rsprune.report.tally import Pick, Tally
from rsprune.report.thumbnails import thumbnails
from rsprune.sources import Source

__all__ = ["Album"]


class Album:
    """The thumbnails of a page, with their captions."""

    def __init__(self, run: FinishedRun, counts: Tally, source: Source | None) -> None:
        picks = [
            *counts.kept_in_turn(),
            *counts.flattest.picks,
            *counts.just_missed.picks,
            *counts.farthest.picks,
        ]
        self.keys = keys_of_picks(run, picks)
        self.images: dict[int, str] = {}
        if source is not None:
            entropy = run.config.get("entropy", {})
            options = {name: entropy.get(name) for name in ("bands", "valid_range", "max_pixels")}
            self.images = thumbnails(source, picks, self.keys, options)

    def tiles(self, picks: Sequence[Pick]) -> str:
        """A grid of images; nothing where the collection is not at hand."""
        if not picks or not self.images:
            return ""
        return f'<ul class="tiles">\n{"".join(self.tile(pick) for pick in picks)}</ul>'

    def tile(self, pick: Pick) -> str:
        """One image of a grid."""
        key = escape(self.keys[pick.number])
        address = self.images.get(pick.number)
        picture = f'<img src="{address}" alt="{key}">' if address else '<span class="blank">not readable now</span>'
        figures = f"{pick.entropy + 0.0:.2f} bits"  # + 0.0: no minus before zero
        if pick.similarity is not None:
            figures += f"<br>{pick.similarity:.3f} to no. {pick.cluster}"
        return (
            f'<li>{picture}<span class="key" title="{key}"><bdi>{key}</bdi></span>'
            f'<span class="figures">{figures}</span></li>\n'
        )


def keys_of_picks(run: FinishedRun, picks: Iterable[Pick]) -> dict[int, str]:
    """The key of each pick by its row number."""
    keys: dict[int, str] = {}
    for shard in sorted({pick.shard for pick in picks}):
        some = sorted({(pick.row, pick.number) for pick in picks if pick.shard == shard})
        column = run.keys(shard).take(pa.array([row for row, _ in some])).to_pylist()
        keys.update(zip((number for _, number in some), column, strict=True))
    return keys
