"""Reading what a run did to the kinds of scenes, and saying it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["advice_of", "cluster_name", "coverage_lines", "coverage_of"]

#: A warning is due when more than this share of the clusters that the collection has lose all of their images.
LOST_SHARE = 0.05
#: So many of the largest clusters are looked at: one in ten.
LARGEST = 0.1
#: Names of lost clusters that a line lists.
NAMED = 5


def coverage_of(
    pool: NDArray[np.int64],
    kept: NDArray[np.int64],
    *,
    dropped: int,
    sample: NDArray[np.int64],
    names: tuple[str | None, ...] | None,
    shares: tuple[float, ...] | None,
    classes: Mapping[str, list[int]] | None,
) -> dict[str, Any]:
    """Return the coverage of a run as ``summary.json`` holds it.

    Parameters
    ----------
    pool, kept
        int64 (K,): the images that Stage I and Stage II kept of each cluster.
    dropped, sample
        How many images Stage I dropped, and of a sample of these, int64 (K,), how many belong to each cluster.
    names, shares
        The most frequent class of the reference images of each cluster, and its share of them.
    classes
        By class folder the images, those that Stage I kept and those that Stage II kept.
    """
    there = (pool > 0) | (sample > 0)
    largest = np.argsort(-kept, kind="stable")[: max(1, round(LARGEST * len(pool)))]
    found: dict[str, Any] = {
        "present": int(np.count_nonzero(there)),
        "lost_by_stage_one": np.flatnonzero(there & (pool == 0)).tolist(),
        "lost_by_stage_two": np.flatnonzero((pool > 0) & (kept == 0)).tolist(),
        "dropped": dropped,
        "dropped_sample": sample.tolist(),
        "largest": [len(largest), float(kept[largest].sum() / max(int(kept.sum()), 1))],
    }
    if names is not None and shares is not None and any(names):
        found["names"] = [name or "" for name in names]
        found["shares"] = [round(share, 4) for share in shares]
    if classes is not None:
        found["classes"] = {name: list(counts) for name, counts in classes.items()}
    return found


def cluster_name(coverage: Mapping[str, Any], k: int) -> str:
    """Name a cluster: ``Airport 82% (cluster 13)``, or by its number alone."""
    if not coverage.get("names") or not coverage["names"][k]:
        return f"cluster {k}"
    return f"{coverage['names'][k]} {coverage['shares'][k]:.0%} (cluster {k})"


def coverage_lines(summary: Mapping[str, Any]) -> list[str]:
    """Say in lines what became of the kinds of scenes; none for a run that did not look."""
    coverage = summary.get("coverage")
    if coverage is None:
        return []
    present = coverage["present"]
    lost = [len(coverage[name]) for name in ("lost_by_stage_one", "lost_by_stage_two")]
    lines = [
        f"{present - sum(lost):,} of {present:,} clusters are in the selection"
        + (f"; Stage I dropped {lost[0]:,} whole, Stage II {lost[1]:,}" if sum(lost) else "")
    ]
    for stage, name in (("Stage I", "lost_by_stage_one"), ("Stage II", "lost_by_stage_two")):
        if coverage[name] and coverage.get("names"):
            lines.append(f"lost to {stage}: {listed([cluster_name(coverage, k) for k in coverage[name]])}")
    if classes := coverage.get("classes"):
        for stage, column in (("Stage I", 1), ("Stage II", 2)):
            gone = [name for name, counts in classes.items() if counts[column - 1] and not counts[column]]
            if gone:
                lines.append(f"{stage} dropped {len(gone)} of {len(classes)} class folders whole: {listed(gone)}")
    count, share = coverage["largest"]
    clusters = "cluster has" if count == 1 else f"{count:,} clusters have"
    lines.append(f"the largest {clusters} {share:.0%} of the selection")
    return lines


def advice_of(summary: Mapping[str, Any]) -> list[str]:
    """Say what would keep more kinds of scenes, with the option to use; nothing if few are lost."""
    coverage = summary.get("coverage")
    if coverage is None:
        return []
    advice = []
    classes = coverage.get("classes", {}).values()
    folders = sum(counts[0] > 0 and counts[1] == 0 for counts in classes)
    if len(coverage["lost_by_stage_one"]) > LOST_SHARE * coverage["present"] or folders > LOST_SHARE * len(classes):
        advice.append("Stage I drops whole kinds of scenes: a higher --entropy-keep keeps them (1 keeps all images)")
    if len(coverage["lost_by_stage_two"]) > LOST_SHARE * coverage["present"]:
        advice.append("Stage II leaves clusters out: --fill waterfill spreads the budget over all of them")
    count, share = coverage["largest"]
    if summary["quota"] is not None and share > max(0.5, 3 * count / max(coverage["present"], 1)):
        advice.append("few clusters have most of the selection: --fill waterfill spreads it")
    return advice[:1] if len(advice) > 1 and "waterfill" in advice[0] else advice


def listed(names: list[str]) -> str:
    """List names, the first few of many."""
    more = len(names) - NAMED
    return ", ".join(names[:NAMED]) + (f" and {more:,} more" if more > 0 else "")
