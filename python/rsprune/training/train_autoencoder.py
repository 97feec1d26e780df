"""`rsprune autoencoder`: train an autoencoder for images that have no published one, such as those of four bands.

The loss is that of latent diffusion's KL autoencoders (Rombach et al. 2022, arXiv 2112.10752, section 3.1) without its
perceptual and adversarial terms, whose networks are for RGB: the mean absolute error, and a weak divergence of the
posterior from the standard normal.
"""

from __future__ import annotations

import math
import shutil
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from rsprune.errors import ArgumentError
from rsprune.io import check_output_folder, digest, provenance_header, write_json
from rsprune.options import keywords, to_config
from rsprune.runners import Progress, show_progress
from rsprune.runs.folder import RunFolder
from rsprune.runs.reader import open_as_run
from rsprune.sources import SourceLike, check_outside
from rsprune.temporaries import remove_temporaries
from rsprune.training.autoencoder import LOG_VARIANCE, expected_moments, load_autoencoder, sample_posterior
from rsprune.training.checkpoint import resume_checkpoint, save_checkpoint
from rsprune.training.config import AutoencoderConfig, AutoencoderOptions
from rsprune.training.distributed import join_processes
from rsprune.training.latent_cache import LatentCache, cache_latents
from rsprune.training.rng import EpochPermutation, batch_noise
from rsprune.training.trainer import autocast, check_loss, resolve_precision
from rsprune.training.transforms import ImageTransform

__all__ = ["TrainedAutoencoder", "train_autoencoder"]

#: Images on which the scale of the latents is measured.
SCALE_IMAGES = 1024


@dataclass(frozen=True)
class TrainedAutoencoder:
    """An autoencoder that was trained.

    ``scale`` brings its latents to standard deviation 1, as measured, and stands in the configuration in its folder.
    """

    path: Path  # the folder, as `rsprune train --autoencoder` takes it
    scale: float
    #: (steps, mean absolute error of the held-out images) of each validation; the weights of the lowest are kept.
    validation: list[tuple[int, float]]

    @property
    def metrics(self) -> dict[str, Any]:
        """Steps in all, steps and error of the weights that are kept, and the scale."""
        step, error = min(self.validation, key=lambda one: one[1])
        best = {"best_step": step, "error": error, "scale": self.scale}
        return {"steps": self.validation[-1][0], **best, "folder": str(self.path)}

    def describe(self) -> str:
        """Summarize the result in two lines."""
        metrics = self.metrics
        levels = metrics["error"] * 127.5  # images are in [-1, 1]
        return (
            f"{metrics['steps']:,} steps, mean absolute error of the held-out images {levels:.2f} levels of 255 "
            f"(step {metrics['best_step']:,}, whose weights are kept), scale of the latents {self.scale:.4f}\n"
            f"written to {self.path}"
        )


def build_autoencoder(channels: int, config: AutoencoderConfig) -> Any:
    """Build an AutoencoderKL of diffusers with initial weights."""
    from diffusers import AutoencoderKL

    levels = len(config.widths)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.seed)
        return AutoencoderKL(
            in_channels=channels,
            out_channels=channels,
            down_block_types=("DownEncoderBlock2D",) * levels,
            up_block_types=("UpDecoderBlock2D",) * levels,
            block_out_channels=tuple(config.widths),
            layers_per_block=2,
            latent_channels=config.latent_channels,
            norm_num_groups=math.gcd(32, *config.widths),
        )


def autoencoder_loss(images: Tensor, decoded: Tensor, moments: Tensor, latents: int, kl: float) -> Tensor:
    """Return the mean absolute error plus ``kl`` times the divergence from the standard normal, both per value."""
    mean, log_variance = moments[:, :latents].float(), moments[:, latents:].float().clamp(*LOG_VARIANCE)
    divergence = 0.5 * (mean.square() + log_variance.exp() - 1 - log_variance).sum()
    return (decoded.float() - images).abs().mean() + kl * divergence / images.numel()


@keywords(AutoencoderOptions)
def train_autoencoder(
    source: SourceLike, *, out: str | Path, options: AutoencoderOptions, progress: bool | Progress = True
) -> TrainedAutoencoder:
    """Train a KL autoencoder, resumably: the same call resumes from the last validation.

    Parameters
    ----------
    source
        The images, as for :func:`rsprune.prune`.
    out : path
        The folder: ``pixels/``, ``state.pt``, and at the end ``autoencoder/`` and ``validation.json``.
    progress : bool or Progress
        As for :func:`rsprune.prune`.

    Raises
    ------
    ArgumentError
        The size does not divide, too few images are left to train on, or `torchrun` started several processes.
    ConfigMismatchError
        The folder holds another training, or another process works on it.
    DivergedError
        The loss is NaN or infinite.
    """
    config = options.config
    if options.images.size % config.factor:
        message = f"size={options.images.size} must divide by {config.factor}"
        raise ArgumentError(message)
    folder, images = check_output_folder(out, "pixels"), open_as_run(source, options.run)
    check_outside(out, images)
    transform = ImageTransform.from_options(options.images)
    with join_processes(options.device) as dist, show_progress(progress) as shown:
        if dist.world_size > 1:
            message = f"an autoencoder is trained by one process, not by {dist.world_size}: start it without torchrun"
            raise ArgumentError(message)
        with RunFolder(folder).lock():
            remove_temporaries(folder)
            identity = load_autoencoder("identity", options.images.channels)
            pixels = cache_latents(
                images, identity, transform, out=folder / "pixels", run=options.run, mirror=False, progress=shown
            )
            trainer = AutoencoderTrainer(pixels, config, dist.device)
            trainer.resume(folder / "state.pt")
            shown.start("train", options.iterations * config.batch, trainer.step * config.batch)
            while trainer.step < options.iterations:
                trainer.train_step()
                shown.advance(config.batch)
                if trainer.step % options.validate_every == 0 or trainer.step == options.iterations:
                    trainer.validate()
                    trainer.save(folder / "state.pt")
            shown.finish()
            scale = trainer.export(folder / "autoencoder")
            write_json(folder / "validation.json", {"scale": scale, "validation": trainer.validation})
    return TrainedAutoencoder(
        folder / "autoencoder", scale, [(int(step), float(error)) for step, error in trainer.validation]
    )


class AutoencoderTrainer:
    """The state of a training on ``pixels``, a cache without mirror images, and its steps."""

    def __init__(self, pixels: LatentCache, config: AutoencoderConfig, device: torch.device) -> None:
        self.pixels, self.device = pixels, device
        self.config = config = replace(config, precision=resolve_precision(config.precision, device))
        permutation = EpochPermutation(config.seed + 1, len(pixels), 1)
        shuffled = np.array([permutation(i, 0) for i in range(len(pixels))])
        self.held_out, self.training = shuffled[: config.held_out], shuffled[config.held_out :]
        if not len(self.training):
            message = f"{len(pixels)} images with {config.held_out} held out leave none to train on"
            raise ArgumentError(message)
        self.recipe = provenance_header() | {
            "task": "autoencoder",
            "config": to_config(config),
            "data": digest(pixels.config),
        }
        self.model = build_autoencoder(pixels.latents, config).to(device)
        self.optimizer = torch.optim.AdamW(self.model.parameters(), lr=config.lr, weight_decay=0.0)
        self.permutation = EpochPermutation(config.seed, len(self.training), config.batch)
        self.step = 0
        self.validation: list[list[float]] = []
        self.best: dict[str, Tensor] = {}

    def read(self, numbers: NDArray[np.int64]) -> Tensor:
        """Read images, float32 (n, C, S, S)."""
        return self.pixels.moments(numbers, np.zeros(len(numbers), bool)).to(self.device)

    def train_step(self) -> None:
        """Take one optimizer step."""
        config, side = self.config, self.pixels.side // self.config.factor
        drawn = batch_noise(config.seed, self.step, range(config.batch), (config.latent_channels, side, side))
        images = self.read(self.training[[self.permutation(self.step, position) for position in range(config.batch)]])
        mirrored = torch.from_numpy(drawn.mirror < 0.5).to(self.device)
        images = torch.where(mirrored[:, None, None, None], images.flip(3), images)
        noise = drawn.posterior.to(self.device)
        with autocast(self.device, config.precision):
            moments = self.model.encode(images).latent_dist.parameters
            decoded = self.model.decode(sample_posterior(moments, config.latent_channels, noise)).sample
        loss: Any = autoencoder_loss(images, decoded, moments, config.latent_channels, config.kl)
        loss.backward()
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        self.step += 1

    @torch.no_grad()
    def validate(self) -> None:
        """Measure the error on the held-out images, from the means of their latents, and keep the best weights."""
        errors = []
        for numbers in self._batches(self.held_out):
            images = self.read(numbers)
            with autocast(self.device, self.config.precision):
                decoded = self.model.decode(self.model.encode(images).latent_dist.mean).sample
            errors.append(float((decoded.float() - images).abs().mean()) * len(numbers))
        error = sum(errors) / len(self.held_out)
        check_loss(error, self.step)
        if not self.validation or error < min(earlier for _, earlier in self.validation):
            self.best = {name: value.detach().cpu().clone() for name, value in self.model.state_dict().items()}
        self.validation.append([self.step, error])

    def _batches(self, numbers: NDArray[np.int64]) -> list[NDArray[np.int64]]:
        return np.array_split(numbers, -(-len(numbers) // self.config.batch))

    def save(self, path: Path) -> None:
        """Write the state, atomically."""
        state = {"model": self.model.state_dict(), "opt": self.optimizer.state_dict(), "step": self.step}
        save_checkpoint(path, state | {"best": self.best, "validation": self.validation, "recipe": self.recipe})

    def resume(self, path: Path) -> None:
        """Restore the state, if there is one."""
        content = resume_checkpoint(path, self.recipe)
        if content is not None:
            self.model.load_state_dict(content["model"])
            self.optimizer.load_state_dict(content["opt"])
            self.best, self.validation, self.step = content["best"], content["validation"], content["step"]

    @torch.no_grad()
    def export(self, path: Path) -> float:
        """Write the best weights as a folder of diffusers, with the scale of their latents; returns the scale."""
        self.model.load_state_dict(self.best)
        self.model.eval()
        batches = (
            self.model.encode(self.read(numbers)).latent_dist.parameters
            for numbers in self._batches(self.training[:SCALE_IMAGES])
        )
        scale = 1 / expected_moments(batches, self.config.latent_channels)[1]
        self.model.register_to_config(scaling_factor=scale)
        # The folder is replaced whole, so that the scale of one training never stands beside the weights of another.
        temporary = path.with_name(f".{path.name}")
        shutil.rmtree(temporary, ignore_errors=True)
        self.model.save_pretrained(temporary)
        shutil.rmtree(path, ignore_errors=True)
        temporary.rename(path)
        return scale
