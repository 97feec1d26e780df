"""Any network of timm's: DINOv2, and ``timm:<architecture>[:<file>]``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

import timm
from timm.models.vision_transformer import VisionTransformer, checkpoint_filter_fn

from rsprune.encoders.base import DeviceOptions
from rsprune.encoders.checkpoints import fetch, load_into, read_state, weights_files, weights_provenance
from rsprune.encoders.preprocess import Interpolation, Mode, Preprocessing
from rsprune.encoders.registry import ZOO
from rsprune.encoders.torch_encoder import TorchEncoder
from rsprune.errors import EncoderError, WeightsError

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["build"]

#: What timm calls the ways to make a square of an image, and what they are here.
CROP_MODES: dict[str, Mode] = {"center": "crop", "squash": "squash"}


def build(name: str, weights: Path | None, options: DeviceOptions) -> TorchEncoder:
    """Build ``dinov2-{s,b,l,g}``, or ``timm:<architecture>[:<file>]``: the pooled features before the classifier.

    DINOv2 sees 224 px instead of the 518 px that timm's weights are set to: its positions are interpolated, as for
    every other size.

    Without a file the weights are those that timm publishes for the architecture (``resnet50.a1_in1k``). ``weights`` is
    a checkpoint in timm's names, or one that timm itself converts (DINOv2's own). An architecture that timm does not
    know is an :class:`EncoderError`, a file that is not its own a :class:`WeightsError`.
    """
    known = ZOO.get(name)
    architecture, _, file = (known.architecture, "", "") if known else name.partition(":")[2].partition(":")
    if not timm.is_model(architecture):
        message = f"timm has no architecture {architecture!r}: `timm.list_models()` lists them"
        raise EncoderError(message)
    size = {"img_size": known.size} if known else {}

    def create() -> Any:
        return timm.create_model(architecture, num_classes=0, **size)

    model = create()
    settings: dict[str, Any] = model.pretrained_cfg
    path = weights or (Path(file) if file else None)
    if path is None:
        if not settings.get("hf_hub_id"):
            message = f"timm publishes no weights of {architecture}: write timm:{architecture}:<file>, or pass weights="
            raise WeightsError(message)
        path = fetch(name.replace(":", "-"), settings["hf_hub_id"], "model.safetensors")
    paths = weights_files(path, "model.safetensors", "pytorch_model.bin")
    data = timm.data.resolve_model_data_config(model)
    if known:
        data["input_size"] = (3, known.size, known.size)
    return TorchEncoder(
        name if known else f"timm:{architecture}",
        f"{architecture} (timm)",
        load_into(create, _renamed(read_state(*paths), model), paths[0]),
        dim=model.head_hidden_size if hasattr(model, "head_hidden_size") else model.num_features,
        preprocessing=_preprocessing(data, architecture),
        weights=weights_provenance(*paths),
        options=options,
        versions={"timm": timm.__version__},
    )


def _renamed(state: dict[str, Tensor], model: Any) -> dict[str, Tensor]:
    """Return the tensors by timm's names, positions interpolated to the model's size, without the classifier."""
    if isinstance(model, VisionTransformer):
        state = checkpoint_filter_fn(state, model)
    classifiers = model.pretrained_cfg["classifier"]
    prefixes = tuple(f"{name}." for name in ([classifiers] if isinstance(classifiers, str) else classifiers))
    return {key: value for key, value in state.items() if not key.startswith(prefixes)}


def _preprocessing(data: dict[str, Any], architecture: str) -> Preprocessing:
    """Follow timm's evaluation transform: resize images to ``size / crop_pct``, and cut the middle from them."""
    size = data["input_size"][-1]
    known = {"crop_mode": tuple(CROP_MODES), "interpolation": get_args(Interpolation), "input_size": ((3, size, size),)}
    for key, values in known.items():
        if data[key] not in values:
            message = f"{architecture} has {key} {data[key]!r}; known are {', '.join(map(str, values))}"
            raise EncoderError(message)
    return Preprocessing(
        size=size,
        mean=tuple(255 * value for value in data["mean"]),
        std=tuple(255 * value for value in data["std"]),
        interpolation=data["interpolation"],
        mode=CROP_MODES[data["crop_mode"]],
        resize_to=int(size / data["crop_pct"]),
    )
