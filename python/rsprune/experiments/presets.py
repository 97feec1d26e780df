"""Presets of the scale of an experiment: the paper's, one GPU, or two CPU cores."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

from rsprune.errors import ArgumentError
from rsprune.options import Options, option, same_option
from rsprune.training.config import ImageOptions, ModelConfig, OptimizerConfig, Sampler, SamplerConfig, TrainConfig
from rsprune.validation import check_number

__all__ = ["SCALES", "Scale", "TrialOptions", "scale_of"]


@dataclass(frozen=True)
class TrialOptions(Options):
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


@dataclass(frozen=True)
class Scale(Options):
    """Settings shared by all trials of an experiment.

    The defaults are the paper's: the published recipe of DiT, its encoder and number of test images.
    """

    model: str = same_option(ModelConfig, "model")
    size: int = same_option(ImageOptions, "size")
    autoencoder: str | None = option(None, help="As for rsprune train; where a scale has none, it must be set.")
    iterations: int = same_option(TrainConfig, "iterations")
    batch: int = same_option(OptimizerConfig, "batch")
    micro_batch: int = option(64, help="Samples that pass the network at once.", minimum=1)
    lr: float = same_option(OptimizerConfig, "lr")
    ema: float = same_option(OptimizerConfig, "ema")
    images: int = option(5000, help="Images sampled from each trained model.", minimum=1)
    sampler: Sampler = same_option(SamplerConfig, "sampler")
    steps: int = same_option(SamplerConfig, "steps")
    real: int = option(5000, help="Maximum number of real images in a comparison.", minimum=1)
    encoder: str = option("git-rsclip", help="The encoder.")
    k: int = option(200, help="Number of reference centroids.", minimum=1)
    seeds: int = option(3, help="Trials of each arm.", minimum=1)
    keeps: tuple[float, ...] = option((0.50, 0.30, 0.15), help="Budgets of the comparison of methods, as fractions.")

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("model", "autoencoder", "encoder"):
            if not isinstance(value := getattr(self, name), str | None):
                message = f"{name} is {value!r}; expected text"
                raise ArgumentError(message)
        for keep in self.keeps:
            check_number("keeps", keep, above=0, maximum=1)


# Pixels instead of latents, so that no autoencoder's weights are needed.
_GPU = Scale(
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
SCALES: Mapping[str, Scale] = {"paper": Scale(), "gpu": _GPU, "cpu": _CPU}


def scale_of(name: str, changes: Mapping[str, Any]) -> Scale:
    """Look up a scale by name and change some of its settings."""
    if name not in SCALES:
        message = f"scale={name!r} is unknown: it is one of {', '.join(SCALES)}"
        raise ArgumentError(message)
    known = [field.name for field in fields(Scale)]
    if unknown := [key for key in changes if key not in known]:
        message = f"an experiment has no option {unknown[0]!r}; it has {', '.join(known)}"
        raise ArgumentError(message)
    changed: dict[str, Any] = {key: tuple(one) if isinstance(one, list) else one for key, one in changes.items()}
    return replace(SCALES[name], **changed)
