"""The table of the clusters: what became of each, and images from either side of its cut."""

from __future__ import annotations

from dataclasses import dataclass

from rsprune.report.statistics import RunStatistics, Strip
from rsprune.runs.coverage import cluster_name
from rsprune.runs.reader import RunReader

__all__ = ["ROWS", "ClusterRow", "cluster_rows"]

ROWS = 1000  # clusters that the table lists, the largest


@dataclass(frozen=True)
class ClusterRow:
    """A cluster as the table shows it; the numbers are those of ``summary.json``."""

    number: int
    name: str
    dropped: int | None  # by Stage I, estimated from its sample; None for a run without one
    pool: int  # images that Stage I kept
    quota: int
    fill: int
    kept: int
    cut: float | None  # the lowest similarity that the quota kept
    strip: Strip | None


def cluster_rows(run: RunReader, counts: RunStatistics) -> list[ClusterRow]:
    """List the largest clusters, by the images that they had before Stage I as far as that is known."""
    clusters, coverage = run.summary["clusters"], run.summary.get("coverage", {})
    sample = coverage.get("dropped_sample")
    each = coverage["dropped"] / max(sum(sample), 1) if sample else 0.0

    def row(k: int) -> ClusterRow:
        pool, quota, fill = (clusters[name][k] for name in ("pool", "quota", "fill"))
        return ClusterRow(
            number=k,
            name=cluster_name(coverage, k),
            dropped=round(sample[k] * each) if sample else None,
            pool=pool,
            quota=quota,
            fill=fill,
            kept=quota + fill + int(counts.preselected[k]),
            cut=clusters["quota_cut"][k],
            strip=counts.strips.get(k),
        )

    rows = [row(k) for k in range(len(clusters["pool"]))]
    return sorted(rows, key=lambda one: (-one.pool - (one.dropped or 0), one.number))[:ROWS]
