"""`rsprune train`: train a diffusion transformer from scratch, on a collection or on the selection of a run."""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from rsprune.encoders.checkpoints import weights_provenance
from rsprune.errors import ArgumentError
from rsprune.io import check_output_folder, digest, provenance_header
from rsprune.options import keywords, to_config
from rsprune.runners import Progress, show_progress
from rsprune.runs.folder import RunFolder
from rsprune.runs.reader import open_as_run
from rsprune.sources import Source, SourceLike, check_outside
from rsprune.training.autoencoder import Autoencoder, load_autoencoder
from rsprune.training.checkpoint import TrainingFolder, check_state, initial_weights, read_checkpoint
from rsprune.training.config import ModelConfig, OptimizerConfig, PretrainOptions, TrainConfig
from rsprune.training.distributed import DistributedContext, join_processes
from rsprune.training.dit import DiT, DiT_models
from rsprune.training.gaussian_diffusion import p_sample_loop
from rsprune.training.image_grid import to_pixels, write_grid
from rsprune.training.latent_cache import LatentCache, cache_latents
from rsprune.training.latent_loader import LatentLoader, Loader
from rsprune.training.rng import initial_noise
from rsprune.training.trainer import autocast, resolve_precision, train
from rsprune.training.transforms import ImageTransform, Transform

__all__ = ["Trained", "build_network", "pretrain", "run_training", "shared_cache", "train_on"]

#: Sampler steps of the grids that are drawn during training.
GRID_STEPS = 50

#: The name of an unpublished network: width x depth x heads / patch.
SIZES = re.compile(r"(\d+)x(\d+)x(\d+)/(\d+)")


@dataclass(frozen=True)
class Trained:
    """The result of a training."""

    path: Path  # its folder
    checkpoint: Path  # the last one
    losses: NDArray[np.float64]  # (steps, 2): mean squared error of the noise, variational bound in bits per dimension
    metrics: dict[str, Any]  # steps, images per second, mean loss of the last hundredth of the steps

    def describe(self) -> str:
        """Summarize the result in a few lines."""
        metrics = self.metrics
        lines = [f"{metrics['steps']:,} steps, loss {metrics['loss']:.4f} (mean of the last {metrics['window']} steps)"]
        if metrics["images_per_second"]:
            lines[0] += f", {metrics['images_per_second']:,.1f} images/s"
        return "\n".join([*lines, f"written to {self.checkpoint}"])


def build_network(name: str, seed: int, **options: Any) -> DiT:
    """Build a network with initial weights.

    ``name`` is a published network, ``"DiT-XL/2"``, or ``"384x12x6/2"``: width, depth, heads and patch size; for
    ``options`` see :class:`~rsprune.training.dit.DiT`. torch's global generator keeps its state.
    """
    check_model(name)
    sizes = SIZES.fullmatch(name)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        if sizes:
            width, depth, heads, patch = map(int, sizes.groups())
            return DiT(hidden_size=width, depth=depth, num_heads=heads, patch_size=patch, **options)
        return DiT_models[name](**options)


def check_model(name: str) -> None:
    """Raise an :class:`ArgumentError` if there is no such network."""
    if name not in DiT_models and not SIZES.fullmatch(name):
        message = f"model={name!r} is unknown: it is one of {', '.join(DiT_models)}, or WIDTHxBLOCKSxHEADS/PATCH"
        raise ArgumentError(message)


@keywords(PretrainOptions)
def pretrain(
    source: SourceLike, *, out: str | Path, options: PretrainOptions, progress: bool | Progress = True
) -> Trained:
    """Train a diffusion transformer, resumably. The defaults are the published recipe of DiT.

    The same call resumes from the last checkpoint; a finished training goes on if more iterations are asked for.
    Started by `torchrun`, it shares each batch among the processes.

    Parameters
    ----------
    source
        The images, as for :func:`rsprune.prune`.
    out : path
        The folder: ``checkpoints/last.pt`` and ``checkpoints/<step>.pt``, ``samples/<step>.png``, ``losses.csv``,
        ``losses.svg``, ``tensorboard/`` if TensorBoard is installed, ``latents/`` if not elsewhere.
    progress : bool or Progress
        As for :func:`rsprune.prune`.

    Raises
    ------
    ArgumentError
        An option has an impossible value.
    ConfigMismatchError
        The folder holds another training.
    DivergedError
        The loss is NaN or infinite.
    """
    # Impossible options are refused before images are encoded, which may take hours.
    check_model(options.network.model)
    check_output_folder(out, *TrainingFolder.CONTENTS)
    images = open_as_run(source, options.run)
    check_outside(out, images)
    codec = load_autoencoder(options.autoencoder, options.images.channels)
    if options.init_from is not None:
        check_initial(options.init_from, options.network, options.images.size // codec.factor, codec.latents)
    transform = ImageTransform.from_options(options.images)
    folder = Path(out) / "latents" if options.latents is None else Path(options.latents)
    with join_processes(options.device) as dist, show_progress(progress if dist.is_main else False) as shown:
        mirror = options.network.mirror
        cache = shared_cache(dist, folder, images, codec, transform, run=options.run, mirror=mirror, progress=shown)
        network, optimizer, schedule = options.network, options.optimizer, options.schedule
        return train_on(cache, codec, dist, shown, out, network, optimizer, schedule, init_from=options.init_from)


def check_initial(path: Path, network: ModelConfig, input_size: int, in_channels: int) -> None:
    """Raise a :class:`~rsprune.errors.WeightsError` if a checkpoint is not one of the network that is to be trained."""
    for state in initial_weights(path):
        table = state.get("y_embedder.embedding_table.weight")
        # How many classes there are is known when the images have been read.
        classes = None if not network.conditional else 1 if table is None else len(table) - 1
        with torch.device("meta"):
            model = build_network(network.model, 0, input_size=input_size, in_channels=in_channels, num_classes=classes)
        check_state(model, state, path)


def shared_cache(
    dist: DistributedContext, folder: Path, source: Source, codec: Autoencoder, transform: Transform, **options: Any
) -> LatentCache:
    """Encode a collection in the main process, for which the others wait; for ``options`` see :func:`cache_latents`."""
    if dist.is_main:
        return cache_latents(source, codec, transform, out=folder, device=str(dist.device), **options)
    while not RunFolder(folder).summary.exists():
        time.sleep(0.2)
    return LatentCache(folder)


def train_on(
    cache: LatentCache,
    codec: Autoencoder,
    dist: DistributedContext,
    progress: Progress,
    out: str | Path,
    network: ModelConfig,
    optimizer: OptimizerConfig,
    schedule: TrainConfig,
    numbers: NDArray[np.int64] | None = None,
    init_from: Path | None = None,
) -> Trained:
    """Train on a latent cache: on all of its samples, or on those of some ``numbers``, int64 (n,).

    ``codec`` is the autoencoder that made the cache; the rest is as for :func:`pretrain`.
    """
    if network.mirror and cache.views == 1:
        message = f"the latent cache {cache.folder.path} has no mirror images: make another, or train with mirror=False"
        raise ArgumentError(message)
    optimizer = replace(optimizer, precision=resolve_precision(optimizer.precision, dist.device))
    classes = class_names(cache) if network.conditional else None
    num_classes = None if classes is None else len(classes)
    sizes = {"input_size": cache.side, "in_channels": cache.latents, "num_classes": num_classes}
    model = build_network(network.model, optimizer.seed, **sizes)
    codec.scale, codec.shift = cache.measured() if network.measured_scale else (cache.scale, cache.shift)
    data = cache.config | {"cache": digest(cache.config), "images": len(cache), "mirror": network.mirror}
    if numbers is not None:
        data |= {"images": len(numbers), "numbers": digest(numbers.tolist())}
    recipe: dict[str, Any] = {"task": "train", "data": data, "classes": classes}
    if init_from is not None:
        known = (read_checkpoint(init_from, mmap=True).get("recipe") or {}).get("classes", classes)
        if known != classes:
            message = f"{init_from} was trained on the classes {known}, the images have {classes}"
            raise ArgumentError(message)
        recipe["init_from"] = weights_provenance(init_from)
    loader = LatentLoader(cache, codec, model, optimizer, mirror=network.mirror, classes=classes, numbers=numbers)
    return run_training(
        Path(out), recipe, codec, model, loader, optimizer, schedule, dist, progress, init_from=init_from
    )


def run_training(
    out: Path,
    recipe: dict[str, Any],
    codec: Autoencoder,
    model: DiT,
    loader: Loader,
    optimizer: OptimizerConfig,
    schedule: TrainConfig,
    dist: DistributedContext,
    progress: Progress,
    *,
    cond: Tensor | None = None,
    init_from: Path | None = None,
) -> Trained:
    """Train in a folder that no other training works in, and summarize the result.

    ``recipe`` says what the training is of; how it is trained is added to it. ``cond`` are the conditions of a grid of
    samples, (n, cond_channels, h, w).
    """
    recipe = provenance_header() | {
        **recipe,
        "network": model.config,
        "optimisation": to_config(optimizer),
        "scale": codec.scale,
        "shift": codec.shift,
    }
    folder = TrainingFolder(out)
    draw_samples = sample_grid(codec, model, optimizer, dist.device, schedule.samples, cond)
    begun = time.perf_counter()
    codec.to(dist.device)
    with RunFolder(out).lock() if dist.is_main else nullcontext():
        taken, losses = train(
            model, loader, folder, recipe, optimizer, schedule, dist, progress, draw_samples, init_from
        )
    seconds = time.perf_counter() - begun
    window = max(1, len(losses) // 100)
    checkpoint = folder.checkpoint(len(losses))
    metrics = {
        "steps": len(losses),
        "loss": float(losses[-window:].sum(axis=1).mean()),
        "window": window,
        "images_per_second": round(taken * optimizer.batch / seconds, 1),
        "checkpoint": str(checkpoint),
    }
    return Trained(out, checkpoint, losses, metrics)


def class_names(cache: LatentCache) -> list[str]:
    """Return the class folders in the order of the labels; each image must have one."""
    labels = cache.labels
    if None in labels:
        message = f"{labels.count(None)} images have no class folder: a conditional network needs the class of each"
        raise ArgumentError(message)
    return sorted({label for label in labels if label is not None})


def sample_grid(
    codec: Autoencoder, model: DiT, optimizer: OptimizerConfig, device: torch.device, count: int, cond: Tensor | None
) -> Callable[[DiT, Path], None]:
    """Return a function that writes ``count`` samples of a network as one image.

    The samples start from the same noise each time, under the same conditions ``cond``, one each, if there are any.
    """
    count = count if cond is None else len(cond)
    shape = (model.in_channels, model.input_size, model.input_size)
    noise = torch.stack([initial_noise(optimizer.seed, number, shape) for number in range(count)])
    y = None if model.num_classes is None else torch.arange(count, device=device) % model.num_classes
    cond = None if cond is None else cond.to(device)

    def draw(network: DiT, path: Path) -> None:
        def denoise(x: Tensor, t: Tensor) -> Tensor:
            with autocast(device, optimizer.precision):
                output: Tensor = network(x, t, y, cond)
            return output

        with torch.inference_mode():
            latents = p_sample_loop(denoise, noise.to(device), "ddim", GRID_STEPS)
            write_grid(to_pixels(codec.decode(latents)), path)

    return draw
