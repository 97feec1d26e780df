"""`rsprune experiment`: the paper's tables and figures, at a scale that one has the machine for.

Every trial trains the same network for the same number of steps; what it is trained on is all that differs. The folder
holds ``references/<set>`` and ``pool`` (embeddings), ``latents``, ``real`` (what is compared with), ``trials/<trial>``,
and of each experiment ``<name>.txt``, ``.md``, ``.csv`` and ``.svg``, which are renewed after each trial. All
experiments of a pool share one folder, and the trials that they have in common.
"""

from __future__ import annotations

import multiprocessing
import os
import threading
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from multiprocessing.connection import wait
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from rsprune.centroids import fit_centroids
from rsprune.diffusion.autoencoder import load_autoencoder
from rsprune.diffusion.latents import Reading, cache_latents
from rsprune.encoders import load_encoder
from rsprune.errors import ArgumentError
from rsprune.evaluation.features import draw
from rsprune.evaluation.figures import Line, Panel, dots, lines
from rsprune.experiments.grids import GRIDS, Arm, Grid
from rsprune.experiments.pool import EmbeddedPool
from rsprune.experiments.scales import scale_of
from rsprune.experiments.tables import Column, Mean, csv_table, markdown_table, text_table
from rsprune.experiments.trial import SPLIT, Bench
from rsprune.files import write_npy
from rsprune.manifest import RunFolder, software, write_text
from rsprune.pipeline import embed_run, prune
from rsprune.pipeline.options import source_config
from rsprune.pipeline.reference import SourceLike
from rsprune.runners import Observer, observe
from rsprune.sources import open_source

__all__ = ["Experiment", "experiment"]

COLUMNS = (
    Column("rows", "images", 0),
    Column("target_frechet", "target FD", 4),
    Column("target_change", "change", 4),
    Column("target_kernel", "target KD 1e3", 3, 1e3),
    Column("target_precision", "target precision", 3),
    Column("target_recall", "target recall", 3),
    Column("target_coverage", "target coverage", 3),
    Column("pool_frechet", "pool FD", 4),
    Column("pool_kernel", "pool KD 1e3", 3, 1e3),
    Column("pool_precision", "pool precision", 3),
    Column("pool_recall", "pool recall", 3),
    Column("pool_coverage", "pool coverage", 3),
    Column("loss", "loss", 4),
    Column("seconds", "seconds to choose", 2),
    Column("paper", "paper's FID", 2),
)
PANELS = ("target_frechet", "target_kernel", "target_coverage", "pool_frechet", "pool_kernel", "pool_coverage")
BETTER = {"frechet": "lower", "kernel": "lower", "coverage": "higher"}


@dataclass(frozen=True)
class Experiment:
    """An experiment, finished or under way.

    Attributes
    ----------
    path
        Its folder.
    name, grid, arms
        What was asked.
    head
        What was compared, in lines.
    trials
        For each arm's name the figures of its finished trials, by seed.
    failures
        Why an arm has none.
    """

    path: Path
    name: str
    grid: Grid
    arms: tuple[Arm, ...]
    head: tuple[str, ...]
    trials: dict[str, dict[int, Mapping[str, float]]] = field(default_factory=dict)
    failures: dict[str, str] = field(default_factory=dict)

    def add(self, arm: Arm, seed: int, found: Mapping[str, Any]) -> None:
        """Take in what a trial found."""
        if found["failure"] is None:
            self.trials.setdefault(arm.name, {})[seed] = found["figures"]
        else:
            self.failures[arm.name] = found["failure"]

    def summary(self) -> list[tuple[str, dict[str, Any]]]:
        """For each arm with a finished trial its figures: means with their spread between seeds."""
        rows = []
        base = self.trials.get(self.grid.baseline, {})
        for arm in self.arms:
            found = self.trials.get(arm.name, {})
            if not found:
                continue
            figures: dict[str, Any] = {
                name: Mean.of([one[name] for one in found.values()]) for name in next(iter(found.values()))
            }
            figures["rows"] = figures["rows"].value
            both = [seed for seed in found if seed in base and arm.name != self.grid.baseline]
            if both:
                figures["target_change"] = Mean.of(
                    [found[seed]["target_frechet"] - base[seed]["target_frechet"] for seed in both]
                )
            rows.append((arm.name, {**figures, "paper": arm.paper}))
        return rows

    def columns(self) -> list[Column]:
        """Those that have figures."""
        rows = self.summary()
        return [one for one in COLUMNS if any(figures.get(one.name) is not None for _, figures in rows)]

    def notes(self) -> list[str]:
        """How to read the table, and what the paper has."""
        lines = [
            f"change: of the target FD from {self.grid.baseline!r}, trials of one seed with each other",
            "after ± stands the standard deviation between seeds",
            f"the paper: {self.grid.paper.setting}; its figures compare with each other alone",
            *self.grid.paper.notes,
        ]
        return lines + [f"{name}: {why}" for name, why in self.failures.items()]

    def describe(self) -> str:
        """The table as text."""
        table = text_table(self.columns(), self.summary())
        return "\n".join([*self.head, "", table, "", *self.notes(), f"written to {self.path}"])

    def markdown(self) -> str:
        """The table in Markdown."""
        table = markdown_table(self.columns(), self.summary(), "trained on")
        return "\n".join([*(f"- {one}" for one in self.head), "", table, "", *(f"- {one}" for one in self.notes())])

    def csv(self) -> str:
        """All figures of all trials, unrounded."""
        rows = [
            {"arm": arm.name, "seed": seed, **figures, "paper": arm.paper}
            for arm in self.arms
            for seed, figures in sorted(self.trials.get(arm.name, {}).items())
        ]
        names = [column.name for column in COLUMNS if column.name != "target_change"]
        extra = sorted({name for row in rows for name in row} - {"arm", "seed", *names})
        return csv_table(["arm", "seed", *names, *extra], rows)

    def figure(self) -> str:
        """A dot for each trial, or for a sweep the means over its axis with their spread."""
        title = f"{self.name}: {self.grid.title}"
        heads = {column.name: column.head for column in COLUMNS}
        if self.grid.axis is not None:
            found = dict(self.summary())
            swept = [(arm.at, found[arm.name]) for arm in self.arms if arm.at is not None and arm.name in found]
            return lines(title, [self._line(name, heads[name], swept) for name in PANELS if swept])
        names = [arm.name for arm in self.arms]
        seeds = sorted({seed for trials in self.trials.values() for seed in trials})
        panels = [
            Panel(
                heads[measure],
                BETTER[measure.partition("_")[2]],
                [[self.trials.get(name, {}).get(seed, {}).get(measure) for name in names] for seed in seeds],
            )
            for measure in PANELS
        ]
        return dots(title, names, [f"seed {seed}" for seed in seeds], panels)

    def _line(self, name: str, head: str, swept: Sequence[tuple[float, dict[str, Any]]]) -> Line:
        means = [figures[name] for _, figures in swept]
        spreads = [mean.spread or 0.0 for mean in means]
        return Line(
            head,
            self.grid.axis or "",
            [at for at, _ in swept],
            [mean.value for mean in means],
            [mean.value - spread for mean, spread in zip(means, spreads, strict=True)],
            [mean.value + spread for mean, spread in zip(means, spreads, strict=True)],
        )

    def write(self) -> None:
        """Write table and figure."""
        write_text(self.path / f"{self.name}.txt", self.describe() + "\n")
        write_text(self.path / f"{self.name}.md", self.markdown() + "\n")
        write_text(self.path / f"{self.name}.csv", self.csv())
        write_text(self.path / f"{self.name}.svg", self.figure())


def experiment(
    name: str,
    pool: SourceLike,
    references: Mapping[str, SourceLike],
    *,
    out: str | Path,
    scale: str = "cpu",
    options: Mapping[str, Any] | None = None,
    weights: str | Path | None = None,
    inception: str | Path | None = None,
    device: str | None = None,
    workers: int | None = None,
    threads: int = 1,
    progress: bool | Observer = True,
) -> Experiment:
    """Run one of the paper's experiments: the same training on what different methods keep, several times.

    The same call goes on from what is done; a trial that was stopped goes on from its last checkpoint.

    Parameters
    ----------
    name
        ``"table1"`` to ``"table4"``, ``"fig3"`` or ``"fig4"``: see ``docs/experiments.md``.
    pool
        The collection that is chosen from, as for :func:`rsprune.prune`.
    references
        Labelled scene images by the names of their sets. Half of each, drawn, is for the methods; the other half is the
        target that generated images are compared with.
    out
        The folder, which the experiments of one pool may share.
    scale
        ``"paper"``, ``"gpu"`` or ``"cpu"``: see :data:`rsprune.experiments.scales.SCALES`.
    options
        What is to be other than in the scale: ``{"iterations": 2000, "autoencoder": "sd-vae-ft-ema/"}``.
    weights
        Of the encoder, where they are not found by themselves.
    inception
        The weights of FID's Inception network. Without them features are the encoder's, and no figure is called FID.
    device
        ``"cpu"`` or ``"cuda"``; a GPU if there is one if None.
    workers
        Trials at once, each in a process of its own: by default one a GPU, or one a core.
    threads
        Of each trial. On a CPU figures depend on it in their last bits, not on ``workers``.
    progress
        As for :func:`rsprune.prune`.

    Raises
    ------
    ArgumentError
        No such experiment, scale or option; no autoencoder where the scale has none.
    ConfigMismatchError
        The folder holds experiments with other images, or another encoder, autoencoder or size.
    """
    if name not in GRIDS:
        message = f"no experiment {name!r}; there are {', '.join(GRIDS)}"
        raise ArgumentError(message)
    if not references:
        message = "no reference sets; expected at least one"
        raise ArgumentError(message)
    grid = GRIDS[name]
    changes = dict(options or {})
    if scale == "paper" and grid.paper_iterations:
        changes.setdefault("iterations", grid.paper_iterations)
    chosen = scale_of(scale, changes)
    if chosen.autoencoder is None:
        message = f"the scale {scale!r} names no autoencoder: give the folder of one, autoencoder=sd-vae-ft-ema/"
        raise ArgumentError(message)
    arms = grid.arms(chosen, tuple(references))
    places = devices(device)
    folder = RunFolder(out)
    bench = Bench(folder.path, chosen, tuple(references), weights, inception, places[0], threads)
    config = software() | {
        "pool": source_config(open_source(pool)),
        "references": {one: source_config(open_source(source)) for one, source in references.items()},
        **{one: getattr(chosen, one) for one in ("encoder", "autoencoder", "size", "real")},
        "device": torch.device(places[0]).type,
    }
    with folder.lock(), observe(progress) as observer:
        folder.start(config)
        prepare(bench, pool, references, None if device is None else places[0], observer)
        plan = [(arm, seed) for seed in range(chosen.seeds) for arm in arms]
        result = Experiment(folder.path, name, grid, arms, conditions(bench, scale))
        left = []
        for arm, seed in plan:
            if found := bench.done(arm, seed):
                result.add(arm, seed, found)
            else:
                left.append((arm, seed))
        steps = chosen.iterations
        observer.start("trials", len(plan) * steps, (len(plan) - len(left)) * steps)
        result.write()
        for arm, seed, found in run_trials(bench, left, places, workers):
            result.add(arm, seed, found)
            result.write()
            observer.advance(steps)
        observer.finish()
    return result


def devices(device: str | None) -> list[str]:
    """Where trials compute: the device that was asked for, or every GPU, or the CPU."""
    if device is not None:
        return [device]
    return [f"cuda:{number}" for number in range(torch.cuda.device_count())] or ["cpu"]


def conditions(bench: Bench, name: str) -> tuple[str, ...]:
    """What all trials of an experiment have in common, in lines."""
    scale = bench.scale
    known = sum(len(rows) for rows in bench.known.values())
    real = {one: len(np.load(bench.root / "real" / f"{one}.npy", mmap_mode="r")) for one in ("target", "pool")}
    extractor = "Inception (FID's network)" if bench.inception else bench.scale.encoder
    return (
        bench.pool.describe(),
        f"reference: {known:,} images of {', '.join(bench.sets)} for the methods, K = {scale.k}",
        f"training ({name}): {scale.model} at {scale.size} px on {scale.autoencoder}, {scale.iterations:,} steps of "
        f"{scale.batch}, learning rate {scale.lr:g}, averaged with {scale.ema:g}",
        f"compared: {scale.images:,} generated images ({scale.sampler}, {scale.steps} steps) with {real['target']:,} "
        f"held-out reference images (target) and {real['pool']:,} images of the pool, all at {scale.size} px",
        f"features: {extractor}",
    )


# --- before the trials ------------------------------------------------------------------------------------------------


def prepare(
    bench: Bench, pool: SourceLike, references: Mapping[str, SourceLike], device: str | None, observer: Observer
) -> None:
    """Embed pool and reference sets, encode the pool, and set aside the real images; what is done is left as it is."""
    scale, root = bench.scale, bench.root
    if (root / "real" / "pool.npy").exists():  # written last
        return
    encoder = load_encoder(scale.encoder, weights=bench.weights, device=device)
    for name, source in references.items():
        embed_run(source, out=root / "references" / name, encoder=encoder, progress=observer)
    known = np.concatenate(list(bench.known.values()))
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
    assert scale.autoencoder is not None
    codec, reading = load_autoencoder(scale.autoencoder), Reading(scale.size)
    cache_latents(pool, codec, reading, out=root / "latents", device=bench.device or "cpu", progress=observer)
    held = {name: {one.keys[row] for row in one.split(SPLIT)[1].tolist()} for name, one in bench.references.items()}
    target = np.concatenate([pixels(source, held[name], reading) for name, source in references.items()])
    write_npy(root / "real" / "target.npy", target[draw(scale.real, len(target), SPLIT)])
    keys = EmbeddedPool.open(root / "pool").keys
    drawn = {keys[row] for row in draw(scale.real, len(keys), SPLIT).tolist()}
    write_npy(root / "real" / "pool.npy", pixels(pool, drawn, reading))


def pixels(source: SourceLike, keys: set[str], reading: Reading) -> NDArray[np.uint8]:
    """The images of some keys, as the network sees them: uint8 (n, S, S, 3)."""
    images = open_source(source)
    wanted = (item.data for shard in images.shards for item in images.read(shard) if item.key in keys)
    return np.concatenate([reading([data])[0] for data in wanted])


# --- the trials -------------------------------------------------------------------------------------------------------

Trial = tuple[Arm, int]


def run_trials(
    bench: Bench, left: Sequence[Trial], places: Sequence[str], workers: int | None
) -> Iterator[tuple[Arm, int, dict[str, Any]]]:
    """Carry out trials, and yield each with its figures when it is done."""
    on_cpu = torch.device(places[0]).type == "cpu"
    count = workers or ((os.cpu_count() or 1) // bench.threads if on_cpu else len(places))
    if min(count, len(left)) <= 1:
        threads = torch.get_num_threads()
        try:
            for arm, seed in left:
                yield arm, seed, bench.run(arm, seed)
        finally:
            torch.set_num_threads(threads)
        return
    # Processes of their own: a trial's many small operations would wait for each other's interpreter. They get a copy
    # of the bench that has opened nothing yet.
    spawn = multiprocessing.get_context("spawn")
    numbers = spawn.Queue()
    for number in range(count):
        numbers.put(places[number % len(places)])
    with ExitStack() as stack:
        executor = ProcessPoolExecutor(count, spawn, initializer=take_place, initargs=(replace(bench), numbers))
        stack.callback(executor.shutdown, wait=True, cancel_futures=True)
        waiting = {executor.submit(run_here, arm, seed): (arm, seed) for arm, seed in left}
        for future in as_completed(waiting):
            yield *waiting[future], future.result()


_here: list[Bench] = []


def take_place(bench: Bench, places: Any) -> None:
    """Make this process one that carries out trials, as long as the one that started it lives."""
    _here.append(replace(bench, device=places.get()))
    threading.Thread(target=leave_with_parent, daemon=True).start()


def leave_with_parent() -> None:
    """End this process when its parent is gone: an orphan would hold the folder of its trial."""
    parent = multiprocessing.parent_process()
    assert parent is not None
    wait([parent.sentinel])
    os._exit(1)


def run_here(arm: Arm, seed: int) -> dict[str, Any]:
    """Carry out a trial in this process."""
    return _here[0].run(arm, seed)
