"""`rsprune.prune`: from a collection of images to the manifest of those worth training on."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from rsprune import strategies
from rsprune.centroids import Centroids
from rsprune.errors import DamagedFileError, MissingDependencyError, PartsLeftError, as_html
from rsprune.export.chosen import ChosenImages
from rsprune.export.dataset import SelectedImages, select_webdataset
from rsprune.io import provenance_header
from rsprune.options import keywords
from rsprune.report import Explanation, explain, write_report
from rsprune.runners import Progress, show_progress
from rsprune.runners.local import LocalRunner
from rsprune.runs.config import PruneOptions
from rsprune.runs.context import RunContext, encoder_config, source_config
from rsprune.runs.coverage import advice_of, coverage_lines, warning_of
from rsprune.runs.folder import RunFolder
from rsprune.runs.moves import Choice
from rsprune.runs.prepare import holds_all, holds_embeddings, prepare
from rsprune.runs.put_aside import leaving_out_lost, without_put_aside
from rsprune.runs.quarantine import describe_causes, write_quarantine
from rsprune.runs.reader import RunReader
from rsprune.runs.reference import ImageReference, Reference, ReferenceLike, calibrated
from rsprune.runs.schema import SELECTION_SCHEMA
from rsprune.runs.selections import check_name, choice_name, open_choice, selection_names, store_choice
from rsprune.runs.stages.centroids import make_centroids
from rsprune.runs.stages.coverage import Scenes, embed_dropped, name_clusters
from rsprune.runs.stages.embed import EmbedStage
from rsprune.runs.stages.entropy import EntropyRanking, EntropyStage, cut_entropies, require_readable
from rsprune.runs.stages.select import SelectStage
from rsprune.runs.start import start_run
from rsprune.runs.summary import describe_passed_over
from rsprune.runs.value_range import settle_gray
from rsprune.selection import Selection
from rsprune.sources import SourceLike, check_outside

if TYPE_CHECKING:
    import pandas

__all__ = ["Run", "open_run", "prune"]

#: What is said of centroids that were fitted on the pool.
SECOND_BEST = "the centroids are those of a sample of the collection itself, second best to labelled scenes"


@dataclass(frozen=True)
class Run:
    """A finished run.

    Attributes
    ----------
    path
        The run folder.
    selection
        The rows kept. Rows are numbered through the whole collection, images that were pruned or not read included.
    moved
        Where the call has chosen anew: how many images it chose and dropped.
    """

    path: Path
    selection: Selection
    moved: str = ""

    @cached_property
    def reader(self) -> RunReader:
        """The reader of the folder."""
        return RunReader(self.path, finished=True)

    @property
    def summary(self) -> dict[str, Any]:
        """The metrics of the run, as ``summary.json`` holds them."""
        return self.reader.summary

    @property
    def report(self) -> Path:
        """The page that shows what was kept and why."""
        return RunFolder(self.path).report

    @property
    def selections(self) -> list[str]:
        """The names of all choices that the folder holds; :func:`rsprune.open` opens one by its ``name``."""
        return selection_names(RunFolder(self.path))

    @cached_property
    def keys(self) -> list[str]:
        """The keys of the images kept, aligned with ``selection.indices``."""
        keys: list[str] = self.reader.selected(["key"])["key"].to_pylist()
        return keys

    @cached_property
    def metadata(self) -> pa.Table:
        """What the collection says of the images kept, such as captions: a row each, in the order of the selection."""
        return self.reader.selected().drop_columns(SELECTION_SCHEMA.names)

    @property
    def indices(self) -> NDArray[np.int64]:
        """The rows kept, ascending: for `torch.utils.data.Subset` and `datasets.Dataset.select`."""
        return self.selection.indices

    def dataset(self, source: SourceLike, transform: Callable[[Any], Any] | None = None) -> SelectedImages:
        """Return the images kept as a data set for `torch.utils.data.DataLoader`, read from the collection itself.

        Parameters
        ----------
        source
            The images of the run, as :func:`prune` was given them.
        transform
            Called with each image, a :class:`PIL.Image.Image`.

        Raises
        ------
        KeyMismatchError
            ``source`` is not the collection of the run.
        """
        return SelectedImages(ChosenImages(self.reader, self.reader.open_source(source)), transform)

    def webdataset(self, source: SourceLike, **options: Any) -> Any:
        """Return the samples kept as a pipeline of the library `webdataset`, which reads the collection's tar files.

        Tar files of which nothing is kept are not opened. Keys end where rsprune ends them.

        Parameters
        ----------
        source
            The tar files of the run, as :func:`prune` was given them.
        **options
            Of :class:`webdataset.WebDataset`, such as ``shardshuffle``.

        Raises
        ------
        MissingDependencyError
            The library is not installed.
        SourceError
            The images do not lie in tar files.
        KeyMismatchError
            ``source`` is not the collection of the run.
        """
        return select_webdataset(self.reader, source, **options)

    def explain(self, *keys: str, source: SourceLike | None = None) -> list[Explanation]:
        """Say why images were kept or dropped; see :func:`rsprune.report.explain`."""
        return explain(self.reader.folder, keys, source)

    def to_arrow(self) -> pa.Table:
        """Return the manifest: a row each image that was kept, with its key, figures and metadata."""
        return self.reader.selected().replace_schema_metadata()

    def to_pandas(self) -> pandas.DataFrame:
        """Return the manifest as a data frame.

        Raises
        ------
        MissingDependencyError
            The library pandas is not installed.
        """
        try:
            return self.to_arrow().to_pandas()
        except ModuleNotFoundError as error:
            message = "to_pandas() needs the library pandas: `pip install pandas`"
            raise MissingDependencyError(message) from error

    def _repr_html_(self) -> str:
        return as_html(self.describe())

    def describe(self) -> str:
        """Put the metrics in words: what was kept, and where it is."""
        metrics, folder = self.summary, RunFolder(self.path)
        if metrics["quota"] is None:
            shared = ", with quotas of their own" if metrics["strategy"] == "rsprune" else ""
            rule = f"{metrics['selected']:,} by the strategy {metrics['strategy']!r}{shared}"
        else:
            by_quota = f"{metrics['phases']['quota']:,} by quota, {metrics['phases']['fill']:,} from the remainder"
            if "preselected" in metrics["phases"]:
                by_quota += f", {metrics['phases']['preselected']:,} kept from before"
            rule = f"{metrics['quota']:,} nearest to each of {len(metrics['clusters']['pool'])} centroids: {by_quota}"
        if self.reader.config["centroids"].get("self"):
            rule += f"; {SECOND_BEST}"
        if metrics["outside"]:
            rule += f"; {metrics['outside']:,} are out of the domain"
        left_out = ", ".join(f"{count:,} by {name}" for name, count in metrics.get("excluded", {}).items())
        return "\n".join(
            [
                f"{metrics['selected']:,} of {metrics['images']:,} images kept "
                f"({metrics['selected'] / metrics['images']:.1%}), {metrics['quarantined']:,} in quarantine",
                f"Stage I   kept {metrics['survivors']:,} images of {metrics['tau']:.4f} bits or more",
                f"Stage II  {rule}",
                *([f"without   {left_out}"] if left_out else []),
                *(f"scenes    {line}" for line in coverage_lines(metrics)),
                *([f"warning   {warning}"] if (warning := warning_of(metrics)) else []),
                *(f"advice    {line}" for line in advice_of(metrics)),
                *([f"moved     {self.moved}"] if self.moved else []),
                *([f"choices   {', '.join(names)}"] if len(names := self.selections) > 1 else []),
                f"manifest  {folder.selection}",
                *([f"left out  damaged shards: {', '.join(metrics['left_out'])}"] if "left_out" in metrics else []),
                *(f"left out  {line}" for line in describe_passed_over(metrics.get("passed_over", {}))),
                *(f"unread    {line}" for line in describe_causes(metrics, folder.quarantine)),
                f"keys      {folder.selected}",
                *self.reader.keys_note(),
                f"report    {folder.report}",
            ]
        )


@keywords(PruneOptions)
@leaving_out_lost
def prune(
    source: SourceLike,
    *,
    reference: ReferenceLike,
    out: str | Path,
    options: PruneOptions,
    progress: bool | Progress = True,
) -> Run:
    """Choose the images of a collection that a diffusion model should be trained on.

    Stage I keeps the images of highest gray-level entropy; Stage II embeds those, assigns each to the nearest centroid
    of the reference images, and keeps an equal number nearest to each centroid (RS-Prune, arXiv 2512.23239, Sec. 3).

    The run folder ``out`` holds every intermediate result by input shard. A run that was stopped, in whatever way,
    goes on where it was when the same call is made again, and ends with the same bytes.

    Parameters
    ----------
    source
        The collection: a folder of images, a list file (``.txt``, ``.csv``), a data set of ``datasets``, tar, Arrow,
        Parquet or NumPy files (one, a glob, a brace range, a list), or a :class:`rsprune.sources.Source`.
    reference
        What the centroids are fitted on: labelled scene images (anything that ``source`` can be, or the name of a
        published set: ``"resisc45"``, ``"ucmerced"``, ``"aid"``, ``"whu-rs19"``, ``"rsd46-whu"``), their embeddings (an
        array, or files: see :func:`rsprune.embeddings.as_rows`), or fitted centroids
        (:class:`Centroids` or a ``.safetensors`` file). ``"self"`` is a sample of the collection, for want of anything
        better.
    out
        The run folder.
    progress
        Show progress on the terminal; or a :class:`rsprune.runners.Progress` of your own.

    Returns
    -------
    Run
        The selection and where it is written.

    Raises
    ------
    BudgetError
        The budget is no number of images, or more than there are readable images. ``min_similarity`` can leave fewer:
        then ``rsprune select`` can choose fewer from the folder.
    ArgumentError
        ``preselected``, and nothing has been chosen in ``out``.
    ConfigMismatchError
        ``out`` holds a run of a different configuration.
    KeyMismatchError
        ``out`` holds a run of other images.
    EmptyInputError
        None of the images could be read, or too few of the reference.
    EncoderMismatchError
        The centroids were fitted on embeddings of another encoder.
    PartsLeftError
        The shards of this ``part`` are done, those of other parts are not.
    ValueRangeError
        Some of the first images need a ``valid_range``.
    """
    images, encoder, folder = options.source.open(source), options.encoder, RunFolder(out)
    if options.source.on_damaged_shard == "skip":
        images = without_put_aside(images, folder)
    check_outside(out, images)
    prepared = prepare(images, reference, options, encoder.model, folder)
    choice, rule, opened, selection = options.choice, options.choice.strategy, prepared.reference, prepared.selection
    budget, keep, leaving_out = prepared.budget, prepared.keep_embeddings, prepared.leaving_out
    if isinstance(opened, ImageReference):
        check_outside(out, opened.source)
    name = choice_name(options, selection)
    making = encoder_config(encoder, folder)
    runner, threads = options.execution.open_runner(), options.execution.threads
    with folder.lock(shared=runner.part is not None), show_progress(progress) as shown:
        gray = settle_gray(options.gray, images, folder, shown, seed=rule.seed, threads=threads)
        if rule.strategy == strategies.CALIBRATED:
            opened = calibrated(opened, gray)
        sample, fingerprint = earlier_sample(folder, opened), images.fingerprint()
        config: dict[str, Any] = provenance_header() | {
            "source": source_config(images, fingerprint),
            "entropy": gray.config() | options.stage_one(),
            "encoder": making,
            "keep_embeddings": keep,
            "centroids": sample or opened.fingerprint(),
            "selection": selection,
        }
        kept = Choice.to_top_up(folder, config) if options.preselected else None
        if kept is not None:
            selection["preselected"] = kept.digest
        if options.name is not None:
            check_name(folder, name, config)
        context = RunContext.of(folder, config, images, threads, fingerprint)
        earlier = Choice.read(folder)
        if keep and holds_embeddings(folder) is False:
            shown.note(f"{folder.path} holds no embeddings, but clusters: the survivors are embedded again")
        if holds_all(folder):
            shown.note(f"{folder.path} holds embeddings of all images: those of the images that Stage I drops go")
        start_run(context, images)
        if config["centroids"].get("self"):
            shown.note(SECOND_BEST)
        decode, batch_size = gray.decode, making["batch_size"]

        def fit() -> Centroids:
            if sample is not None:
                return RunReader(folder).centroids
            return make_centroids(context, opened, encoder, decode, runner, shown)

        # Fitted on what is there already, they are known before an image is read. A part does its share of the
        # reference at once: it would wait for the other parts twice.
        fitted = None
        if runner.part or not isinstance(opened, ImageReference):
            with contextlib.suppress(PartsLeftError):
                fitted = fit()
        summary = runner.map_merge(EntropyStage(context, images, gray), shown)
        if summary.failed == summary.images:
            require_readable(summary, write_quarantine(context, RunReader(folder)), folder.quarantine)
        survivors = cut_entropies(EntropyRanking(RunReader(folder), summary), budget, shown, **options.stage_one())
        if kept is not None:
            survivors = survivors.keeping(kept.rows)
        leaving_out = replace(leaving_out, rows=leaving_out.find(RunReader(folder), shown))
        centroids = fit() if fitted is None else fitted
        runner.map_merge(EmbedStage(context, images, survivors, encoder, decode, batch_size, centroids, keep), shown)
        scenes = None
        if size := options.coverage_sample:
            draw = {"size": size, "seed": rule.seed}
            lost = embed_dropped(context, images, survivors, encoder, decode, centroids, runner, shown, **draw)
            scenes = Scenes(name_clusters(opened, context, centroids), lost)
        stage = SelectStage(context, images, choice, budget, opened, survivors, scenes, kept, leaving_out)
        LocalRunner().map_merge(stage, shown)
        store_choice(folder, name)
        write_report(folder, images)
    run, now = open_run(folder.path), Choice.read(folder)
    if earlier is None or now is None or earlier.run == now.run:
        return run
    return replace(run, moved=earlier.describe_moves(now))


def earlier_sample(folder: RunFolder, reference: Reference) -> dict[str, Any] | None:
    """Return what the centroids of a run were fitted on, if it is a sample of the collection before this one grew."""
    if not (isinstance(reference, ImageReference) and reference.of_pool):
        return None
    with contextlib.suppress(FileNotFoundError, DamagedFileError):
        before, now = folder.read_config().get("centroids"), reference.fingerprint()
        if isinstance(before, dict) and before != now and {**before, "images": now["images"]} == now:
            return before if folder.is_whole(folder.centroids) else None
    return None


def open_run(path: str | Path, name: str | None = None) -> Run:
    """Open a finished run folder.

    Parameters
    ----------
    path
        The folder.
    name
        The choice that is meant, of those in the folder's ``selections/``. Default: the newest.

    Raises
    ------
    FileNotFoundError
        There is no such run.
    ArgumentError
        It has no choice of this name.
    UnfinishedRunError
        It is not finished.
    """
    reader = RunReader(open_choice(RunFolder(path), name), finished=True)
    return Run(reader.folder.choice, reader.selection())
