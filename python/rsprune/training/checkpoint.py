"""Weights of diffusion transformers: the published checkpoints, and our own.

A checkpoint is what `torch.save` writes of ``{"model": ..., "ema": ..., "opt": ..., "args": ...}``, or of the tensors
alone. It is read without running code in it.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from rsprune.encoders.weights import problems
from rsprune.errors import WeightsError
from rsprune.training.dit import SIZES, DiT

__all__ = ["Which", "inferred_config", "load_dit", "read_checkpoint", "start_from"]

#: The averaged weights, or those that the optimiser moves.
Which = Literal["ema", "model"]

HEADS = {width: heads for _, width, heads in SIZES.values()}


def read_checkpoint(path: str | Path, *, mmap: bool = False) -> dict[str, Any]:
    """Read a checkpoint onto the CPU. Nothing in it is run: it may hold tensors, plain values and a ``Namespace``.

    Raises
    ------
    WeightsError
        If it is not there, is damaged, or holds anything else.
    """
    path = Path(path)
    if not path.is_file():
        message = f"no checkpoint at {path}"
        raise WeightsError(message)
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


def tensors_of(content: Mapping[str, Any], which: Which, path: Path) -> dict[str, Tensor]:
    """The network's tensors by name."""
    state = content.get(which, content if "model" not in content and "ema" not in content else None)
    if not isinstance(state, Mapping) or not state or not all(torch.is_tensor(value) for value in state.values()):
        message = f'{path} has no weights "{which}": it holds {", ".join(sorted(map(str, content))[:8])}'
        raise WeightsError(message)
    return {name.removeprefix("module.").removeprefix("_orig_mod."): value for name, value in state.items()}


def inferred_config(state: Mapping[str, Tensor], path: Path) -> dict[str, Any]:
    """The structure that a state dict is of. Heads leave no trace in it: they are those of the published widths.

    Raises
    ------
    WeightsError
        If it is none of a DiT, or of a width that is not published.
    """
    try:
        width, inputs, patch, _ = state["x_embedder.proj.weight"].shape
        tokens = state["pos_embed"].shape[1]
        outputs = state["final_layer.linear.weight"].shape[0] // patch**2
        hidden = state["blocks.0.mlp.fc1.weight"].shape[0]
    except (KeyError, ValueError, IndexError) as error:
        message = f"{path} holds no weights of a DiT: {error}"
        raise WeightsError(message) from error
    if width not in HEADS:
        message = (
            f"{path} is of width {width}; those published are {', '.join(map(str, HEADS))}, others name their heads"
        )
        raise WeightsError(message)
    table = state.get("y_embedder.embedding_table.weight")
    # More outputs than inputs: the second half are variances.
    learned = outputs > inputs
    return {
        "input_size": round(tokens**0.5) * patch,
        "patch_size": patch,
        "in_channels": outputs // 2 if learned else outputs,
        "hidden_size": width,
        "depth": 1 + max(int(name.split(".")[1]) for name in state if name.startswith("blocks.")),
        "num_heads": HEADS[width],
        "mlp_ratio": hidden / width,
        "class_dropout_prob": 0.1,  # those published all have the row for "no class"
        "num_classes": None if table is None else len(table) - 1,
        "learn_sigma": learned,
        "cond_channels": inputs - outputs // 2 if learned else inputs - outputs,
    }


def load_dit(path: str | Path, which: Which = "ema") -> DiT:
    """Load a network from a published checkpoint or one of `rsprune train`, in float32 and evaluation mode.

    Parameters
    ----------
    path : path
        The file. A file of the tensors alone has one kind of weights, whatever ``which`` says.
    which : str
        ``"ema"``: the averaged weights, which sample better. ``"model"``: the last ones.

    Raises
    ------
    WeightsError
        If the file is no such checkpoint, with the first names or shapes that differ.
    """
    path = Path(path)
    content = read_checkpoint(path)
    state = tensors_of(content, which, path)
    recipe = content.get("recipe")
    known = recipe.get("network") if isinstance(recipe, Mapping) else None
    config = dict(known) if isinstance(known, Mapping) else inferred_config(state, path)
    try:
        with torch.device("meta"):  # no time is spent on random weights
            model = DiT(**config)
    except (TypeError, ValueError) as error:
        message = f"{path} describes a network that cannot be: {error}"
        raise WeightsError(message) from error
    load_state(model, state, path)
    return model.eval()


def load_state(model: DiT, state: Mapping[str, Tensor], path: Path) -> None:
    """Give a network exactly these tensors, in float32."""
    found = problems({name: value.shape for name, value in model.state_dict().items()}, state)
    if found:
        message = f"{path} holds other weights than this network's: {'; '.join(found)}"
        raise WeightsError(message)
    model.load_state_dict({name: value.float() for name, value in state.items()}, strict=True, assign=True)
    model.pos_embed.requires_grad_(False)


def start_from(model: DiT, path: str | Path, which: Which = "ema") -> None:
    """Give a network with channels for a condition the weights of one without.

    At first it predicts the same, to the bit: the columns of the new channels are zero. A network without classes may
    start from one that has them: it takes the embedding of "no class" into its time embedding, and so begins as that
    network without a class.

    Raises
    ------
    WeightsError
        If anything else differs.
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
