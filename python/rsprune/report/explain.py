"""Why an image was kept or dropped: every figure that decided it, and the figures that it would have needed."""

from __future__ import annotations

import bisect
import difflib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from rsprune.errors import UnknownKeyError, shown
from rsprune.runs.folder import RunFolder
from rsprune.runs.reader import NOT_CHOSEN, PHASES, RunReader
from rsprune.runs.schema import SELECTION_SCHEMA, manifest_schema
from rsprune.sources import Shard, Source, SourceLike
from rsprune.sources.key_lines import line_of_key

__all__ = ["Explanation", "explain"]

#: What the options that leave images out say of one.
EXCLUDED = {
    "exclude": "it is one of those to exclude",
    "leaks": "it is too similar to the evaluation set",
    "dedup": "it is a near-duplicate of an image that stays",
    "max_per_group": "it is beyond the maximum of its group",
}
CANDIDATES = 1000  # keys among which similar ones are looked for


@dataclass(frozen=True)
class Explanation:
    """What became of one image."""

    key: str
    shard: str  # its input shard
    row: int  # its position there
    kept: bool  # whether it was selected
    stage: str | None  # where it was quarantined; None when it was not
    cause: str | None  # why: the kind of the failure
    message: str | None  # and in words
    entropy: float | None  # in bits; None when Stage I could not rank the image
    entropy_rank: int | None  # 1 for the highest of all ranked images; among equals the earlier row comes first
    ranked: int  # number of images that Stage I ranked
    tau: float | None  # the lowest entropy that Stage I kept, in bits
    stage_one: bool  # whether Stage I kept it; if not, or if Stage II could not embed it, the next fields are None
    cluster: int | None  # the number of the nearest centroid
    similarity: float | None  # the cosine of the angle to it
    cluster_rank: int | None  # 1 for the highest similarity of the cluster; among equals the earlier row comes first
    cluster_pool: int | None  # number of images of the cluster
    quota: int | None  # number of images that each cluster keeps first; None when the strategy has no quotas
    quota_cut: float | None  # the lowest similarity that the quota kept in this cluster; None when it kept none
    fill_cut: float | None  # the lowest similarity that the fill kept, in any cluster; None when it kept none
    phase: str | None  # quota, fill or preselected; None when Stage II did not choose the image
    excluded: str | None  # the option by which it was left out of the choice: exclude, leaks, dedup or max_per_group
    within: str  # the options of the selection, and its strategy
    fill: str
    strategy: str
    metadata: Mapping[str, Any] = field(default_factory=dict)  # what the collection says of it; see explain

    def text(self) -> str:
        """Put the explanation into a few sentences, one on each line."""
        said = [shown(f"{name}: {value}") for name, value in self.metadata.items() if value is not None]
        return "\n".join([self.verdict(), *self.stage_one_lines(), *self.stage_two_lines(), *said])

    def verdict(self) -> str:
        """Say in a sentence what became of the image."""
        where = f"{line_of_key(self.key)} (shard {self.shard}, row {self.row})"
        if self.phase == "preselected":
            return f"{where} was kept: it was selected beforehand."
        if self.kept:
            return f"{where} was kept, by the {self.phase} of Stage II."
        if self.stage is not None:
            return f"{where} was quarantined in stage {self.stage} ({self.cause}): {self.message}."
        return f"{where} was dropped by Stage {'II' if self.stage_one else 'I'}."

    def stage_one_lines(self) -> list[str]:
        """Describe the result of Stage I."""
        if self.entropy is None or self.entropy_rank is None or self.tau is None:
            return []
        digits = telling_digits(self.entropy, self.tau)
        place = f"rank {self.entropy_rank:,} of {self.ranked:,}"
        figures = f"Entropy {self.entropy + 0.0:.{digits}f} bits, {place}"  # + 0.0: no minus before zero
        if self.phase == "preselected" and self.entropy < self.tau:
            return [f"{figures}; Stage I ended at {self.tau:.{digits}f}, but for what was selected beforehand."]
        if self.stage_one:
            return [f"{figures}; Stage I kept everything down to {self.tau:.{digits}f}."]
        if self.entropy == self.tau:
            return [f"{figures}; Stage I kept images of this very entropy, but only the earlier ones."]
        return [f"{figures}; Stage I ended at {self.tau:.{digits}f}."]

    def stage_two_lines(self) -> list[str]:
        """Describe the result of Stage II."""
        if self.similarity is None:
            return []
        cuts = [cut for cut in (self.quota_cut, self.fill_cut) if cut is not None]
        digits = telling_digits(self.similarity, *cuts)
        figures = (
            f"Similarity {self.similarity:.{digits}f} to centroid {self.cluster}, "
            f"rank {self.cluster_rank:,} of {self.cluster_pool:,} in that cluster"
        )
        if self.excluded is not None:
            return [f"{figures}; it was left out of the choice: {EXCLUDED[self.excluded]}."]
        if self.quota is None:
            return [f"{figures}; the strategy {self.strategy!r} {'kept' if self.kept else 'did not keep'} it."]
        if self.within != "nearest":
            quota = f"the quota ({self.quota:,}) went by the rule {self.within!r}"
        elif self.quota_cut is None:
            quota = f"the quota was {self.quota:,}"
        else:
            quota = f"the quota of cluster {self.cluster} ({self.quota:,}) ended at {self.quota_cut:.{digits}f}"
        if self.phase == "quota":
            return [f"{figures}; {quota}."]
        if self.fill_cut is None:
            fill = "and nothing was filled"
        elif (self.within, self.fill) == ("nearest", "global"):
            ended = "" if self.quota_cut is not None else "ended "
            fill = f"the fill {ended}at {self.fill_cut:.{digits}f}"
        else:
            fill = f"and the fill by the rule {self.fill!r}"
        lines = [f"{figures}; {quota}, {fill}."]
        if not self.kept and self.similarity in cuts:
            lines.append("Among equal similarities the earlier rows come first.")
        return lines


@dataclass
class Found:
    """The row of a key, and its entries in the tables."""

    shard: str
    row: int
    number: int  # of the row, through all shards
    entropy: float = float("nan")
    stage_one: bool = False
    cluster: int = -1
    similarity: float = float("nan")
    phase: int = NOT_CHOSEN
    excluded: str | None = None
    richer: int = 0  # images that Stage I ranks before it
    nearer: int = 0  # images of its cluster that Stage II ranks before it
    metadata: dict[str, Any] = field(default_factory=dict)


def explain(
    run: str | Path | RunFolder, keys: str | Sequence[str], source: SourceLike | None = None
) -> list[Explanation]:
    """Say why images were kept or dropped.

    Parameters
    ----------
    run
        The folder of a finished run.
    keys
        The images' keys, or one of them. Of a key that several images share, the first is meant.
    source
        The collection, where it should be made sure that it still is the one that the run was made from. Its metadata
        are told then of images that were not kept, too; the manifest has those of the others.

    Returns
    -------
    list of Explanation
        One for each key, in the order of ``keys``. Memory: one shard, and the row numbers of the selection.

    Raises
    ------
    UnknownKeyError
        No image has one of the keys. The message suggests keys that are like it, and the error carries the explanations
        of all other keys.
    FileNotFoundError
        ``run`` is no run folder.
    UnfinishedRunError
        The run has not come to its end.
    KeyMismatchError
        The collection is not the one that the run was made from, or was not between the stages of the run.
    """
    finished = RunReader(run, finished=True)
    opened = None if source is None else finished.open_source(source)
    if opened is not None:
        finished.check_source(opened)
    keys = [keys] if isinstance(keys, str) else list(keys)
    found, likeness = find(finished, keys)
    for name in {one.shard for one in found.values()}:
        look_up(finished, [one for one in found.values() if one.shard == name])
    ranked = rank(finished, list(found.values()))
    look_up_metadata(finished, list(found.values()), opened)
    for one in found.values():
        for rows, reasons in filter(None, [finished.excluded.get(one.shard)]):
            one.excluded = next(iter(reasons[rows == one.row].tolist()), None)
    causes = causes_of(finished, keys)
    explanations = [describe(finished, key, found[key], causes, ranked) for key in keys if key in found]
    if likeness:
        message = "\n".join(unknown(finished, key, shard) for key, shard in likeness.items())
        raise UnknownKeyError(message, list(likeness), explanations)
    return explanations


def find(run: RunReader, keys: Sequence[str]) -> tuple[dict[str, Found], dict[str, str]]:
    """Find the row of each key, shard by shard, and stop at the last.

    Returns the rows by key, and by each key that is not there the shard whose first key begins most like it: "" if no
    shard has a row.
    """
    missing = set(keys)
    found: dict[str, Found] = {}
    likeness = dict.fromkeys(keys, (-1, ""))
    first = 0
    for name in run.shards:
        if not missing:
            break
        column = run.keys(name)
        for row in np.flatnonzero(pc.is_in(column, value_set=pa.array(sorted(missing), pa.string()))):
            key = column[int(row)].as_py()
            if key in missing:  # a shard may repeat it
                missing.remove(key)
                found[key] = Found(name, int(row), first + int(row))
        for key in missing:
            alike = common_prefix(key, column[0].as_py()) if len(column) else -1
            if alike > likeness[key][0]:
                likeness[key] = (alike, name)
        first += len(column)
    return found, {key: shard for key, (_, shard) in likeness.items() if key in missing}


def common_prefix(a: str, b: str) -> int:
    """Return the length of the common prefix of two keys."""
    return next((i for i, (x, y) in enumerate(zip(a, b, strict=False)) if x != y), min(len(a), len(b)))


def unknown(run: RunReader, key: str, shard: str) -> str:
    """Say that a key is not there, and suggest keys like it from a shard."""
    known = sorted(run.keys(shard).to_pylist()) if shard else []
    middle = bisect.bisect(known, key)
    near = known[max(middle - CANDIDATES // 2, 0) : middle + CANDIDATES // 2]
    close = difflib.get_close_matches(key, near, n=3)
    msg = f"the run in {run.folder.path} has no image {key!r}"
    if close:
        msg += f". Did you mean {' or '.join(map(repr, close))}?"
    elif near:
        msg += f". Its keys look like {near[0]!r}"
    return msg


def look_up(run: RunReader, found: Sequence[Found]) -> None:
    """Read the entries of rows of one shard in the tables."""
    shard = run.rows(found[0].shard)
    for one in found:
        one.entropy = float(shard.entropy[one.row])
        for at in np.flatnonzero(shard.row == one.row):
            one.stage_one = True
            one.cluster = int(shard.cluster[at])
            one.similarity = float(shard.similarity[at])
            one.phase = int(shard.phase[at])


def look_up_metadata(run: RunReader, found: Sequence[Found], source: Source | None) -> None:
    """Read what the collection says of the images: in the manifest, or in the collection itself."""
    if source is not None and len(source.metadata_schema):
        names = manifest_schema(SELECTION_SCHEMA, source.metadata_schema).names[len(SELECTION_SCHEMA) :]
        for one in found:
            table = source.read_metadata(Shard(one.shard), [one.row])
            (one.metadata,) = table.rename_columns(names).to_pylist()
    elif source is None:
        places = {(one.shard, one.row): one for one in found if one.phase != NOT_CHOSEN}
        for (shard, row), values in run.metadata(places).items():
            places[shard, row].metadata = values


def rank(run: RunReader, found: Sequence[Found]) -> int:
    """Count what comes before each row in either stage; returns the number of images that Stage I ranked."""
    ranked = 0
    for shard in run:
        row = np.flatnonzero(~np.isnan(shard.entropy))
        ranked += len(row)
        entropies = Descending(shard.entropy[row], shard.first + row)
        for one in found:
            one.richer += entropies.before(one.entropy, one.number)
        for cluster in {one.cluster for one in found if one.cluster >= 0}:
            at = np.flatnonzero(shard.cluster == cluster)
            similarities = Descending(shard.similarity[at].astype(np.float64), shard.first + shard.row[at])
            for one in found:
                if one.cluster == cluster:
                    one.nearer += similarities.before(one.similarity, one.number)
    return ranked


class Descending:
    """Values in the order of the method: the highest first, and among equals the lowest row number."""

    def __init__(self, values: NDArray[np.float64], numbers: NDArray[np.int64]) -> None:
        order = np.lexsort((numbers, -values))
        self.falling = -values[order]
        self.numbers = numbers[order]

    def before(self, value: float, number: int) -> int:
        """Count the values before a row of this value and number; the row itself need not be among them."""
        start = int(np.searchsorted(self.falling, -value, "left"))
        end = int(np.searchsorted(self.falling, -value, "right"))
        return start + int(np.searchsorted(self.numbers[start:end], number))


def causes_of(run: RunReader, keys: Sequence[str]) -> dict[tuple[str, int], tuple[str, str, str]]:
    """Stage, cause and message of those rows of the keys that were quarantined, by shard and row."""
    wanted = pa.array(keys, pa.string())
    found = (table.filter(pc.is_in(table["key"], value_set=wanted)) for table in run.quarantine_batches())
    rows = (row for table in found for row in table.to_pylist())
    return {(r["shard"], r["row"]): (r["stage"], r["kind"], r["message"]) for r in rows}


def describe(
    run: RunReader, key: str, found: Found, causes: dict[tuple[str, int], tuple[str, str, str]], ranked: int
) -> Explanation:
    """Put the figures of one row together."""
    stage, cause, message = causes.get((found.shard, found.row), (None, None, None))
    was_ranked = not np.isnan(found.entropy)
    embedded = found.cluster >= 0
    clusters = run.summary["clusters"]
    return Explanation(
        key=key,
        shard=found.shard,
        row=found.row,
        kept=found.phase != NOT_CHOSEN,
        stage=stage,
        cause=cause,
        message=message,
        entropy=found.entropy if was_ranked else None,
        entropy_rank=found.richer + 1 if was_ranked else None,
        ranked=ranked,
        tau=run.summary["tau"],
        stage_one=found.stage_one,
        cluster=found.cluster if embedded else None,
        similarity=found.similarity if embedded else None,
        cluster_rank=found.nearer + 1 if embedded else None,
        cluster_pool=clusters["pool"][found.cluster] if embedded else None,
        quota=run.summary["quota"],
        quota_cut=clusters["quota_cut"][found.cluster] if embedded else None,
        fill_cut=run.summary["fill_cut"],
        phase=PHASES[found.phase] if found.phase != NOT_CHOSEN else None,
        excluded=found.excluded,
        within=run.within,
        fill=run.fill,
        strategy=run.strategy,
        metadata=found.metadata,
    )


def telling_digits(*values: float) -> int:
    """The fewest decimals, three or more, at which different values look different."""
    different = set(values)
    return next((d for d in range(3, 12) if len({f"{v:.{d}f}" for v in different}) == len(different)), 12)
