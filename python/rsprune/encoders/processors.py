"""Configurations of the transformers library's image processors: every setting is followed, or refused by name."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, NoReturn

from rsprune.encoders.preprocess import Preprocessing
from rsprune.errors import WeightsError

__all__ = ["preprocessing"]

#: Pillow's filters by the number that a configuration gives them.
RESAMPLE: dict[int, Literal["bilinear", "bicubic"]] = {2: "bilinear", 3: "bicubic"}

CLIP_MEAN, CLIP_STD = [0.48145466, 0.4578275, 0.40821073], [0.26862954, 0.26130258, 0.27577711]

#: What every class does unless it, or the configuration, says otherwise.
EVERY_CLASS = {
    "do_resize": True,
    "do_center_crop": False,
    "do_rescale": True,
    "do_normalize": True,
    "do_pad": False,
    "default_to_square": False,
    "rescale_factor": 1 / 255,
}
CROPS = {
    "size": {"shortest_edge": 224},
    "crop_size": {"height": 224, "width": 224},
    "do_center_crop": True,
    "resample": 3,
    "image_mean": CLIP_MEAN,
    "image_std": CLIP_STD,
}
SQUASHES = {"size": {"height": 224, "width": 224}, "image_mean": [0.5] * 3, "image_std": [0.5] * 3}

#: The settings that a configuration of each class may leave out.
CLASSES: dict[str, dict[str, Any]] = {
    "CLIP": CROPS,
    "Bit": CROPS,
    "Siglip": SQUASHES | {"resample": 3},
    "ViT": SQUASHES | {"resample": 2, "default_to_square": True},
}

#: The class that reads a configuration without a name, by the model's type.
OF_MODEL = {"siglip": "Siglip", "clip": "CLIP", "dinov2": "Bit"}

#: What does not change the pixels of an RGB image.
NEUTRAL = {
    *("image_processor_type", "feature_extractor_type", "processor_class", "_valid_processor_keys", "do_convert_rgb"),
    *("pad_size", "data_format", "device", "disable_grouping", "return_tensors", "image_seq_length"),
}


def preprocessing(config: Mapping[str, Any], path: Path, kind: str) -> Preprocessing:
    """Read what is done to images from the configuration of an image processor, which is in the file ``path``.

    A setting that it lacks is that of its class; one without a class is read by that of the model's type, ``kind``. A
    class, a step or a value that is not followed here is a :class:`WeightsError`, which names it and the file.
    """
    name = str(config.get("image_processor_type") or config.get("feature_extractor_type") or OF_MODEL[kind])
    for suffix in ("Pil", "Fast", "ImageProcessor", "FeatureExtractor"):
        name = name.removesuffix(suffix)
    if name not in CLASSES:
        message = f"{path} is of the class {name}; known are the image processors of {', '.join(CLASSES)}"
        raise WeightsError(message)
    settings = {**EVERY_CLASS, **CLASSES[name], **config}

    def refuse(*keys: str, why: str) -> NoReturn:
        shown = ", ".join(f"{key} {settings.get(key)!r}" for key in keys)
        message = f"{path} has {shown}: {why}"
        raise WeightsError(message)

    for key in sorted(config.keys() - NEUTRAL - EVERY_CLASS.keys() - CROPS.keys()):
        if config[key] not in (None, False):
            refuse(key, why="images cannot be preprocessed so")
    if not settings["do_resize"]:
        refuse("do_resize", why="images of any size would stay so, and an encoder takes squares of one size")
    if settings["do_pad"]:
        refuse("do_pad", why="images are not padded here")
    if settings["resample"] not in RESAMPLE:
        refuse("resample", why="known are 2 (bilinear) and 3 (bicubic)")
    side, squash = _resized(settings["size"], square=settings["default_to_square"])
    if side is None:
        refuse("size", why="known are a shortest_edge, and a height that equals the width")
    size: int | None = side
    if settings["do_center_crop"]:
        size, square = _resized(settings.get("crop_size"), square=True)
        if size is None or not square or size > side:
            refuse("size", "crop_size", why="known are squares that are cut from the resized image")
    elif not squash:
        refuse("size", "do_center_crop", why="images would keep their shapes, and an encoder takes squares")
    scale = _numbers(settings["rescale_factor"], 1) if settings["do_rescale"] else [1.0]
    mean, std = [0.0] * 3, [1.0] * 3
    if settings["do_normalize"]:
        mean, std = (_numbers(settings[key], 3) for key in ("image_mean", "image_std"))
    if not (len(mean) == len(std) == 3 and len(scale) == 1 and 0 not in std + scale):
        refuse("image_mean", "image_std", "rescale_factor", why="expected a number for each of three channels")
    return Preprocessing(
        size=size or side,
        mean=(mean[0] / scale[0], mean[1] / scale[0], mean[2] / scale[0]),
        std=(std[0] / scale[0], std[1] / scale[0], std[2] / scale[0]),
        interpolation=RESAMPLE[settings["resample"]],
        mode="squash" if squash else "crop",
        resize_to=None if squash and size == side else side,
        middle="first",
    )


def _resized(value: Any, *, square: bool) -> tuple[int | None, bool]:
    """Read a size: the side in pixels, None if it is not known here; and whether it is that of both sides."""
    if isinstance(value, list) and len(value) == 2:
        value = dict(zip(("height", "width"), value, strict=True))
    if isinstance(value, Mapping):
        sides = {key: side for key, side in value.items() if side is not None}
        square = sides.keys() == {"height", "width"} and sides["height"] == sides["width"]
        value = next(iter(sides.values())) if square or sides.keys() == {"shortest_edge"} else None
    return (value if type(value) is int and value > 0 else None), square


def _numbers(value: Any, count: int) -> list[float]:
    """Read one number for each channel; fewer or none if it is anything else."""
    values = value if isinstance(value, list) else [value] * count
    return [float(one) for one in values if type(one) in (int, float) and math.isfinite(one)]
