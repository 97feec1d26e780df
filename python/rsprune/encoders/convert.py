"""Git-RSCLIP for others: its weights in open_clip's names, in a folder that ``local-dir:`` takes."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import open_clip
import torch
from safetensors.torch import save_file
from torch import Tensor

from rsprune.encoders.checkpoints import (
    POSITIONS,
    fetch,
    image_tower,
    raise_mismatch,
    read_state,
    state_dict_mismatches,
)
from rsprune.encoders.open_clip import CONFIG, EXACT_GELU
from rsprune.encoders.registry import ZOO
from rsprune.encoders.remap import Rename, clip_blocks, layer, remap_state_dict
from rsprune.encoders.siglip import SHAPES, check_config, to_timm
from rsprune.errors import EncoderError
from rsprune.io import atomic_write, check_output_folder, read_json

__all__ = ["CONVERTIBLE", "convert"]

#: The encoders that open_clip has an architecture for, but whose file it does not read.
CONVERTIBLE = {"git-rsclip": "ViT-L-16-SigLIP-256", "git-rsclip-base": "ViT-B-16-SigLIP"}

#: What goes along if it is there: open_clip takes the tokenizer from the folder.
TOKENIZER = ("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "spiece.model")

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
    """Write the folder ``out`` of an encoder, one of :data:`CONVERTIBLE`, for open_clip, and return its path.

    It holds ``open_clip_model.safetensors`` in float32, ``open_clip_config.json``, ``README.md``, and the tokenizer if
    it lies beside the ``weights``: the folder or file as published, by default found or fetched.

    Raises
    ------
    EncoderError
        For another encoder.
    OutputError
        If the folder holds anything else than an earlier conversion.
    WeightsError
        If the weights are not there, or not all of both towers'.
    """
    if name not in CONVERTIBLE:
        message = f"{name} has no conversion: known are {', '.join(CONVERTIBLE)}"
        raise EncoderError(message)
    if not ((out / CONFIG).is_file() and EXACT_GELU in read_json(out / CONFIG)):
        check_output_folder(out)
    known = ZOO[name]
    path = weights or fetch(name, known.repository, known.file)
    if path.is_dir():
        check_config(path, SHAPES[known.architecture])
        path = path / known.file
    config = open_clip.get_model_config(CONVERTIBLE[name])
    state = _to_open_clip(name, path, config["text_cfg"]["layers"])
    with torch.device("meta"):
        want = open_clip.create_model(CONVERTIBLE[name], load_weights=False, pretrained_text=False, device="meta")
    raise_mismatch(path, state_dict_mismatches({key: value.shape for key, value in want.state_dict().items()}, state))
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


def _text_renames(depth: int) -> Iterator[Rename]:
    """Yield every tensor of the text tower as transformers names it, and as open_clip does."""
    yield Rename("embeddings.token_embedding.weight", "token_embedding.weight")
    yield Rename("embeddings.position_embedding.weight", "positional_embedding")
    yield from clip_blocks(depth)
    yield from layer("final_layer_norm", "ln_final")
    yield from layer("head", "text_projection")


def _to_open_clip(name: str, path: Path, depth: int) -> dict[str, Tensor]:
    """Return both towers' tensors by open_clip's names, in float32; the text tower has ``depth`` layers."""
    state = read_state(path)
    images = to_timm(SHAPES[ZOO[name].architecture], image_tower(state, path).state, path)
    text = {key.removeprefix("text_model."): value for key, value in state.items() if key.startswith("text_model.")}
    text.pop(POSITIONS, None)
    renamed = {f"visual.trunk.{key}": value for key, value in images.items()}
    renamed |= {f"text.{key}": value for key, value in remap_state_dict(text, _text_renames(depth), path).items()}
    renamed |= {key: state[key].reshape(()) for key in ("logit_scale", "logit_bias") if key in state}
    return {key: value.float().contiguous() for key, value in renamed.items()}
