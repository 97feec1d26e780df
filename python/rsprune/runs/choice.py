"""The two decisions of a run: which images Stage I keeps, and which of those the budget keeps."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from rsprune import strategies
from rsprune.centroids import Centroids
from rsprune.entropy import top_entropies
from rsprune.errors import BudgetError
from rsprune.io import read_json, read_table, write_json, write_table, write_text
from rsprune.runs.folder import RunFolder
from rsprune.runs.options import Work
from rsprune.runs.quarantine import write_quarantine
from rsprune.runs.reader import Pool, keys_of
from rsprune.runs.schema import SELECTION_SCHEMA
from rsprune.selection import COUNTS, FILL, PRESELECTED, QUOTA, Selection, select_assigned
from rsprune.validation import fraction_of

__all__ = ["OWN", "cut", "decide", "read_selection"]

# The strategy that works from the labels of the run alone.
OWN = "rsprune"


def cut(
    pool: Pool, budget: int, work: Work, *, keep: float | None = None, tau: float | None = None
) -> NDArray[np.bool_]:
    """Stage I: the rows of highest entropy, (entropy descending, row ascending).

    Parameters
    ----------
    keep
        The fraction of all rows that is kept; at least ``budget`` rows.
    tau
        Keep the rows of ``tau`` bits or more instead.

    Returns
    -------
    NDArray
        bool (N,).

    Raises
    ------
    BudgetError
        Fewer readable images than the budget, or fewer than the budget reach ``tau``.
    """
    readable = int(np.count_nonzero(~np.isnan(pool.entropy)))
    if budget > readable:
        msg = f"a budget of {budget} images is more than the {readable} of {len(pool)} that could be read"
        raise BudgetError(msg)
    if tau is not None:
        kept: NDArray[np.bool_] = pool.entropy >= tau
        if (reach := int(np.count_nonzero(kept))) < budget:
            msg = f"{reach} images reach tau = {tau} bits, fewer than the budget of {budget}: lower tau"
            raise BudgetError(msg)
        return kept
    assert keep is not None
    rows = fraction_of(keep, len(pool))
    if rows < budget:
        work.observer.note(f"Stage I keeps {budget} images, the budget, instead of entropy_keep = {keep:g} ({rows})")
    return top_entropies(pool.entropy, min(max(rows, budget), readable))


def decide(
    work: Work,
    pool: Pool,
    kept: NDArray[np.bool_],
    centroids: Centroids,
    options: dict[str, Any],
    reference: Any | None = None,
) -> None:
    """Stage II: choose the budget among the embedded rows, and write what was chosen, what was not read, and why.

    ``selection.parquet`` is written last: its existence says that the run is finished. ``reference`` is the embeddings
    of the reference images, for the strategies that need them.
    """
    folder = work.folder
    labels = np.full(len(pool), -1, np.int32)
    similarity = np.full(len(pool), np.nan, np.float32)
    embedded = [np.empty(0, np.int64)]
    for shard in pool.shards:
        table = read_table(folder.assignments(shard), ["row", "label", "similarity"])
        rows = table["row"].to_numpy() + pool.rows_of(shard).start
        labels[rows] = table["label"].to_numpy()
        similarity[rows] = table["similarity"].to_numpy()
        embedded.append(rows)
    if options["strategy"] == OWN:
        selection = select_assigned(
            labels,
            similarity,
            options["budget"],
            k=centroids.k,
            fill=options["fill"],
            within=options["within"],
            min_similarity=options["min_similarity"],
            seed=options["seed"],
            exclude=np.flatnonzero(~kept),
            threads=work.threads,
        )
    else:
        rows = np.concatenate(embedded)
        chosen = strategies.select(
            options["strategy"],
            [folder.embeddings(shard) for shard in pool.shards],
            options["budget"],
            reference=reference,
            centroids=centroids,
            entropy=pool.entropy[rows],
            seed=options["seed"],
            threads=work.threads,
            **options["strategy_options"],
        )
        selection = in_run(chosen, rows, labels, similarity, centroids.k)
    quarantined = write_quarantine(work, pool)
    keys = keys_of(folder, pool, selection.indices)
    write_text(folder.selected, "".join(f"{key}\n" for key in keys))
    write_json(folder.summary, figures(pool, kept, selection, quarantined, options["strategy"]))
    number, row = pool.locate(selection.indices)
    columns = [
        pa.array(keys, pa.string()),
        pa.array(np.array(pool.shards, object)[number], pa.string()),
        pa.array(row, pa.int64()),
        pa.array(pool.entropy[selection.indices], pa.float64()),
        pa.array(selection.cluster, pa.int32()),
        pa.array(selection.similarity, pa.float32()),
        pa.array(selection.phase, pa.uint8()),
    ]
    write_table(folder.selection, pa.Table.from_arrays(columns, schema=SELECTION_SCHEMA), work.provenance)


def in_run(
    chosen: Selection, rows: NDArray[np.int64], labels: NDArray[np.int32], similarity: NDArray[np.float32], k: int
) -> Selection:
    """What a strategy chose among ``rows`` of the collection, seen from the reference centroids of the run."""
    indices, phase = rows[chosen.indices], chosen.phase
    invalid = np.flatnonzero(labels < 0).astype(np.int64)
    counts = np.zeros(k, COUNTS)
    counts["pool"] = np.bincount(labels[rows][labels[rows] >= 0], minlength=k)
    for name, value in (("quota", QUOTA), ("fill", FILL), ("preselected", PRESELECTED)):
        counts[name] = np.bincount(labels[indices[phase == value]], minlength=k)
    return Selection(
        indices, labels[indices], similarity[indices], phase, counts, invalid, chosen.budget, k, len(labels)
    )


def figures(
    pool: Pool, kept: NDArray[np.bool_], selection: Selection, quarantined: int, strategy: str
) -> dict[str, Any]:
    """The figures of a run, as ``summary.json`` holds them. Quotas and where they end are those of ``OWN`` alone."""
    own = strategy == OWN
    in_quota, in_fill = selection.phase == QUOTA, selection.phase == FILL
    quota_cut = np.full(selection.k, np.inf)
    if own:
        np.minimum.at(quota_cut, selection.cluster[in_quota], selection.similarity[in_quota])
    return {
        "strategy": strategy,
        "images": len(pool),
        "quarantined": quarantined,
        "invalid": selection.invalid[kept[selection.invalid]].tolist(),
        "survivors": int(np.count_nonzero(kept)),
        "tau": float(pool.entropy[kept].min()),
        "budget": selection.budget,
        "selected": len(selection),
        "quota": selection.budget // selection.k if own else 0,
        "phases": {"quota": int(np.count_nonzero(in_quota)), "fill": int(np.count_nonzero(in_fill))},
        "outside": len(selection.outside),
        "fill_cut": float(selection.similarity[in_fill].min()) if own and in_fill.any() else None,
        "clusters": {
            **{name: selection.counts[name].tolist() for name in ("pool", "quota", "fill")},
            "quota_cut": [None if np.isinf(cut) else float(cut) for cut in quota_cut],
        },
    }


def read_selection(folder: RunFolder) -> Selection:
    """Read a finished run's selection back. Its rows are numbered through the whole collection."""
    table, summary = read_table(folder.selection), read_json(folder.summary)
    names = sorted(path.stem for path in (folder.path / "entropy").glob("*.parquet"))
    rows = [pq.read_metadata(folder.entropy(name)).num_rows for name in names]
    start = dict(zip(names, np.cumsum([0, *rows]).tolist(), strict=False))
    first = np.array([start[shard] for shard in table["shard"].to_pylist()], np.int64)
    outside = [np.empty(0, np.int64)]
    if (least := folder.read_config()["selection"].get("min_similarity")) is not None:
        for name in names:
            embedded = read_table(folder.assignments(name), ["row", "similarity"])
            below = embedded["similarity"].to_numpy() < np.float32(least)
            outside.append(embedded["row"].to_numpy()[below] + start[name])
    clusters = summary["clusters"]
    counts = np.zeros(len(clusters["pool"]), COUNTS)
    for name in ("pool", "quota", "fill"):
        counts[name] = clusters[name]
    return Selection(
        indices=first + table["row"].to_numpy(),
        cluster=table["cluster"].to_numpy(),
        similarity=table["similarity"].to_numpy(),
        phase=table["phase"].to_numpy(),
        counts=counts,
        invalid=np.array(summary["invalid"], np.int64),
        budget=summary["budget"],
        k=len(counts),
        total=summary["images"],
        outside=np.concatenate(outside),
    )
