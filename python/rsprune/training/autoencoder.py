"""Autoencoders: between images and the latents that a diffusion transformer is trained on.

Images are float32 (n, C, H, W) from -1 to 1. An encoder gives moments (n, M, h, w): the means of a Gaussian over
latents and the logarithms of its variances (M = 2L), or latents that are certain (M = L). The transformer sees
``(latent - shift) * scale``, which should have about unit variance.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from rsprune.encoders.weights import load_into, read_state, refuse, weights_provenance
from rsprune.errors import ArgumentError, FormatError, WeightsError
from rsprune.io import read_json

__all__ = ["Autoencoder", "draw", "expected_sums", "load_autoencoder"]

#: The logarithm of a variance is held within these before it is used, as diffusers does.
LOG_VARIANCE = (-30.0, 20.0)


def draw(moments: Tensor, latents: int, noise: Tensor) -> Tensor:
    """Draw latents (n, L, h, w) from moments (n, M, h, w), with standard normal ``noise`` (n, L, h, w).

    Moments without variances are the latents themselves.
    """
    mean, log_variance = moments[:, :latents], moments[:, latents:]
    return mean + torch.exp(0.5 * log_variance.clamp(*LOG_VARIANCE)) * noise if log_variance.shape[1] else mean


def expected_sums(moments: Tensor, latents: int) -> tuple[float, float]:
    """What the latents that :func:`draw` draws, and their squares, are expected to sum to; in float64."""
    mean, log_variance = moments[:, :latents].double(), moments[:, latents:].double()
    return float(mean.sum()), float(mean.square().sum() + log_variance.clamp(*LOG_VARIANCE).exp().sum())


class Autoencoder(ABC, nn.Module):
    """Between images and latents. Attributes are fixed when it is made.

    Attributes
    ----------
    channels, latents, moments : int
        C, L and M.
    factor : int
        How many pixels a latent pixel is wide.
    scale, shift : float
        See above.
    source : dict
        What it was made from, for the provenance.
    """

    channels: int
    latents: int
    moments: int
    factor: int
    scale: float = 1.0
    shift: float = 0.0
    source: dict[str, Any]

    @abstractmethod
    def encode(self, images: Tensor) -> Tensor:
        """Images (n, C, H, W) to moments (n, M, h, w), neither shifted nor scaled."""

    @abstractmethod
    def invert(self, latents: Tensor) -> Tensor:
        """Latents (n, L, h, w), neither shifted nor scaled, to images (n, C, H, W); they may leave [-1, 1]."""

    def decode(self, z: Tensor) -> Tensor:
        """What the transformer works on, (n, L, h, w), to images (n, C, H, W) within [-1, 1]."""
        return self.invert(z / self.scale + self.shift).clamp(-1, 1)

    def normalize(self, latents: Tensor) -> Tensor:
        """Latents to what the transformer works on."""
        return (latents - self.shift) * self.scale

    def provenance(self) -> dict[str, Any]:
        """Say what it is, as JSON takes it."""
        return {
            **self.source,
            "channels": self.channels,
            "latents": self.latents,
            "factor": self.factor,
            "scale": self.scale,
            "shift": self.shift,
        }


class Identity(Autoencoder):
    """No autoencoder: the transformer works on pixels."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.channels = self.latents = self.moments = channels
        self.factor = 1
        self.source = {"autoencoder": "identity"}

    def encode(self, images: Tensor) -> Tensor:
        """The images themselves."""
        return images

    def invert(self, latents: Tensor) -> Tensor:
        """The latents themselves."""
        return latents


class Diffusers(Autoencoder):
    """An ``AutoencoderKL`` or ``AutoencoderTiny`` of diffusers."""

    def __init__(self, model: Any, source: dict[str, Any]) -> None:
        super().__init__()
        config = model.config
        self.model = model.eval().requires_grad_(False)
        self.certain = type(model).__name__ == "AutoencoderTiny"
        self.channels, self.latents = config.in_channels, config.latent_channels
        self.moments = self.latents if self.certain else 2 * self.latents
        levels = config.encoder_block_out_channels if self.certain else config.block_out_channels
        self.factor = 2 ** (len(levels) - 1)
        self.scale, self.shift = float(config.scaling_factor), float(config.shift_factor or 0.0)
        self.source = source

    def encode(self, images: Tensor) -> Tensor:
        """See :meth:`Autoencoder.encode`."""
        out = self.model.encode(images)
        moments: Tensor = out.latents if self.certain else out.latent_dist.parameters
        return moments

    def invert(self, latents: Tensor) -> Tensor:
        """See :meth:`Autoencoder.invert`."""
        images: Tensor = self.model.decode(latents).sample
        return images


# --- the TAESD family -------------------------------------------------------------------------------------------------


class TinyBlock(nn.Module):
    """A residual block of TAESD; newer ones also look at groups of channels that are normalised together."""

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

    def forward(self, x: Tensor) -> Tensor:
        """Transform (n, width, h, w)."""
        if self.pooled:
            x = x + self.pool(x)
        out: Tensor = (self.conv(x) + x).relu()
        return out


class Soft(nn.Module):
    """Bends what lies far out: the decoder was trained on latents within -3 and 3."""

    def forward(self, x: Tensor) -> Tensor:
        """Bend."""
        return torch.tanh(x / 3) * 3


def tiny_encoder(state: dict[str, Tensor]) -> nn.Sequential:
    """The encoder that a state dict is of: 8 times down, by three steps of blocks."""
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
    """The decoder that a state dict is of."""
    width, latents = state["1.weight"].shape[:2]
    layers: list[nn.Module] = [Soft(), nn.Conv2d(latents, width, 3, padding=1), nn.ReLU()]
    for step, blocks in enumerate((3, 3, 3, 1)):
        if step:
            layers += [nn.Upsample(scale_factor=2), nn.Conv2d(width, width, 3, padding=1, bias=False)]
        for _ in range(blocks):
            layers.append(TinyBlock(width, f"{len(layers)}.pool.0.weight" in state))
    layers.append(nn.Conv2d(width, len(state[f"{len(layers)}.weight"]), 3, padding=1))
    return nn.Sequential(*layers)


class Tiny(Autoencoder):
    """A tiny autoencoder (TAESD, TAESDXL, TAESD3, TAEF1, TAEF2) from its two files. Its latents are certain.

    Raises
    ------
    WeightsError
        If a file is not there, or is none of the family's that goes 8 times down.
    """

    def __init__(self, encoder: Path, decoder: Path) -> None:
        super().__init__()
        self.encoder = load_tiny(tiny_encoder, encoder)
        self.decoder = load_tiny(tiny_decoder, decoder)
        first, last = self.encoder[0], self.encoder[-1]
        assert isinstance(first, nn.Conv2d)
        assert isinstance(last, nn.Conv2d)
        self.channels, self.latents = first.in_channels, last.out_channels
        self.moments, self.factor = self.latents, 8
        entry = self.decoder[1]
        assert isinstance(entry, nn.Conv2d)
        if entry.in_channels != self.latents:
            reason = f"it takes {entry.in_channels} channels, and {encoder.name} makes {self.latents}"
            refuse(decoder, [reason])
        self.source = {"autoencoder": "tiny", "files": [weights_provenance(encoder), weights_provenance(decoder)]}

    def encode(self, images: Tensor) -> Tensor:
        """See :meth:`Autoencoder.encode`."""
        latents: Tensor = self.encoder(images * 0.5 + 0.5)
        return latents

    def invert(self, latents: Tensor) -> Tensor:
        """See :meth:`Autoencoder.invert`."""
        images: Tensor = self.decoder(latents)
        return images * 2 - 1


def load_tiny(build: Any, path: Path) -> nn.Sequential:
    """Load one half of a tiny autoencoder."""
    state = read_state(path)
    try:
        module: nn.Sequential = load_into(lambda: build(state), state, path)
    except (KeyError, ValueError) as error:
        if isinstance(error, WeightsError):
            raise
        message = f"{path} holds no tiny autoencoder that goes 8 times down: there is no {error}"
        raise WeightsError(message) from error
    return module.requires_grad_(False)


def load_autoencoder(spec: str | Path, channels: int = 3) -> Autoencoder:
    """Load an autoencoder, in float32 and evaluation mode.

    Parameters
    ----------
    spec : str or path
        ``"identity"`` for pixels themselves; a folder of diffusers' ``AutoencoderKL`` or ``AutoencoderTiny`` (or of a
        pipeline that has one in ``vae/``, or of `rsprune autoencoder`), old names of its attention included; a folder
        with ``*_encoder.pth`` and ``*_decoder.pth`` of the TAESD family.
    channels : int
        Of the images. An autoencoder of another number is refused.

    Raises
    ------
    ArgumentError
        If ``spec`` is nothing of the kind, or for images of other channels.
    WeightsError, FormatError
        If its files are not what they should be.
    """
    if str(spec) == "identity":
        return Identity(channels).eval()
    found = open_folder(Path(spec))
    if found.channels != channels:
        message = f"the autoencoder {spec} is for images of {found.channels} channels, these have {channels}"
        raise ArgumentError(message)
    return found.eval()


def open_folder(folder: Path) -> Autoencoder:
    """Load the autoencoder that lies in a folder."""
    for place in (folder / "vae", folder / "autoencoder", folder):
        if (place / "config.json").is_file():
            return open_diffusers(place)
    encoders, decoders = (sorted(folder.glob(f"*{half}.pth")) for half in ("encoder", "decoder"))
    if len(encoders) == len(decoders) == 1:
        return Tiny(encoders[0], decoders[0])
    message = (
        f"no autoencoder in {str(folder)!r}: expected a folder of diffusers (config.json and weights), one with "
        '*_encoder.pth and *_decoder.pth, or "identity"'
    )
    raise ArgumentError(message)


def open_diffusers(folder: Path) -> Diffusers:
    """Load an autoencoder of diffusers from its folder, never from the network."""
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
    return Diffusers(model, {"autoencoder": name, "files": [weights_provenance(path) for path in weights]})
