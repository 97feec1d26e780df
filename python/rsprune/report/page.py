"""The report page: one HTML file that loads nothing, and whose figures need no script."""

from __future__ import annotations

import json
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from markupsafe import Markup

from rsprune import charts
from rsprune.encoders import Encoder
from rsprune.errors import ArgumentError
from rsprune.io import write_text
from rsprune.report.clusters import ROWS, cluster_rows
from rsprune.report.duplicates import BOUND, find_duplicates
from rsprune.report.embedding_map import draw_sample, embedding_map
from rsprune.report.gallery import LARGE, SMALL, Gallery
from rsprune.report.places import places
from rsprune.report.render import render
from rsprune.report.scenes import scenes
from rsprune.report.stages import stage_one, stage_two
from rsprune.report.statistics import RunStatistics, run_statistics
from rsprune.report.words import percent, plural
from rsprune.runs.folder import RunFolder
from rsprune.runs.reader import RunReader
from rsprune.runs.summary import describe_passed_over
from rsprune.sources import SourceLike
from rsprune.validation import check_integer

__all__ = ["write_report"]

QUARANTINE_SHOWN = 50

#: The sections of the page, and how its head names them.
SECTIONS = {
    "kept": "what was kept",
    "map": "map",
    "stage-one": "Stage I",
    "stage-two": "Stage II",
    "clusters": "clusters",
    "duplicates": "near-duplicates",
    "quality": "quality",
    "scenes": "kinds of scenes",
    "places": "where they lie",
    "quarantine": "quarantine",
    "provenance": "provenance",
}


def write_report(
    folder: RunFolder | str | Path,
    source: SourceLike | None = None,
    *,
    map_sample: int = 0,
    encoder: Encoder | None = None,
) -> Path:
    """Write ``report.html`` into a finished run folder.

    The same run folder and images give the same bytes.

    Parameters
    ----------
    folder
        The run folder.
    source
        The collection that the run was made from. Without it the page keeps the images that it shows already, if any.
    map_sample
        Of a run that kept no embeddings: so many images are embedded again, for the map and near-duplicates.
    encoder
        The encoder of the run, if it is not found by its name.

    Raises
    ------
    FileNotFoundError
        The folder is no run folder.
    UnfinishedRunError
        The run is not finished.
    ArgumentError
        ``map_sample`` is negative, or given without ``source``. The page that is there shows images, and the new one
        would show none: the collection is needed.
    KeyMismatchError
        The collection is not the one that the run was made from, or was not between the stages of the run.
    """
    if check_integer("map_sample", map_sample, minimum=0) and source is None:
        message = "map_sample embeds images again: give the collection (--source)"
        raise ArgumentError(message)
    run = RunReader(folder, finished=True)
    images = None if source is None else run.open_source(source)
    if images is not None:
        run.check_source(images)
    counts = run_statistics(run)
    rows = cluster_rows(run, counts)
    large = [
        *counts.kept_in_turn,
        *counts.random_kept,
        *counts.random_dropped,
        *counts.lowest_entropy,
        *counts.nearly_kept,
        *counts.least_similar,
        *(one for flagged in counts.quality for one in flagged.examples),
    ]
    small = [one for row in rows if row.strip for part in vars(row.strip).values() for one in part]
    sample = draw_sample(run, images, map_sample, encoder)
    duplicates = find_duplicates(sample)
    if duplicates is not None:
        large += [one for first, second, _ in duplicates.pairs for one in (first, second)]
    wanted = [(LARGE, one) for one in large] + [(SMALL, one) for one in [*sample.pictured, *small]]
    gallery = Gallery(run, wanted, sample.images, images)
    if gallery.loses:
        message = (
            f"{run.folder.report} shows images, and a page without the collection would show none of them: give the "
            "collection (--source), or delete that page"
        )
        raise ArgumentError(message)
    if images is None and len(gallery) and gallery.missing:
        message = (
            f"{gallery.missing:,} of the images that the page shows were not in {run.folder.report}, and have no "
            "picture: give the collection (--source) to draw them"
        )
        warnings.warn(message, stacklevel=2)
    parts = {
        "map": embedding_map(run, counts, sample, gallery),
        "scenes": scenes(run.summary),
        "places": places(run, images),
    }
    page = render(
        "report.html",
        title=headline(run.summary),
        sections=[(name, SECTIONS[name]) for name in SECTIONS if parts.get(name, ()) is not None],
        summary=run.summary,
        counts=counts,
        gallery=gallery,
        large=LARGE,
        small=SMALL,
        funnel=funnel(run.summary, counts),
        one=stage_one(run, counts),
        two=stage_two(run, counts),
        clusters=rows,
        most_clusters=ROWS,
        by_cut=run.within == "nearest" and run.summary["quota"] is not None,
        duplicates=duplicates,
        near=BOUND,
        **parts,
        quarantine=quarantine(run),
        provenance=provenance(run.config),
    )
    write_text(run.folder.report, page)
    return run.folder.report


def headline(summary: Mapping[str, Any]) -> str:
    """Say how many images of how many were kept."""
    images, selected = summary["images"], summary["selected"]
    return f"{selected:,} of {plural(images, 'image', 'images')} kept ({percent(selected, images)})"


def funnel(summary: Mapping[str, Any], counts: RunStatistics) -> Markup:
    """Draw what is left after each step."""
    images = summary["images"]
    steps = [("images", images, "in all")]
    for name, count in (("read", counts.ranked), ("Stage I", summary["survivors"]), ("kept", summary["selected"])):
        steps.append((name, count, percent(count, images)))
    return Markup(charts.funnel("funnel", "Images left after each step", steps))


def quarantine(run: RunReader) -> dict[str, Any]:
    """Return the images that could not be read, by their causes, and what was passed over, as the template takes it."""
    first: list[dict[str, Any]] = []
    for batch in run.quarantine_batches():
        first += batch.slice(0, QUARANTINE_SHOWN - len(first)).to_pylist()
        if len(first) == QUARANTINE_SHOWN:
            break
    images, shards = run.summary["quarantined"], len(run.summary.get("left_out", []))
    return {
        "causes": run.summary.get("causes", []),
        "shards": shards,
        "images": images,
        "first": first,
        "whole": images + shards <= QUARANTINE_SHOWN,
        "passed_over": describe_passed_over(run.summary.get("passed_over", {})),
    }


def provenance(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return what made the run as the template takes it."""
    encoder, centroids, selection = (config.get(name, {}) for name in ("encoder", "centroids", "selection"))
    facts = {
        "rsprune": config.get("rsprune"),
        "decoder": config.get("decoder"),
        "encoder": encoder.get("name"),
        "embedding": f"{encoder['dim']} numbers an image" if "dim" in encoder else None,
        "weights, SHA-256": (encoder.get("weights") or {}).get("sha256"),
        "preprocessing": encoder.get("preprocessing"),
        "centroids": f"K = {centroids.get('k')}, seed {centroids.get('seed')}"
        if isinstance(centroids, dict) and centroids
        else None,
        "selection": ", ".join(f"{name} {value}" for name, value in sorted(selection.items())),
    }
    return {
        "facts": [(name, plain(fact)) for name, fact in facts.items() if fact],
        "config": json.dumps(config, indent=2, sort_keys=True, ensure_ascii=False),
    }


def plain(value: Any) -> str:
    """Format a value of the configuration."""
    return value if isinstance(value, str) else json.dumps(value, sort_keys=True, ensure_ascii=False)
