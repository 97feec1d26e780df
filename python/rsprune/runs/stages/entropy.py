"""Stage I: the entropy of every image, and the cut among them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from typing_extensions import override

from rsprune.entropy import SCORES
from rsprune.errors import BudgetError, EmptyInputError, UnreadShardError
from rsprune.io import provenance_header
from rsprune.options import keywords
from rsprune.runners import Advance, Progress, show_progress
from rsprune.runs.config import EntropyOptions, GrayOptions
from rsprune.runs.context import RunContext, check_bands, source_config
from rsprune.runs.folder import RunFolder
from rsprune.runs.put_aside import leaving_out_lost, without_put_aside
from rsprune.runs.quarantine import describe_causes, write_quarantine
from rsprune.runs.reader import RunReader
from rsprune.runs.schema import ENTROPY_SCHEMA
from rsprune.runs.stages.base import REPEATED, RunStage, StageResult, failure_columns, repeated_names, require_read
from rsprune.runs.start import start_run
from rsprune.runs.summary import ENTROPY_BINS, ShardSummary, describe_passed_over, entropy_bin
from rsprune.runs.value_range import settle_gray
from rsprune.sources import Shard, Source, SourceLike, check_outside
from rsprune.sources.base import with_reasons
from rsprune.sources.batches import batched
from rsprune.sources.passing import read_again, reading
from rsprune.validation import fraction_of

__all__ = ["EntropyCut", "EntropyRanking", "EntropyStage", "entropy_run"]

# Images decoded in one call of the core, at most: enough to keep every core busy, few enough that progress moves every
# fraction of a second.
BATCH = 1024


@dataclass(frozen=True)
class EntropyStage(RunStage):
    """Writes ``entropy/<shard>.parquet``. An image that cannot be read has a null entropy and says why.

    The decoding that gives the entropies gives the scores beside them.
    """

    source: Source
    options: GrayOptions
    name: str = "entropy"

    @property
    @override
    def shards(self) -> tuple[Shard, ...]:
        return self.source.shards

    @override
    def count(self, shard: Shard) -> int:
        return self.source.count(shard)

    @override
    def weight(self, shard: Shard) -> int:
        try:
            return self.source.size(shard)
        except OSError:  # whoever reads it says so
            return 0

    @override
    def outputs(self, shard: Shard) -> tuple[Path, ...]:
        return (self.context.folder.entropy(shard.name),)

    @override
    def run(self, shard: Shard, advance: Advance) -> ShardSummary:
        try:
            return self._read(shard, advance)
        except UnreadShardError as error:
            return ShardSummary(unread={shard.name: str(error)})

    def _read(self, shard: Shard, advance: Advance) -> ShardSummary:
        keys: list[str] = []
        found: list[NDArray[np.float64]] = [np.empty((0, len(SCORES)))]
        failures: dict[int, tuple[str, str]] = {}
        measure = partial(self.options.measure, threads=self.context.threads)
        for items in batched(reading(self.source.read(shard)), BATCH):
            images = [item.data for item in items]
            values, failed = measure(images)
            failed = with_reasons(images, read_again(measure, images, values, failed))
            failed = [(len(keys) + i, kind, why) for i, kind, why in failed]
            require_read(self.source, shard, failed)
            failures |= {row: (kind, message) for row, kind, message in failed}
            keys += [item.key for item in items]
            found.append(values)
            advance(len(items))
            del items, images
        self.source.check_unchanged(shard)
        scores = np.concatenate(found)
        repeated = repeated_names(keys)
        scores[repeated] = np.nan
        failures |= dict.fromkeys(repeated, REPEATED)
        columns = [
            pa.array(keys, pa.string()),
            *score_columns(scores),
            *failure_columns(failures, len(keys)),
        ]
        self.write(self.context.folder.entropy(shard.name), shard, columns, ENTROPY_SCHEMA)
        self.complete(shard, keys)
        return ShardSummary().update(len(keys), (kind for kind, _ in failures.values()), scores[:, 0])

    @override
    def summarize(self, shard: Shard) -> ShardSummary:
        folder = self.context.folder
        table = RunReader(folder).table(folder.entropy(shard.name), ["entropy", "kind"])
        entropy = table["entropy"].to_numpy().astype(np.float64)
        return ShardSummary().update(len(table), table["kind"].drop_null().to_pylist(), entropy)


def score_columns(scores: NDArray[np.float64]) -> list[pa.Array]:
    """Make columns of Stage I's table of the :data:`~rsprune.entropy.SCORES` of images; NaN becomes null."""
    fields = [ENTROPY_SCHEMA.field(name) for name in SCORES]
    return [
        pa.array(column, pa.float64(), from_pandas=True).cast(field.type)
        for column, field in zip(scores.T, fields, strict=True)
    ]


@dataclass(frozen=True)
class EntropyCut:
    """The images that Stage I keeps: those not after a place in the order (entropy descending, row ascending)."""

    folder: RunFolder
    tau: float  # the entropy of the last image that is kept, in bits
    last: int  # the number of its row; rows are numbered through all shards
    first: Mapping[str, int]  # by shard, the number of its first row
    counts: Mapping[str, int]  # by shard, how many of its images are kept
    always: Mapping[str, NDArray[np.int64]] = field(default_factory=dict)  # by shard, what is kept whatever its entropy

    def rows(self, shard: Shard) -> NDArray[np.int64]:
        """Return the positions of the images of a shard that are kept, ascending."""
        entropy = RunReader(self.folder).entropy(shard.name)
        early = self.first[shard.name] + np.arange(len(entropy)) <= self.last
        kept = (entropy > self.tau) | ((entropy == self.tau) & early)
        kept[self.always.get(shard.name, [])] = True
        return np.flatnonzero(kept)

    def keeping(self, rows: Mapping[str, NDArray[np.int64]]) -> EntropyCut:
        """Return the cut that also keeps these images, by their positions in each shard."""
        cut = replace(self, always=rows)
        return replace(cut, counts={**self.counts, **{name: len(cut.rows(Shard(name))) for name in rows}})

    def count(self, shard: Shard) -> int:
        """Count the images of a shard that are kept."""
        return self.counts[shard.name]

    def keys(self, shard: Shard) -> list[str]:
        """Read the names that the images of a shard that are kept have in it."""
        keys: list[str] = RunReader(self.folder).names(shard.name).take(pa.array(self.rows(shard))).to_pylist()
        return keys

    @property
    def total(self) -> int:
        """The number of images that are kept."""
        return sum(self.counts.values())


class EntropyRanking:
    """Ranks the images of all shards by (entropy descending, row ascending), one shard in memory at a time.

    The merged histogram tells the bin in which a rank lies; of that bin the values are gathered, each once.

    Parameters
    ----------
    reader
        The run.
    summary
        The merged summary of Stage I.
    """

    def __init__(self, reader: RunReader, summary: ShardSummary) -> None:
        self.reader = reader
        self.histogram = summary.entropy
        self.readable = int(self.histogram.sum())

    def at(self, rank: int) -> float:
        """Return the entropy of the image of a rank, counted from 1."""
        above = np.cumsum(self.histogram[::-1])
        position = int(np.searchsorted(above, rank))
        wanted = ENTROPY_BINS - 1 - position
        values, counts = np.empty(0), np.empty(0, np.int64)
        for shard in self.reader.shards:
            entropy = self.reader.entropy(shard)
            entropy = entropy[~np.isnan(entropy)]
            found, times = np.unique(entropy[entropy_bin(entropy) == wanted], return_counts=True)
            values, place = np.unique(np.concatenate([values, found]), return_inverse=True)
            counts = np.bincount(place, np.concatenate([counts, times]), len(values)).astype(np.int64)
        rank -= int(above[position - 1]) if position else 0
        return float(values[::-1][np.searchsorted(np.cumsum(counts[::-1]), rank)])

    def cut(self, *, keep: int | None = None, tau: float | None = None) -> EntropyCut:
        """Keep so many images, or all of ``tau`` bits or more."""
        if tau is None:
            assert keep is not None
            tau = self.at(keep)
        above: dict[str, int] = {}
        equal: dict[str, int] = {}
        for shard in self.reader.shards:
            entropy = self.reader.entropy(shard)
            above[shard] = int(np.count_nonzero(entropy > tau))
            equal[shard] = int(np.count_nonzero(entropy == tau))
        left = sum(equal.values()) if keep is None else keep - sum(above.values())
        if not left and any(above.values()):  # the cut is at the last image that is kept
            return self.cut(keep=sum(above.values()))
        first, counts, last = {}, {}, len(self.reader.index)
        for shard in self.reader.shards:
            first[shard] = self.reader.index.first(shard)
            taken = min(equal[shard], left)
            counts[shard] = above[shard] + taken
            left -= taken
            if taken and not left:
                last = first[shard] + int(np.flatnonzero(self.reader.entropy(shard) == tau)[taken - 1])
        return EntropyCut(self.reader.folder, tau, last, first, counts)


def cut_entropies(
    ranking: EntropyRanking, budget: int, progress: Progress, *, keep: float | None = None, tau: float | None = None
) -> EntropyCut:
    """Apply Stage I's rule: a fraction of all images, but at least the budget, or a threshold in bits.

    Raises
    ------
    BudgetError
        Fewer readable images than the budget, or fewer than the budget reach ``tau``.
    """
    total = len(ranking.reader.index)
    if budget > ranking.readable:
        message = f"a budget of {budget} images is more than the {ranking.readable} of {total} that could be read"
        raise BudgetError(message)
    if tau is not None:
        cut = ranking.cut(tau=tau)
        if cut.total < budget:
            message = f"{cut.total} images reach tau = {tau} bits, fewer than the budget of {budget}: lower tau"
            raise BudgetError(message)
        return cut
    assert keep is not None
    rows = fraction_of(keep, total)
    if rows < budget:
        progress.note(f"Stage I keeps {budget} images, the budget, instead of entropy_keep = {keep:g} ({rows})")
    return ranking.cut(keep=min(max(rows, budget), ranking.readable))


def require_readable(summary: ShardSummary, unread: Mapping[str, Any], quarantine: Path) -> None:
    """Fail when no image could be read; ``unread`` is what :func:`write_quarantine` has said.

    Raises
    ------
    EmptyInputError
        It names the causes, and an image of the most frequent one.
    """
    if summary.failed == summary.images:
        causes = unread["causes"]
        example = f"; such as {causes[0]['key']}: {causes[0]['message']}" if causes else ""
        message = f"none of the {summary.images:,} images could be read ({summary.causes()}){example}. See {quarantine}"
        raise EmptyInputError(message)


@keywords(EntropyOptions)
@leaving_out_lost
def entropy_run(
    source: SourceLike, *, out: str | Path, options: EntropyOptions, progress: bool | Progress = True
) -> StageResult:
    """Measure the entropy of every image of a collection, resumably: Stage I without a cut.

    Parameters
    ----------
    source, out, progress
        See :func:`rsprune.prune`.

    Returns
    -------
    StageResult
        The metrics name the threshold that common cuts imply.

    Raises
    ------
    EmptyInputError
        None of the images could be read.
    ValueRangeError
        Some of the first images need a ``valid_range``.
    """
    images, folder = options.source.open(source), RunFolder(out)
    if options.source.on_damaged_shard == "skip":
        images = without_put_aside(images, folder)
    check_outside(out, images)
    check_bands(images, gray=options.gray)
    threads = options.execution.threads
    runner = options.execution.open_runner()
    with folder.lock(shared=runner.part is not None), show_progress(progress) as shown:
        gray = settle_gray(options.gray, images, folder, shown, threads=threads)
        fingerprint = images.fingerprint()
        config = provenance_header() | {"source": source_config(images, fingerprint), "entropy": gray.config()}
        context = RunContext.of(folder, config, images, threads, fingerprint)
        start_run(context, images)
        summary = runner.map_merge(EntropyStage(context, images, gray), shown)
        reader = RunReader(folder)
        ranking = EntropyRanking(reader, summary)
        unread = write_quarantine(context, reader)
        ranks = {f"{keep:.2f}": min(fraction_of(keep, summary.images), ranking.readable) for keep in (0.1, 0.3, 0.5)}
        tau = {keep: ranking.at(rank) for keep, rank in ranks.items() if rank}
        metrics = {"images": summary.images, **unread, "tau": tau, "keys": reader.key_form}
        folder.complete(folder.summary, [folder.quarantine], metrics | context.skipped)
        require_readable(summary, metrics, folder.quarantine)
    lines = [
        f"{summary.images:,} images, {unread['quarantined']:,} in quarantine",
        *(f"unread  {line}" for line in describe_causes(metrics, folder.quarantine)),
        *describe_passed_over(context.passed_over),
        *reader.keys_note(),
    ]
    lines += [f"the top {float(keep):.0%} have {bits:.4f} bits or more" for keep, bits in tau.items()]
    if options.gray.decode.valid_range == "auto" and isinstance(gray.decode.valid_range, tuple):
        lines.append("valid range {:g} to {:g}".format(*gray.decode.valid_range))
    return StageResult(folder.path, metrics, "\n".join([*lines, f"written to {folder.path / 'entropy'}"]))
