"""Export a network as a folder for diffusers' ``DiTPipeline``."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from rsprune.encoders.remap import Rename, layer
from rsprune.errors import ArgumentError
from rsprune.io import read_json, write_json
from rsprune.training import dit_transformer
from rsprune.training.config import TIMESTEPS
from rsprune.training.dit import NORM_EPS, DiT
from rsprune.training.dit_transformer import DiTTransformer
from rsprune.training.gaussian_diffusion import BETAS

if TYPE_CHECKING:
    from diffusers import AutoencoderKL

__all__ = ["export_pipeline", "to_diffusers"]


def to_diffusers(model: DiT) -> DiTTransformer:
    """Convert a network to diffusers' class, with the same output to the bit in float32.

    One with channels for a condition, which that class does not support, is an :class:`ArgumentError`.
    """
    config = model.config
    if model.cond_channels:
        message = f"diffusers' DiT has no channels for a condition; this network has {model.cond_channels}"
        raise ArgumentError(message)
    converted: DiTTransformer = DiTTransformer(
        num_attention_heads=config["num_heads"],
        attention_head_dim=config["hidden_size"] // config["num_heads"],
        in_channels=model.in_channels,
        out_channels=model.out_channels,
        num_layers=config["depth"],
        sample_size=model.input_size,
        patch_size=model.patch_size,
        num_embeds_ada_norm=model.num_classes or 1,
        norm_eps=NORM_EPS,
    )
    converted.load_state_dict(diffusers_state(model), strict=True)
    converted.eval()
    return converted


def renames(depth: int) -> Iterator[Rename]:
    """Rename the tensors that diffusers has unchanged; the embedding of time is repeated in every block."""
    yield from layer("x_embedder.proj", "pos_embed.proj")
    for i in range(depth):
        source, target = f"blocks.{i}", f"transformer_blocks.{i}"
        yield from layer("t_embedder.mlp.0", f"{target}.norm1.emb.timestep_embedder.linear_1")
        yield from layer("t_embedder.mlp.2", f"{target}.norm1.emb.timestep_embedder.linear_2")
        yield from layer(f"{source}.adaLN_modulation.1", f"{target}.norm1.linear")
        yield from layer(f"{source}.attn.proj", f"{target}.attn1.to_out.0")
        yield from layer(f"{source}.mlp.fc1", f"{target}.ff.net.0.proj")
        yield from layer(f"{source}.mlp.fc2", f"{target}.ff.net.2")
    yield from layer("final_layer.adaLN_modulation.1", "proj_out_1")
    yield from layer("final_layer.linear", "proj_out_2")


def diffusers_state(model: DiT) -> dict[str, Tensor]:
    """Return the weights by diffusers' names."""
    source = {name: value.detach().cpu().float() for name, value in model.state_dict().items()}
    out = {one.target: source[one.source] for one in renames(model.config["depth"])}
    table = torch.zeros((model.num_classes or 1) + 1, model.config["hidden_size"])  # zeros add nothing for a class
    if model.num_classes is not None:
        labels = source["y_embedder.embedding_table.weight"]
        table[: len(labels)] = labels
    for i in range(model.config["depth"]):
        out[f"transformer_blocks.{i}.norm1.emb.class_embedder.embedding_table.weight"] = table
        for kind in ("weight", "bias"):
            for letter, part in zip("qkv", source[f"blocks.{i}.attn.qkv.{kind}"].chunk(3), strict=True):
                out[f"transformer_blocks.{i}.attn1.to_{letter}.{kind}"] = part.contiguous()
    return out


def export_pipeline(model: DiT, autoencoder: AutoencoderKL, folder: str | Path) -> None:
    """Write a folder for ``DiTPipeline.from_pretrained(folder, trust_remote_code=True)``.

    The folder contains its own transformer class, because diffusers' embeds time steps at other frequencies (outputs
    would differ by up to a fifth of their range). Without ``trust_remote_code`` diffusers refuses the folder; it never
    samples from it wrongly. The pipeline of an unconditional network takes any labels, such as ``[0, 0]``.
    ``autoencoder`` decodes the latents of the network.

    Raises
    ------
    ArgumentError
        The network has channels for a condition.
    """
    from diffusers import DDIMScheduler, DiTPipeline

    scheduler = DDIMScheduler(TIMESTEPS, *BETAS, "linear", clip_sample=False)
    folder = Path(folder)
    DiTPipeline(to_diffusers(model), autoencoder, scheduler).save_pretrained(folder)
    source = Path(dit_transformer.__file__)
    shutil.copyfile(source, folder / "transformer" / source.name)
    index = read_json(folder / "model_index.json")
    index["transformer"] = [source.stem, DiTTransformer.__name__]
    write_json(folder / "model_index.json", index)
