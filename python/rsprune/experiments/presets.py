"""Presets of the scale of an experiment: the paper's, one GPU, or two CPU cores."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

from rsprune.errors import ArgumentError
from rsprune.options import check_options, option
from rsprune.training.config import Sampler

__all__ = ["SCALES", "Scale", "TrialOptions", "scale_of"]


@dataclass(frozen=True)
class TrialOptions:
    """Options of the trials of an experiment."""

    weights: Path | None = option(None, help="The encoder's weights, if they are not found automatically.")
    inception: Path | None = option(
        None, help="Weights of FID's Inception network. Default: features of the encoder, and no metric is called FID."
    )
    device: str | None = option(None, help="cpu or cuda. Default: every GPU, or the CPU.")
    workers: int | None = option(
        None, help="Trials at once, each in its own process. Default: one per GPU, or per core.", minimum=1
    )
    threads: int = option(
        1,
        help="Threads of each trial; on a CPU the last bits of a metric depend on it.",
        flags=("--threads", "-j"),
        minimum=1,
    )

    def __post_init__(self) -> None:
        check_options(self)


@dataclass(frozen=True)
class Scale:
    """Settings shared by all trials of an experiment.

    Attributes
    ----------
    model, size, autoencoder, iterations, batch, micro_batch, lr, ema
        Training options, see :func:`rsprune.training.pretrain.pretrain`; an ``autoencoder`` of None must be set.
    images, sampler, steps
        Images sampled from each trained model, and how.
    real
        Maximum number of real images in a comparison.
    encoder, k
        The encoder, and the number of reference centroids.
    seeds
        Trials of each arm.
    keeps
        Budgets of the comparison of methods, as fractions.
    """

    model: str
    size: int
    autoencoder: str | None
    iterations: int
    batch: int
    micro_batch: int
    lr: float
    ema: float
    images: int
    sampler: Sampler
    steps: int
    real: int
    encoder: str
    k: int
    seeds: int
    keeps: tuple[float, ...]


# The published recipe of DiT, the paper's encoder and number of test images.
_PAPER = Scale(
    model="DiT-XL/2",
    size=256,
    autoencoder=None,
    iterations=100_000,
    batch=256,
    micro_batch=64,
    lr=1e-4,
    ema=0.9999,
    images=5000,
    sampler="ddpm",
    steps=250,
    real=5000,
    encoder="git-rsclip",
    k=200,
    seeds=3,
    keeps=(0.50, 0.30, 0.15),
)
# Pixels instead of latents, so that no autoencoder's weights are needed.
_GPU = replace(
    _PAPER,
    model="DiT-S/4",
    size=64,
    autoencoder="identity",
    iterations=1500,
    batch=128,
    micro_batch=128,
    lr=3e-4,
    ema=0.995,
    images=1000,
    sampler="dpm++",
    steps=20,
    real=1500,
    encoder="efficientnet-lite0",
    keeps=(0.15,),
)
_CPU = replace(
    _GPU, model="128x4x4/4", size=32, iterations=750, batch=32, micro_batch=32, lr=1e-3, ema=0.99, images=500
)
SCALES: Mapping[str, Scale] = {"paper": _PAPER, "gpu": _GPU, "cpu": _CPU}


def scale_of(name: str, changes: Mapping[str, Any]) -> Scale:
    """Look up a scale by name and change some of its settings.

    Raises
    ------
    ArgumentError
        No such scale or setting, or a value of another type.
    """
    if name not in SCALES:
        message = f"scale={name!r} is unknown: it is one of {', '.join(SCALES)}"
        raise ArgumentError(message)
    scale = SCALES[name]
    known = {field.name: getattr(scale, field.name) for field in fields(scale)}
    for key, value in changes.items():
        if key not in known:
            message = f"an experiment has no option {key!r}; it has {', '.join(known)}"
            raise ArgumentError(message)
        check(key, value, "" if known[key] is None else known[key])
    changed: dict[str, Any] = {key: tuple(value) if key == "keeps" else value for key, value in changes.items()}
    return replace(scale, **changed)


def check(key: str, value: Any, like: Any) -> None:
    """Check that a value has the type of the preset's, and is positive."""
    if isinstance(like, tuple):
        right = isinstance(value, (list, tuple)) and all(isinstance(one, float) and 0 < one <= 1 for one in value)
        wanted = "fractions such as [0.3, 0.15]"
    elif isinstance(like, str):
        right, wanted = isinstance(value, str), "text"
    else:
        kinds = (int,) if isinstance(like, int) else (int, float)
        right = isinstance(value, kinds) and not isinstance(value, bool) and value > 0
        wanted = f"a positive {'whole number' if isinstance(like, int) else 'number'}"
    if not right:
        message = f"{key}={value!r}; expected {wanted}"
        raise ArgumentError(message)
