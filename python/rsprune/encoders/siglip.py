"""SigLIP's image tower, as the transformers library publishes it, in timm's VisionTransformer.

Git-RSCLIP is one: its files hold the names of transformers' ``SiglipModel``, half precision, and the tanh form of GELU,
which neither timm nor open_clip gives the architecture of that name by default (embeddings then differ by 7e-4).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import timm
from timm.models.vision_transformer import VisionTransformer
from torch import nn

from rsprune.encoders.base import DeviceOptions
from rsprune.encoders.checkpoints import fetch, load_into, read_config, read_tower, weights_files, weights_provenance
from rsprune.encoders.preprocess import Preprocessing
from rsprune.encoders.registry import ZOO
from rsprune.encoders.remap import Rename, layer, remap_state_dict
from rsprune.encoders.torch_encoder import TorchEncoder
from rsprune.errors import WeightsError

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["SiglipShape", "build", "load_tower", "to_timm"]

#: What transformers calls an activation, and what timm does.
ACTIVATIONS = {"gelu_pytorch_tanh": "gelu_tanh", "gelu": "gelu", "quick_gelu": "quick_gelu"}


@dataclass(frozen=True, slots=True)
class SiglipShape:
    """The numbers that define a SigLIP image tower. The defaults are those of transformers' ``SiglipVisionConfig``."""

    image_size: int = 224
    patch_size: int = 16
    hidden_size: int = 768
    intermediate_size: int = 3072
    num_hidden_layers: int = 12
    num_attention_heads: int = 12
    num_channels: int = 3
    layer_norm_eps: float = 1e-6
    hidden_act: str = "gelu_pytorch_tanh"

    @classmethod
    def of(cls, config: Mapping[str, Any], path: Path) -> SiglipShape:
        """Read it from a ``config.json``, which names only what differs from the defaults.

        A tower without the pooling head, or with an activation that is not known, is refused.
        """
        vision = config.get("vision_config", config)
        shape = cls(**{name: vision[name] for name in cls.__slots__ if name in vision})
        if shape.hidden_act not in ACTIVATIONS or not vision.get("vision_use_head", True):
            known = shape.hidden_act in ACTIVATIONS
            what = "vision_use_head False" if known else f"hidden_act {shape.hidden_act!r}"
            message = f"{path} describes a SigLIP tower with {what}; known are {', '.join(ACTIVATIONS)}, with the head"
            raise WeightsError(message)
        return shape

    def build(self) -> VisionTransformer:
        """Build the network without weights: it maps (n, 3, S, S) to the pooled features (n, D)."""
        return VisionTransformer(
            img_size=self.image_size,
            patch_size=self.patch_size,
            in_chans=self.num_channels,
            num_classes=0,
            global_pool="map",
            embed_dim=self.hidden_size,
            depth=self.num_hidden_layers,
            num_heads=self.num_attention_heads,
            mlp_ratio=self.intermediate_size / self.hidden_size,
            class_token=False,
            act_layer=ACTIVATIONS[self.hidden_act],
            norm_layer=partial(nn.LayerNorm, eps=self.layer_norm_eps),
        )


#: The architectures that are published under a name.
SHAPES = {
    "siglip-large-patch16-256": SiglipShape(256, 16, 1024, 4096, 24, 16),
    "siglip-base-patch16-224": SiglipShape(),
}


def build(name: str, weights: Path | None, options: DeviceOptions) -> TorchEncoder:
    """Build ``git-rsclip`` or ``git-rsclip-base``.

    ``weights`` is the folder as published, its ``model.safetensors``, or the same weights in open_clip's or timm's
    names.
    """
    known = ZOO[name]
    shape = SHAPES[known.architecture]
    path = weights or fetch(name, known.repository, known.file)
    if path.is_dir():
        check_config(path, shape)
    paths = weights_files(path, known.file, "open_clip_model.safetensors")
    return TorchEncoder(
        name,
        f"{known.architecture} (timm, {shape.hidden_act})",
        load_tower(shape, *paths),
        dim=shape.hidden_size,
        preprocessing=Preprocessing(size=shape.image_size, mean=(127.5,) * 3, std=(127.5,) * 3),
        weights=weights_provenance(*paths),
        options=options,
        versions={"timm": timm.__version__},
    )


def check_config(folder: Path, shape: SiglipShape) -> None:
    """Refuse a folder whose ``config.json`` describes another network: another activation, say, shows in no tensor."""
    path = folder / "config.json"
    if not path.is_file():
        return
    found = SiglipShape.of(read_config(path), path)
    for field in SiglipShape.__slots__:
        if getattr(found, field) != getattr(shape, field):
            message = f"{path} says {field} {getattr(found, field)!r}, expected {getattr(shape, field)!r}"
            raise WeightsError(message)


def load_tower(shape: SiglipShape, *paths: Path) -> VisionTransformer:
    """Load the image tower of any of the layouts it is found in."""
    layout, state = read_tower(*paths)
    if layout == "transformers":
        state = to_timm(shape, state, paths[0])
    return load_into(shape.build, state, paths[0])


def renames(shape: SiglipShape) -> Iterator[Rename]:
    """Yield every tensor of the tower as transformers names it, and as timm does."""
    d, m, patches = shape.hidden_size, shape.intermediate_size, (shape.image_size // shape.patch_size) ** 2
    patch = (d, shape.num_channels, shape.patch_size, shape.patch_size)
    yield from layer("embeddings.patch_embedding", "patch_embed.proj", patch)
    yield Rename("embeddings.position_embedding.weight", "pos_embed", (patches, d))
    for i in range(shape.num_hidden_layers):
        source, target = f"encoder.layers.{i}", f"blocks.{i}"
        yield from layer(f"{source}.layer_norm1", f"{target}.norm1", (d,))
        for part in "qkv":
            yield from layer(f"{source}.self_attn.{part}_proj", f"{target}.attn.qkv", (d, d))
        yield from layer(f"{source}.self_attn.out_proj", f"{target}.attn.proj", (d, d))
        yield from layer(f"{source}.layer_norm2", f"{target}.norm2", (d,))
        yield from layer(f"{source}.mlp.fc1", f"{target}.mlp.fc1", (m, d))
        yield from layer(f"{source}.mlp.fc2", f"{target}.mlp.fc2", (d, m))
    yield from layer("post_layernorm", "norm", (d,))
    yield Rename("head.probe", "attn_pool.latent", (1, 1, d))
    yield Rename("head.attention.in_proj_weight", "attn_pool.qkv.weight", (3 * d, d))
    yield Rename("head.attention.in_proj_bias", "attn_pool.qkv.bias", (3 * d,))
    yield from layer("head.attention.out_proj", "attn_pool.proj", (d, d))
    yield from layer("head.layernorm", "attn_pool.norm", (d,))
    yield from layer("head.mlp.fc1", "attn_pool.mlp.fc1", (m, d))
    yield from layer("head.mlp.fc2", "attn_pool.mlp.fc2", (d, m))


def to_timm(shape: SiglipShape, state: Mapping[str, Tensor], path: Path) -> dict[str, Tensor]:
    """Rename transformers' tensors to timm's, joining query, key and value; see :func:`remap_state_dict`."""
    renamed = remap_state_dict(state, renames(shape), path)
    renamed["pos_embed"] = renamed["pos_embed"][None]
    for kind in ("weight", "bias"):  # timm's pooling has the query apart
        joined = renamed.pop(f"attn_pool.qkv.{kind}")
        renamed[f"attn_pool.q.{kind}"] = joined[: shape.hidden_size].clone()
        renamed[f"attn_pool.kv.{kind}"] = joined[shape.hidden_size :].clone()
    return renamed
