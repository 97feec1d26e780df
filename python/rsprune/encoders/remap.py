"""Renaming the tensors of a checkpoint to those of the module that it is loaded into."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from rsprune.encoders.checkpoints import raise_mismatch, state_dict_mismatches

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["Rename", "clip_blocks", "layer", "remap_state_dict"]


class Rename(NamedTuple):
    """A tensor's name in the checkpoint and in the module.

    ``shape`` is that in the checkpoint, where an error should name it by the checkpoint's name.
    """

    source: str
    target: str
    shape: tuple[int, ...] | None = None


def layer(source: str, target: str, shape: tuple[int, ...] | None = None) -> Iterator[Rename]:
    """Rename a layer's weight, of that shape, and its bias."""
    yield Rename(f"{source}.weight", f"{target}.weight", shape)
    yield Rename(f"{source}.bias", f"{target}.bias", None if shape is None else shape[:1])


def clip_blocks(depth: int) -> Iterator[Rename]:
    """Rename the blocks of a transformer from the names of the transformers library to those of open_clip."""
    for i in range(depth):
        source, target = f"encoder.layers.{i}", f"transformer.resblocks.{i}"
        yield from layer(f"{source}.layer_norm1", f"{target}.ln_1")
        for part in "qkv":
            for kind in ("weight", "bias"):
                yield Rename(f"{source}.self_attn.{part}_proj.{kind}", f"{target}.attn.in_proj_{kind}")
        yield from layer(f"{source}.self_attn.out_proj", f"{target}.attn.out_proj")
        yield from layer(f"{source}.layer_norm2", f"{target}.ln_2")
        yield from layer(f"{source}.mlp.fc1", f"{target}.mlp.c_fc")
        yield from layer(f"{source}.mlp.fc2", f"{target}.mlp.c_proj")


def remap_state_dict(state: Mapping[str, Tensor], table: Iterable[Rename], path: Path) -> dict[str, Tensor]:
    """Rename tensors; those with the same target are concatenated in the order of the table.

    A tensor that is missing, unexpected or of another shape is a ``WeightsError``, by its name in the file at ``path``.
    """
    import torch

    renames = list(table)
    want = {
        one.source: tuple(state[one.source].shape) if one.shape is None and one.source in state else one.shape or ()
        for one in renames
    }
    raise_mismatch(path, state_dict_mismatches(want, state))
    parts: dict[str, list[Tensor]] = {}
    for one in renames:
        parts.setdefault(one.target, []).append(state[one.source])
    return {target: torch.cat(tensors) if len(tensors) > 1 else tensors[0] for target, tensors in parts.items()}
