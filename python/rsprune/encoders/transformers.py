"""Folders as the transformers library saves them: ``config.json``, ``preprocessor_config.json``, the weights.

That library itself is not needed: what it calls the tensors is written down here, for the architectures that
remote-sensing encoders are published in.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import open_clip
import timm
from open_clip.transformer import QuickGELU
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn

from rsprune.encoders.base import DeviceOptions
from rsprune.encoders.checkpoints import fetch, load_into, read_config, read_tower, weights_files, weights_provenance
from rsprune.encoders.processors import preprocessing
from rsprune.encoders.remap import Rename, clip_blocks, layer, remap_state_dict
from rsprune.encoders.siglip import SiglipShape, load_tower
from rsprune.encoders.torch_encoder import TorchEncoder
from rsprune.errors import MissingDependencyError, WeightsError

__all__ = ["build"]

CONFIG, PROCESSOR = "config.json", "preprocessor_config.json"

#: Where newer versions put the image processor's configuration, among others; it goes before the other file.
PROCESSORS, NESTED = "processor_config.json", "image_processor"

#: Where the weights may be, in the order of preference.
WEIGHTS_FILES = ("model.safetensors", "pytorch_model.bin")

ACTIVATIONS: dict[str, Callable[..., nn.Module]] = {
    "quick_gelu": QuickGELU,
    "gelu": nn.GELU,
    "gelu_pytorch_tanh": partial(nn.GELU, approximate="tanh"),
}


def build(name: str, weights: Path | None, options: DeviceOptions) -> TorchEncoder:
    """Build ``hf:<folder or id>``: a SigLIP, CLIP or DINOv2 model as the transformers library publishes it.

    ``weights`` is a local folder instead of the one in the name, or of the repository of that id on the Hugging Face
    hub. One that lacks a file, or describes or holds another network than these, is a :class:`WeightsError`.
    """
    rest = name.partition(":")[2]
    folder = weights or Path(rest)
    if not folder.is_dir() and (weights or rest.count("/") != 1 or rest.startswith((".", "/", "~"))):
        message = f"no folder at {folder}, and it is no repository's id, which would be <owner>/<name>"
        raise WeightsError(message)

    def get(file: str) -> Path:
        return folder / file if folder.is_dir() else fetch(name.replace("/", "-"), rest, file)

    config = read_config(get(CONFIG))
    kind = str(config.get("model_type", "")).removesuffix("_vision_model").removesuffix("_with_projection")
    if kind not in MODELS:
        message = f"{folder / CONFIG} describes a {kind or 'nameless'!r} model; known are {', '.join(MODELS)}"
        raise WeightsError(message)
    pixels = preprocessing(*processor(get), kind)
    paths = weights_files(folder, *WEIGHTS_FILES) if folder.is_dir() else [get(WEIGHTS_FILES[0])]
    module, dim = MODELS[kind](config, paths, pixels.size)
    return TorchEncoder(
        f"hf:{rest}",
        f"{kind} (transformers' weights)",
        module,
        dim=dim,
        preprocessing=pixels,
        weights=weights_provenance(*paths),
        options=options,
        versions={"timm": timm.__version__, "open_clip": open_clip.__version__},
    )


def processor(get: Callable[[str], Path]) -> tuple[dict[str, Any], Path]:
    """Read the configuration of the image processor; also return its file."""
    try:
        path = get(PROCESSORS)
        nested = read_config(path).get(NESTED) if path.is_file() else None
    except (WeightsError, MissingDependencyError):  # a repository without that file
        nested = None
    return (nested, path) if isinstance(nested, dict) else (read_config(get(PROCESSOR)), get(PROCESSOR))


def check_size(takes: int, size: int, path: Path) -> None:
    """Refuse images of another size than that of a network whose positions are fixed."""
    if takes != size:
        message = f"{path.parent / CONFIG} says image_size {takes}, but the image processor makes images of {size} px"
        raise WeightsError(message)


def siglip(config: Mapping[str, Any], paths: list[Path], size: int) -> tuple[nn.Module, int]:
    """Load SigLIP's image tower; also return its D."""
    shape = SiglipShape.of(config, paths[0].parent / CONFIG)
    check_size(shape.image_size, size, paths[0])
    return load_tower(shape, *paths), shape.hidden_size


# --- CLIP, in open_clip's tower ---------------------------------------------------------------------------------------


def clip_renames(depth: int) -> Iterator[Rename]:
    """Yield every tensor of CLIP's image tower."""
    yield Rename("embeddings.class_embedding", "class_embedding")
    yield Rename("embeddings.patch_embedding.weight", "conv1.weight")
    yield Rename("embeddings.position_embedding.weight", "positional_embedding")
    yield from layer("pre_layrnorm", "ln_pre")
    yield from clip_blocks(depth)
    yield from layer("post_layernorm", "ln_post")
    yield Rename("visual_projection.weight", "proj")


def clip(config: Mapping[str, Any], paths: list[Path], size: int) -> tuple[nn.Module, int]:
    """Load CLIP's image tower with its projection; also return its D. The defaults are those of CLIPVisionConfig."""
    vision = config.get("vision_config", config)
    width, depth = vision.get("hidden_size", 768), vision.get("num_hidden_layers", 12)
    dim = config.get("projection_dim", 512)
    check_size(vision.get("image_size", 224), size, paths[0])

    def tower() -> Any:
        return open_clip.transformer.VisionTransformer(
            image_size=size,
            patch_size=vision.get("patch_size", 32),
            width=width,
            layers=depth,
            heads=vision.get("num_attention_heads", 12),
            mlp_ratio=vision.get("intermediate_size", 3072) / width,
            output_dim=dim,
            act_layer=activation(vision.get("hidden_act", "quick_gelu"), paths[0]),
            norm_layer=partial(nn.LayerNorm, eps=vision.get("layer_norm_eps", 1e-5)),
        )

    state = renamed_tower(paths, clip_renames(depth))
    state["proj"] = state["proj"].T.contiguous()
    return load_into(tower, state, paths[0]), dim


# --- DINOv2, in timm's VisionTransformer ------------------------------------------------------------------------------


def dinov2_renames(depth: int, gated: bool) -> Iterator[Rename]:
    """Yield every tensor of DINOv2 but the token that stands for masked patches."""
    yield Rename("embeddings.cls_token", "cls_token")
    yield Rename("embeddings.position_embeddings", "pos_embed")
    yield from layer("embeddings.patch_embeddings.projection", "patch_embed.proj")
    for i in range(depth):
        source, target = f"encoder.layer.{i}", f"blocks.{i}"
        yield from layer(f"{source}.norm1", f"{target}.norm1")
        for part in ("query", "key", "value"):
            yield from layer(f"{source}.attention.attention.{part}", f"{target}.attn.qkv")
        yield from layer(f"{source}.attention.output.dense", f"{target}.attn.proj")
        yield Rename(f"{source}.layer_scale1.lambda1", f"{target}.ls1.gamma")
        yield from layer(f"{source}.norm2", f"{target}.norm2")
        yield from layer(f"{source}.mlp.{'weights_in' if gated else 'fc1'}", f"{target}.mlp.fc1")
        yield from layer(f"{source}.mlp.{'weights_out' if gated else 'fc2'}", f"{target}.mlp.fc2")
        yield Rename(f"{source}.layer_scale2.lambda1", f"{target}.ls2.gamma")
    yield from layer("layernorm", "norm")


def dinov2(config: Mapping[str, Any], paths: list[Path], size: int) -> tuple[nn.Module, int]:
    """Load DINOv2, which gives the class token after the last norm; also return its D.

    The defaults are those of transformers' Dinov2Config. The positions of the weights, for 518 px as published, are
    interpolated to ``size`` as transformers does.
    """
    width, depth = config.get("hidden_size", 768), config.get("num_hidden_layers", 12)
    gated = config.get("use_swiglu_ffn", False)
    ratio = config.get("mlp_ratio", 4)
    # transformers rounds the width of the gated layer as the authors do.
    hidden = (int(int(width * ratio) * 2 / 3) + 7) // 8 * 8 if gated else int(width * ratio)
    patch = config.get("patch_size", 14)
    if not gated and config.get("hidden_act", "gelu") != "gelu":
        message = f"{paths[0].parent / CONFIG} has hidden_act {config['hidden_act']!r}; known of DINOv2 is gelu"
        raise WeightsError(message)
    if size < patch:
        message = f"images of {size} px are smaller than a patch of {patch} px, by {paths[0].parent / CONFIG}"
        raise WeightsError(message)

    def network() -> VisionTransformer:
        return VisionTransformer(
            img_size=size,
            patch_size=patch,
            num_classes=0,
            global_pool="token",
            embed_dim=width,
            depth=depth,
            num_heads=config.get("num_attention_heads", 12),
            mlp_ratio=2 * hidden / width if gated else ratio,
            init_values=1.0,
            norm_layer=partial(nn.LayerNorm, eps=config.get("layer_norm_eps", 1e-6)),
            **({"mlp_layer": timm.layers.SwiGLUPacked, "act_layer": nn.SiLU} if gated else {}),
        )

    state = renamed_tower(paths, dinov2_renames(depth, gated), dropped=("embeddings.mask_token",))
    grid = [size // patch] * 2
    state["pos_embed"] = timm.layers.resample_abs_pos_embed(state["pos_embed"].float(), grid, antialias=False)
    return load_into(network, state, paths[0]), width


MODELS: dict[str, Callable[[Mapping[str, Any], list[Path], int], tuple[nn.Module, int]]] = {
    "siglip": siglip,
    "clip": clip,
    "dinov2": dinov2,
}


def renamed_tower(paths: list[Path], table: Iterable[Rename], dropped: tuple[str, ...] = ()) -> dict[str, Tensor]:
    """Read a checkpoint, and rename its image tower's tensors; see :func:`remap_state_dict`."""
    state = read_tower(*paths).state
    return remap_state_dict({key: value for key, value in state.items() if key not in dropped}, table, paths[0])


def activation(name: str, path: Path) -> Callable[..., nn.Module]:
    """Return the class of an activation."""
    if name not in ACTIVATIONS:
        message = f"{path.parent / CONFIG} has hidden_act {name!r}; known are {', '.join(ACTIVATIONS)}"
        raise WeightsError(message)
    return ACTIVATIONS[name]
