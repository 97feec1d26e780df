"""The families of encoders, the encoders that are known by name, and loading one of either."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from typing_extensions import override

from rsprune.encoders.base import DeviceOptions, Encoder
from rsprune.encoders.preprocess import Preprocessing
from rsprune.errors import EncoderError, needed_by
from rsprune.options import keywords
from rsprune.registry import Registry
from rsprune.waiting import waiting_for

__all__ = ["FAMILIES", "ZOO", "Builder", "EncoderOutline", "EncoderSpec", "encoder_names", "load_encoder"]

#: Builds an encoder from its name, its weights and where it is to run.
Builder = Callable[[str, Path | None, DeviceOptions], Encoder]

#: Each family is a :data:`Builder`; its module may import PyTorch, and is imported on demand.
FAMILIES: Registry[Builder] = Registry(
    "encoder family",
    "rsprune.encoders",
    {
        "siglip": "rsprune.encoders.siglip:build",
        "open_clip": "rsprune.encoders.open_clip:build",
        "timm": "rsprune.encoders.timm:build",
        "hf": "rsprune.encoders.transformers:build",
        "efficientnet-lite0": "rsprune.encoders.efficientnet:build",
    },
    check=callable,
    expected="a function (name, weights, device_options) that returns an Encoder",
)

#: The built-in families whose encoders need no entry in the zoo, and how these are named.
FORMS = {
    "open_clip": "open_clip:<architecture>:<tag or file>",
    "timm": "timm:<architecture>[:<file>]",
    "hf": "hf:<folder or id>",
}


@dataclass(frozen=True, slots=True)
class EncoderSpec:
    """An encoder that is known by name."""

    family: str  # one of FAMILIES
    architecture: str  # its name in the library that defines the network
    dim: int  # D, the number of dimensions of an embedding
    size: int  # width and height in pixels of what the network sees
    repository: str  # where its authors publish the weights on the Hugging Face hub; empty for a package of their own
    file: str
    licence: str  # what the authors say of the weights


def _git_rsclip(architecture: str, dim: int, size: int, suffix: str = "") -> EncoderSpec:
    # The model card says Apache-2.0, the authors' code repository MIT and "academic purposes only".
    licence = "unclear: apache-2.0 (card), academic use (code)"
    return EncoderSpec("siglip", architecture, dim, size, f"lcybuaa/Git-RSCLIP{suffix}", "model.safetensors", licence)


def _clip(repository: str, file: str, architecture: str, dim: int, size: int = 224) -> EncoderSpec:
    return EncoderSpec("open_clip", architecture, dim, size, repository, file, "see the repository")


def _remoteclip(architecture: str, dim: int, file: str) -> EncoderSpec:
    return _clip("chendelong/RemoteCLIP", f"RemoteCLIP-{file}.pt", architecture, dim)


def _georsclip(architecture: str, dim: int, file: str, size: int = 224) -> EncoderSpec:
    return _clip("Zilun/GeoRSCLIP", f"ckpt/RS5M_{file}.pt", architecture, dim, size)


def _dinov2(size: str, dim: int) -> EncoderSpec:
    name = f"vit_{size}_patch14_dinov2.lvd142m"
    return EncoderSpec("timm", name, dim, 224, f"timm/{name}", "model.safetensors", "apache-2.0")


ZOO = {
    "git-rsclip": _git_rsclip("siglip-large-patch16-256", 1024, 256),
    "git-rsclip-base": _git_rsclip("siglip-base-patch16-224", 768, 224, "-base"),
    # The authors load RemoteCLIP into the plain architecture, with GELU, though the OpenAI weights that it started
    # from have QuickGELU. Both load, and neither fails: which is right can only be told by the embeddings' use.
    "remoteclip-rn50": _remoteclip("RN50", 1024, "RN50"),
    "remoteclip-b32": _remoteclip("ViT-B-32", 512, "ViT-B-32"),
    "remoteclip-l14": _remoteclip("ViT-L-14", 768, "ViT-L-14"),
    "remoteclip-rn50-quickgelu": _remoteclip("RN50-quickgelu", 1024, "RN50"),
    "remoteclip-b32-quickgelu": _remoteclip("ViT-B-32-quickgelu", 512, "ViT-B-32"),
    "remoteclip-l14-quickgelu": _remoteclip("ViT-L-14-quickgelu", 768, "ViT-L-14"),
    # GeoRSCLIP was trained from OpenAI's weights, which have QuickGELU; H-14 from LAION's, which have not.
    "georsclip-b32": _georsclip("ViT-B-32-quickgelu", 512, "ViT-B-32"),
    "georsclip-l14": _georsclip("ViT-L-14-quickgelu", 768, "ViT-L-14"),
    "georsclip-l14-336": _georsclip("ViT-L-14-336-quickgelu", 768, "ViT-L-14-336", 336),
    "georsclip-h14": _georsclip("ViT-H-14", 1024, "ViT-H-14"),
    "dinov2-s": _dinov2("small", 384),
    "dinov2-b": _dinov2("base", 768),
    "dinov2-l": _dinov2("large", 1024),
    "dinov2-g": _dinov2("giant", 1536),
    "efficientnet-lite0": EncoderSpec(
        "efficientnet-lite0", "tf_efficientnet_lite0", 1280, 224, "", "efficientnet-lite0-57934424.pth", "apache-2.0"
    ),
}


def encoder_names() -> list[str]:
    """List the names that :func:`load_encoder` knows, beside the forms ``open_clip:``, ``timm:`` and ``hf:``."""
    return sorted(ZOO)


class EncoderOutline(Encoder):
    """What is known of an encoder of the zoo without its weights; it embeds nothing."""

    device = "cpu"
    batch_size = 32

    def __init__(self, name: str) -> None:
        spec = ZOO[name]
        self.name, self.dim = name, spec.dim
        self.preprocessing = Preprocessing(size=spec.size, mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0))

    @override
    def provenance(self) -> dict[str, Any]:
        """Return nothing: without the weights nothing tells the encoder from another one of its name."""
        return {}

    @override
    def forward(self, pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
        message = f"{self.name} has no weights here: load it with load_encoder"
        raise EncoderError(message)


@keywords(DeviceOptions)
def load_encoder(name: str, *, weights: str | os.PathLike[str] | None = None, options: DeviceOptions) -> Encoder:
    """Load an encoder with its weights.

    Parameters
    ----------
    name : str
        One of :func:`encoder_names`; ``open_clip:<architecture>:<tag or file>``, ``timm:<architecture>[:<file>]`` or
        ``hf:<folder or id>``; or the family of another package, with or without ``:`` and more.
    weights : path, optional
        A local file or folder, instead of the published one. That one is looked for in ``RSPRUNE_WEIGHTS`` (or
        ``~/.cache/rsprune/weights``) and the Hugging Face hub's cache, and fetched if it is in neither.

    Raises
    ------
    EncoderError
        For a name that is not known, or a device that is not there.
    WeightsError
        If the weights are not there and cannot be fetched, or are not this encoder's.
    MissingDependencyError
        If a library that the encoder needs is not installed.
    """
    family = ZOO[name].family if name in ZOO else name.partition(":")[0]
    is_known = name in ZOO or (":" in name if family in FORMS else family not in FAMILIES.built_in)
    if not is_known or family not in FAMILIES:
        others = FAMILIES.names()[len(FAMILIES.built_in) :]
        message = f"no encoder is called {name!r}: known are {', '.join([*encoder_names(), *FORMS.values(), *others])}"
        raise EncoderError(message)
    with needed_by(f"the encoder {name}", "embed"):
        build = FAMILIES.get(family)
    with waiting_for(f"the weights of {name}"):
        return build(name, None if weights is None else Path(weights), options)
