"""The report page: one HTML file that runs no script and loads nothing."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping
from html import escape
from importlib.resources import files
from pathlib import Path
from typing import Any

from rsprune import charts
from rsprune.io import write_text
from rsprune.report.gallery import Gallery
from rsprune.report.html import percent, plural, table
from rsprune.report.places import places_section
from rsprune.report.scenes import scenes_lead, scenes_section
from rsprune.report.sections import stage_one_section, stage_two_section
from rsprune.report.statistics import RunStatistics, run_statistics
from rsprune.runs.folder import RunFolder
from rsprune.runs.reader import RunReader
from rsprune.sources import SourceLike

__all__ = ["write_report"]

QUARANTINE_SHOWN = 50

# The policy holds whatever the keys of a collection contain.
HEAD = """<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; img-src data:; style-src 'unsafe-inline'">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
"""


def write_report(folder: RunFolder | str | Path, source: SourceLike | None = None) -> Path:
    """Write ``report.html`` into a finished run folder.

    The same run folder and images give the same bytes.

    Parameters
    ----------
    folder
        The run folder.
    source
        The collection that the run was made from. Without it the page keeps the images that it shows already, if any.

    Raises
    ------
    FileNotFoundError
        The folder is no run folder.
    UnfinishedRunError
        The run is not finished.
    KeyMismatchError
        The collection is not the one that the run was made from, or was not between the stages of the run.
    """
    run = RunReader(folder, finished=True)
    images = None if source is None else run.open_source(source)
    if images is not None:
        run.check_source(images)
    counts = run_statistics(run)
    gallery = Gallery(run, counts, images)
    title = escape(headline(run.summary))
    style = files("rsprune.report").joinpath("page.css").read_text(encoding="utf-8")
    parts = [
        f"{HEAD}<title>rsprune: {title}</title>\n<style>\n{style}</style>\n</head>\n<body>\n<main>",
        head_section(run, counts),
        kept_section(counts, gallery),
        stage_one_section(run, counts, gallery),
        stage_two_section(run, counts, gallery),
        *filter(None, [scenes_section(run.summary)]),
        *filter(None, [places_section(run, images)]),
        quarantine_section(run),
        provenance_section(run),
        "</main>\n</body>\n</html>\n",
    ]
    write_text(run.folder.report, "\n".join(parts))
    return run.folder.report


def head_section(run: RunReader, counts: RunStatistics) -> str:
    """Render the headline and the funnel."""
    summary = run.summary
    line, _, share = headline(summary).partition(" (")
    steps = [
        ("images", summary["images"], "in all"),
        ("read", counts.ranked, percent(counts.ranked, summary["images"])),
        ("Stage I", summary["survivors"], percent(summary["survivors"], summary["images"])),
        ("kept", summary["selected"], percent(summary["selected"], summary["images"])),
    ]
    k = len(summary["clusters"]["pool"])
    return f"""<header>
<p class="eyebrow">rsprune report</p>
<h1>{escape(line)} <span>({escape(share)}</span></h1>
<p>Stage I ranked the images by how much there is to see in them and passed on {summary["survivors"]:,}.
Stage II sorted these by {plural(k, "kind of scene", "kinds of scenes")} and kept
{summary["selected"]:,}. {scenes_lead(summary)}</p>
{charts.funnel("funnel", "Images left after each step", steps)}
</header>"""


def kept_section(counts: RunStatistics, gallery: Gallery) -> str:
    """Render examples of what was kept."""
    if not gallery.images:
        text = "<p>The collection was not at hand when this page was made, so it shows no images.</p>"
    else:
        text = """<p>From the largest clusters, one after another, the images nearest to the centroid: each with its
entropy, and its similarity to the centroid of that number.</p>"""
    return f"<section>\n<h2>What was kept</h2>\n{text}\n{gallery.tiles(counts.kept_in_turn())}\n</section>"


def quarantine_section(run: RunReader) -> str:
    """Render the images that could not be read, with their causes."""
    causes: Counter[tuple[str, str]] = Counter()
    first: list[dict[str, Any]] = []
    for batch in run.quarantine_batches():
        first += batch.slice(0, max(0, QUARANTINE_SHOWN - len(first))).to_pylist()
        causes.update(zip(batch["stage"].to_pylist(), batch["kind"].to_pylist(), strict=True))
    if not causes:
        text = "<p>Every image could be read.</p>"
        return f"<section>\n<h2>Quarantine</h2>\n{text}\n</section>"
    by_cause = table(
        ("images", "stage", "cause"),
        (
            f'<td class="number">{count:,}</td><td>{escape(stage)}</td><td>{escape(spaced(kind))}</td>'
            for (stage, kind), count in sorted(causes.items(), key=lambda item: (-item[1], item[0]))
        ),
    )
    shown = table(
        ("key", "shard", "row", "stage", "cause", "message"),
        (
            f'<td class="key"><bdi>{escape(row["key"])}</bdi></td><td>{escape(row["shard"])}</td>'
            f'<td class="number">{row["row"]:,}</td><td>{escape(row["stage"])}</td>'
            f'<td>{escape(spaced(row["kind"]))}</td><td class="message">{escape(row["message"])}</td>'
            for row in first
        ),
    )
    shards = sum(count for (stage, _), count in causes.items() if stage == "source")
    images = causes.total() - shards
    share = percent(images, run.summary["images"])
    damaged = f"{plural(shards, 'damaged shard was', 'damaged shards were')} left out. " if shards else ""
    title = f"The first {QUARANTINE_SHOWN}" if causes.total() > QUARANTINE_SHOWN else "All of them"
    return f"""<section>
<h2>Quarantine</h2>
<p>{damaged}{plural(images, "image", "images")} ({share}) could not be used; none of them was kept.
<code>quarantine.parquet</code> lists them all.</p>
{by_cause}
<h3>{title}</h3>
{shown}
</section>"""


def provenance_section(run: RunReader) -> str:
    """Render the provenance of the run."""
    config = run.config
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
    rows = "\n".join(f"<dt>{name}</dt><dd>{escape(plain(fact))}</dd>" for name, fact in facts.items() if fact)
    text = json.dumps(config, indent=2, sort_keys=True, ensure_ascii=False)
    return f"""<section>
<h2>Provenance</h2>
<p>The same images with this configuration give the same selection, byte for byte.</p>
<dl>
{rows}
</dl>
<details><summary>The whole configuration</summary>
<pre>{escape(text)}</pre>
</details>
</section>"""


def headline(summary: Mapping[str, Any]) -> str:
    """Say how many images of how many were kept."""
    images, selected = summary["images"], summary["selected"]
    return f"{selected:,} of {plural(images, 'image', 'images')} kept ({percent(selected, images)})"


def plain(value: Any) -> str:
    """Format a value of the configuration."""
    return value if isinstance(value, str) else json.dumps(value, sort_keys=True, ensure_ascii=False)


def spaced(kind: str) -> str:
    """Write a cause as words."""
    return kind.replace("_", " ")
