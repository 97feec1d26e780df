"""Weights files: found, named by their digest, and loaded without a key too many or too few."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rsprune.errors import WeightsError

if TYPE_CHECKING:
    from torch import Tensor, nn

__all__ = ["load_strict", "read_state", "weights_provenance"]

#: How many keys a message shows.
SHOWN = 5


def weights_provenance(path: Path) -> dict[str, str]:
    """The name of a weights file and the SHA-256 of its content."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return {"file": path.name, "sha256": digest.hexdigest()}


def read_state(path: Path) -> dict[str, Tensor]:
    """Read the tensors of a PyTorch file. Code in it is not run.

    Raises
    ------
    WeightsError
        If the file is not there, or holds anything but named tensors.
    """
    import torch

    if not path.is_file():
        message = f"no weights file at {path}"
        raise WeightsError(message)
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # damage shows as EOFError, RuntimeError, UnpicklingError, KeyError and more
        message = f"{path} is not a PyTorch weights file: {error}"
        raise WeightsError(message) from error
    if not isinstance(state, Mapping) or not all(isinstance(value, torch.Tensor) for value in state.values()):
        message = f"{path} holds {type(state).__name__}, expected tensors by name"
        raise WeightsError(message)
    return dict(state)


def load_strict(model: nn.Module, state: Mapping[str, Tensor], path: Path) -> None:
    """Copy every tensor of ``state`` into ``model``; each must have its place there, and each place its tensor.

    Raises
    ------
    WeightsError
        Naming the keys that are missing or unexpected, or the shapes that differ.
    """
    want: dict[str, Any] = model.state_dict()
    problems = []
    for what, keys in (("missing", want.keys() - state.keys()), ("unexpected", state.keys() - want.keys())):
        if keys:
            problems.append(
                f"{len(keys)} {what} keys ({', '.join(sorted(keys)[:SHOWN])}{', ...' * (len(keys) > SHOWN)})"
            )
    for key in sorted(want.keys() & state.keys()):
        if want[key].shape != state[key].shape:
            problems.append(f"{key} has shape {tuple(state[key].shape)}, expected {tuple(want[key].shape)}")
            break
    if problems:
        message = f"{path} holds other weights than this encoder's: {'; '.join(problems)}"
        raise WeightsError(message)
    model.load_state_dict(state, strict=True)
