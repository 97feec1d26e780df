"""Git-RSCLIP for others: its weights in open_clip's names, in a folder that ``local-dir:`` takes."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path
from typing import Any

import open_clip
import torch
from safetensors.torch import save_file
from torch import Tensor

from rsprune.encoders.clip import CONFIG, EXACT_GELU
from rsprune.encoders.hub import fetch
from rsprune.encoders.layouts import image_tower
from rsprune.encoders.registry import KNOWN
from rsprune.encoders.siglip import SHAPES, check_config, to_timm
from rsprune.encoders.weights import problems, read_state, refuse
from rsprune.errors import EncoderError
from rsprune.io import atomic_write

__all__ = ["CONVERTIBLE", "convert"]

#: The encoders that open_clip has an architecture for, but whose file it does not read.
CONVERTIBLE = {"git-rsclip": "ViT-L-16-SigLIP-256", "git-rsclip-base": "ViT-B-16-SigLIP"}

#: What goes along if it is there: open_clip takes the tokenizer from the folder.
TOKENIZER = ("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "spiece.model")

#: The text tower: what transformers calls a tensor, and what open_clip does.
TEXT = (
    (r"text_model\.embeddings\.token_embedding\.weight", r"text.token_embedding.weight"),
    (r"text_model\.embeddings\.position_embedding\.weight", r"text.positional_embedding"),
    (r"text_model\.encoder\.layers\.(\d+)\.layer_norm([12])\.", r"text.transformer.resblocks.\1.ln_\2."),
    (r"text_model\.encoder\.layers\.(\d+)\.self_attn\.[qkv]_proj\.", r"text.transformer.resblocks.\1.attn.in_proj_"),
    (r"text_model\.encoder\.layers\.(\d+)\.self_attn\.out_proj\.", r"text.transformer.resblocks.\1.attn.out_proj."),
    (r"text_model\.encoder\.layers\.(\d+)\.mlp\.fc1\.", r"text.transformer.resblocks.\1.mlp.c_fc."),
    (r"text_model\.encoder\.layers\.(\d+)\.mlp\.fc2\.", r"text.transformer.resblocks.\1.mlp.c_proj."),
    (r"text_model\.final_layer_norm\.", r"text.ln_final."),
    (r"text_model\.head\.", r"text.text_projection."),
)

README = """\
{name} in open_clip's layout, converted by rsprune.

    import open_clip, torch

    model, _, preprocess = open_clip.create_model_and_transforms("local-dir:{folder}")
    for module in model.visual.modules():  # trained with the tanh form of GELU, which open_clip cannot be told
        if isinstance(module, torch.nn.GELU):
            module.approximate = "tanh"

Without the loop the embeddings are off by about 7e-4. rsprune reads the folder as it is:
`open_clip:local-dir:{folder}`.
"""


def convert(name: str, out: Path, *, weights: Path | None = None) -> Path:
    """Write the folder of an encoder for open_clip.

    Parameters
    ----------
    name : str
        One of :data:`CONVERTIBLE`.
    out : Path
        The folder to write: ``open_clip_model.safetensors`` in float32, ``open_clip_config.json``, ``README.md``, and
        the tokenizer if it lies beside the weights.
    weights : Path, optional
        The folder or file as published; found or fetched if not given.

    Returns
    -------
    Path
        ``out``.

    Raises
    ------
    EncoderError
        For another encoder.
    WeightsError
        If the weights are not there, or not all of both towers'.
    """
    if name not in CONVERTIBLE:
        message = f"{name} has no conversion: known are {', '.join(CONVERTIBLE)}"
        raise EncoderError(message)
    known = KNOWN[name]
    path = weights or fetch(name, known.repository, known.file)
    if path.is_dir():
        check_config(path, SHAPES[known.architecture])
        path = path / known.file
    config = open_clip.get_model_config(CONVERTIBLE[name])
    state = _to_open_clip(name, path)
    with torch.device("meta"):
        want = open_clip.create_model(CONVERTIBLE[name], load_weights=False, pretrained_text=False, device="meta")
    refuse(path, problems({key: value.shape for key, value in want.state_dict().items()}, state))
    out.mkdir(parents=True, exist_ok=True)
    for file in TOKENIZER:
        if (path.parent / file).is_file():
            shutil.copyfile(path.parent / file, out / file)
    with atomic_write(out / "open_clip_model.safetensors") as beside:
        save_file(state, beside)
    (out / "README.md").write_text(README.format(name=name, folder=out.resolve()))
    (out / CONFIG).write_text(json.dumps(_config(config, known.size), indent=2))
    return out


def _config(model: dict[str, Any], size: int) -> dict[str, Any]:
    text = model["text_cfg"] | {"act_kwargs": {"approximate": "tanh"}}
    half = [0.5, 0.5, 0.5]
    return {
        "model_cfg": model | {"text_cfg": text},
        "preprocess_cfg": {
            "size": size,
            "mean": half,
            "std": half,
            "interpolation": "bicubic",
            "resize_mode": "squash",
        },
        EXACT_GELU: "tanh",
    }


def _to_open_clip(name: str, path: Path) -> dict[str, Tensor]:
    """Both towers' tensors by open_clip's names, in float32."""
    state = read_state(path)
    tower = to_timm(SHAPES[KNOWN[name].architecture], image_tower(state, path).state, path)
    parts: dict[str, list[Tensor]] = {f"visual.trunk.{key}": [value] for key, value in tower.items()}
    for key in sorted(state, key=_query_key_value):
        if key in ("logit_scale", "logit_bias"):
            parts[key] = [state[key].reshape(())]
        elif key.startswith("text_model.") and not key.endswith("position_ids"):
            renamed = next((re.sub(old, new, key) for old, new in TEXT if re.match(old, key)), key)
            parts.setdefault(renamed, []).append(state[key])
    joined = {key: torch.cat(values) if len(values) > 1 else values[0] for key, values in parts.items()}
    return {key: value.float().contiguous() for key, value in joined.items()}


def _query_key_value(key: str) -> tuple[str, int]:
    """Sort the three parts of a layer's attention as they are joined."""
    match = re.search(r"\.([qkv])_proj\.", key)
    return (key if match is None else key.replace(match[0], ".qkv."), 0 if match is None else "qkv".index(match[1]))
