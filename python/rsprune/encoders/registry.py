"""The encoders that are known by name: their architecture, and where their weights are published."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["FAMILIES", "KNOWN", "Known"]

#: The modules that build encoders of a kind; each may import PyTorch, and is imported on demand. A family is also the
#: prefix of the names of its other members: ``timm:resnet50``.
FAMILIES = {
    "siglip": "rsprune.encoders.siglip:build",
    "open_clip": "rsprune.encoders.clip:build",
    "timm": "rsprune.encoders.timm_models:build",
    "hf": "rsprune.encoders.hf:build",
    "efficientnet-lite0": "rsprune.encoders.efficientnet:build",
}


@dataclass(frozen=True, slots=True)
class Known:
    """An encoder that is known by name.

    Attributes
    ----------
    family : str
        One of :data:`FAMILIES`.
    architecture : str
        Its name in the library that defines the network.
    dim : int
        D, the number of dimensions of an embedding.
    size : int
        Width and height in pixels of what the network sees.
    repository, file : str
        Where its authors publish the weights: on the Hugging Face hub, unless ``repository`` is empty.
    licence : str
        What the authors say of the weights.
    """

    family: str
    architecture: str
    dim: int
    size: int
    repository: str
    file: str
    licence: str


#: Nothing that we could read states one.
ELSEWHERE = "see the repository"


def _git_rsclip(architecture: str, dim: int, size: int, suffix: str = "") -> Known:
    # The model card says Apache-2.0, the authors' code repository MIT and "academic purposes only".
    licence = "unclear: apache-2.0 (card), academic use (code)"
    return Known("siglip", architecture, dim, size, f"lcybuaa/Git-RSCLIP{suffix}", "model.safetensors", licence)


def _remoteclip(architecture: str, dim: int, file: str) -> Known:
    return Known("open_clip", architecture, dim, 224, "chendelong/RemoteCLIP", f"RemoteCLIP-{file}.pt", ELSEWHERE)


def _georsclip(architecture: str, dim: int, file: str, size: int = 224) -> Known:
    return Known("open_clip", architecture, dim, size, "Zilun/GeoRSCLIP", f"ckpt/RS5M_{file}.pt", ELSEWHERE)


def _dinov2(size: str, dim: int) -> Known:
    name = f"vit_{size}_patch14_dinov2.lvd142m"
    return Known("timm", name, dim, 224, f"timm/{name}", "model.safetensors", "apache-2.0")


KNOWN = {
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
    "efficientnet-lite0": Known(
        "efficientnet-lite0",
        "tf_efficientnet_lite0",
        1280,
        224,
        "",
        "efficientnet-lite0-57934424.pth",
        "apache-2.0",
    ),
}
