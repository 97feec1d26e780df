"""The section of the page about the kinds of scenes: what became of each cluster and of each class folder."""

from __future__ import annotations

from collections.abc import Mapping
from html import escape
from typing import Any

from rsprune.report.html import percent, plural, table
from rsprune.runs.coverage import GROUPS, advice_of, cluster_name, coverage_lines

__all__ = ["scenes_lead", "scenes_section"]


def scenes_lead(summary: Mapping[str, Any]) -> str:
    """Say at the head of the page what became of the kinds of scenes."""
    coverage = summary.get("coverage")
    if coverage is None:
        return ""
    lost = len(coverage["lost_by_stage_one"]) + len(coverage["lost_by_stage_two"])
    clusters = plural(coverage["present"], "cluster", "clusters")
    return f"{coverage['present'] - lost:,} of the {clusters} that the collection has are in the selection."


def scenes_section(summary: Mapping[str, Any]) -> str:
    """Render what became of the kinds of scenes; empty for a run that did not look."""
    coverage = summary.get("coverage")
    if coverage is None:
        return ""
    said = "".join(f"<li>{escape(line)}</li>" for line in coverage_lines(summary))
    advice = "".join(f"<p><strong>{escape(line)}.</strong></p>" for line in advice_of(summary))
    sample = sum(coverage["dropped_sample"])
    how = (
        f"""Stage I looks at no embedding: which kinds of scenes it dropped is estimated from {sample:,} of the
{coverage["dropped"]:,} images, drawn at random and embedded."""
        if sample
        else "Stage I dropped nothing that could be embedded."
    )
    named = " A cluster bears the most frequent class of its reference images, with its share of them."
    parts = [
        "<section>\n<h2>Kinds of scenes</h2>",
        f"<p>{how}{named if coverage.get('names') else ''}</p>\n<ul>{said}</ul>\n{advice}",
        f"<details><summary>All clusters</summary>\n{cluster_table(summary)}\n</details>",
    ]
    for one in coverage["kept_by"]:
        name = GROUPS.get(one["by"]) or f"values of {one['column']}"
        parts.append(f"<details><summary>All {escape(name)}</summary>\n{group_table(one)}\n</details>")
    return "\n".join([*parts, "</section>"])


def cluster_table(summary: Mapping[str, Any]) -> str:
    """Render a row a cluster: what Stage I dropped of it by the estimate, and what both stages kept."""
    coverage, clusters = summary["coverage"], summary["clusters"]
    sample = coverage["dropped_sample"]
    each = coverage["dropped"] / max(sum(sample), 1)

    def row(k: int) -> str:
        pool, kept = clusters["pool"][k], clusters["quota"][k] + clusters["fill"][k]
        name = escape(cluster_name(coverage, k))
        numbers = (f"{round(sample[k] * each):,}", f"{pool:,}", f"{kept:,}", percent(kept, pool) if pool else "")
        return f"<td>{name}</td>" + "".join(f'<td class="number">{one}</td>' for one in numbers)

    order = sorted(range(len(sample)), key=lambda k: (-clusters["pool"][k] - sample[k] * each, k))
    head = ("cluster", "dropped by Stage I, about", "kept by Stage I", "kept by Stage II", "of these")
    return table(head, map(row, order))


def group_table(kept_by: Mapping[str, Any]) -> str:
    """Render a row a class folder, source, shard or value of a column, and one for all that are not listed."""

    def row(name: str | None, images: int, survivors: int, kept: int) -> str:
        numbers = (f"{images:,}", f"{survivors:,}", f"{kept:,}", percent(kept, images))
        shown = "(none)" if name is None else escape(name)
        return f'<td class="key"><bdi>{shown}</bdi></td>' + "".join(f'<td class="number">{one}</td>' for one in numbers)

    count, *sums = kept_by["rest"]
    rows = [row(*one) for one in kept_by["largest"]] + ([row(f"{count:,} others", *sums)] if count else [])
    head = (kept_by.get("column", kept_by["by"]), "images", "kept by Stage I", "kept by Stage II", "of all")
    return table(tuple(map(escape, head)), rows)
