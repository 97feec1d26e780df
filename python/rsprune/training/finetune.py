"""`rsprune finetune`: from a trained network to super-resolution (SR) or semantic image synthesis (SIS).

The condition is concatenated to the noisy input. The columns of its channels begin at zero, so that the first step
starts from exactly what the trained network predicts.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from rsprune.encoders.weights import weights_provenance
from rsprune.errors import ArgumentError, EmptyInputError
from rsprune.io import digest, provenance_header
from rsprune.runners import Progress, show_progress
from rsprune.sources import Source, SourceLike, open_source
from rsprune.training.autoencoder import Autoencoder
from rsprune.training.checkpoint import Which, load_dit, read_checkpoint, start_from
from rsprune.training.distributed import Processes, processes
from rsprune.training.dit import DiT
from rsprune.training.label_maps import DATASETS, Dataset, LabelReading, OneHot, open_pairs
from rsprune.training.latent_cache import LatentCache, PixelReader, Reading, cache_latents
from rsprune.training.pretrain import Feed, Preview, Trained, run_training, shared
from rsprune.training.sample import codec_of
from rsprune.training.trainer import Optimisation, Precision, Schedule, precision_on

__all__ = ["Encoding", "Task", "finetune_sis", "finetune_sr"]

#: How a label map becomes channels: the share of each class in a latent pixel, or its colours through the autoencoder.
Encoding = Literal["onehot", "palette"]


@dataclass(frozen=True)
class Task:
    """What is learnt: images, what each is made from, and how both become channels.

    Attributes
    ----------
    name
        ``"sr"`` or ``"sis"``.
    images, conditions
        Two collections of the same rows.
    reading, condition_reading
        How they become pixels.
    condition_codec
        What makes channels of the condition's pixels; None for the network's own autoencoder.
    options
        What else the recipe is to say.
    """

    name: Literal["sr", "sis"]
    images: Source
    conditions: Source
    reading: PixelReader
    condition_reading: PixelReader
    condition_codec: Autoencoder | None
    options: dict[str, Any]


class Paired:
    """The conditions of the images that have both."""

    def __init__(self, images: LatentCache, conditions: LatentCache, codec: Autoencoder) -> None:
        _, self.numbers, others = np.intersect1d(images.positions, conditions.positions, return_indices=True)
        if not len(self.numbers):
            message = f"no image of {images.folder.path} has a condition in {conditions.folder.path} that could be read"
            raise EmptyInputError(message)
        self.other = np.full(len(images), -1, np.int64)
        self.other[self.numbers] = others
        self.conditions, self.codec = conditions, codec

    def __call__(self, numbers: NDArray[np.int64], mirrored: NDArray[np.bool_]) -> Tensor:
        """The channels that condition some images: the mean of their latents, which needs no draw."""
        moments = self.conditions.moments(self.other[numbers], mirrored)
        return self.codec.normalize(moments[:, : self.conditions.latents])


def finetune_sr(
    source: SourceLike,
    checkpoint: str | Path,
    *,
    out: str | Path,
    factor: int = 4,
    size: int | None = None,
    bands: Sequence[int] | None = None,
    autoencoder: str | Path | None = None,
    **options: Any,
) -> Trained:
    """Fine-tune a network to super-resolution, resumably.

    The low resolution is the image made smaller by ``factor`` and larger again, both by Pillow's bicubic filter, and
    encoded as the image is. (The paper says neither its factor nor its filter.)

    Parameters
    ----------
    source
        Images of high resolution, as for :func:`rsprune.prune`. Those of SECOND are its folders ``im1`` and ``im2``.
    checkpoint : path
        The trained network.
    out : path
        The folder: see :func:`~rsprune.training.pretrain.pretrain`.
    factor : int
        How many times smaller the low resolution is.
    size : int, optional
        Height and width of the images. What the network was trained on if not given.
    bands : sequence of int, optional
        See :class:`~rsprune.training.latent_cache.Reading`. Those that the network was trained on if not given; samples
        of 16 bits are read by the range that it was trained with.
    autoencoder : str or path, optional
        See :func:`~rsprune.training.sample.codec_of`.
    **options
        See :func:`tune`.
    """
    if factor < 2:
        message = f"factor must be 2 or more, got {factor}"
        raise ArgumentError(message)
    recipe, codec = base_of(checkpoint, autoencoder)
    side = size or side_of(checkpoint, recipe, codec)
    base = recipe.get("data", {})
    taken, extent = (tuple(found) if found else None for found in (bands or base.get("bands"), base.get("valid_range")))
    images = open_source(source)
    reading, low = (Reading(side, codec.channels, taken, extent, reduced) for reduced in (1, factor))
    task = Task("sr", images, images, reading, low, None, {"factor": factor})
    return tune(task, checkpoint, recipe, codec, out=out, **options)


def finetune_sis(
    root: str | Path,
    checkpoint: str | Path,
    *,
    out: str | Path,
    dataset: Dataset,
    encoding: Encoding = "onehot",
    size: int | None = None,
    autoencoder: str | Path | None = None,
    **options: Any,
) -> Trained:
    """Fine-tune a network to draw images from label maps, resumably.

    Parameters
    ----------
    root : path
        The folder of the data set: see :func:`~rsprune.training.label_maps.open_pairs`.
    checkpoint, out, size, autoencoder
        As for :func:`finetune_sr`.
    dataset : str
        ``"second"`` or ``"openearthmap"``.
    encoding : str
        ``"onehot"``: the share of each class in a latent pixel. ``"palette"``: the label map in its colours, through
        the autoencoder. (The paper does not say which.)
    **options
        See :func:`tune`.
    """
    if encoding not in ("onehot", "palette"):
        message = f'encoding={encoding!r} is unknown: it is "onehot" or "palette"'
        raise ArgumentError(message)
    images, labels = open_pairs(dataset, root)
    recipe, codec = base_of(checkpoint, autoencoder)
    side = size or side_of(checkpoint, recipe, codec)
    palette, painted = DATASETS[dataset], encoding == "palette"
    own = None if painted else OneHot(len(palette.names), codec.factor)
    reading = LabelReading(side, palette, painted)
    task = Task(
        "sis", images, labels, Reading(side, codec.channels), reading, own, {"dataset": dataset, "encoding": encoding}
    )
    return tune(task, checkpoint, recipe, codec, out=out, **options)


def base_of(checkpoint: str | Path, autoencoder: str | Path | None) -> tuple[dict[str, Any], Autoencoder]:
    """The recipe of a trained network, and its autoencoder."""
    recipe = read_checkpoint(checkpoint, mmap=True).get("recipe") or {}
    return recipe, codec_of(recipe, autoencoder)


def side_of(checkpoint: str | Path, recipe: dict[str, Any], codec: Autoencoder) -> int:
    """Height and width of the images that a network was trained on."""
    network = recipe.get("network") or load_dit(checkpoint).config
    return int(network["input_size"]) * codec.factor


def tune(
    task: Task,
    checkpoint: str | Path,
    base: dict[str, Any],
    codec: Autoencoder,
    *,
    out: str | Path,
    weights: Which = "ema",
    iterations: int = 5000,
    batch: int = 256,
    micro_batch: int | None = None,
    lr: float = 1e-4,
    ema: float = 0.9999,
    precision: Precision = "auto",
    checkpoint_every: int = 500,
    sample_every: int = 1000,
    samples: int = 16,
    device: str | None = None,
    seed: int = 0,
    progress: bool | Progress = True,
) -> Trained:
    """Fine-tune for a task. The latents of images and conditions are kept in ``out/latents`` and ``out/conditions``.

    Parameters
    ----------
    weights : str
        Which weights of the checkpoint to begin with, ``"ema"`` or ``"model"``.
    iterations : int
        Steps; the paper takes 5,000.
    batch, micro_batch, lr, ema, precision, checkpoint_every, sample_every, samples, device, seed, progress
        As for :func:`~rsprune.training.pretrain.pretrain`.
    """
    path, folder = Path(checkpoint), Path(out)
    schedule = Schedule(iterations, micro_batch, checkpoint_every, iterations, sample_every, min(50, sample_every))
    condition_codec = task.condition_codec or codec

    def images(us: Processes, observer: Progress) -> LatentCache:
        place = folder / "latents"
        return cache_latents(task.images, codec, task.reading, out=place, device=str(us.device), progress=observer)

    def conditions(us: Processes, observer: Progress) -> LatentCache:
        place, model = folder / "conditions", condition_codec
        return cache_latents(
            task.conditions, model, task.condition_reading, out=place, device=str(us.device), progress=observer
        )

    with processes(device) as us, show_progress(progress if us.first else False) as observer:
        latents, channels = (
            shared(us, observer, fill, folder / name)
            for fill, name in ((images, "latents"), (conditions, "conditions"))
        )
        pairs = Paired(latents, channels, condition_codec)
        network = widened(path, weights, channels.latents)
        optimisation = Optimisation(batch, lr, 0.0, ema, precision_on(us.device, precision), seed)
        recipe = provenance_header() | {
            "task": task.name,
            "options": task.options,
            "base": {"checkpoint": weights_provenance(path), "weights": weights},
            "network": network.config,
            "optimisation": asdict(optimisation),
            "data": latents.config | {"images": len(pairs.numbers), "cache": digest(latents.config)},
            "conditions": channels.config,
            "scale": codec.scale,
            "shift": codec.shift,
            "classes": None,
        }
        feed = Feed(latents, codec, None, network, optimisation, True, pairs.numbers, pairs)
        shown = pairs.numbers[: max(samples, 1)]
        cond = pairs(shown, np.zeros(len(shown), bool))
        codec.to(us.device)
        preview = Preview(codec, network, optimisation, us, len(shown), cond)
        return run_training(folder, recipe, network, feed, optimisation, schedule, us, observer, preview)


def widened(path: Path, weights: Which, channels: int) -> DiT:
    """The trained network with channels for a condition, and without classes."""
    config = load_dit(path, weights).config | {"cond_channels": channels, "num_classes": None}
    with torch.random.fork_rng(devices=[]):
        network = DiT(**config)
    start_from(network, path, weights)
    return network
