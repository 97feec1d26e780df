"""Stage II's choice: which of the embedded images the budget keeps."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray
from typing_extensions import override

from rsprune import strategies
from rsprune.centroids import Centroids
from rsprune.embeddings import as_rows
from rsprune.errors import ArgumentError, BudgetError, MissingInputError, naming
from rsprune.io import (
    atomic_write,
    check_output_file,
    check_output_folder,
    digest,
    provenance_header,
    read_provenance,
    write_tables,
)
from rsprune.options import keywords, options_of
from rsprune.quotas import Groups
from rsprune.runners import Advance
from rsprune.runs.config import ChoiceOptions, SelectRunOptions
from rsprune.runs.moves import Choice
from rsprune.runs.quarantine import write_quarantine
from rsprune.runs.reader import RunReader
from rsprune.runs.reference import Reference, check_same_provenance, digest_of
from rsprune.runs.row_names import PathOrPaths, row_names
from rsprune.runs.schema import SELECTION_SCHEMA, manifest_schema
from rsprune.runs.stages.base import RunStage, StageResult
from rsprune.runs.stages.candidates import Candidates
from rsprune.runs.stages.coverage import Scenes
from rsprune.runs.stages.entropy import EntropyCut
from rsprune.runs.stages.left_out import REASONS, LeavingOut, settle_rows
from rsprune.runs.summary import ShardSummary
from rsprune.selection import COUNTS, FILL, PRESELECTED, QUOTA, Origin, Selection, SelectOptions, budget_rows
from rsprune.sources import Shard, Source, SourceLike
from rsprune.sources.filesystem import load_array
from rsprune.sources.key_lines import lines_of_keys
from rsprune.sources.passing import reading_source
from rsprune.validation import check_column

__all__ = ["SelectStage", "check_strategy", "select_run"]

#: Images that could not be embedded, and that a summary names: the first.
LISTED = 50


#: Options that have been applied when a strategy chooses in a run, beside those that leave images out.
APPLIED = ("leak_eps", "groups")
#: The largest groups, which summary.json lists.
LISTED_GROUPS = 50
#: What a strategy by quota takes in a run, whatever is given; other options are only handed to it where they are given.
ALWAYS = ("fill", "within", "min_similarity")


@dataclass(frozen=True)
class SelectStage(RunStage):
    """Writes what was chosen, what was not read, and why: one piece of work, on the tables of all shards.

    Memory: some fifty bytes an image of the budget (see :class:`Candidates`), and one shard. A strategy that does not
    select by quota works on the embeddings of all images.
    """

    source: Source
    options: ChoiceOptions
    budget: int
    reference: Reference
    survivors: EntropyCut
    scenes: Scenes | None = None
    kept: Choice | None = None
    leaving_out: LeavingOut | None = None
    name: str = "select"

    @property
    @override
    def shards(self) -> tuple[Shard, ...]:
        return (Shard("selection"),)

    @override
    def count(self, shard: Shard) -> int:
        return self.survivors.total

    @override
    def outputs(self, shard: Shard) -> tuple[Path, ...]:
        folder = self.context.folder
        excluded = (folder.excluded,) if self._leaves_out else ()
        return (folder.selected, folder.quarantine, *excluded, folder.selection)

    @property
    def _leaves_out(self) -> bool:
        return self.leaving_out is not None and self.leaving_out.is_used

    @override
    def run(self, shard: Shard, advance: Advance) -> ShardSummary:
        folder, reader = self.context.folder, RunReader(self.context.folder)
        by_quota = strategies.get(self.options.strategy.strategy).quotas
        if not self._leaves_out:
            folder.excluded.unlink(missing_ok=True)
        selection, metrics = (self.choose_by_quota if by_quota else self.choose)(reader)
        invalid = metrics.pop("invalid")
        metrics |= {"invalid": {"rows": len(invalid), "first": invalid[:LISTED]}}
        metrics |= write_quarantine(self.context, reader)
        schema = manifest_schema(SELECTION_SCHEMA, self.source.metadata_schema)
        with atomic_write(folder.selected) as beside, beside.open("w", encoding="utf-8", newline="\n") as selected:

            def chosen() -> Iterator[pa.Table]:
                for table, at in reader.ranked_at(selection.indices):
                    selected.write(lines_of_keys(table["key"]))
                    numbers = selection.cluster[at], selection.similarity[at], selection.phase[at]
                    for name, column in zip(("cluster", "similarity", "phase"), numbers, strict=True):
                        table = table.append_column(SELECTION_SCHEMA.field(name), pa.array(column))
                    own = [table[name] for name in SELECTION_SCHEMA.names]
                    yield pa.Table.from_arrays([*own, *metadata_of(self.source, table)], schema=schema)

            write_tables(folder.selection, schema, chosen(), self.context.provenance)
        metrics |= self.metrics(selection) | {"images": len(reader.index), "keys": reader.key_form}
        if self.scenes is not None:
            kept = {name: places for name, places, _ in reader.index.locate(selection.indices)}
            metrics["coverage"] = self.scenes.coverage(self.source, self.survivors, selection.counts, kept)
        folder.complete(folder.summary, self.outputs(shard), metrics | self.context.skipped)
        advance(self.count(shard))
        return self.summarize(shard)

    @override
    def summarize(self, shard: Shard) -> ShardSummary:
        return ShardSummary(images=self.count(shard))

    def choose_by_quota(self, reader: RunReader) -> tuple[Selection, dict[str, Any]]:
        """Choose by clusters and similarities; rows are numbered through the whole collection. Also return metrics."""
        options, centroids, threads = self.options, reader.centroids, self.context.threads
        excluded, embedded = None, np.empty(0, np.int64)
        if self.leaving_out is not None and (self._leaves_out or options.shares):
            embedded = reader.embedded_numbers()
            kept = np.empty(0, np.int64) if self.kept is None else self.kept.positions(reader.index, embedded)
            excluded = self.leaving_out.apply(reader, self.source, kept, threads)
            if self._leaves_out:
                excluded.write(self.context.folder, reader, self.context.provenance)
        candidates = Candidates.gather(
            reader,
            options,
            self.budget,
            centroids.k,
            threads,
            whole=self.kept is not None or options.shares,
            excluded=None if excluded is None else excluded.reason > 0,
        )
        labels, similarity, numbers = candidates.columns
        settings = {name: value for name, value in settings_of(options).items() if name not in (*REASONS, *APPLIED)}
        if excluded is not None and excluded.groups is not None and options.shares:
            at = np.searchsorted(embedded, numbers)
            settings["groups"] = groups_of(excluded.groups, at)
        if self.kept is not None:
            settings["preselected"] = self.kept.positions(reader.index, numbers)
        known = {"centroids": centroids, "reference": self.reference.embeddings(self.context)}
        known |= {"assignment": (labels, similarity)}
        origin = Origin(numbers, candidates.pool)
        rule = options.strategy
        if "entropy_keep" not in strategies.get(rule.strategy).options:  # Stage I has been applied
            entropies = [table["entropy"].to_numpy() for table, _ in reader.ranked_at(numbers)]
            known["entropy"] = np.concatenate([np.empty(0), *entropies])
        chosen = strategies.select_from(
            rule.strategy, known, self.budget, origin=origin, seed=rule.seed, threads=threads, **settings
        )
        metrics: dict[str, Any] = {"outside": candidates.outside, "invalid": candidates.invalid}
        if excluded is not None and self._leaves_out:
            metrics["excluded"] = excluded.counts()
        if chosen.groups:
            largest = sorted(chosen.groups.items(), key=lambda one: (-one[1].pool, one[0]))[:LISTED_GROUPS]
            metrics["groups"] = {"by": options.groups, "count": len(chosen.groups)}
            metrics["groups"]["largest"] = [{"group": name, **counts._asdict()} for name, counts in largest]
        return replace(chosen, indices=numbers[chosen.indices]), metrics

    def choose(self, reader: RunReader) -> tuple[Selection, dict[str, Any]]:
        """Choose by the embeddings; rows are numbered through the whole collection. Also return metrics."""
        options, centroids = self.options, reader.centroids
        known = {"embeds": reader.embeddings(), "centroids": centroids, "entropy": reader.embedded_entropy()}
        known |= {"reference": self.reference.embeddings(self.context)}
        rule = options.strategy
        chosen = strategies.select_from(
            rule.strategy, known, self.budget, seed=rule.seed, threads=self.context.threads, **settings_of(options)
        )
        labels, similarity = reader.embedded("label", "similarity")
        rows = [reader.index.first(one) + reader.assignments(one, ["row"])["row"].to_numpy() for one in reader.shards]
        chosen = with_clusters(chosen, np.concatenate(rows), labels, similarity, centroids.k)
        return chosen, {"outside": 0, "invalid": chosen.invalid.tolist()}

    def metrics(self, selection: Selection) -> dict[str, Any]:
        """Return the metrics of a run for ``summary.json``; quotas and where they end only if the strategy has them."""
        by_quota = strategies.get(self.options.strategy.strategy).quotas
        in_quota, in_fill = selection.phase == QUOTA, selection.phase == FILL
        quota_cut = np.full(selection.k, np.inf)
        if by_quota:
            np.minimum.at(quota_cut, selection.cluster[in_quota], selection.similarity[in_quota])
        return {
            "strategy": self.options.strategy.strategy,
            "survivors": self.survivors.total,
            "tau": self.survivors.tau,
            "budget": selection.budget,
            "selected": len(selection),
            "quota": selection.budget // selection.k if by_quota and not self.options.shares else None,
            "phases": {"quota": int(np.count_nonzero(in_quota)), "fill": int(np.count_nonzero(in_fill))}
            | ({} if self.kept is None else {"preselected": len(self.kept)}),
            "fill_cut": float(selection.similarity[in_fill].min()) if by_quota and in_fill.any() else None,
            "clusters": {
                **{name: selection.counts[name].tolist() for name in ("pool", "quota", "fill")},
                "quota_cut": [None if np.isinf(cut) else float(cut) for cut in quota_cut],
            },
        }


def metadata_of(source: Source, rows: pa.Table) -> list[pa.ChunkedArray]:
    """Read the metadata of rows of one shard, a column each; nothing is read of a source that has none."""
    if not len(source.metadata_schema):
        return []
    with reading_source():
        table = source.read_metadata(Shard(rows["shard"][0].as_py()), rows["row"].to_pylist())
    columns: list[pa.ChunkedArray] = table.columns
    return columns


def groups_of(groups: Groups, rows: NDArray[np.int64]) -> Groups:
    """Return the groups of some rows, without those that none of them is of."""
    there, of = np.unique(groups.of[rows], return_inverse=True)
    return Groups([groups.names[one] for one in there.tolist()], of.astype(np.int64))


def with_clusters(
    chosen: Selection,
    rows: NDArray[np.int64],
    labels: NDArray[np.int32],
    similarity: NDArray[np.float32],
    k: int,
) -> Selection:
    """Return what a strategy chose among ``rows`` with the clusters and similarities of the run's own centroids."""
    counts = np.zeros(k, COUNTS)
    counts["pool"] = np.bincount(labels[labels >= 0], minlength=k)
    for name, value in (("quota", QUOTA), ("fill", FILL), ("preselected", PRESELECTED)):
        counts[name] = np.bincount(labels[chosen.indices[chosen.phase == value]], minlength=k)
    at = chosen.indices
    return Selection(
        rows[at], labels[at], similarity[at], chosen.phase, counts, rows[labels < 0], chosen.budget, k, len(labels)
    )


def settings_of(options: ChoiceOptions | SelectRunOptions) -> dict[str, Any]:
    """Return the options of the strategy: those that were given here, and its own.

    Raises
    ------
    ArgumentError
        A run has options of its own for what ``strategy_options`` names.
    """
    rule, is_run = options.strategy, not isinstance(options, SelectRunOptions)
    where = options if isinstance(options, ChoiceOptions) else options.select
    shared = {one.name: one.default for one in options_of(SelectOptions) if hasattr(where, one.name)}
    own = {name: getattr(where, name) for name in shared}
    is_paper = rule.strategy == "rsprune"  # whose defaults are those of the options here
    # Options of one name mean the same in every strategy; the strategy refuses those that it does not have.
    own = {
        name: value
        for name, value in own.items()
        if (is_paper and (name in ALWAYS or not is_run))
        or (value is not None and (shared[name] is None or value != shared[name]))
    }
    twice = shared.keys() & (rule.strategy_options or {}).keys()
    if is_run and ((is_paper and rule.strategy_options) or (twice and strategies.get(rule.strategy).quotas)):
        message = (
            f"strategy_options is {rule.strategy_options!r}; in a run the options of {rule.strategy!r} are "
            f"{', '.join(shared)}"
        )
        raise ArgumentError(message)
    return own | dict(rule.strategy_options or {})


def check_strategy(options: ChoiceOptions, *, has_reference: bool) -> dict[str, Any]:
    """Check that a run can use a strategy, and return it as the configuration names it.

    Raises
    ------
    ArgumentError
        No such strategy or option, or options of another one.
    MissingInputError
        It needs what a run does not have.
    BudgetError
        It does not work to a budget.
    """
    name = options.strategy.strategy
    method = strategies.get(name)
    method.check(settings_of(options))
    if method.budget == "none":
        message = f"the strategy {name!r} has no budget: a run keeps a number of images"
        raise BudgetError(message)
    there = {"embeds", "centroids", "entropy", "budget"} | ({"reference"} if has_reference else set())
    for need in method.needs:
        if need not in there:
            raise MissingInputError(name, need)
    return {"strategy": name, "strategy_options": dict(options.strategy.strategy_options or {})}


@keywords(SelectRunOptions)
def select_run(
    embeds: PathOrPaths,
    *,
    out: str | Path,
    keys: str | Path | None = None,
    centroids: str | Path | Centroids | None = None,
    reference: Any = None,
    entropy: str | Path | None = None,
    score: str | Path | None = None,
    labels: str | Path | None = None,
    source: SourceLike | None = None,
    options: SelectRunOptions,
) -> StageResult:
    """Choose rows of embeddings that are on the disk, and write the manifest.

    Parameters
    ----------
    embeds
        A folder that :func:`embed_run` or :func:`rsprune.prune` wrote, whose keys the manifest then names; a ``.npy``
        file, a table with a column of vectors, a folder, pattern or range of these, or a list: see
        :func:`rsprune.embeddings.as_rows`. Keys that stand beside them are kept: see :func:`row_names`.
    out
        The manifest (``.parquet``), or a folder for it (``selection.parquet``) and for the keys alone
        (``selected.txt``), or the numbers of the rows where nothing names them.
    keys
        A file that names the rows of embeddings: text with a line a row, or a table with a column of keys.
    centroids
        Fitted centroids, or their file.
    reference
        Embeddings of the reference images.
    entropy, score, labels
        ``.npy`` files of a number a row.
    source
        The collection of the folder ``embeds``, whose metadata the manifest then has.

    Raises
    ------
    KeyMismatchError
        ``source`` is another collection.
    EncoderMismatchError
        The folder's embeddings were made with another encoder than the centroids.
    OutputError
        ``out`` is a file that this function did not write.
    ArgumentError
        The folder holds no embeddings, but only clusters and similarities, and those of other centroids.
    ShapeError
        More or fewer keys than embeddings.
    """
    out, selected = output_files(out)
    rule, settings = options.strategy, settings_of(options)
    columns = {"entropy": entropy, "score": score, "labels": labels}
    if isinstance(embeds, list | tuple) and len(embeds) == 1:
        embeds = embeds[0]
    is_run = isinstance(embeds, str | Path) and (Path(embeds) / "config.json").is_file()
    reader = RunReader(embeds) if is_run and isinstance(embeds, str | Path) else None
    names = None
    if reader is None:
        rows = as_rows(embeds)
        n = rows.shape[0]
        names = row_names(embeds, keys)
    elif keys is not None:
        message = f"{embeds} is a folder of a run, which has the keys of its images: leave out keys"
        raise ArgumentError(message)
    else:
        rows, n = None, len(reader.embedded_index)
    opened = None
    if source is not None:
        if reader is None:
            message = f"{embeds} is no folder of a run: a collection is given for the metadata of its images"
            raise ArgumentError(message)
        opened = reader.open_source(source)
        reader.check_source(opened)
    settings, told = settle_rows(settings, n, reader=reader, source=opened, names=names)
    about = {"strategy": rule.strategy, "strategy_options": jsonable(settings | told), "seed": rule.seed}
    inputs: dict[str, Any] = {name: path and load_column(name, path, n) for name, path in columns.items()}
    note: list[str] = []
    inputs |= {"reference": reference, "centroids": centroids, "seed": rule.seed, "threads": options.threads}
    if reader is None:
        chosen = strategies.select(rule.strategy, rows, rule.keep, **inputs, **settings)
        if names is not None:
            chosen = replace(chosen, keys=names.take(pa.array(chosen.indices)).to_pylist())
        chosen.to_parquet(out, about)
    else:
        fitted = Centroids.load(centroids) if isinstance(centroids, (str, Path)) else centroids
        inputs["centroids"] = fitted
        if fitted is not None:
            check_same_provenance(fitted.meta.get("encoder"), reader.config.get("encoder"), "the centroids")
        budget = None if rule.keep is None else budget_rows(rule.keep, reader.images)
        if reader.config.get("keep_embeddings", True):
            rows = as_rows(reader.embeddings())
        else:
            check_assigned_to(reader, fitted, rule.strategy)
            inputs["assignment"] = tuple(reader.embedded("label", "similarity"))
        chosen = strategies.select(rule.strategy, rows, budget, **inputs, **settings)
        del inputs

        numbers = {"cluster": pa.int32(), "similarity": pa.float32(), "phase": pa.uint8()}
        schema = pa.schema(
            [("key", pa.string()), ("shard", pa.string()), SELECTION_SCHEMA.field("row"), *numbers.items()]
        )

        if opened is not None:
            named = manifest_schema(SELECTION_SCHEMA, opened.metadata_schema)
            schema = pa.schema([*schema, *list(named)[len(SELECTION_SCHEMA) :]])

        def manifest() -> Iterator[pa.Table]:
            for table, places in reader.embedded_at(chosen.indices):
                columns = [pa.array(getattr(chosen, name)[places]) for name in numbers]
                extra = [] if opened is None else metadata_of(opened, table)
                yield pa.Table.from_arrays([*table.columns, *columns, *extra], schema=schema)

        provenance = {**provenance_header(), "embeddings": digest(reader.config), **about}
        write_tables(out, schema, manifest(), provenance)
        note = reader.keys_note()
        if opened is None and (missing := reader.metadata_names()):
            note.append(
                f"without {', '.join(missing)}: these are read from the collection, give it as source (--source)"
            )
    if selected is not None:
        write_keys(out, selected)
    metrics = {"selected": len(chosen), "k": chosen.k, "invalid": len(chosen.invalid), "outside": len(chosen.outside)}
    written = f"written to {out}" if selected is None else f"written to {out} and {selected}"
    return StageResult(out, metrics, "\n".join([chosen.summary(), *note, written]))


def output_files(out: str | Path) -> tuple[Path, Path | None]:
    """Return the manifest to write, and the file of keys where ``out`` is a folder for both.

    Raises
    ------
    OutputError
        One of them is there, and this command did not write it; or the folder holds other files.
    ArgumentError
        ``out`` has another ending than ``.parquet``.
    """
    if Path(out).suffix:
        file = check_output_file(out, is_manifest)
        if file.suffix != ".parquet":
            message = f"{file} would be a Parquet file: give a name that ends in .parquet, or a folder"
            raise ArgumentError(message)
        return file, None
    folder = check_output_folder(out, "selection.parquet")
    manifest = check_output_file(folder / "selection.parquet", is_manifest)
    return manifest, check_output_file(folder / "selected.txt", lambda _: manifest.exists())


def write_keys(manifest: Path, selected: Path) -> None:
    """Write the keys of a manifest, or the numbers of its rows where it has none, a line each."""
    with pq.ParquetFile(manifest) as table, atomic_write(selected) as beside:
        name = "key" if "key" in table.schema_arrow.names else "row"
        with beside.open("w", encoding="utf-8", newline="\n") as file:
            for batch in table.iter_batches(columns=[name]):
                file.write(lines_of_keys(pa.chunked_array([batch.column(name).cast(pa.string())])))


def load_column(name: str, path: str | Path, n: int) -> NDArray[Any]:
    """Load a number a row, or a class a row, of ``n`` rows."""
    with naming(path):
        return check_column(name, load_array(path), n, kinds="iu" if name == "labels" else "fiu")


def is_manifest(path: Path) -> bool:
    """Tell whether :func:`select_run` wrote a file; the tables of a run name the run."""
    provenance = read_provenance(path)
    return "strategy" in provenance and "run" not in provenance


def jsonable(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Return options as a manifest names them: arrays by their digests, and only what was given."""
    plain = {name: digest_of(value) if isinstance(value, np.ndarray) else value for name, value in settings.items()}
    return {name: value for name, value in plain.items() if value is not None or name == "min_similarity"}


def check_assigned_to(reader: RunReader, centroids: Centroids | None, strategy: str) -> None:
    """Fail when a choice needs more than the clusters that a folder names."""
    held = f"{reader.folder.path} holds no embeddings, but clusters and similarities"
    again = f"{held}: embed again with --keep-embeddings"
    if not strategies.get(strategy).quotas or centroids is None:
        message = f"{again} for the strategy {strategy!r}"
        raise ArgumentError(message)
    own = digest_of(reader.centroids.vectors) if reader.folder.centroids.is_file() else reader.config["centroids"]
    if own != digest_of(centroids.vectors):
        message = f"{again}, or choose with the centroids of these clusters"
        raise ArgumentError(message)
