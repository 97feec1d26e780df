"""Encoders: from images to unit vectors."""

from __future__ import annotations

import os
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import cast

from rsprune.encoders.base import Encoder
from rsprune.errors import EncoderError, MissingDependencyError

__all__ = ["Encoder", "encoder_names", "load_encoder"]

#: What builds an encoder from its weights file and device. Its module may import PyTorch: it is imported on demand.
Builder = Callable[[Path | None, str | None], Encoder]

#: Name, and "module:function" of its builder.
BUILDERS = {"efficientnet-lite0": "rsprune.encoders.efficientnet:build_efficientnet_lite0"}


def encoder_names() -> list[str]:
    """The names that :func:`load_encoder` knows."""
    return sorted(BUILDERS)


def load_encoder(name: str, *, weights: str | os.PathLike[str] | None = None, device: str | None = None) -> Encoder:
    """Load an encoder with its weights.

    Parameters
    ----------
    name : str
        One of :func:`encoder_names`.
    weights : path, optional
        A local weights file, instead of the one that is installed.
    device : str, optional
        ``"cpu"``, ``"cuda"``, ``"cuda:1"``. The first GPU if not given, or the CPU where there is none.

    Raises
    ------
    EncoderError
        For a name that is not known, or a device that is not there.
    WeightsError
        If the weights file is not there, or not this encoder's.
    MissingDependencyError
        If PyTorch, timm or the weights are not installed.
    """
    if name not in BUILDERS:
        message = f"no encoder is called {name!r}: known are {', '.join(encoder_names())}"
        raise EncoderError(message)
    module, _, function = BUILDERS[name].partition(":")
    try:
        build = cast("Builder", getattr(import_module(module), function))
    except ModuleNotFoundError as error:
        message = f'the encoder {name} needs {error.name}: `pip install "rsprune[embed]"`'
        raise MissingDependencyError(message) from error
    return build(None if weights is None else Path(weights), device)
