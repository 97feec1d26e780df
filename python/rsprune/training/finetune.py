"""`rsprune finetune`: from a trained network to super-resolution (SR) or semantic image synthesis (SIS).

The condition is concatenated to the noisy input. The weights of its channels start at zero, so that the first step
starts from exactly what the trained network predicts.
"""

from __future__ import annotations

import warnings
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from rsprune.encoders.checkpoints import weights_provenance
from rsprune.io import check_output_folder, digest
from rsprune.options import keywords
from rsprune.runners import Progress, show_progress
from rsprune.sources import SourceLike, check_outside
from rsprune.training.autoencoder import Autoencoder
from rsprune.training.checkpoint import TrainingFolder, load_dit, read_checkpoint, start_from
from rsprune.training.conditioning import Conditioning, open_conditioning, pair_samples
from rsprune.training.config import FinetuneOptions, SisOptions, SrOptions, Which
from rsprune.training.distributed import join_processes
from rsprune.training.dit import DiT
from rsprune.training.latent_loader import LatentLoader
from rsprune.training.pretrain import Trained, run_training, shared_cache
from rsprune.training.sample import recipe_autoencoder
from rsprune.training.trainer import resolve_precision

__all__ = ["finetune_sis", "finetune_sr"]

#: Share of the weights before fine-tuning in the averaged weights after it, from which a warning is issued, and the
#: share that the warning suggests.
MAX_SHARE, SUGGESTED_SHARE = 0.05, 0.01


@keywords(SrOptions)
def finetune_sr(
    source: SourceLike,
    checkpoint: str | Path,
    *,
    out: str | Path,
    options: SrOptions,
    progress: bool | Progress = True,
) -> Trained:
    """Fine-tune a network to super-resolution, resumably.

    The low resolution is the image made smaller by ``factor`` and enlarged again, both by Pillow's bicubic filter, and
    encoded as the image is. (The paper gives neither its factor nor its filter.) Samples of 16 bits are read by the
    range that the network was trained with.

    Parameters
    ----------
    source
        Images of high resolution, as for :func:`rsprune.prune`. Those of SECOND are its folders ``im1`` and ``im2``.
    checkpoint : path
        The trained network.
    out : path
        The folder; see :func:`~rsprune.training.pretrain.pretrain`. The latents of images and conditions are kept in
        ``latents`` and ``conditions``.
    progress : bool or Progress
        As for :func:`rsprune.prune`.
    """
    recipe, codec, size = open_base(checkpoint, options.tuning)
    data = recipe.get("data", {}) | ({"bands": options.bands} if options.bands else {})
    pairs = open_conditioning("sr", source, codec, {"factor": options.factor}, size, data)
    return finetune(pairs, checkpoint, codec, Path(out), options.tuning, progress)


@keywords(SisOptions)
def finetune_sis(
    root: str | Path,
    checkpoint: str | Path,
    *,
    out: str | Path,
    options: SisOptions,
    progress: bool | Progress = True,
) -> Trained:
    """Fine-tune a network to draw images from label maps, resumably.

    Parameters
    ----------
    root : path
        The folder of the data set; see :func:`~rsprune.training.label_maps.open_pairs`.
    checkpoint, out, progress
        As for :func:`finetune_sr`.
    """
    _, codec, size = open_base(checkpoint, options.tuning)
    task = {"dataset": options.dataset, "encoding": options.encoding}
    pairs = open_conditioning("sis", root, codec, task, size, {})
    return finetune(pairs, checkpoint, codec, Path(out), options.tuning, progress)


def open_base(checkpoint: str | Path, options: FinetuneOptions) -> tuple[dict[str, Any], Autoencoder, int]:
    """Return the recipe of the trained network, its autoencoder, and the size of the images to fine-tune on."""
    recipe = read_checkpoint(checkpoint, mmap=True).get("recipe") or {}
    codec = recipe_autoencoder(recipe, options.autoencoder)
    if options.size is not None:
        return recipe, codec, options.size
    network = recipe.get("network") or load_dit(checkpoint).config
    return recipe, codec, int(network["input_size"]) * codec.factor


def finetune(
    pairs: Conditioning,
    checkpoint: str | Path,
    codec: Autoencoder,
    out: Path,
    options: FinetuneOptions,
    progress: bool | Progress,
) -> Trained:
    """Fine-tune a network to images under their conditions."""
    check_output_folder(out, *TrainingFolder.CONTENTS)
    check_outside(out, pairs.images, pairs.conditions)
    warn_of_slow_average(options.optimizer.ema, options.schedule.iterations)
    with join_processes(options.device) as dist, show_progress(progress if dist.is_main else False) as shown:
        latents = shared_cache(dist, out / "latents", pairs.images, codec, pairs.transform, progress=shown)
        conditions = shared_cache(dist, out / "conditions", *pairs.encoding, progress=shown)
        numbers, partner = pair_samples(latents, conditions)

        def condition(ids: NDArray[np.int64], mirrored: NDArray[np.bool_] | None = None) -> Tensor:
            return pairs.channels(conditions, partner[ids], mirrored)

        model = widened(Path(checkpoint), options.weights, conditions.latents)
        optimizer = replace(options.optimizer, precision=resolve_precision(options.optimizer.precision, dist.device))
        recipe = {
            "task": pairs.task,
            "options": dict(pairs.options),
            "base": {"checkpoint": weights_provenance(Path(checkpoint)), "weights": options.weights},
            "data": latents.config | {"images": len(numbers), "cache": digest(latents.config)},
            "conditions": conditions.config,
            "classes": None,
        }
        loader = LatentLoader(latents, codec, model, optimizer, mirror=True, numbers=numbers, condition=condition)
        schedule = options.schedule
        cond = condition(numbers[: schedule.samples])
        return run_training(out, recipe, codec, model, loader, optimizer, schedule, dist, shown, cond=cond)


def widened(path: Path, weights: Which, channels: int) -> DiT:
    """Load the trained network with channels for a condition, and without classes."""
    config = load_dit(path, weights).config | {"cond_channels": channels, "num_classes": None}
    with torch.random.fork_rng(devices=[]):
        network = DiT(**config)
    start_from(network, path, weights)
    return network


def warn_of_slow_average(ema: float, iterations: int) -> None:
    """Warn if the averaged weights will still be, in good part, those of the network before fine-tuning."""
    share = ema**iterations
    if share > MAX_SHARE:
        message = (
            f"after {iterations:,} steps with ema={ema} the averaged weights are {share:.0%} those of the network "
            f"before fine-tuning: lower ema to {SUGGESTED_SHARE ** (1 / iterations):.4g} ({SUGGESTED_SHARE:.0%}), take "
            'more steps, or sample with weights="model"'
        )
        warnings.warn(message, UserWarning, stacklevel=5)
