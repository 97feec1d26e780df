"""Encoders: from images to unit vectors."""

from __future__ import annotations

import os
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import cast

from rsprune.encoders.base import Encoder
from rsprune.encoders.placement import Placement, Precision
from rsprune.encoders.registry import FAMILIES, KNOWN
from rsprune.errors import EncoderError, MissingDependencyError

__all__ = ["Encoder", "encoder_names", "load_encoder"]

#: What builds an encoder from its name, its weights and where it is to run.
Builder = Callable[[str, Path | None, Placement], Encoder]

#: How the encoders are named that have no name of their own.
OPEN = ("open_clip:<architecture>:<tag or file>", "timm:<architecture>[:<file>]", "hf:<folder or id>")


def encoder_names() -> list[str]:
    """The names that :func:`load_encoder` knows, beside the forms ``open_clip:``, ``timm:`` and ``hf:``."""
    return sorted(KNOWN)


def load_encoder(
    name: str,
    *,
    weights: str | os.PathLike[str] | None = None,
    device: str | None = None,
    precision: Precision = "auto",
    compile: bool = False,
) -> Encoder:
    """Load an encoder with its weights.

    Parameters
    ----------
    name : str
        One of :func:`encoder_names`; or ``open_clip:<architecture>:<tag or file>``, ``timm:<architecture>[:<file>]``
        or ``hf:<folder or id>``.
    weights : path, optional
        A local file or folder, instead of the published one. That one is looked for in ``RSPRUNE_WEIGHTS`` (or
        ``~/.cache/rsprune/weights``) and the Hugging Face hub's cache, and fetched if it is in neither.
    device : str, optional
        ``"cpu"``, ``"cuda"``, ``"cuda:1"``, or several with commas between them. Every GPU if not given, or the CPU
        where there is none.
    precision : str
        What the network computes in. ``"auto"``: bfloat16 where the device has instructions for it, else float32.
    compile : bool
        Have PyTorch compile the network: slow to start, faster from then on.

    Raises
    ------
    EncoderError
        For a name that is not known, or a device that is not there.
    WeightsError
        If the weights are not there and cannot be fetched, or are not this encoder's.
    MissingDependencyError
        If a library that the encoder needs is not installed.
    """
    family = KNOWN[name].family if name in KNOWN else name.partition(":")[0]
    if family not in FAMILIES or (name not in KNOWN and ":" not in name):
        message = f"no encoder is called {name!r}: known are {', '.join([*encoder_names(), *OPEN])}"
        raise EncoderError(message)
    placement = Placement(device, precision, compile)
    module, _, function = FAMILIES[family].partition(":")
    try:
        build = cast("Builder", getattr(import_module(module), function))
    except ModuleNotFoundError as error:
        message = f'the encoder {name} needs {error.name}: `pip install "rsprune[embed]"`'
        raise MissingDependencyError(message) from error
    return build(name, None if weights is None else Path(weights), placement)
