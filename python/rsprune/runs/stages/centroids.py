"""Stage II's centroids, fitted on the reference."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from typing_extensions import override

from rsprune.centroids import Centroids
from rsprune.errors import EmptyInputError
from rsprune.io import provenance_header
from rsprune.options import keywords, to_config
from rsprune.runners import Advance, Progress, Runner, show_progress
from rsprune.runners.local import LocalRunner
from rsprune.runs.config import CentroidOptions, DecodeOptions, EncoderOptions, GrayOptions
from rsprune.runs.context import RunContext, encoder_config, source_config
from rsprune.runs.folder import RunFolder
from rsprune.runs.quarantine import write_quarantine
from rsprune.runs.reader import RunReader
from rsprune.runs.reference import ImageReference, Reference, ReferenceLike, calibrated, open_reference
from rsprune.runs.stages.base import RunStage, StageResult
from rsprune.runs.stages.embed import EmbedStage, SomeRows
from rsprune.runs.start import start_run
from rsprune.runs.summary import ShardSummary
from rsprune.runs.value_range import settle_range
from rsprune.sources import Shard, check_outside

__all__ = ["CentroidsStage", "centroids_run", "make_centroids"]


@dataclass(frozen=True)
class CentroidsStage(RunStage):
    """Writes ``centroids.safetensors``: one piece of work, on the embeddings of the reference."""

    reference: Reference
    name: str = "centroids"

    @property
    @override
    def shards(self) -> tuple[Shard, ...]:
        return (Shard("centroids"),)

    @override
    def count(self, shard: Shard) -> int:
        return self.reference.images

    @override
    def outputs(self, shard: Shard) -> tuple[Path, ...]:
        return (self.context.folder.centroids,)

    @override
    def run(self, shard: Shard, advance: Advance) -> ShardSummary:
        self.reference.fit(self.context).save(self.context.folder.centroids)
        self.complete(shard)
        advance(self.count(shard))
        return self.summarize(shard)

    @override
    def summarize(self, shard: Shard) -> ShardSummary:
        return ShardSummary(images=self.count(shard))


def make_centroids(
    context: RunContext,
    reference: Reference,
    encoder: EncoderOptions,
    decode: DecodeOptions,
    runner: Runner,
    progress: Progress,
) -> Centroids:
    """Embed the reference where it is images, fit the centroids, and keep them in the run folder.

    Raises
    ------
    EmptyInputError
        Fewer reference images could be read than there are centroids; the message says why.
    """
    if isinstance(reference, ImageReference):
        folder = context.folder.reference()
        source = reference.source
        fingerprint = source.fingerprint()
        config: dict[str, Any] = provenance_header() | {
            "source": source_config(source, fingerprint),
            "pixels": to_config(decode),
            "encoder": context.config["encoder"],
            "centroids": None,
            "keep_embeddings": True,
        }
        inside = RunContext.of(folder, config, source, context.threads, fingerprint)
        start_run(inside, source)
        batch_size = config["encoder"]["batch_size"]
        subset = SomeRows(reference.rows)
        stage = EmbedStage(inside, reference.source, subset, encoder, decode, batch_size, name="reference")
        summary = runner.map_merge(stage, progress)
        if not folder.is_whole(folder.quarantine):
            metrics = {"images": summary.images} | write_quarantine(inside, RunReader(folder))
            folder.complete(folder.summary, [folder.quarantine], metrics)
        if summary.failed:
            failed = f"{summary.failed:,} of {summary.images:,} reference images"
            problem = f"{failed} could not be read ({summary.causes()})"
            if summary.images - summary.failed < reference.k:
                message = f"{problem}, too few are left for {reference.k} centroids: see {folder.quarantine}"
                raise EmptyInputError(message)
            progress.note(f"{problem}: {folder.quarantine}")
    LocalRunner().map_merge(CentroidsStage(context, reference), progress)
    return RunReader(context.folder).centroids


@keywords(CentroidOptions)
def centroids_run(
    reference: ReferenceLike, *, out: str | Path, options: CentroidOptions, progress: bool | Progress = True
) -> StageResult:
    """Fit reference centroids, resumably: ``out/centroids.safetensors``.

    Parameters
    ----------
    reference, out, progress
        See :func:`rsprune.prune`. Embeddings need no encoder.

    Raises
    ------
    EmptyInputError
        Fewer reference images could be read than there are centroids.
    ValueRangeError
        Some of the first images need a ``valid_range``.
    """
    opened = open_reference(reference, options.reference, options.source, seed=options.seed)
    if options.calibrate:
        opened = calibrated(opened, GrayOptions(decode=options.decode))
    folder = RunFolder(out)
    config = provenance_header() | {"centroids": opened.fingerprint()}
    if isinstance(opened, ImageReference):
        check_outside(out, opened.source)
        opened.check(options.encoder.model)
        config["encoder"] = encoder_config(options.encoder, folder)
    runner, decode, threads = options.execution.open_runner(), options.decode, options.execution.threads
    with folder.lock(shared=runner.part is not None), show_progress(progress) as shown:
        if isinstance(opened, ImageReference):
            source, seed = opened.source, options.seed
            decode = settle_range(decode, source, folder, shown, section="pixels", seed=seed, threads=threads)
            if opened.calibration is not None:
                opened = replace(opened, calibration=GrayOptions(decode=decode))
                config["centroids"] = opened.fingerprint()
            config |= {} if decode == DecodeOptions() else {"pixels": to_config(decode)}
        folder.start(config)
        context = RunContext(folder, config, threads)
        fitted = make_centroids(context, opened, options.encoder, decode, runner, shown)
        metrics = {"k": fitted.k, "dimensions": fitted.dim, "objective": fitted.meta.get("objective")}
        folder.complete(folder.summary, [], metrics)
    text = f"{fitted.k} centroids of {fitted.dim} dimensions in {folder.centroids}"
    return StageResult(folder.path, metrics, text)
