"""Reading what a run did to the kinds of scenes, and saying it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["advice_of", "cluster_name", "coverage_lines", "coverage_of", "kept_by", "warning_of"]

#: A warning is due when more than this share of the clusters that the collection has lose all of their images.
LOST_SHARE = 0.05
#: So many of the largest clusters are looked at: one in ten.
LARGEST = 0.1
#: Names of lost clusters that a line lists.
NAMED = 5
#: Groups, such as class folders, that a summary lists one by one: the largest.
LISTED = 50
#: What a group is called, one and several.
GROUPS = {"class folder": "class folders", "source": "sources", "shard": "shards"}


def coverage_of(
    pool: NDArray[np.int64],
    kept: NDArray[np.int64],
    *,
    dropped: int,
    sample: NDArray[np.int64],
    names: tuple[str | None, ...] | None,
    shares: tuple[float, ...] | None,
    shares_kept: list[dict[str, Any]],
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
    shares_kept
        What was kept by class folder, source, shard and column: see :func:`kept_by`.
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
    return found | {"kept_by": shares_kept, "warning": lost_clusters(found)}


def kept_by(by: str, counts: Mapping[str | None, NDArray[np.int64]], column: str | None = None) -> dict[str, Any]:
    """Return what became of the groups of a collection as ``summary.json`` holds it.

    Parameters
    ----------
    by
        What a group is: ``"class folder"``, ``"source"`` (of several: its number, which begins the keys), ``"shard"``
        or ``"column"`` (a value of the metadata column ``column``).
    counts
        By the name of a group, int64 (3,): its images, those that Stage I kept, and those that Stage II kept. The name
        None stands for images without a value.

    Returns
    -------
    dict
        ``by`` and, of a column, ``column``; ``groups``, how many there are; ``largest``, of the 50 largest (by images,
        then by name) the name and the three counts; ``rest``, the number of all others and the sums of their counts;
        ``lost_by_stage_one`` and ``lost_by_stage_two``, the number of the groups that the stage dropped whole, and the
        names of the 50 largest.
    """
    order = sorted(counts, key=lambda name: (-int(counts[name][0]), name is None, name or ""))
    gone = [[name for name in order if counts[name][stage - 1] and not counts[name][stage]] for stage in (1, 2)]
    rest = sum((counts[name] for name in order[LISTED:]), np.zeros(3, np.int64))
    return {
        "by": by,
        **({} if column is None else {"column": column}),
        "groups": len(order),
        "largest": [[name, *counts[name].tolist()] for name in order[:LISTED]],
        "rest": [len(order[LISTED:]), *rest.tolist()],
        "lost_by_stage_one": [len(gone[0]), gone[0][:LISTED]],
        "lost_by_stage_two": [len(gone[1]), gone[1][:LISTED]],
    }


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
    for one in groupings(coverage)[:NAMED]:
        groups = GROUPS.get(one["by"]) or f"values of {one['column']}"
        for stage, name in (("Stage I", "lost_by_stage_one"), ("Stage II", "lost_by_stage_two")):
            count, names = one[name]
            if count:
                named = listed(["(none)" if name is None else name for name in names], count)
                lines.append(f"{stage} dropped {count:,} of {one['groups']:,} {groups} whole: {named}")
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
    groups = any(one["lost_by_stage_one"][0] > LOST_SHARE * one["groups"] for one in groupings(coverage))
    if groups or len(coverage["lost_by_stage_one"]) > LOST_SHARE * coverage["present"]:
        advice.append("Stage I drops whole kinds of scenes: a higher --entropy-keep keeps them (1 keeps all images)")
    if len(coverage["lost_by_stage_two"]) > LOST_SHARE * coverage["present"]:
        advice.append("Stage II leaves clusters out: --fill waterfill spreads the budget over all of them")
    count, share = coverage["largest"]
    if summary["quota"] is not None and share > max(0.5, 3 * count / max(coverage["present"], 1)):
        advice.append("few clusters have most of the selection: --fill waterfill spreads it")
    return advice[:1] if len(advice) > 1 and "waterfill" in advice[0] else advice


def warning_of(summary: Mapping[str, Any]) -> str | None:
    """Return the warning of a run that has lost many clusters; None for any other."""
    warning: str | None = summary.get("coverage", {}).get("warning")
    return warning


def lost_clusters(coverage: Mapping[str, Any]) -> str | None:
    """Warn of a choice that loses more than :data:`LOST_SHARE` of the clusters that the collection has."""
    lost, present = len(coverage["lost_by_stage_one"]) + len(coverage["lost_by_stage_two"]), coverage["present"]
    if lost <= LOST_SHARE * present:
        return None
    share = f"{lost / present:.0%}, more than {LOST_SHARE:.0%}"
    return f"{lost:,} of the {present:,} clusters that the collection has are lost: {share}"


def groupings(coverage: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return the groups that are kinds of scenes, or may be: a shard is none."""
    return [one for one in coverage["kept_by"] if one["by"] != "shard"]


def listed(names: list[str], count: int | None = None) -> str:
    """List names, the first few of ``count``."""
    more = (len(names) if count is None else count) - NAMED
    return ", ".join(names[:NAMED]) + (f" and {more:,} more" if more > 0 else "")
