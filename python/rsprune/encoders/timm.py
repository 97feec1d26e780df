"""Any network of timm's: DINOv2, and ``timm:<architecture>[:<file>]``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import timm
from timm.models.vision_transformer import VisionTransformer, checkpoint_filter_fn

from rsprune.encoders.base import DeviceOptions
from rsprune.encoders.checkpoints import fetch, load_into, read_state, weights_provenance
from rsprune.encoders.preprocess import Preprocessing
from rsprune.encoders.registry import ZOO
from rsprune.encoders.torch_encoder import TorchEncoder
from rsprune.errors import EncoderError, WeightsError

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["build"]


def build(name: str, weights: Path | None, options: DeviceOptions) -> TorchEncoder:
    """Build ``dinov2-{s,b,l,g}``, or ``timm:<architecture>[:<file>]``: the pooled features before the classifier.

    DINOv2 sees 224 px instead of the 518 px that timm's weights are set to: its positions are interpolated, as for
    every other size.

    Without a file the weights are those that timm publishes for the architecture (``resnet50.a1_in1k``). ``weights`` is
    a checkpoint in timm's names, or one that timm itself converts (DINOv2's own).

    Raises
    ------
    EncoderError
        For an architecture that timm does not know.
    WeightsError
        For a file that is not this architecture's.
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
    data = timm.data.resolve_model_data_config(model)
    return TorchEncoder(
        name if known else f"timm:{architecture}",
        f"{architecture} (timm)",
        load_into(create, _renamed(read_state(path), model), path),
        dim=model.head_hidden_size if hasattr(model, "head_hidden_size") else model.num_features,
        preprocessing=_preprocessing(data, known.size if known else data["input_size"][1]),
        weights=weights_provenance(path),
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


def _preprocessing(data: dict[str, Any], size: int) -> Preprocessing:
    """Follow timm's evaluation transform: the shortest side to ``size / crop_pct``, then the middle; or squashed."""
    if data["crop_mode"] not in ("center", "squash"):
        message = f"images cropped by {data['crop_mode']!r}; known are center and squash"
        raise EncoderError(message)
    return Preprocessing(
        size=size,
        mean=tuple(255 * value for value in data["mean"]),
        std=tuple(255 * value for value in data["std"]),
        interpolation=data["interpolation"],
        mode="crop" if data["crop_mode"] == "center" else "squash",
        resize_to=int(size / data["crop_pct"]) if data["crop_mode"] == "center" else None,
    )
