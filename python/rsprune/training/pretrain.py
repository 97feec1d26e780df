"""`rsprune train`: a diffusion transformer from scratch, on a collection or on what a run chose of it."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from rsprune.errors import ArgumentError
from rsprune.io import digest, provenance_header
from rsprune.runners import Progress, show_progress
from rsprune.runs.folder import RunFolder
from rsprune.sources import SourceLike
from rsprune.training.autoencoder import Autoencoder, load_autoencoder
from rsprune.training.distributed import Processes, processes
from rsprune.training.dit import DiT, DiT_models
from rsprune.training.gaussian_diffusion import sample
from rsprune.training.image_grid import to_pixels, write_grid
from rsprune.training.latent_cache import LatentCache, Reading, cache_latents
from rsprune.training.rng import Order, draw_batch, start_noise
from rsprune.training.trainer import (
    Batch,
    Optimisation,
    Precision,
    Schedule,
    TrainingFolder,
    autocast,
    precision_on,
    train,
)

__all__ = ["Condition", "Feed", "Preview", "Trained", "build_network", "pretrain", "run_training", "shared", "train_on"]

#: Sampler steps of the grids that are drawn while training.
PREVIEW_STEPS = 50

#: A network of other sizes than the published: width x blocks x heads / patch.
SIZES = re.compile(r"(\d+)x(\d+)x(\d+)/(\d+)")


@dataclass(frozen=True)
class Trained:
    """A training that has come to its end.

    Attributes
    ----------
    path
        Its folder.
    checkpoint
        The last checkpoint.
    losses
        float64 (steps, 2): mean squared error of the noise, and the bound in bits per dimension.
    figures
        Steps, images a second, the mean loss of the last hundredth of the steps.
    """

    path: Path
    checkpoint: Path
    losses: NDArray[np.float64]
    figures: dict[str, Any]

    def describe(self) -> str:
        """Say what came out, in a few lines."""
        figures = self.figures
        lines = [f"{figures['steps']:,} steps, loss {figures['loss']:.4f} (mean of the last {figures['window']} steps)"]
        if figures["images_per_second"]:
            lines[0] += f", {figures['images_per_second']:,.1f} images/s"
        return "\n".join([*lines, f"written to {self.checkpoint}"])


def build_network(name: str, seed: int, **options: Any) -> DiT:
    """Make a network with fresh weights.

    Parameters
    ----------
    name : str
        A published one, ``"DiT-XL/2"``, or ``"384x12x6/2"``: width, blocks, heads and patch.
    seed : int
        Of its weights. torch's global generator is left as it is.
    **options
        Of :class:`~rsprune.training.dit.DiT`.

    Raises
    ------
    ArgumentError
        If there is no such network, or its sizes do not divide.
    """
    check_network(name)
    own = SIZES.fullmatch(name)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        if own:
            width, depth, heads, patch = map(int, own.groups())
            return DiT(hidden_size=width, depth=depth, num_heads=heads, patch_size=patch, **options)
        return DiT_models[name](**options)


def check_network(name: str) -> None:
    """Fail when there is no such network."""
    if name not in DiT_models and not SIZES.fullmatch(name):
        message = f"model={name!r} is unknown: it is one of {', '.join(DiT_models)}, or WIDTHxBLOCKSxHEADS/PATCH"
        raise ArgumentError(message)


def pretrain(
    source: SourceLike,
    *,
    out: str | Path,
    autoencoder: str | Path = "identity",
    size: int = 256,
    channels: int = 3,
    bands: Sequence[int] | None = None,
    valid_range: tuple[int, int] | None = None,
    run: str | Path | None = None,
    latents: str | Path | None = None,
    model: str = "DiT-XL/2",
    conditional: bool = False,
    measured_scale: bool = False,
    iterations: int = 100_000,
    batch: int = 256,
    micro_batch: int | None = None,
    lr: float = 1e-4,
    weight_decay: float = 0.0,
    ema: float = 0.9999,
    mirror: bool = True,
    precision: Precision = "auto",
    compile: bool = False,
    checkpoint_every: int = 2500,
    keep_every: int = 50_000,
    sample_every: int = 10_000,
    samples: int = 16,
    device: str | None = None,
    seed: int = 0,
    progress: bool | Progress = True,
) -> Trained:
    """Train a diffusion transformer, resumably. The defaults are the published recipe of DiT.

    The same call goes on from the last checkpoint. Started by `torchrun`, it shares each batch among the processes.

    Parameters
    ----------
    source
        The images, as for :func:`rsprune.prune`.
    out : path
        The folder: ``checkpoints/last.pt`` and ``checkpoints/<step>.pt``, ``samples/<step>.png``, ``losses.csv``,
        ``losses.png``, ``tensorboard/`` where TensorBoard is installed, ``latents/`` if not elsewhere.
    autoencoder : str or path
        As for :func:`~rsprune.training.autoencoder.load_autoencoder`.
    size, channels, bands, valid_range
        How images are read: see :class:`~rsprune.training.latent_cache.Reading`.
    run : path, optional
        The run folder of :func:`rsprune.prune`, whose selection is trained on. All images if not given.
    latents : path, optional
        The folder of the latent cache, which several trainings may share. ``out/latents`` if not given.
    model : str
        See :func:`build_network`.
    conditional : bool
        Whether the network is told the class folder of an image. If not it is told the time step only.
    measured_scale : bool
        Bring the latents to mean 0 and deviation 1 as measured, instead of by the autoencoder's own scale.
    iterations, batch, micro_batch, checkpoint_every, keep_every, sample_every, compile
        See :class:`~rsprune.training.trainer.Schedule` and :class:`~rsprune.training.trainer.Optimisation`. A training
        that is done goes on when more iterations are asked for.
    lr, weight_decay, ema, seed
        See :class:`~rsprune.training.trainer.Optimisation`.
    mirror : bool
        Whether half of the samples are mirror images.
    precision : str
        ``"auto"``, ``"float32"`` or ``"bfloat16"``.
    samples : int
        Images of a grid.
    device : str, optional
        The GPU of this process's number if not given, or the CPU where there is none.
    progress : bool or Progress
        As for :func:`rsprune.prune`.

    Raises
    ------
    ArgumentError
        If an option has a value that it cannot have.
    ConfigMismatchError
        If the folder holds another training.
    DivergedError
        If the loss is no longer a number.
    """
    schedule = Schedule(
        iterations,
        micro_batch,
        checkpoint_every,
        keep_every,
        sample_every,
        log_every=min(50, sample_every),
        compile=compile,
    )
    # What cannot be is refused before images are encoded, which may take hours.
    check_network(model)
    optimisation = Optimisation(batch, lr, weight_decay, ema, seed=seed)
    codec = load_autoencoder(autoencoder, channels)
    reading = Reading(size, channels, None if bands is None else tuple(bands), valid_range)
    cache_folder = Path(out) / "latents" if latents is None else Path(latents)

    def fill(us: Processes, observer: Progress) -> LatentCache:
        return cache_latents(
            source,
            codec,
            reading,
            out=cache_folder,
            run=run,
            mirror=mirror,
            device=str(us.device),
            progress=observer,
        )

    with processes(device) as us, show_progress(progress if us.first else False) as observer:
        cache = shared(us, observer, fill, cache_folder)
        return train_on(
            cache,
            codec,
            us,
            observer,
            out=out,
            model=model,
            optimisation=replace(optimisation, precision=precision_on(us.device, precision)),
            schedule=schedule,
            conditional=conditional,
            measured_scale=measured_scale,
            mirror=mirror,
            samples=samples,
        )


def train_on(
    cache: LatentCache,
    codec: Autoencoder,
    us: Processes,
    observer: Progress,
    *,
    out: str | Path,
    model: str,
    optimisation: Optimisation,
    schedule: Schedule,
    numbers: NDArray[np.int64] | None = None,
    conditional: bool = False,
    measured_scale: bool = False,
    mirror: bool = True,
    samples: int = 16,
) -> Trained:
    """Train on latents that are there already: all of a cache, or the samples of some ``numbers``, int64 (n,).

    ``codec`` is the autoencoder that made them; the rest is as for :func:`pretrain`.
    """
    if mirror and cache.views == 1:
        message = f"the latent cache {cache.folder.path} has no mirror images: make another, or train with mirror=False"
        raise ArgumentError(message)
    classes = class_names(cache) if conditional else None
    options = {
        "input_size": cache.side,
        "in_channels": cache.latents,
        "num_classes": None if classes is None else len(classes),
    }
    network = build_network(model, optimisation.seed, **options)
    codec.scale, codec.shift = cache.measured() if measured_scale else (cache.scale, cache.shift)
    codec.to(us.device)
    data = cache.config | {"cache": digest(cache.config), "images": len(cache), "mirror": mirror}
    if numbers is not None:
        data |= {"images": len(numbers), "numbers": digest(numbers.tolist())}
    recipe = provenance_header() | {
        "task": "train",
        "network": network.config,
        "optimisation": asdict(optimisation),
        "data": data,
        "scale": codec.scale,
        "shift": codec.shift,
        "classes": classes,
    }
    feed = Feed(cache, codec, classes, network, optimisation, mirror, numbers)
    preview = Preview(codec, network, optimisation, us, samples)
    return run_training(Path(out), recipe, network, feed, optimisation, schedule, us, observer, preview)


def shared(
    us: Processes, observer: Progress, fill: Callable[[Processes, Progress], LatentCache], folder: Path
) -> LatentCache:
    """The latent cache, made by the first process while the others wait."""
    if us.first:
        return fill(us, observer)
    while not RunFolder(folder).summary.exists():
        time.sleep(0.2)
    return LatentCache(folder)


def run_training(
    out: Path,
    recipe: dict[str, Any],
    network: DiT,
    feed: Callable[[int, range], Batch],
    optimisation: Optimisation,
    schedule: Schedule,
    us: Processes,
    observer: Progress,
    preview: Callable[[DiT, Path], None],
) -> Trained:
    """Train in a folder that no other training works in, and say what came out."""
    folder = TrainingFolder(out)
    begun = time.perf_counter()
    with RunFolder(out).lock() if us.first else nullcontext():
        taken, losses = train(network, feed, folder, recipe, optimisation, schedule, us, observer, preview)
    seconds = time.perf_counter() - begun
    window = max(1, len(losses) // 100)
    figures = {
        "steps": len(losses),
        "loss": float(losses[-window:].sum(axis=1).mean()),
        "window": window,
        "images_per_second": round(taken * optimisation.batch / seconds, 1),
        "checkpoint": str(folder.checkpoint(len(losses))),
    }
    return Trained(out, folder.checkpoint(len(losses)), losses, figures)


def class_names(cache: LatentCache) -> list[str]:
    """The class folders, in the order of the labels.

    Raises
    ------
    ArgumentError
        If some image lies in none.
    """
    labels = cache.labels
    if None in labels:
        message = f"{labels.count(None)} images have no class folder: a conditional network needs the class of each"
        raise ArgumentError(message)
    return sorted({label for label in labels if label is not None})


#: What conditions some samples: their numbers and whether they are mirrored, to (n, cond_channels, S, S).
Condition = Callable[[NDArray[np.int64], NDArray[np.bool_]], Tensor]


class Feed:
    """Makes the samples of a step from the latent cache.

    Parameters
    ----------
    cache : LatentCache
        Of the images.
    codec : Autoencoder
        What scales the latents.
    classes : list of str, optional
        The class folders in the order of the labels, for a conditional network.
    network, optimisation
        What is trained, and how.
    mirror : bool
        Whether half of the samples are mirror images.
    numbers : ndarray, optional
        The samples of the cache that are trained on. All if not given.
    condition : callable, optional
        What else the network sees.
    """

    def __init__(
        self,
        cache: LatentCache,
        codec: Autoencoder,
        classes: list[str] | None,
        network: DiT,
        optimisation: Optimisation,
        mirror: bool,
        numbers: NDArray[np.int64] | None = None,
        condition: Condition | None = None,
    ) -> None:
        self.cache, self.normalize, self.mirror = cache, codec.normalize, mirror
        self.numbers = np.arange(len(cache)) if numbers is None else numbers
        self.condition = condition
        self.seed = optimisation.seed
        self.order = Order(self.seed, len(self.numbers), optimisation.batch)
        self.null, self.dropout = network.null_label, network.config["class_dropout_prob"]
        self.labels: list[int] | None = None
        if classes is not None:
            label_of = {name: i for i, name in enumerate(classes)}
            self.labels = [label_of[label] for label in cache.labels if label is not None]

    def __call__(self, step: int, positions: range) -> Batch:
        """The samples at some positions of a step's batch."""
        cache = self.cache
        shape = (cache.latents, cache.side, cache.side)
        draws = draw_batch(self.seed, step, positions, shape)
        ids = self.numbers[[self.order(step, position) for position in positions]]
        mirrored = self.mirror & (draws.mirrored < 0.5)
        latents = cache.sample(ids, mirrored, draws.posterior)
        y = None
        if self.labels is not None:
            kept = draws.dropped >= self.dropout
            y = torch.tensor([self.labels[i] if keep else self.null for i, keep in zip(ids, kept, strict=True)])
        cond = None if self.condition is None else self.condition(ids, mirrored)
        return Batch(self.normalize(latents), draws.noise, draws.t, y, cond)


class Preview:
    """Draws a grid of samples, from the same noise each time, under the same conditions ``cond`` if there are such."""

    def __init__(
        self,
        codec: Autoencoder,
        network: DiT,
        optimisation: Optimisation,
        us: Processes,
        count: int,
        cond: Tensor | None = None,
    ) -> None:
        shape = (network.in_channels, network.input_size, network.input_size)
        self.cond = None if cond is None else cond.to(us.device)
        self.start = torch.stack([start_noise(optimisation.seed, number, shape) for number in range(max(count, 1))])
        self.codec, self.device, self.precision = codec, us.device, optimisation.precision

    def __call__(self, network: DiT, path: Path) -> None:
        """Write the grid of a network as a picture."""
        y = None
        if network.num_classes is not None:
            y = torch.arange(len(self.start), device=self.device) % network.num_classes

        def denoise(x: Tensor, t: Tensor) -> Tensor:
            with autocast(self.device, self.precision):
                out: Tensor = network(x, t, y, self.cond)
            return out

        with torch.inference_mode():
            latents = sample(denoise, self.start.to(self.device), "ddim", PREVIEW_STEPS)
            write_grid(to_pixels(self.codec.decode(latents)), path)
