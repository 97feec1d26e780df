"""Weights files: read without running code in them, named by their digest, loaded without a key too many or too few."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from rsprune.errors import WeightsError

if TYPE_CHECKING:
    from torch import Tensor, nn

    State = dict[str, Tensor]
    Module = TypeVar("Module", bound=nn.Module)

__all__ = ["load_into", "problems", "read_state", "refuse", "weights_provenance"]

#: How many keys a message shows.
SHOWN = 5

#: What training scripts wrap the tensors in, and what data-parallel training and torch.compile put before each name.
WRAPPERS = ("state_dict", "model", "teacher")
PREFIXES = ("module.", "_orig_mod.")


def weights_provenance(*paths: Path) -> dict[str, str]:
    """The name of a weights file and the SHA-256 of its content; of its shards in order, if it is in shards."""
    digest = hashlib.sha256()
    for path in paths:
        with path.open("rb") as file:
            while block := file.read(1 << 20):
                digest.update(block)
    return {"file": paths[0].name, "sha256": digest.hexdigest()}


def read_state(*paths: Path) -> State:
    """Read the tensors of a PyTorch or safetensors file, or of all shards of one. Code in it is not run.

    Wrappings (``{"state_dict": ...}``) and prefixes (``module.``) of training scripts are taken off.

    Raises
    ------
    WeightsError
        If a file is not there, or holds anything but named tensors.
    """
    state: State = {}
    for path in paths:
        state |= _unwrap(_read(path), path)
    return state


def _read(path: Path) -> Any:
    import torch
    from safetensors.torch import load_file

    if not path.is_file():
        message = f"no weights file at {path}"
        raise WeightsError(message)
    safe = path.suffix == ".safetensors"
    try:
        # Mapped, so that the half of the file that is not needed is not read.
        return load_file(path) if safe else torch.load(path, map_location="cpu", weights_only=True, mmap=_zipped(path))
    except Exception as error:  # damage shows as EOFError, RuntimeError, UnpicklingError, KeyError and more
        kind = "safetensors" if safe else "PyTorch"
        message = f"{path} is not a {kind} weights file: {error}"
        raise WeightsError(message) from error


def _zipped(path: Path) -> bool:
    """Whether PyTorch can map the file: those of before 1.6 it cannot."""
    with path.open("rb") as file:
        return file.read(4) == b"PK\x03\x04"


def _unwrap(state: Any, path: Path) -> State:
    import torch

    while isinstance(state, Mapping) and (inner := next((key for key in WRAPPERS if key in state), None)):
        state = state[inner]
    named = isinstance(state, Mapping) and all(isinstance(value, torch.Tensor) for value in state.values())
    if not named or not state:
        message = f"{path} holds {type(state).__name__}, expected tensors by name"
        raise WeightsError(message)
    tensors: State = dict(state)
    for prefix in PREFIXES:
        if all(key.startswith(prefix) for key in tensors):
            tensors = {key.removeprefix(prefix): value for key, value in tensors.items()}
    return tensors


def problems(want: Mapping[str, Sequence[int]], state: Mapping[str, Tensor]) -> list[str]:
    """What keeps ``state`` from being exactly the tensors of the names and shapes ``want``."""
    found = []
    for what, keys in (("missing", want.keys() - state.keys()), ("unexpected", state.keys() - want.keys())):
        if keys:
            found.append(f"{len(keys)} {what} keys ({', '.join(sorted(keys)[:SHOWN])}{', ...' * (len(keys) > SHOWN)})")
    for key in sorted(want.keys() & state.keys()):
        if tuple(want[key]) != tuple(state[key].shape):
            found.append(f"{key} has shape {tuple(state[key].shape)}, expected {tuple(want[key])}")
            break
    return found


def refuse(path: Path, reasons: list[str]) -> None:
    """Raise a :class:`WeightsError` if there are reasons to."""
    if reasons:
        message = f"{path} holds other weights than this encoder's: {'; '.join(reasons)}"
        raise WeightsError(message)


def load_into(build: Callable[[], Module], state: Mapping[str, Tensor], path: Path) -> Module:
    """Build a module and give it its weights, in float32; each tensor must have its place, and each place its tensor.

    Parameters
    ----------
    build : callable
        Makes the module.
    state : mapping
        The tensors by the module's own names.
    path : Path
        Where they come from, for the messages.

    Raises
    ------
    WeightsError
        Naming the keys that are missing or unexpected, or the first shape that differs.
    """
    import torch

    with torch.device("meta"):  # no time is spent on random weights, and no memory
        module = build()
    if {name for name, _ in module.named_buffers()} - module.state_dict().keys():
        module = build()  # some buffers are computed, and not in any file
    want = module.state_dict()
    state = {key: value.float() if value.is_floating_point() else value for key, value in state.items()}
    for key in want.keys() - state.keys():
        if key.endswith("num_batches_tracked"):  # a counter that files of before PyTorch 0.4.1 lack, and nothing reads
            state[key] = torch.zeros((), dtype=torch.long)
    refuse(path, problems({key: value.shape for key, value in want.items()}, state))
    module.load_state_dict(state, strict=True, assign=True)
    return module.eval()
