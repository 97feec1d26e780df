"""The page that shows what a run kept and why: one file without scripts, which loads nothing."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from html import escape
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from rsprune.manifest import RunFolder, read_table, write_text
from rsprune.report import charts
from rsprune.report.finished import FinishedRun, read_run
from rsprune.report.tally import ENTROPY_BIN, SIMILARITY_BIN, Pick, Tally, tally
from rsprune.report.thumbnails import Source, thumbnails

__all__ = ["write_report"]

QUARANTINE_SHOWN = 50
SIMILARITY_COLUMNS = 60  # at most

# What the selection's options mean, in the words of the page.
WITHIN = {
    "nearest": "the {} images nearest to its centroid",
    "random": "{} images at random",
    "mid": "the {} images of middling similarity",
    "far": "the {} images farthest from its centroid",
}
FILL = {
    "global": "The rest of the budget goes to the nearest of all that is left, in whatever cluster (fill).",
    "waterfill": "The rest of the budget raises the quotas of the clusters that have more to give, evenly (fill).",
    "zscore": "The rest of the budget goes to what stands out most within its own cluster (fill).",
    "none": "What small clusters cannot give of their quota is not made up for.",
}

# The page runs nothing and loads nothing, whatever the keys of a collection say.
HEAD = """<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; img-src data:; style-src 'unsafe-inline'">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
"""


def write_report(folder: RunFolder, source: Source | None = None) -> Path:
    """Write ``report.html`` into a finished run folder.

    The same run folder and images give the same bytes.

    Parameters
    ----------
    folder
        The run.
    source
        The collection that it was made from. Without it, or where it cannot be read, the page has no images.

    Returns
    -------
    Path
        The page.

    Raises
    ------
    FileNotFoundError
        The folder is no run folder.
    UnfinishedRunError
        The run has not come to its end.
    """
    run = read_run(folder)
    counts = tally(run)
    album = Album(run, counts, source)
    title = escape(headline(run.summary))
    parts = [
        f"{HEAD}<title>rsprune: {title}</title>\n<style>\n{style_sheet()}</style>\n</head>\n<body>\n<main>",
        head_section(run, counts),
        kept_section(counts, album),
        stage_one_section(run, counts, album),
        stage_two_section(run, counts, album),
        quarantine_section(run),
        provenance_section(run),
        "</main>\n</body>\n</html>\n",
    ]
    write_text(folder.report, "\n".join(parts))
    return folder.report


def style_sheet() -> str:
    """The text of ``page.css``."""
    return files("rsprune.report").joinpath("page.css").read_text(encoding="utf-8")


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


def head_section(run: FinishedRun, counts: Tally) -> str:
    """What came of it, in one line and one picture."""
    summary = run.summary
    line, _, share = headline(summary).partition(" (")
    steps = [
        charts.Step("images", summary["images"], "in all"),
        charts.Step("read", counts.ranked, percent(counts.ranked, summary["images"])),
        charts.Step("Stage I", summary["survivors"], percent(summary["survivors"], summary["images"])),
        charts.Step("kept", summary["selected"], percent(summary["selected"], summary["images"])),
    ]
    k = len(summary["clusters"]["pool"])
    return f"""<header>
<p class="eyebrow">rsprune report</p>
<h1>{escape(line)} <span>({escape(share)}</span></h1>
<p>Stage I ranked the images by how much there is to see in them and passed on {number(summary["survivors"])}.
Stage II sorted these by {plural(k, "kind of scene", "kinds of scenes")} and kept
{number(summary["selected"])}, so that common scenes do not crowd out rare ones.</p>
{charts.funnel("funnel", "Images left after each step", steps)}
</header>"""


def kept_section(counts: Tally, album: Album) -> str:
    """Some of what was kept."""
    if not album.images:
        text = "<p>The collection was not at hand when this page was made, so it shows no images.</p>"
    else:
        text = """<p>From the largest clusters, one after another, the images nearest to the centroid: each with its
entropy, and its similarity to the centroid of that number.</p>"""
    return f"<section>\n<h2>What was kept</h2>\n{text}\n{album.tiles(counts.kept_in_turn())}\n</section>"


def stage_one_section(run: FinishedRun, counts: Tally, album: Album) -> str:
    """The entropies."""
    tau = run.summary["tau"]
    kept, dropped = (int(one.sum()) for one in counts.entropy)
    svg = charts.columns(
        "entropy",
        "Entropy of all images that were read",
        f"Histogram from 0 to 8 bits. Stage I kept {kept:,} images and dropped {dropped:,}.",
        [
            charts.Series("kept", "kept by Stage I", counts.entropy[0].tolist()),
            charts.Series("rest", "dropped", counts.entropy[1].tolist()),
        ],
        labels=[f"{i * ENTROPY_BIN:.1f} to {(i + 1) * ENTROPY_BIN:.1f} bits" for i in range(counts.entropy.shape[1])],
        ticks=[(bits / 8, str(bits)) for bits in range(9)],
        axis="entropy, bits",
        mark=None if tau is None else charts.Mark(tau / 8, f"tau = {tau:.3f} bits"),
    )
    end = "" if tau is None else f", down to {tau:.3f} bits"
    caption = f"""Each column counts the images within {ENTROPY_BIN} bit. <strong>Stage I kept {number(kept)} of
{number(counts.ranked)}</strong> ({percent(kept, counts.ranked)}){end}."""
    parts = [
        "<section>\n<h2>Stage I: how much there is to see</h2>",
        """<p>Entropy says how evenly an image uses the 256 levels of grey: 0 bits is one flat tone, 8 bits is every
level equally often. Open water, cloud and empty borders are low. It does not tell texture from noise.</p>""",
        figure(svg, caption, [("kept", "kept by Stage I"), ("rest", "dropped by Stage I")]),
    ]
    if album.images and counts.flattest.picks:
        parts += ["<h3>Dropped: the lowest entropies</h3>", album.tiles(counts.flattest.picks)]
        parts += ["<h3>Dropped: just below the cut</h3>", album.tiles(counts.just_missed.picks)]
    return "\n".join([*parts, "</section>"])


def stage_two_section(run: FinishedRun, counts: Tally, album: Album) -> str:
    """The clusters and the similarities."""
    options = run.config.get("selection", {})
    quota = run.summary["quota"]
    within = WITHIN[options.get("within", "nearest")].format(number(quota))
    first = (
        f"Every cluster first keeps {within} (quota)."
        if quota
        else "The budget is smaller than the number of clusters."
    )
    parts = [
        "<section>\n<h2>Stage II: a share for every kind of scene</h2>",
        f"""<p>The centroids stand for kinds of scenes, found in reference images. An image belongs to the cluster of
the centroid that its embedding is most similar to. {first} {FILL[options.get("fill", "global")]}</p>""",
        cluster_figure(run.summary),
        similarity_figure(run, counts),
    ]
    if album.images and counts.farthest.picks:
        parts += ["<h3>Dropped: the least similar to any centroid</h3>", album.tiles(counts.farthest.picks)]
    return "\n".join([*parts, "</section>"])


def cluster_figure(summary: Mapping[str, Any]) -> str:
    """Of each cluster, what was kept of it."""
    pool, by_quota, by_fill = (summary["clusters"][name] for name in ("pool", "quota", "fill"))
    quota = summary["quota"]
    order = sorted(range(len(pool)), key=lambda k: (-pool[k], k))
    svg = charts.columns(
        "clusters",
        "What was kept of each cluster",
        f"{len(pool)} clusters by the number of images that Stage I kept of them, from {max(pool)} to {min(pool)}.",
        [
            charts.Series("kept", "by quota", [by_quota[k] for k in order]),
            charts.Series("fill", "by fill", [by_fill[k] for k in order]),
            charts.Series("rest", "dropped", [pool[k] - by_quota[k] - by_fill[k] for k in order]),
        ],
        labels=[f"cluster {k}" for k in order],
        ticks=[(0.0, "largest"), (1.0, "smallest")] if len(pool) > 1 else [(0.5, "0")],
        axis="clusters, by size",
        level=charts.Level(quota, f"quota {quota:,}") if quota else None,
    )
    return figure(
        svg, f"Each column is a cluster. {cluster_words(summary)}", [*CHOSEN, ("rest", "dropped by Stage II")]
    )


CHOSEN = [("kept", "kept by quota"), ("fill", "kept by fill")]


def cluster_words(summary: Mapping[str, Any]) -> str:
    """How many clusters are empty or small, and what follows from it."""
    pool = summary["clusters"]["pool"]
    quota = summary["quota"]
    empty = sum(size == 0 for size in pool)
    small = sum(0 < size < quota for size in pool)
    left = len(pool) * quota - sum(summary["clusters"]["quota"])
    sentences = [
        f"<strong>{empty:,} of {plural(len(pool), 'cluster', 'clusters')}</strong> ({percent(empty, len(pool))}) "
        f"{'is' if empty == 1 else 'are'} empty."
    ]
    if quota:
        sentences.append(
            f"<strong>{small:,}</strong> ({percent(small, len(pool))}) {'has' if small == 1 else 'have'} fewer images "
            f"than the quota of {quota:,}, and gave all."
        )
    if left:
        sentences.append(f"Empty and small clusters left {plural(left, 'place', 'places')} of their quotas open.")
    sentences.append(f"The fill kept {plural(sum(summary['clusters']['fill']), 'image', 'images')}.")
    return " ".join(sentences)


def similarity_figure(run: FinishedRun, counts: Tally) -> str:
    """The similarities of what Stage I passed on."""
    start, step, merged = merge_bins(counts.similarity)
    bins = merged.shape[1]
    width = bins * step
    fill_cut = run.summary["fill_cut"] if run.config.get("selection", {}).get("fill", "global") == "global" else None
    svg = charts.columns(
        "similarity",
        "Similarity of each image to its centroid",
        f"Histogram from {start:.2f} to {start + width:.2f} of the images that Stage I kept.",
        [
            charts.Series("kept", "by quota", merged[0].tolist()),
            charts.Series("fill", "by fill", merged[1].tolist()),
            charts.Series("rest", "dropped", merged[2].tolist()),
        ],
        labels=[f"{start + i * step:.3f} to {start + (i + 1) * step:.3f}" for i in range(bins)],
        ticks=[((value - start) / width, f"{value:.2f}") for value in round_values(start, start + width)],
        axis="similarity to the nearest centroid, cosine",
        mark=None if fill_cut is None else charts.Mark((fill_cut - start) / width, f"fill ended at {fill_cut:.3f}"),
    )
    caption = f"""Similarity is the cosine of the angle between an image's embedding and its centroid: 1 is the same
direction. Each column counts the images within {step:g}. The quota reaches low similarities where a cluster has no
better; the fill takes the best of what is left."""
    return figure(svg, caption, [*CHOSEN, ("rest", "dropped by Stage II")])


def merge_bins(counts: NDArray[np.int64]) -> tuple[float, float, NDArray[np.int64]]:
    """Cut a histogram of similarities to where it is not empty, in at most 60 columns.

    Returns
    -------
    start, step : float
        The lower edge of the first column, and the width of each.
    merged : ndarray
        int64 (series, columns).
    """
    bins = counts.shape[1]
    used = np.flatnonzero(counts.sum(axis=0))
    low, high = (int(used[0]), int(used[-1]) + 1) if len(used) else (0, bins)
    low, high = max(low - 2, 0), min(high + 2, bins)
    factor = next(f for f in (1, 2, 4, 5, 8, 10) if high - low <= (SIMILARITY_COLUMNS - 2) * f)
    low, high = low // factor * factor, -(-high // factor) * factor
    merged = counts[:, low:high].reshape(len(counts), -1, factor).sum(axis=2)
    return low * SIMILARITY_BIN - 1.0, factor * SIMILARITY_BIN, merged


def round_values(low: float, high: float) -> list[float]:
    """Round values within a range, at most nine of them."""
    step = next(s for s in (0.01, 0.02, 0.05, 0.1, 0.2, 0.25) if high - low <= 8 * s)
    return [i * step for i in range(int(np.ceil(low / step - 1e-9)), int(np.floor(high / step + 1e-9)) + 1)]


def quarantine_section(run: FinishedRun) -> str:
    """What could not be read, and why."""
    table = read_table(run.folder.quarantine)
    if not len(table):
        text = "<p>Every image could be read.</p>"
        return f"<section>\n<h2>Quarantine</h2>\n{text}\n</section>"
    causes = Counter(zip(table["stage"].to_pylist(), table["kind"].to_pylist(), strict=True))
    by_cause = rows_of_table(
        ("images", "stage", "cause"),
        (
            f'<td class="number">{count:,}</td><td>{escape(stage)}</td><td>{escape(spaced(kind))}</td>'
            for (stage, kind), count in sorted(causes.items(), key=lambda item: (-item[1], item[0]))
        ),
    )
    shown = rows_of_table(
        ("key", "shard", "row", "stage", "cause", "message"),
        (
            f'<td class="key"><bdi>{escape(row["key"])}</bdi></td><td>{escape(row["shard"])}</td>'
            f'<td class="number">{row["row"]:,}</td><td>{escape(row["stage"])}</td>'
            f'<td>{escape(spaced(row["kind"]))}</td><td class="message">{escape(row["message"])}</td>'
            for row in table.slice(0, QUARANTINE_SHOWN).to_pylist()
        ),
    )
    first = f"The first {QUARANTINE_SHOWN}" if len(table) > QUARANTINE_SHOWN else "All of them"
    return f"""<section>
<h2>Quarantine</h2>
<p>{plural(len(table), "image", "images")} ({percent(len(table), run.summary["images"])}) could not be used; none of
them was kept. <code>quarantine.parquet</code> lists them all.</p>
{by_cause}
<h3>{first}</h3>
{shown}
</section>"""


def provenance_section(run: FinishedRun) -> str:
    """What the run was made with."""
    config = run.config
    encoder, centroids, selection = (config.get(name, {}) for name in ("encoder", "centroids", "selection"))
    facts = {
        "rsprune": config.get("rsprune"),
        "decoder": config.get("decoder"),
        "encoder": encoder.get("name"),
        "embedding": f"{encoder['dim']} numbers an image" if "dim" in encoder else None,
        "weights, SHA-256": encoder.get("weights_sha256"),
        "preprocessing": encoder.get("preprocessing"),
        "centroids": f"K = {centroids.get('k')}, seed {centroids.get('seed')}" if centroids else None,
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


def figure(svg: str, caption: str, legend: Sequence[tuple[str, str]]) -> str:
    """A chart in its frame."""
    entries = "".join(f'<li class="{style}">{escape(name)}</li>' for style, name in legend)
    return f'<figure>\n<ul class="legend">{entries}</ul>\n{svg}\n<figcaption>{caption}</figcaption>\n</figure>'


def rows_of_table(head: Sequence[str], rows: Iterable[str]) -> str:
    """A table, from rows whose cells are HTML."""
    cells = "".join(f"<th>{name}</th>" for name in head)
    body = "\n".join(f"<tr>{row}</tr>" for row in rows)
    return f'<div class="wide"><table>\n<thead><tr>{cells}</tr></thead>\n<tbody>\n{body}\n</tbody>\n</table></div>'


def headline(summary: Mapping[str, Any]) -> str:
    """How many of how many."""
    images, selected = summary["images"], summary["selected"]
    return f"{selected:,} of {plural(images, 'image', 'images')} kept ({percent(selected, images)})"


def number(value: int) -> str:
    """A number with commas."""
    return f"{value:,}"


def plural(value: int, one: str, many: str) -> str:
    """A number of things."""
    return f"{value:,} {one if value == 1 else many}"


def percent(part: int, whole: int) -> str:
    """A share, to a tenth of a percent; never 0.0 or 100.0 when it is neither none nor all."""
    if not whole:
        return "0 %"
    tenths = round(1000 * part / whole)
    if part and not tenths:
        return "under 0.1 %"
    if part < whole and tenths == 1000:
        return "over 99.9 %"
    return f"{tenths / 10:.1f} %"


def plain(value: Any) -> str:
    """A value of the configuration, for people."""
    return value if isinstance(value, str) else json.dumps(value, sort_keys=True, ensure_ascii=False)


def spaced(kind: str) -> str:
    """A cause, as words."""
    return kind.replace("_", " ")
