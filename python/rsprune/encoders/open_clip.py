"""CLIP image towers in open_clip's architectures: RemoteCLIP, GeoRSCLIP, and any that open_clip knows."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, get_args

import open_clip
import torch
from torch import nn

from rsprune.encoders.base import DeviceOptions
from rsprune.encoders.checkpoints import fetch, load_into, read_config, read_tower, weights_files, weights_provenance
from rsprune.encoders.preprocess import Interpolation, Mode, Preprocessing
from rsprune.encoders.registry import ZOO
from rsprune.encoders.torch_encoder import TorchEncoder
from rsprune.errors import EncoderError, WeightsError

__all__ = ["build"]

#: A folder that open_clip's own ``local-dir:`` takes, too.
LOCAL = "local-dir:"
CONFIG = "open_clip_config.json"
FOLDER_FILES = ("open_clip_model.safetensors", "open_clip_pytorch_model.bin")

#: What open_clip calls the ways to make a square of an image, and what they are here.
RESIZE_MODES: dict[str, Mode] = {"squash": "squash", "shortest": "crop"}

#: What rsprune's own folders say beside what open_clip reads: the form of GELU that a timm tower was trained with.
EXACT_GELU = "timm_gelu"


def build(name: str, weights: Path | None, options: DeviceOptions) -> TorchEncoder:
    """Build one of the known towers, or ``open_clip:<architecture>:<tag or file>``.

    The architecture may be ``local-dir:<folder>`` with ``open_clip_config.json``; a tag is one of open_clip's own for
    the architecture. ``weights`` is a checkpoint in open_clip's or OpenAI's names, with or without the text tower. An
    architecture or tag that open_clip does not know, or weights that were trained with another activation, are an
    :class:`EncoderError`, a file that is not this architecture's is a :class:`WeightsError`.
    """
    tag: Mapping[str, Any] = {}
    if known := ZOO.get(name):
        architecture = known.architecture
        path = weights or fetch(name, known.repository, known.file)
    else:
        architecture, path, tag = _resolve(name.partition(":")[2], weights, name)
    paths = weights_files(path, *FOLDER_FILES)
    model = _tower(architecture)
    settings: dict[str, Any] = dict(model.preprocess_cfg)
    settings |= {key: tag[key] for key in ("mean", "std", "interpolation", "resize_mode") if key in tag}
    layout, state = read_tower(*paths)
    if layout == "trunk":
        state = {f"trunk.{key}": value for key, value in state.items()}
    visual = load_into(lambda: _tower(architecture), state, paths[0])
    return TorchEncoder(
        name if known else f"open_clip:{architecture}",
        f"{architecture} (open_clip)",
        visual,
        preprocessing=_preprocessing(settings, architecture),
        weights=weights_provenance(*paths),
        options=options,
        versions={"open_clip": open_clip.__version__},
    )


def _resolve(rest: str, weights: Path | None, name: str) -> tuple[str, Path, Mapping[str, Any]]:
    """Resolve ``<architecture>:<tag or file>`` to the architecture, the weights file and the tag's settings."""
    if rest.startswith(LOCAL):
        folder = Path(rest.removeprefix(LOCAL))
        read_config(folder / CONFIG)  # open_clip reads it, and says less of what is wrong with it
        return rest, weights or folder, {}
    architecture, _, source = rest.partition(":")
    config = open_clip.get_model_config(architecture)
    if config is None:
        message = f"open_clip has no architecture {architecture!r}: `open_clip.list_models()` lists them"
        raise EncoderError(message)
    if weights is not None or not source or Path(source).is_file():
        if weights is None and not source:
            message = f"{name} names no weights: write open_clip:{architecture}:<tag or file>, or pass weights="
            raise EncoderError(message)
        return architecture, weights or Path(source), {}
    tag = open_clip.get_pretrained_cfg(architecture, source)
    if not tag:
        tags = ", ".join(open_clip.list_pretrained_tags_by_model(architecture)) or "none"
        message = f"{source!r} is neither a file nor a tag of {architecture}: its tags are {tags}"
        raise EncoderError(message)
    if bool(tag.get("quick_gelu")) != bool(config.get("quick_gelu")):
        activation = "QuickGELU" if tag.get("quick_gelu") else "GELU"
        other = f"{architecture}-quickgelu" if tag.get("quick_gelu") else architecture.removesuffix("-quickgelu")
        message = f"the weights {source!r} were trained with {activation}: write open_clip:{other}:{source}"
        raise EncoderError(message)
    repository, _, file = tag.get("hf_hub", "").rpartition("/")
    if not repository:
        message = (
            f"the weights {source!r} of {architecture} are not on the Hugging Face hub: fetch them from {tag['url']}"
        )
        raise WeightsError(message)
    return architecture, fetch(f"open_clip-{architecture}-{source}", repository, file or FOLDER_FILES[0]), tag


def _tower(architecture: str) -> Any:
    """Build the image tower without weights, on the default device."""
    with _quiet():
        device = torch.empty(0).device
        model = open_clip.create_model(architecture, load_weights=False, pretrained_text=False, device=device)
    visual = model.visual
    if architecture.startswith(LOCAL):
        form = read_config(Path(architecture.removeprefix(LOCAL)) / CONFIG).get(EXACT_GELU, "none")
        for module in visual.modules():
            if isinstance(module, nn.GELU):
                module.approximate = form
    return visual


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keep open_clip from warning that the network has random weights."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        yield
    finally:
        logging.disable(before)


def _preprocessing(settings: Mapping[str, Any], architecture: str) -> Preprocessing:
    """Follow open_clip's evaluation transform."""
    size, mode = settings["size"], settings["resize_mode"]
    sides = {size} if isinstance(size, int) else set(size)
    # open_clip's "random" is a choice in training; other images are resized bicubically then.
    interpolation: Any = "bicubic" if settings["interpolation"] == "random" else settings["interpolation"]
    if mode not in RESIZE_MODES or interpolation not in get_args(Interpolation) or len(sides) != 1:
        message = (
            f"{architecture} has resize_mode {mode!r}, interpolation {interpolation!r} and size {size}; known are "
            f"{', '.join(RESIZE_MODES)}, {', '.join(get_args(Interpolation))}, and squares"
        )
        raise EncoderError(message)
    mean, std = (
        tuple(255 * channel for channel in (value if isinstance(value, Sequence) else [value] * 3))
        for value in (settings["mean"], settings["std"])
    )
    return Preprocessing(size=sides.pop(), mean=mean, std=std, interpolation=interpolation, mode=RESIZE_MODES[mode])
