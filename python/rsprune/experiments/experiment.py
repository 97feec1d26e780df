"""`rsprune experiment`: the paper's tables and metrics, at a scale that one has the machine for.

Every trial trains the same network for the same number of steps; what it is trained on is all that differs. The folder
holds ``references/<set>`` and ``pool`` (embeddings), ``latents``, ``real`` (what is compared with), ``trials/<trial>``,
and of each experiment ``<name>.txt``, ``.md``, ``.csv`` and ``.svg``, which are renewed after each trial. All
experiments of a pool share one folder, and the trials that they have in common.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from rsprune.centroids import fit_centroids
from rsprune.encoders import load_encoder
from rsprune.errors import ArgumentError
from rsprune.evaluation.features import sample_rows
from rsprune.experiments.pool import EmbeddedPool, EmbeddedSet
from rsprune.experiments.presets import Scale, TrialOptions, scale_of
from rsprune.experiments.results import Experiment
from rsprune.experiments.tables_and_figures import GRIDS, POOL, THIRD, Arm
from rsprune.experiments.trial import SPLIT, TrialRunner
from rsprune.io import provenance_header, verified_record, write_npy, write_record
from rsprune.options import keywords
from rsprune.runners import Advance, Progress, show_progress
from rsprune.runners.processes import map_in_processes
from rsprune.runs.context import source_config
from rsprune.runs.folder import RunFolder
from rsprune.runs.prune import prune
from rsprune.runs.stages import embed_run
from rsprune.sources import Source, SourceLike, check_outside, open_source
from rsprune.training.autoencoder import Autoencoder, load_autoencoder
from rsprune.training.latent_cache import cache_latents
from rsprune.training.pretrain import build_network
from rsprune.training.transforms import ImageTransform

__all__ = ["Experiment", "experiment"]

Trial = tuple[Arm, int]


@keywords(TrialOptions)
def experiment(
    name: str,
    pool: SourceLike,
    references: Mapping[str, SourceLike],
    *,
    out: str | Path,
    scale: str = "cpu",
    changes: Mapping[str, Any] | None = None,
    options: TrialOptions,
    progress: bool | Progress = True,
) -> Experiment:
    """Run one of the paper's experiments: train the same model on what different methods select, several times.

    The same call resumes a stopped experiment; a stopped trial resumes from its last checkpoint.

    Parameters
    ----------
    name
        ``"table1"`` to ``"table4"``, ``"fig3"`` or ``"fig4"``: see ``docs/experiments.md``.
    pool
        The collection to select from, as for :func:`rsprune.prune`.
    references
        Labeled scene images by the names of their sets. A random half of each is for the methods; the other half is
        the target that generated images are compared with.
    out
        The folder, which the experiments of one pool may share.
    scale
        ``"paper"``, ``"gpu"`` or ``"cpu"``: see :data:`rsprune.experiments.presets.SCALES`.
    changes
        Settings that differ from the scale: ``{"iterations": 2000, "autoencoder": "sd-vae-ft-ema/"}``.
    progress
        As for :func:`rsprune.prune`.

    Raises
    ------
    ArgumentError
        No such experiment, scale or option; no autoencoder where the scale has none, or one that does not fit.
    ConfigMismatchError
        The folder holds experiments with other images, or another encoder, autoencoder or size.
    """
    if name not in GRIDS:
        message = f"no experiment {name!r}; there are {', '.join(GRIDS)}"
        raise ArgumentError(message)
    if not references:
        message = "no reference sets; expected at least one"
        raise ArgumentError(message)
    for one in references:
        if Path(one).name != one or one in ("", "..", POOL, THIRD):
            message = f"a reference set cannot be called {one!r}: it becomes a folder, and an arm of table4"
            raise ArgumentError(message)
    grid = GRIDS[name]
    changes = dict(changes or {})
    if scale == "paper" and grid.paper_iterations:
        changes.setdefault("iterations", grid.paper_iterations)
    chosen = scale_of(scale, changes)
    if chosen.autoencoder is None:
        message = f"the scale {scale!r} names no autoencoder: give the folder of one, autoencoder=sd-vae-ft-ema/"
        raise ArgumentError(message)
    codec = load_autoencoder(chosen.autoencoder)
    check_network(chosen, codec)
    arms = grid.arms(chosen, tuple(references))
    places = devices(options.device)
    folder = RunFolder(out)
    runner = TrialRunner(
        folder.path, chosen, tuple(references), options.weights, options.inception, places[0], options.threads
    )
    images, scenes = open_source(pool), {one: open_source(source) for one, source in references.items()}
    check_outside(folder.path, images, *scenes.values())
    if options.inception is not None:
        _ = runner.extractor  # loaded now: wrong weights are no surprise after hours of training
    config = provenance_header() | {
        "pool": source_config(images),
        "references": {one: source_config(source) for one, source in scenes.items()},
        **{one: getattr(chosen, one) for one in ("encoder", "autoencoder", "size", "real")},
        "device": torch.device(places[0]).type,
    }
    with folder.lock(), show_progress(progress) as observer:
        folder.start(config)
        prepare(runner, codec, images, scenes, None if options.device is None else places[0], observer)
        plan = [(arm, seed) for seed in range(chosen.seeds) for arm in arms]
        result = Experiment(folder.path, name, grid, arms, conditions(runner, scale))
        left = []
        for arm, seed in plan:
            if found := runner.done(arm, seed):
                result.add(arm, seed, found)
            else:
                left.append((arm, seed))
        steps = chosen.iterations
        observer.start("trials", len(plan) * steps, (len(plan) - len(left)) * steps)
        result.write()
        for (arm, seed), found in run_trials(runner, left, places, options.workers):
            result.add(arm, seed, found)
            result.write()
            observer.advance(steps)
        observer.finish()
    return result


def check_network(scale: Scale, codec: Autoencoder) -> None:
    """Raise an :class:`ArgumentError` if the network of a scale cannot work on the latents of an autoencoder."""
    if scale.size % codec.factor:
        message = f"size is {scale.size}; expected a multiple of {codec.factor} for the autoencoder {scale.autoencoder}"
        raise ArgumentError(message)
    with torch.device("meta"):  # builds without memory
        build_network(scale.model, 0, input_size=scale.size // codec.factor, in_channels=codec.latents)


def run_trials(
    runner: TrialRunner, left: Sequence[Trial], places: Sequence[str], workers: int | None
) -> Iterator[tuple[Trial, dict[str, Any]]]:
    """Carry out trials, and yield each with its metrics when it is done."""
    on_cpu = torch.device(places[0]).type == "cpu"
    count = min(workers or ((os.cpu_count() or 1) // runner.threads if on_cpu else len(places)), len(left))
    if count > 1:
        # In one process the many small operations of the trials would wait for each other's interpreter. Each process
        # gets a copy of the runner that has opened nothing yet.
        runners = [replace(runner, device=places[number % len(places)]) for number in range(count)]
        yield from map_in_processes(run_trial, runners, left, name=lambda trial: f"{trial[0].name}, seed {trial[1]}")
        return
    threads = torch.get_num_threads()
    try:
        for trial in left:
            yield trial, run_trial(runner, trial)
    finally:
        torch.set_num_threads(threads)


def run_trial(runner: TrialRunner, trial: Trial, advance: Advance | None = None) -> dict[str, Any]:
    """Carry out one trial."""
    return runner.run(*trial)


def devices(device: str | None) -> list[str]:
    """List the devices of the trials: the one that was asked for, or every GPU, or the CPU."""
    if device is not None:
        return [device]
    return [f"cuda:{number}" for number in range(torch.cuda.device_count())] or ["cpu"]


def conditions(runner: TrialRunner, name: str) -> tuple[str, ...]:
    """Describe what all trials of an experiment have in common, in lines."""
    scale = runner.scale
    known = sum(len(rows) for rows in runner.known.values())
    real = {one: len(np.load(runner.root / "real" / f"{one}.npy", mmap_mode="r")) for one in ("target", "pool")}
    extractor = "Inception (FID's network)" if runner.inception else runner.scale.encoder
    return (
        runner.pool.describe(),
        f"reference: {known:,} images of {', '.join(runner.sets)} for the methods, K = {scale.k}",
        f"training ({name}): {scale.model} at {scale.size} px on {scale.autoencoder}, {scale.iterations:,} steps of "
        f"{scale.batch}, learning rate {scale.lr:g}, averaged with {scale.ema:g}",
        f"compared: {scale.images:,} generated images ({scale.sampler}, {scale.steps} steps) with {real['target']:,} "
        f"held-out reference images (target) and {real['pool']:,} images of the pool, all at {scale.size} px",
        f"features: {extractor}",
    )


# --- before the trials ------------------------------------------------------------------------------------------------


def prepare(
    runner: TrialRunner,
    codec: Autoencoder,
    pool: Source,
    references: Mapping[str, Source],
    device: str | None,
    observer: Progress,
) -> None:
    """Embed pool and reference sets, encode the pool, and set aside the real images; what is done is left as it is."""
    scale, root = runner.scale, runner.root
    real = [root / "real" / f"{name}.npy" for name in ("target", "pool")]
    if verified_record(root / "real" / "record.json") is not None:  # written last
        runner.pool.reader.check_source(pool)
        for name, source in references.items():
            runner.references[name].reader.check_source(source)
        return
    encoder = load_encoder(scale.encoder, weights=runner.weights, device=device)
    for name, source in references.items():
        embed_run(source, out=root / "references" / name, encoder=encoder, progress=observer)
    known = np.concatenate(list(runner.known.values()))
    fitted = fit_centroids(known, min(scale.k, len(known)), encoder=encoder.provenance())
    # All images, so that every method may choose among all; what this run itself chooses is not used.
    prune(
        pool,
        reference=fitted,
        entropy_keep=1.0,
        encoder=encoder,
        keep_embeddings=True,
        out=root / "pool",
        progress=observer,
    )
    transform = ImageTransform(scale.size)
    cache_latents(pool, codec, transform, out=root / "latents", device=runner.device or "cpu", progress=observer)
    sets = [(runner.references[name], source) for name, source in references.items()]
    target = np.concatenate([pixels(source, one, one.split(SPLIT)[1], transform) for one, source in sets])
    write_npy(real[0], target[sample_rows(scale.real, len(target), SPLIT)])
    embedded = EmbeddedPool.open(root / "pool")
    drawn = sample_rows(scale.real, embedded.embeds.shape[0], SPLIT)
    write_npy(real[1], pixels(pool, embedded, drawn, transform))
    write_record(root / "real" / "record.json", {}, real)


def pixels(
    source: Source, embedded: EmbeddedSet, numbers: NDArray[np.int64], transform: ImageTransform
) -> NDArray[np.uint8]:
    """Read the images of some rows as the network sees them: uint8 (n, S, S, 3)."""
    items = embedded.read(source, numbers)
    return np.concatenate([transform([item.data])[0] for item in items])
