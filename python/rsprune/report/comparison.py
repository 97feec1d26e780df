"""A page about two choices: what both keep, and what one keeps alone."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from markupsafe import Markup
from numpy.typing import NDArray

from rsprune import _core, charts
from rsprune.errors import ArgumentError
from rsprune.io import check_output_file, config_diff, write_text
from rsprune.report.examples import SEED, Example
from rsprune.report.gallery import LARGE, Gallery
from rsprune.report.render import render
from rsprune.report.statistics import RANDOM_SHOWN
from rsprune.report.words import plural
from rsprune.runs.coverage import cluster_name
from rsprune.runs.folder import RunFolder
from rsprune.runs.reader import RunReader
from rsprune.sources import SourceLike
from rsprune.sources.base import check_outside

__all__ = ["write_comparison"]

COLUMNS = ["key", "shard", "row", "entropy", "cluster", "similarity"]


@dataclass(frozen=True)
class Side:
    """One of the two choices."""

    name: str
    run: RunReader
    table: pa.Table  # its manifest
    common: NDArray[np.bool_]  # of each row, whether the other choice has it, too

    @property
    def kept(self) -> list[int]:
        """The images that it keeps of each cluster."""
        return self._counts(np.ones(len(self.common), np.bool_))

    @property
    def both(self) -> list[int]:
        """Those of them that the other choice keeps, too."""
        return self._counts(self.common)

    @property
    def pool(self) -> list[int]:
        """The images that Stage I kept of each cluster."""
        pool: list[int] = self.run.summary["clusters"]["pool"]
        return pool

    @property
    def names(self) -> list[str]:
        """What the clusters are called."""
        coverage = self.run.summary.get("coverage", {})
        return [cluster_name(coverage, k) for k in range(len(self.pool))]

    def _counts(self, rows: NDArray[np.bool_]) -> list[int]:
        counts: list[int] = np.bincount(self.table["cluster"].to_numpy()[rows], minlength=len(self.pool)).tolist()
        return counts

    def drawn(self, rows: NDArray[np.bool_]) -> list[Example]:
        """Draw some of its rows by the seed."""
        at = np.flatnonzero(rows)
        order = np.argsort(_core.hash64(SEED, 0, len(rows))[at], kind="stable")[:RANDOM_SHOWN]
        some = self.table.take(pa.array(at[order])).to_pylist()
        return [
            Example(number, one["shard"], one["row"], one["entropy"], one["cluster"], one["similarity"])
            for number, one in zip(at[order].tolist(), some, strict=True)
        ]


def write_comparison(
    first: str | Path, second: str | Path, *, out: str | Path | None = None, source: SourceLike | None = None
) -> Path:
    """Write a page that compares the choices of two finished runs, or two choices of one.

    Parameters
    ----------
    first, second
        Run folders, or choices in ``selections/`` of one.
    out
        The page. Default: ``comparison.html`` in the first of them.
    source
        The collection. Without it the page shows the pictures that are in the reports.

    Raises
    ------
    ArgumentError
        They have no image in common in their collections, as far as their shards tell.
    OutputError
        ``out`` is a file that this function did not write, or lies among the images.
    FileNotFoundError, UnfinishedRunError, KeyMismatchError
        See :func:`write_report`.
    """
    runs = [RunReader(RunFolder(path), finished=True) for path in (first, second)]
    if not set(runs[0].shards) & set(runs[1].shards):
        message = f"{first} and {second} were made from other collections: no shard of one is a shard of the other"
        raise ArgumentError(message)
    page = check_output_file(runs[0].folder.choice / "comparison.html" if out is None else out, is_page)
    opened = [None if source is None else run.open_source(source) for run in runs]
    check_outside(page, *(images for images in opened if images is not None))
    one, two = sides(runs, [Path(path).name or str(path) for path in (first, second)])
    galleries = []
    groups = [(one, one.drawn(one.common)), (one, one.drawn(~one.common)), (two, two.drawn(~two.common))]
    for side, examples in groups:
        images = opened[runs.index(side.run)]
        galleries.append(Gallery(side.run, [(LARGE, example) for example in examples], source=images))
    same = np.array_equal(one.run.centroids.vectors, two.run.centroids.vectors)
    text = render(
        "comparison.html",
        title=f"{one.name} and {two.name}",
        names=(one.name, two.name),
        kept=(len(one.common), len(two.common)),
        both=int(one.common.sum()),
        chart=cluster_chart(one, two) if same else None,
        tables=[cluster_table(one, two)] if same else [cluster_table(one), cluster_table(two)],
        groups=[(gallery, examples) for gallery, (_, examples) in zip(galleries, groups, strict=True)],
        differences=list(config_diff(one.run.config, two.run.config, names=(f"in {one.name}", f"in {two.name}"))),
    )
    write_text(page, text)
    return page


def is_page(path: Path) -> bool:
    """Tell whether a file is a page of this package."""
    with path.open("rb") as file:
        return b"<title>rsprune: " in file.read(4096)


def sides(runs: Sequence[RunReader], names: Sequence[str]) -> list[Side]:
    """Find the images that are in both manifests."""
    tables = [run.selected(COLUMNS) for run in runs]
    # A name that is unique in one collection may be none in the other.
    whole = len({run.key_form for run in runs}) > 1
    keys = [
        pc.binary_join_element_wise(table["shard"], table["key"], "/")
        if whole and run.key_form == "name"
        else table["key"]
        for run, table in zip(runs, tables, strict=True)
    ]
    labels = [f"{name} ({i})" for i, name in enumerate(names, 1)] if names[0] == names[1] else names
    return [
        Side(label, run, table, pc.is_in(mine, value_set=other.combine_chunks()).to_numpy())
        for label, run, table, mine, other in zip(labels, runs, tables, keys, reversed(keys), strict=True)
    ]


def cluster_chart(one: Side, two: Side) -> Markup:
    """Draw what both and each alone keep of each cluster."""
    order = sorted(range(len(one.pool)), key=lambda k: (-one.kept[k] - two.kept[k], k))
    kept, other, both, names = one.kept, two.kept, one.both, one.names
    svg = charts.columns(
        "clusters",
        "What is kept of each cluster",
        f"{plural(len(order), 'cluster', 'clusters')} by the number of images that are kept of them.",
        [
            charts.Series("kept", "by both", [both[k] for k in order]),
            charts.Series("fill", f"by {one.name} alone", [kept[k] - both[k] for k in order]),
            charts.Series("rest", f"by {two.name} alone", [other[k] - both[k] for k in order]),
        ],
        labels=[names[k] for k in order],
        ticks=[(0.0, "most"), (1.0, "fewest")] if len(order) > 1 else [(0.5, names[0])],
        axis="clusters, by what is kept of them",
    )
    return Markup(svg)


def cluster_table(*compared: Side) -> dict[str, Any]:
    """Return a row a cluster as the template takes it: of each side the pool and what is kept, and what both keep."""
    first = compared[0]
    columns = [(side.pool, side.kept) for side in compared]
    both, names = first.both, first.names
    rows = [
        (k, names[k], [(pool[k], kept[k]) for pool, kept in columns], both[k])
        for k in sorted(range(len(names)), key=lambda k: (-first.pool[k], k))
    ]
    return {"sides": [side.name for side in compared], "rows": rows}
