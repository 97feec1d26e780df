"""Autoencoders: maps between images and the latents that a diffusion transformer is trained on.

Images are float32 (n, C, H, W) in [-1, 1]. An encoder returns moments (n, M, h, w): the means of a Gaussian over
latents and the logarithms of its variances (M = 2L), or deterministic latents (M = L). The transformer works on
``(latent - shift) * scale``, which should have about unit variance.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from typing_extensions import override

from rsprune.encoders.checkpoints import load_into, raise_mismatch, read_state, weights_provenance
from rsprune.errors import ArgumentError, FormatError, WeightsError
from rsprune.io import check_pointer, read_json

__all__ = ["Autoencoder", "expected_moments", "load_autoencoder", "sample_posterior"]

#: Logarithms of variances are clamped to this range before use, as diffusers does.
LOG_VARIANCE = (-30.0, 20.0)


def sample_posterior(moments: Tensor, latents: int, noise: Tensor) -> Tensor:
    """Draw latents (n, L, h, w) from moments (n, M, h, w) by standard normal ``noise`` (n, L, h, w).

    Moments without variances are the latents themselves.
    """
    mean, log_variance = moments[:, :latents], moments[:, latents:]
    return mean + torch.exp(0.5 * log_variance.clamp(*LOG_VARIANCE)) * noise if log_variance.shape[1] else mean


def expected_moments(batches: Iterable[Tensor], latents: int) -> tuple[float, float]:
    """Return the mean and the standard deviation, in float64, that latents of :func:`sample_posterior` have.

    ``batches`` are moments (n, M, h, w), one image at least in all.
    """
    total = squares = 0.0
    count = 0
    for moments in batches:
        mean, log_variance = moments[:, :latents].double(), moments[:, latents:].double()
        total += float(mean.sum())
        squares += float(mean.square().sum() + log_variance.clamp(*LOG_VARIANCE).exp().sum())
        count += mean.numel()
    average = total / count
    return average, max(squares / count - average**2, 0.0) ** 0.5


class Autoencoder(ABC, nn.Module):
    """Maps images to latents and back. Its attributes are fixed when it is made."""

    channels: int  # C
    latents: int  # L
    moments: int  # M
    factor: int  # side of a latent pixel, in pixels
    values: int = 256  # of a sample of an image
    scale: float = 1.0  # the normalization of the latents
    shift: float = 0.0
    source: dict[str, Any]  # kind and files of the autoencoder, for the provenance

    @abstractmethod
    def encode(self, images: Tensor) -> Tensor:
        """Map images (n, C, H, W) to moments (n, M, h, w), neither shifted nor scaled."""

    @abstractmethod
    def invert(self, latents: Tensor) -> Tensor:
        """Map latents (n, L, h, w), neither shifted nor scaled, to images (n, C, H, W), which may leave [-1, 1]."""

    def decode(self, z: Tensor) -> Tensor:
        """Map normalized latents (n, L, h, w) to images (n, C, H, W) in [-1, 1]."""
        return self.invert(z / self.scale + self.shift).clamp(-1, 1)

    def normalize(self, latents: Tensor) -> Tensor:
        """Normalize latents for the transformer."""
        return (latents - self.shift) * self.scale

    def provenance(self) -> dict[str, Any]:
        """Describe the autoencoder, JSON-serializable."""
        names = ("channels", "latents", "factor", "scale", "shift")
        return self.source | {name: getattr(self, name) for name in names}


class Identity(Autoencoder):
    """No autoencoder: the transformer works on the pixels themselves."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.channels = self.latents = self.moments = channels
        self.factor = 1
        self.source = {"autoencoder": "identity"}

    @override
    def encode(self, images: Tensor) -> Tensor:
        return images

    @override
    def invert(self, latents: Tensor) -> Tensor:
        return latents


class DiffusersAutoencoder(Autoencoder):
    """An ``AutoencoderKL`` or ``AutoencoderTiny`` of diffusers."""

    def __init__(self, model: Any, source: dict[str, Any]) -> None:
        super().__init__()
        config = model.config
        self.model = model.eval().requires_grad_(False)
        self.deterministic = type(model).__name__ == "AutoencoderTiny"
        self.channels, self.latents = config.in_channels, config.latent_channels
        self.moments = self.latents if self.deterministic else 2 * self.latents
        levels = config.encoder_block_out_channels if self.deterministic else config.block_out_channels
        self.factor = 2 ** (len(levels) - 1)
        self.scale, self.shift = float(config.scaling_factor), float(config.shift_factor or 0.0)
        self.source = source

    @override
    def encode(self, images: Tensor) -> Tensor:
        out = self.model.encode(images)
        moments: Tensor = out.latents if self.deterministic else out.latent_dist.parameters
        return moments

    @override
    def invert(self, latents: Tensor) -> Tensor:
        images: Tensor = self.model.decode(latents).sample
        return images


# --- the TAESD family -------------------------------------------------------------------------------------------------


class TinyBlock(nn.Module):
    """A residual block of TAESD; newer versions add a branch with group normalization."""

    def __init__(self, width: int, pooled: bool) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for _ in range(3):
            layers += [nn.Conv2d(width, width, 3, padding=1), nn.ReLU()]
        self.conv = nn.Sequential(*layers[:-1])
        if pooled:
            wide = 4 * width
            self.pool = nn.Sequential(
                nn.Conv2d(width, wide, 1, bias=False),
                nn.GroupNorm(4, wide),
                nn.ReLU(),
                nn.Conv2d(wide, width, 1, bias=False),
            )
        self.pooled = pooled

    @override
    def forward(self, x: Tensor) -> Tensor:
        if self.pooled:
            x = x + self.pool(x)
        out: Tensor = (self.conv(x) + x).relu()
        return out


class SoftClamp(nn.Module):
    """Soft clamp to [-3, 3], the range of the latents that the decoder was trained on."""

    @override
    def forward(self, x: Tensor) -> Tensor:
        return torch.tanh(x / 3) * 3


def tiny_encoder(state: dict[str, Tensor]) -> nn.Sequential:
    """Build the encoder of a state dict: three stages, each of which halves the side."""
    width, channels = state["0.weight"].shape[:2]
    layers: list[nn.Module] = [nn.Conv2d(channels, width, 3, padding=1)]
    for step, blocks in enumerate((1, 3, 3, 3)):
        if step:
            layers.append(nn.Conv2d(width, width, 3, stride=2, padding=1, bias=False))
        for _ in range(blocks):
            layers.append(TinyBlock(width, f"{len(layers)}.pool.0.weight" in state))
    layers.append(nn.Conv2d(width, len(state[f"{len(layers)}.weight"]), 3, padding=1))
    return nn.Sequential(*layers)


def tiny_decoder(state: dict[str, Tensor]) -> nn.Sequential:
    """Build the decoder of a state dict."""
    width, latents = state["1.weight"].shape[:2]
    layers: list[nn.Module] = [SoftClamp(), nn.Conv2d(latents, width, 3, padding=1), nn.ReLU()]
    for step, blocks in enumerate((3, 3, 3, 1)):
        if step:
            layers += [nn.Upsample(scale_factor=2), nn.Conv2d(width, width, 3, padding=1, bias=False)]
        for _ in range(blocks):
            layers.append(TinyBlock(width, f"{len(layers)}.pool.0.weight" in state))
    layers.append(nn.Conv2d(width, len(state[f"{len(layers)}.weight"]), 3, padding=1))
    return nn.Sequential(*layers)


class TinyAutoencoder(Autoencoder):
    """A tiny autoencoder (TAESD, TAESDXL, TAESD3, TAEF1, TAEF2) from its two files. Its latents are deterministic.

    A file that is missing, or holds no autoencoder of this family with a factor of 8, is a :class:`WeightsError`.
    """

    def __init__(self, encoder: Path, decoder: Path) -> None:
        super().__init__()
        self.encoder = load_tiny(tiny_encoder, encoder)
        self.decoder = load_tiny(tiny_decoder, decoder)
        first: Any = self.encoder[0]
        last: Any = self.encoder[-1]
        entry: Any = self.decoder[1]
        self.channels, self.latents = first.in_channels, last.out_channels
        self.moments, self.factor = self.latents, 8
        if entry.in_channels != self.latents:
            reason = f"it takes {entry.in_channels} channels, and {encoder.name} makes {self.latents}"
            raise_mismatch(decoder, [reason])
        self.source = {"autoencoder": "tiny", "files": [weights_provenance(encoder), weights_provenance(decoder)]}

    @override
    def encode(self, images: Tensor) -> Tensor:
        latents: Tensor = self.encoder(images * 0.5 + 0.5)
        return latents

    @override
    def invert(self, latents: Tensor) -> Tensor:
        images: Tensor = self.decoder(latents)
        return images * 2 - 1


def load_tiny(build: Any, path: Path) -> nn.Sequential:
    """Load the encoder or the decoder of a tiny autoencoder."""
    state = read_state(path)
    try:
        module: nn.Sequential = load_into(lambda: build(state), state, path)
    except (KeyError, ValueError) as error:
        if isinstance(error, WeightsError):
            raise
        message = f"{path} holds no tiny autoencoder with a factor of 8: there is no {error}"
        raise WeightsError(message) from error
    return module.requires_grad_(False)


def load_autoencoder(spec: str | Path, channels: int = 3) -> Autoencoder:
    """Load an autoencoder for images of some channels in float32, in evaluation mode.

    ``spec`` is ``"identity"`` for the pixels themselves; a folder of diffusers' ``AutoencoderKL`` or
    ``AutoencoderTiny`` (or of a pipeline that has one in ``vae/``, or of `rsprune autoencoder`), also with the old
    names of its attention; or a folder with ``*_encoder.pth`` and ``*_decoder.pth`` of the TAESD family.

    Raises
    ------
    ArgumentError
        ``spec`` is none of these, or an autoencoder of other channels.
    WeightsError, FormatError
        The files are damaged, or of another kind.
    """
    if str(spec) == "identity":
        return Identity(channels).eval()
    autoencoder = open_folder(Path(spec))
    if autoencoder.channels != channels:
        message = f"the autoencoder {spec} is for images of {autoencoder.channels} channels, these have {channels}"
        raise ArgumentError(message)
    return autoencoder.eval()


def open_folder(folder: Path) -> Autoencoder:
    """Load the autoencoder in a folder."""
    for place in (folder / "vae", folder / "autoencoder", folder):
        if (place / "config.json").is_file():
            return open_diffusers(place)
    encoders, decoders = (sorted(folder.glob(f"*{half}.pth")) for half in ("encoder", "decoder"))
    if len(encoders) == len(decoders) == 1:
        return TinyAutoencoder(encoders[0], decoders[0])
    message = (
        f"no autoencoder in {str(folder)!r}: expected a folder of diffusers (config.json and weights), one with "
        '*_encoder.pth and *_decoder.pth, or "identity"'
    )
    raise ArgumentError(message)


def open_diffusers(folder: Path) -> DiffusersAutoencoder:
    """Load an autoencoder of diffusers from its folder; nothing is downloaded."""
    import diffusers

    config = read_json(folder / "config.json")
    name = config.get("_class_name")
    if name not in ("AutoencoderKL", "AutoencoderTiny"):
        message = f"{folder} holds a {name}; expected an AutoencoderKL or an AutoencoderTiny"
        raise FormatError(message)
    if config.get("latents_mean") or config.get("latents_std"):
        message = f"{folder} shifts and scales each latent channel by itself, which is not supported"
        raise FormatError(message)
    weights = sorted(path for kind in ("*.safetensors", "*.bin") for path in folder.glob(kind))
    for path in weights:
        check_pointer(path, WeightsError)
    if not weights:
        message = f"no weights in {folder}: expected diffusion_pytorch_model.safetensors or .bin"
        raise WeightsError(message)
    try:
        model = getattr(diffusers, name).from_pretrained(
            folder, torch_dtype=torch.float32, local_files_only=True, low_cpu_mem_usage=False
        )
    except (OSError, ValueError, RuntimeError) as error:
        message = f"{folder} cannot be loaded as {name}: {error}"
        raise WeightsError(message) from error
    return DiffusersAutoencoder(model, {"autoencoder": name, "files": [weights_provenance(path) for path in weights]})
