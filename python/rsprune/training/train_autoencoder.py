"""`rsprune autoencoder`: training one for images that have no published one, such as those of four bands.

The loss is that of latent diffusion's KL autoencoders (Rombach et al. 2022, arXiv 2112.10752, section 3.1) less its two
networks, which know RGB only: the mean absolute error, and a weak pull of the posterior towards the standard normal.
"""

from __future__ import annotations

import math
import shutil
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from rsprune.errors import ArgumentError, ConfigMismatchError
from rsprune.io import atomic_write, config_diff, digest, provenance_header, remove_temporaries, write_json
from rsprune.runners import Progress, show_progress
from rsprune.runs.folder import RunFolder
from rsprune.sources import SourceLike, open_source
from rsprune.training.autoencoder import LOG_VARIANCE, draw, expected_sums, load_autoencoder
from rsprune.training.checkpoint import read_checkpoint
from rsprune.training.distributed import processes
from rsprune.training.latent_cache import LatentCache, Reading, cache_latents
from rsprune.training.rng import Order, draw_batch
from rsprune.training.trainer import Precision, autocast, check, precision_on
from rsprune.validation import check_integer

__all__ = ["Fit", "Fitted", "fit_autoencoder"]

#: Images that the scale of the latents is measured on.
MEASURED = 1024


@dataclass(frozen=True)
class Fit:
    """How an autoencoder is trained.

    Attributes
    ----------
    latents, widths
        Channels of the latents, and of each level: one level more halves the side once more.
    batch, lr, kl, seed
        Images of a step, learning rate of AdamW, weight of the divergence, seed of every draw.
    validation
        Images that are held out.
    precision
        What the network computes in.

    Raises
    ------
    ArgumentError
        If a value is none that it can have.
    """

    latents: int = 4
    widths: tuple[int, ...] = (128, 256, 512, 512)
    batch: int = 16
    lr: float = 1e-4
    kl: float = 1e-6
    seed: int = 0
    validation: int = 256
    precision: Precision = "auto"

    def __post_init__(self) -> None:
        for name, least in (("latents", 1), ("batch", 1), ("validation", 1), ("seed", 0)):
            check_integer(name, getattr(self, name), minimum=least)
        if not self.widths or min(self.widths) < 1:
            message = f"widths must be positive, one a level, got {self.widths}"
            raise ArgumentError(message)
        if not (self.lr > 0 and self.kl >= 0):
            message = f"lr must be positive and kl not negative, got {self.lr} and {self.kl}"
            raise ArgumentError(message)

    @property
    def factor(self) -> int:
        """How many pixels a latent pixel is wide."""
        return 1 << (len(self.widths) - 1)


@dataclass(frozen=True)
class Fitted:
    """An autoencoder that was trained.

    Attributes
    ----------
    path
        Its folder, as `rsprune train --autoencoder` takes it.
    scale
        What brings its latents to deviation 1, as measured; it is in the folder's configuration.
    validation
        (steps, mean absolute error of the held-out images) at each look; the weights of the lowest are kept.
    """

    path: Path
    scale: float
    validation: list[tuple[int, float]]

    @property
    def figures(self) -> dict[str, Any]:
        """Steps in all, the look whose weights are kept, the scale."""
        step, error = min(self.validation, key=lambda look: look[1])
        return {
            "steps": self.validation[-1][0],
            "best_step": step,
            "error": error,
            "scale": self.scale,
            "folder": str(self.path),
        }

    def describe(self) -> str:
        """Say what came out, in two lines."""
        found = self.figures
        levels = found["error"] * 127.5  # images are within -1 and 1
        return (
            f"{found['steps']:,} steps, mean absolute error of the held-out images {levels:.2f} levels of 255 "
            f"(step {found['best_step']:,}, whose weights are kept), scale of the latents {self.scale:.4f}\n"
            f"written to {self.path}"
        )


def build(channels: int, fit: Fit) -> Any:
    """A fresh AutoencoderKL of diffusers."""
    from diffusers import AutoencoderKL

    levels = len(fit.widths)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(fit.seed)
        return AutoencoderKL(
            in_channels=channels,
            out_channels=channels,
            down_block_types=("DownEncoderBlock2D",) * levels,
            up_block_types=("UpDecoderBlock2D",) * levels,
            block_out_channels=fit.widths,
            layers_per_block=2,
            latent_channels=fit.latents,
            norm_num_groups=math.gcd(32, *fit.widths),
        )


def loss_of(images: Tensor, decoded: Tensor, moments: Tensor, latents: int, kl: float) -> Tensor:
    """Mean absolute error and ``kl`` times the divergence from the standard normal, both a sample of an image."""
    mean, log_variance = moments[:, :latents].float(), moments[:, latents:].float().clamp(*LOG_VARIANCE)
    divergence = 0.5 * (mean.square() + log_variance.exp() - 1 - log_variance).sum()
    return (decoded.float() - images).abs().mean() + kl * divergence / images.numel()


def fit_autoencoder(
    source: SourceLike,
    *,
    out: str | Path,
    size: int = 256,
    channels: int = 4,
    bands: Sequence[int] | None = None,
    valid_range: tuple[int, int] | None = None,
    run: str | Path | None = None,
    iterations: int = 100_000,
    validate_every: int = 1000,
    fit: Fit = Fit(),
    device: str | None = None,
    progress: bool | Progress = True,
) -> Fitted:
    """Train a KL autoencoder, resumably: the same call goes on from the last look at the held-out images.

    Parameters
    ----------
    source, size, channels, bands, valid_range, run
        The images, as for :func:`~rsprune.training.pretrain.pretrain`.
    out : path
        The folder: ``pixels/``, ``state.pt``, and at the end ``autoencoder/`` and ``validation.json``.
    iterations, validate_every : int
        Steps in all, and between two looks at the held-out images.
    fit : Fit
        How.
    device, progress
        As for :func:`~rsprune.training.pretrain.pretrain`.

    Raises
    ------
    ArgumentError
        If the size does not divide, too few images are left to train on, or `torchrun` started several processes.
    ConfigMismatchError
        If the folder holds another training, or another process works on it.
    DivergedError
        If the loss is no longer a number.
    """
    if size % fit.factor or iterations < 1 or validate_every < 1:
        message = f"size={size} must divide by {fit.factor}, and the numbers of steps be positive"
        raise ArgumentError(message)
    folder, images = Path(out), open_source(source)
    reading = Reading(size, channels, None if bands is None else tuple(bands), valid_range)
    with processes(device) as us, show_progress(progress) as observer:
        if us.world > 1:
            message = f"an autoencoder is trained by one process, not by {us.world}: start it without torchrun"
            raise ArgumentError(message)
        with RunFolder(folder).lock():
            remove_temporaries(folder)
            identity = load_autoencoder("identity", channels)
            pixels = cache_latents(
                images, identity, reading, out=folder / "pixels", run=run, mirror=False, progress=observer
            )
            training = Training(pixels, fit, us.device)
            training.restore(folder / "state.pt")
            observer.start("train", iterations * fit.batch, training.step * fit.batch)
            while training.step < iterations:
                training.advance()
                observer.advance(fit.batch)
                if training.step % validate_every == 0 or training.step == iterations:
                    training.validate()
                    training.save(folder / "state.pt")
            observer.finish()
            scale = training.finish(folder / "autoencoder")
            write_json(folder / "validation.json", {"scale": scale, "validation": training.looks})
    return Fitted(folder / "autoencoder", scale, [(int(step), float(error)) for step, error in training.looks])


class Training:
    """The state of a training, and the steps that it takes."""

    def __init__(self, pixels: LatentCache, fit: Fit, device: torch.device) -> None:
        self.pixels, self.fit, self.device = pixels, fit, device
        shuffled = np.array([Order(fit.seed + 1, len(pixels), 1)(i, 0) for i in range(len(pixels))])
        self.held, self.rest = shuffled[: fit.validation], shuffled[fit.validation :]
        if not len(self.rest):
            message = f"{len(pixels)} images with {fit.validation} held out leave none to train on"
            raise ArgumentError(message)
        self.precision = precision_on(device, fit.precision)
        self.recipe = provenance_header() | {
            "task": "autoencoder",
            "fit": asdict(fit) | {"widths": list(fit.widths), "precision": self.precision},
            "data": digest(pixels.config),
        }
        self.model = build(pixels.latents, fit).to(device)
        self.optimizer = torch.optim.AdamW(self.model.parameters(), lr=fit.lr, weight_decay=0.0)
        self.order = Order(fit.seed, len(self.rest), fit.batch)
        self.step = 0
        self.looks: list[list[float]] = []
        self.best: dict[str, Tensor] = {}

    def images(self, numbers: NDArray[np.int64]) -> Tensor:
        """Images, float32 (n, C, S, S)."""
        return self.pixels.moments(numbers, np.zeros(len(numbers), bool)).to(self.device)

    def advance(self) -> None:
        """Take a step."""
        fit, side = self.fit, self.pixels.side // self.fit.factor
        draws = draw_batch(fit.seed, self.step, range(fit.batch), (fit.latents, side, side))
        images = self.images(self.rest[[self.order(self.step, place) for place in range(fit.batch)]])
        mirrored = torch.from_numpy(draws.mirrored < 0.5).to(self.device)
        images = torch.where(mirrored[:, None, None, None], images.flip(3), images)
        noise = draws.posterior.to(self.device)
        with autocast(self.device, self.precision):
            moments = self.model.encode(images).latent_dist.parameters
            decoded = self.model.decode(draw(moments, fit.latents, noise)).sample
        loss: Any = loss_of(images, decoded, moments, fit.latents, fit.kl)
        loss.backward()
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        self.step += 1

    @torch.no_grad()
    def validate(self) -> None:
        """Look at the held-out images, through the means of their latents, and keep the weights if none were better."""
        errors = []
        for numbers in np.array_split(self.held, -(-len(self.held) // self.fit.batch)):
            images = self.images(numbers)
            with autocast(self.device, self.precision):
                decoded = self.model.decode(self.model.encode(images).latent_dist.mean).sample
            errors.append(float((decoded.float() - images).abs().mean()) * len(numbers))
        error = sum(errors) / len(self.held)
        check(error, self.step)
        if not self.looks or error < min(known for _, known in self.looks):
            self.best = {name: value.detach().cpu().clone() for name, value in self.model.state_dict().items()}
        self.looks.append([self.step, error])

    def save(self, path: Path) -> None:
        """Write the state, atomically."""
        content = {
            "model": self.model.state_dict(),
            "opt": self.optimizer.state_dict(),
            "best": self.best,
            "looks": self.looks,
            "step": self.step,
            "recipe": self.recipe,
        }
        with atomic_write(path) as beside:
            torch.save(content, beside)

    def restore(self, path: Path) -> None:
        """Go on from a state, if there is one."""
        if not path.exists():
            return
        content = read_checkpoint(path)
        if differences := list(config_diff(content["recipe"], self.recipe)):
            lines = "\n".join(f"  {line}" for line in differences)
            message = f"{path} is of another training:\n{lines}\nGive it another folder"
            raise ConfigMismatchError(message)
        self.model.load_state_dict(content["model"])
        self.optimizer.load_state_dict(content["opt"])
        self.best, self.looks, self.step = content["best"], content["looks"], content["step"]

    @torch.no_grad()
    def finish(self, path: Path) -> float:
        """Write the best weights as a folder of diffusers, with the scale of their latents; returns the scale."""
        self.model.load_state_dict(self.best)
        self.model.eval()
        total = squares = 0.0
        count = 0
        for numbers in np.array_split(self.rest[:MEASURED], -(-len(self.rest[:MEASURED]) // self.fit.batch)):
            moments = self.model.encode(self.images(numbers)).latent_dist.parameters
            sums = expected_sums(moments, self.fit.latents)
            total, squares = total + sums[0], squares + sums[1]
            count += moments.numel() // 2
        scale: float = 1 / (squares / count - (total / count) ** 2) ** 0.5
        self.model.register_to_config(scaling_factor=scale)
        # Two files: never the scale of one training beside the weights of another, wherever the process ends.
        beside = path.with_name(f".{path.name}")
        shutil.rmtree(beside, ignore_errors=True)
        self.model.save_pretrained(beside)
        shutil.rmtree(path, ignore_errors=True)
        beside.rename(path)
        return scale
