"""The two stages on the page: their charts, and the numbers of their sentences."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from markupsafe import Markup
from numpy.typing import NDArray

from rsprune import charts
from rsprune.report.statistics import ENTROPY_BIN, SIMILARITY_BIN, RunStatistics
from rsprune.report.words import percent, plural
from rsprune.runs.coverage import cluster_name
from rsprune.runs.reader import RunReader

__all__ = ["stage_one", "stage_two"]

SIMILARITY_COLUMNS = 60  # at most

# Descriptions of the selection's options: for the quota, and for the fill.
WITHIN = {
    "nearest": ("the {} images nearest to its centroid", "nearest"),
    "random": ("{} images drawn at random", "next drawn"),
    "mid": ("the {} images of most middling similarity", "most middling"),
    "far": ("the {} images farthest from its centroid", "farthest"),
}
FILL = {
    "global": "What is left of the budget goes to the {} of all that is left, in whatever cluster (fill).",
    "waterfill": "What is left of the budget raises the quotas of the clusters that have more to give, evenly (fill).",
    "zscore": "What is left of the budget goes to what stands out most within its own cluster (fill).",
    "none": "What small clusters cannot give of their quota is not made up for.",
}


def stage_one(run: RunReader, counts: RunStatistics) -> dict[str, Any]:
    """Return Stage I as the template takes it: the histogram of entropies, and its numbers."""
    tau = run.summary["tau"]
    kept, dropped = (int(one.sum()) for one in counts.entropy)
    chart = charts.columns(
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
        mark=None if tau is None else (tau / 8, f"tau = {tau:.3f} bits"),
    )
    return {"chart": Markup(chart), "bin": ENTROPY_BIN, "kept": kept, "ranked": counts.ranked, "tau": tau}


def stage_two(run: RunReader, counts: RunStatistics) -> dict[str, Any]:
    """Return Stage II as the template takes it: clusters, similarities, and the rule of the choice."""
    quota: int | None = run.summary["quota"]  # None where the strategy has no quotas
    taken, next_in_line = WITHIN[run.within]
    first = (
        f"Every cluster first keeps {taken.format(f'{quota:,}')} (quota)."
        if quota
        else "The budget is smaller than the number of clusters, so they have no quota."
    )
    rule = f"{first} {FILL[run.fill].format(next_in_line)}"
    if quota is None and run.strategy == "rsprune":
        rule = shares(run)
    return {
        "strategy": run.strategy if quota is None and run.strategy != "rsprune" else None,
        "rule": rule + left_out(run.summary),
        "clusters": cluster_chart(run.summary, counts),
        "sentences": cluster_sentences(run.summary),
        "similarity": similarity_chart(run, counts),
        "step": merge_bins(counts.similarity)[1],
        "by_similarity": by_similarity(run),
    }


def shares(run: RunReader) -> str:
    """Say how a budget was shared out among groups, or among clusters that were named."""
    if "groups" not in run.summary:
        return "Some clusters have a share of the budget of their own; the others share the rest in proportion."
    groups = run.summary["groups"]
    return (
        f"Each of {plural(groups['count'], 'group', 'groups')} by {groups['by']} has its own share of the budget, of "
        "which every cluster has the same quota."
    )


def left_out(summary: Mapping[str, Any]) -> str:
    """Say how many images the options of the choice left out."""
    parts = [f"{plural(count, 'image', 'images')} by {name}" for name, count in summary.get("excluded", {}).items()]
    return f" Left out before: {', '.join(parts)}." if parts else ""


def by_similarity(run: RunReader) -> bool:
    """Tell whether similarity alone decided, so that the fill has a cut."""
    return (run.within, run.fill) == ("nearest", "global")


def cluster_chart(summary: Mapping[str, Any], counts: RunStatistics) -> Markup:
    """Draw what was kept of each cluster."""
    pool, by_quota, by_fill = (summary["clusters"][name] for name in ("pool", "quota", "fill"))
    before, quota = counts.preselected.tolist(), summary["quota"]
    order = sorted(range(len(pool)), key=lambda k: (-pool[k], k))
    names = [cluster_name(summary.get("coverage", {}), k) for k in order]
    svg = charts.columns(
        "clusters",
        "What was kept of each cluster",
        f"{len(pool)} clusters by the number of images that Stage I kept of them, from {max(pool)} to {min(pool)}.",
        [
            charts.Series("kept", "by quota", [by_quota[k] for k in order]),
            charts.Series(
                "fill", "by fill" + (" or beforehand" if any(before) else ""), [by_fill[k] + before[k] for k in order]
            ),
            charts.Series("rest", "dropped", [pool[k] - by_quota[k] - by_fill[k] - before[k] for k in order]),
        ],
        labels=names,
        ticks=[(0.0, "largest"), (1.0, "smallest")] if len(pool) > 1 else [(0.5, "0")],
        axis="clusters, by size",
        level=(quota, f"quota {quota:,}") if quota else None,
    )
    return Markup(svg)


def cluster_sentences(summary: Mapping[str, Any]) -> list[str]:
    """Say how many clusters are empty or small, and what this left to the fill."""
    pool = summary["clusters"]["pool"]
    quota = summary["quota"] or 0
    empty = sum(size == 0 for size in pool)
    small = sum(0 < size < quota for size in pool)
    left = len(pool) * quota - sum(summary["clusters"]["quota"]) if quota else 0
    sentences = ["No cluster is empty."]
    if empty:
        share = f"({percent(empty, len(pool))}) {'is' if empty == 1 else 'are'}"
        sentences = [f"{empty:,} of {plural(len(pool), 'cluster', 'clusters')} {share} empty."]
    if small:
        share = f"({percent(small, len(pool))}) {'has' if small == 1 else 'have'}"
        sentences.append(f"{small:,} {share} fewer images than the quota of {quota:,}, and gave all.")
    if left:
        sentences.append(f"Empty and small clusters left {plural(left, 'place', 'places')} of their quotas open.")
    sentences.append(f"The fill kept {plural(sum(summary['clusters']['fill']), 'image', 'images')}.")
    return sentences


def similarity_chart(run: RunReader, counts: RunStatistics) -> Markup:
    """Draw the similarities of the images that Stage I kept."""
    start, step, merged = merge_bins(counts.similarity)
    bins = merged.shape[1]
    width = bins * step
    fill_cut = run.summary["fill_cut"] if by_similarity(run) else None
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
        mark=None if fill_cut is None else ((fill_cut - start) / width, f"fill ended at {fill_cut:.3f}"),
    )
    return Markup(svg)


def merge_bins(counts: NDArray[np.int64]) -> tuple[float, float, NDArray[np.int64]]:
    """Crop a histogram of similarities to the bins in use, and merge these to at most 60 columns.

    Returns the lower edge of the first column, the width of each, and the counts, int64 (series, columns).
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
    """List at most nine round values within a range."""
    step = next(s for s in (0.01, 0.02, 0.05, 0.1, 0.2, 0.25) if high - low <= 8 * s)
    return [i * step for i in range(int(np.ceil(low / step - 1e-9)), int(np.floor(high / step + 1e-9)) + 1)]
