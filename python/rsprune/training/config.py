"""The options of training, fine-tuning and sampling, each written once.

Signatures, the command line and the stored recipes follow from these dataclasses. Importing them imports no torch.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Literal

from rsprune.errors import ArgumentError
from rsprune.options import Options, integers, option, same_option

__all__ = [
    "AutoencoderConfig",
    "AutoencoderOptions",
    "FinetuneOptions",
    "ImageOptions",
    "ModelConfig",
    "OptimizerConfig",
    "PretrainOptions",
    "SampleOptions",
    "SamplerConfig",
    "SisOptions",
    "SrOptions",
    "TrainConfig",
]

#: Time steps of the diffusion process.
TIMESTEPS = 1000

#: What a network computes in; its weights are float32. "auto" is bfloat16 on GPUs that support it.
Precision = Literal["auto", "float32", "bfloat16"]

#: "ddpm" takes the steps of the process; the others take fewer, and leave the learned variances out.
Sampler = Literal["ddpm", "ddim", "dpm++"]

#: The averaged weights, or those that the optimizer updates.
Which = Literal["ema", "model"]

Dataset = Literal["second", "openearthmap"]

#: How a label map becomes channels: the share of each class in a latent pixel, or its colors through the autoencoder.
Encoding = Literal["onehot", "palette"]

PRECISION = "What the network computes in; auto is bfloat16 on GPUs that support it. Weights are float32."
DEVICE = "cpu, cuda or cuda:1. By default the GPU of this process, or the CPU if there is none."
RUN = "The run folder whose selection is trained on. By default all images are."
BANDS = "The bands to read, counted from 0: 3,2,1. By default RGB, or the first ones."


@dataclass(frozen=True)
class ImageOptions(Options):
    """Options that decide the pixels of an image."""

    size: int = option(256, help="Height and width of the images.", minimum=1)
    channels: int = option(3, help="Channels of the images.", minimum=1)
    bands: tuple[int, ...] | None = option(None, help=BANDS, metavar="B,B,B", parser=integers)
    valid_range: tuple[float, float] | None = option(
        None, help="The range of 16-bit samples: 0,10000.", metavar="LO,HI", parser=partial(integers, count=2)
    )


@dataclass(frozen=True)
class ModelConfig(Options):
    """The network, and the form of the latents that it is trained on."""

    model: str = option("DiT-XL/2", help="DiT-XL/2 to DiT-S/8, or WIDTHxBLOCKSxHEADS/PATCH.")
    conditional: bool = option(
        False, help="Condition the network on the class folder of each image, and not only on the time step."
    )
    measured_scale: bool = option(
        False, help="Bring latents to mean 0 and deviation 1 as measured, instead of by the autoencoder's own scale."
    )
    mirror: bool = option(True, help="Mirror half of the samples.")


@dataclass(frozen=True)
class OptimizerConfig(Options):
    """Optimizer settings, which decide the weights. The defaults are the published recipe of DiT."""

    batch: int = option(256, help="Samples per step, over all devices.", minimum=1)
    lr: float = option(1e-4, help="Learning rate of AdamW, constant.", above=0)
    weight_decay: float = option(0.0, help="Weight decay of AdamW.", minimum=0)
    ema: float = option(0.9999, help="Decay of the averaged weights per step.", minimum=0, maximum=1)
    precision: Precision = option("auto", help=PRECISION)
    seed: int = option(0, help="Seed of the initial weights and of every random number.", minimum=0)


@dataclass(frozen=True)
class TrainConfig(Options):
    """The schedule of a training. Of these only ``iterations`` affects the weights."""

    iterations: int = option(100_000, help="Steps in all.", flags=("--iterations", "-n"), minimum=1)
    micro_batch: int | None = option(
        None, help="Samples that pass the network at once on a device; gradients are accumulated.", minimum=1
    )
    checkpoint_every: int = option(2500, help="Steps between two states that a training resumes from.", minimum=1)
    keep_every: int = option(50_000, help="Steps between two checkpoints that are kept.", minimum=1)
    sample_every: int = option(10_000, help="Steps between two grids of samples.", minimum=1)
    samples: int = option(16, help="Images of a grid.", minimum=1)
    compile: bool = option(False, help="Compile the network.")


@dataclass(frozen=True, kw_only=True)
class PretrainOptions(Options):
    """The options of `rsprune train`."""

    autoencoder: str | Path = option(
        "identity",
        help="A folder of diffusers or TAESD, or identity to train on pixels.",
        flags=("--autoencoder", "-a"),
        metavar="PATH",
        parser=str,
    )
    run: Path | None = option(None, help=RUN)
    init_from: Path | None = option(
        None,
        help="A checkpoint whose weights, the averaged ones too, a new training begins with: with another learning "
        "rate, or on other images.",
    )
    latents: Path | None = option(
        None, help="The folder of the latent cache, which trainings may share. By default latents/ in the folder."
    )
    images: ImageOptions
    network: ModelConfig
    optimizer: OptimizerConfig
    schedule: TrainConfig
    device: str | None = option(None, help=DEVICE)


@dataclass(frozen=True)
class FinetuneConfig(TrainConfig):
    """The schedule of a fine-tuning: 5,000 steps, as in the paper."""

    iterations: int = option(5000, help="Steps in all.", flags=("--iterations", "-n"), minimum=1)
    checkpoint_every: int = option(500, help="Steps between two states that a training resumes from.", minimum=1)
    sample_every: int = option(1000, help="Steps between two grids of samples.", minimum=1)


@dataclass(frozen=True, kw_only=True)
class FinetuneOptions(Options):
    """The options that both tasks of `rsprune finetune` share."""

    autoencoder: str | Path | None = option(
        None,
        help="The autoencoder that the network was trained with; not needed for pixels.",
        flags=("--autoencoder", "-a"),
        metavar="PATH",
        parser=str,
    )
    weights: Which = option("ema", help="The weights to start from: the averaged ones, or the last ones.")
    size: int | None = option(
        None, help="Height and width of the images. By default those that the network was trained on.", minimum=1
    )
    optimizer: OptimizerConfig
    schedule: FinetuneConfig
    device: str | None = option(None, help=DEVICE)


@dataclass(frozen=True, kw_only=True)
class SrOptions(Options):
    """The options of `rsprune finetune sr`."""

    factor: int = option(4, help="How many times smaller the low resolution is.", minimum=2)
    bands: tuple[int, ...] | None = option(
        None,
        help="The bands to read, counted from 0. By default those that the network was trained on.",
        metavar="B,B,B",
        parser=integers,
    )
    tuning: FinetuneOptions


@dataclass(frozen=True, kw_only=True)
class SisOptions(Options):
    """The options of `rsprune finetune sis`."""

    dataset: Dataset = option(help="The data set, which decides layout and palette.")
    encoding: Encoding = option("onehot", help="Shares of classes, or colors through the autoencoder.")
    tuning: FinetuneOptions


@dataclass(frozen=True)
class SamplerConfig(Options):
    """Options of the sampler."""

    sampler: Sampler = option("ddpm", help="ddpm as in the paper; the others need fewer steps.")
    steps: int = option(250, help="Steps of the sampler.", minimum=1, maximum=TIMESTEPS)
    guidance: float = option(1.0, help="Scale of classifier-free guidance; 1 is none.")
    batch: int = option(32, help="Images at once; their last bits may depend on it.", minimum=1)
    seed: int = option(0, help="Seed: image i starts from the same noise in whatever batch it is.", minimum=0)


@dataclass(frozen=True, kw_only=True)
class SampleOptions(Options):
    """The options of `rsprune sample`."""

    images: int = option(64, help="Number of images.", flags=("--images", "-n"), minimum=1)
    autoencoder: str | Path | None = same_option(FinetuneOptions, "autoencoder")
    weights: Which = option("ema", help="The averaged weights, or the last ones.")
    classes: tuple[str, ...] | None = option(
        None,
        help="Names of class folders, or numbers, to sample in turn. By default all classes.",
        metavar="A,B",
        parser=lambda text: tuple(text.split(",")),
    )
    sampling: SamplerConfig
    precision: Precision = option("auto", help=PRECISION)
    device: str | None = option(None, help=DEVICE)


@dataclass(frozen=True)
class AutoencoderConfig(Options):
    """Options that decide the weights of an autoencoder."""

    latent_channels: int = option(4, help="Channels of the latents.", minimum=1)
    widths: tuple[int, ...] = option(
        (128, 256, 512, 512),
        help="Channels of each level; each but the first halves the side.",
        metavar="W,W,W",
        parser=integers,
    )
    batch: int = option(16, help="Images per step.", minimum=1)
    lr: float = option(1e-4, help="Learning rate of AdamW.", above=0)
    kl: float = option(1e-6, help="Weight of the divergence from the standard normal.", minimum=0)
    seed: int = option(0, help="Seed of every random number.", minimum=0)
    held_out: int = option(256, help="Images that are not trained on, and choose the weights.", minimum=1)
    precision: Precision = option("auto", help=PRECISION)

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.widths or min(self.widths) < 1:
            message = f"widths must be positive, one per level, got {self.widths}"
            raise ArgumentError(message)

    @property
    def factor(self) -> int:
        """The side of a latent pixel, in pixels."""
        return 1 << (len(self.widths) - 1)


@dataclass(frozen=True)
class FourBandOptions(ImageOptions):
    """Options that decide the pixels of an image of four bands."""

    channels: int = option(4, help="Channels of the images.", minimum=1)


@dataclass(frozen=True, kw_only=True)
class AutoencoderOptions(Options):
    """The options of `rsprune autoencoder`."""

    run: Path | None = option(None, help=RUN)
    iterations: int = option(100_000, help="Steps in all.", flags=("--iterations", "-n"), minimum=1)
    validate_every: int = option(
        1000, help="Steps between two validations on the held-out images, from which a training resumes.", minimum=1
    )
    images: FourBandOptions
    config: AutoencoderConfig
    device: str | None = option(None, help=DEVICE)
