"""Checkpoints: written atomically, resumed exactly, and loaded as networks, the published ones included.

A checkpoint is what `torch.save` writes of ``{"model": ..., "ema": ..., "opt": ..., "args": ...}``, or of the tensors
alone. No code in it is run when it is read.
"""

from __future__ import annotations

import argparse
import os
import shutil
import struct
import sys
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from rsprune.encoders.checkpoints import raise_mismatch, state_dict_mismatches
from rsprune.errors import ConfigMismatchError, DamagedFileError, WeightsError
from rsprune.io import atomic_write, check_pointer, config_diff
from rsprune.storage import localize
from rsprune.training.config import Which
from rsprune.training.dit import SIZES, DiT

__all__ = [
    "TrainingFolder",
    "check_state",
    "inferred_config",
    "initial_weights",
    "keep_checkpoint",
    "load_dit",
    "load_state",
    "read_checkpoint",
    "resume_checkpoint",
    "save_checkpoint",
    "start_from",
]

HEADS = {width: heads for _, width, heads in SIZES.values()}


class TrainingFolder:
    """The paths in the folder of a training."""

    #: What tells such a folder from others.
    CONTENTS = ("latents", "conditions", "checkpoints")

    def __init__(self, path: str | Path) -> None:
        self.path = localize(path)
        self.last = self.path / "checkpoints" / "last.pt"
        self.losses = self.path / "losses.csv"
        self.curve = self.path / "losses.svg"
        self.tensorboard = self.path / "tensorboard"

    def checkpoint(self, step: int) -> Path:
        """Return the path of a checkpoint that is kept."""
        return self.path / "checkpoints" / f"{step:07d}.pt"

    def samples(self, step: int) -> Path:
        """Return the path of a grid of samples."""
        return self.path / "samples" / f"{step:07d}.png"


def save_checkpoint(path: Path, content: Mapping[str, Any]) -> None:
    """Write a checkpoint atomically. Equal contents give equal bytes."""
    # As a file object: given a path, torch.save would write its name into the archive.
    with atomic_write(path) as temporary, temporary.open("wb") as file:
        torch.save(_canonical(content), file)


def _canonical(value: Any) -> Any:
    """Rebuild containers and strings: pickle writes an object that it has seen before differently from its equal."""
    if isinstance(value, Mapping):
        return {_canonical(key): _canonical(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return type(value)([_canonical(item) for item in value])
    return sys.intern(value) if type(value) is str else value


def keep_checkpoint(path: Path, name: Path) -> None:
    """Hard-link a checkpoint as ``name``; copy it where the file system has no links, as many network drives."""
    with atomic_write(name) as temporary:
        try:
            os.link(path, temporary)
        except OSError:
            shutil.copyfile(path, temporary)


def read_checkpoint(path: str | Path, *, mmap: bool = False) -> dict[str, Any]:
    """Read a checkpoint to the CPU. It may hold tensors, plain values and a ``Namespace``; no code in it is run.

    A part of it without the checksum that it was written with is a :class:`DamagedFileError`; a file that is not there,
    or no checkpoint, is a :class:`WeightsError`.
    """
    path = Path(path)
    if not path.is_file():
        message = f"no checkpoint at {path}"
        raise WeightsError(message)
    check_pointer(path, WeightsError)
    check_sums(path)
    try:
        with torch.serialization.safe_globals([argparse.Namespace]):
            content = torch.load(path, map_location="cpu", weights_only=True, mmap=mmap)
    except Exception as error:  # damage shows as EOFError, RuntimeError, UnpicklingError, KeyError and more
        message = f"{path} is not a checkpoint that can be read safely: {str(error).splitlines()[0]}"
        raise WeightsError(message) from error
    if not isinstance(content, dict):
        message = f"{path} holds {type(content).__name__}, expected a checkpoint or tensors by name"
        raise WeightsError(message)
    return content


def check_sums(path: Path) -> None:
    """Compare the parts of a checkpoint with their CRC-32, at which PyTorch does not look when it reads them.

    The older format has none.
    """
    try:
        if not zipfile.is_zipfile(path):
            return
        with zipfile.ZipFile(path) as archive:
            damaged = archive.testzip()
    except (zipfile.BadZipFile, OSError, RuntimeError, ValueError, EOFError, struct.error) as error:
        damaged = str(error)
    if damaged:
        message = f"{path} is damaged ({damaged}): put a checkpoint that was kept in its place, or begin anew"
        raise DamagedFileError(message)


def resume_checkpoint(path: Path, recipe: Mapping[str, Any]) -> dict[str, Any] | None:
    """Read the checkpoint that a training resumes from; None if there is none yet.

    One of another recipe is refused; the message lists what differs.
    """
    if not path.exists():
        return None
    try:
        content = read_checkpoint(path)
    except WeightsError as error:  # the training itself wrote it
        raise DamagedFileError(str(error)) from error
    stored = {name: value for name, value in content["recipe"].items() if name != "iterations"}
    if differences := list(config_diff(stored, recipe)):
        lines = "\n".join(f"  {line}" for line in differences)
        message = f"{path} is a checkpoint of another recipe:\n{lines}\nGive the training another folder"
        raise ConfigMismatchError(message)
    return content


def tensors_of(content: Mapping[str, Any], which: Which, path: Path) -> dict[str, Tensor]:
    """Return the weights of a network by name."""
    state = content.get(which, content if "model" not in content and "ema" not in content else None)
    if not isinstance(state, Mapping) or not state or not all(torch.is_tensor(value) for value in state.values()):
        message = f'{path} has no weights "{which}": it holds {", ".join(sorted(map(str, content))[:8])}'
        raise WeightsError(message)
    return {name.removeprefix("module.").removeprefix("_orig_mod."): value for name, value in state.items()}


def inferred_config(state: Mapping[str, Tensor], path: Path) -> dict[str, Any]:
    """Infer the structure of a DiT from its state dict; the number of heads follows from the published widths."""
    try:
        width, inputs, patch, _ = state["x_embedder.proj.weight"].shape
        tokens = state["pos_embed"].shape[1]
        outputs = state["final_layer.linear.weight"].shape[0] // patch**2
        hidden = state["blocks.0.mlp.fc1.weight"].shape[0]
    except (KeyError, ValueError, IndexError) as error:
        message = f"{path} holds no weights of a DiT: {error}"
        raise WeightsError(message) from error
    if width not in HEADS:
        published = ", ".join(map(str, HEADS))
        message = f"{path} has width {width}: only for the published ones, {published}, is the number of heads known"
        raise WeightsError(message)
    table = state.get("y_embedder.embedding_table.weight")
    # With more outputs than inputs the second half are variances.
    learned = outputs > inputs
    return {
        "input_size": round(tokens**0.5) * patch,
        "patch_size": patch,
        "in_channels": outputs // 2 if learned else outputs,
        "hidden_size": width,
        "depth": 1 + max(int(name.split(".")[1]) for name in state if name.startswith("blocks.")),
        "num_heads": HEADS[width],
        "mlp_ratio": hidden / width,
        "class_dropout_prob": 0.1,  # all published ones have the row for "no class"
        "num_classes": None if table is None else len(table) - 1,
        "learn_sigma": learned,
        "cond_channels": inputs - outputs // 2 if learned else inputs - outputs,
    }


def load_dit(path: str | Path, which: Which = "ema") -> DiT:
    """Load a network from a published checkpoint or one of `rsprune train`, in float32 and evaluation mode.

    ``which`` is ``"ema"`` for the averaged weights, which sample better, or ``"model"`` for the last ones. It is
    ignored for a file of the tensors alone. Another file is a :class:`WeightsError`, which lists the first names or
    shapes that differ.
    """
    path = Path(path)
    content = read_checkpoint(path)
    state = tensors_of(content, which, path)
    recipe = content.get("recipe")
    known = recipe.get("network") if isinstance(recipe, Mapping) else None
    config = dict(known) if isinstance(known, Mapping) else inferred_config(state, path)
    try:
        with torch.device("meta"):  # skips the initialization
            model = DiT(**config)
    except (TypeError, ValueError) as error:
        message = f"{path} describes an impossible network: {error}"
        raise WeightsError(message) from error
    load_state(model, state, path)
    return model.eval()


def initial_weights(path: Path) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Read the weights that a new training begins with: the last ones, and the averaged ones.

    A file of the tensors alone has them for both. One without both, or with some that are not finite, is a
    :class:`WeightsError`.
    """
    content = read_checkpoint(path)
    both = tensors_of(content, "model", path), tensors_of(content, "ema", path)
    for state in both:
        if broken := [name for name, value in state.items() if not value.isfinite().all()]:
            message = f"{path} is of a training that had diverged: {broken[0]} is not finite. Take an earlier one"
            raise WeightsError(message)
    return both


def check_state(model: DiT, state: Mapping[str, Tensor], path: Path) -> None:
    """Raise a :class:`~rsprune.errors.WeightsError` unless these are the tensors of a network."""
    expected = {name: value.shape for name, value in model.state_dict().items()}
    raise_mismatch(path, state_dict_mismatches(expected, state))


def load_state(model: DiT, state: Mapping[str, Tensor], path: Path) -> None:
    """Load exactly these tensors into a network, in float32."""
    check_state(model, state, path)
    model.load_state_dict({name: value.float() for name, value in state.items()}, strict=True, assign=True)
    model.pos_embed.requires_grad_(False)


def start_from(model: DiT, path: str | Path, which: Which = "ema") -> None:
    """Initialize a network with channels for a condition from one without.

    Both predict the same, to the bit, because the columns of the new channels are zero. An unconditional network may
    start from a class-conditional one: the embedding of "no class" is added to the bias of its time embedding. If
    anything else differs, it is a :class:`WeightsError`.
    """
    path = Path(path)
    state = tensors_of(read_checkpoint(path), which, path)
    table = state.get("y_embedder.embedding_table.weight")
    if table is not None and model.num_classes is None:
        state = {name: value for name, value in state.items() if not name.startswith("y_embedder.")}
        state["t_embedder.mlp.2.bias"] = state["t_embedder.mlp.2.bias"].float() + table[-1].float()
    weight = state.get("x_embedder.proj.weight")
    if weight is not None and weight.ndim == 4 and weight.shape[1] == model.in_channels:
        wider = weight.new_zeros(len(weight), model.in_channels + model.cond_channels, *weight.shape[2:])
        wider[:, : model.in_channels] = weight
        state["x_embedder.proj.weight"] = wider
    load_state(model, state, path)
