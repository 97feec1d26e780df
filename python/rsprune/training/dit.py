"""The diffusion transformer: DiT with adaLN-Zero blocks (Peebles and Xie, ICCV 2023, arXiv 2212.09748, section 3).

Parameters have the names of the published checkpoints, which therefore load as they are. Written from the paper.
"""

from __future__ import annotations

import math
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from rsprune.errors import ArgumentError, ShapeError

__all__ = ["DiT", "DiT_models"]

#: The sizes of the paper's table 1: blocks, width, heads.
SIZES = {"S": (12, 384, 6), "B": (12, 768, 12), "L": (24, 1024, 16), "XL": (28, 1152, 16)}
PATCHES = (2, 4, 8)

#: Sines and cosines that stand for a time step, and the longest of their periods over 2 pi.
FREQUENCIES = 256
MAX_PERIOD = 10_000

#: LayerNorm's, in the blocks and before the output.
NORM_EPS = 1e-6


def time_features(t: Tensor) -> Tensor:
    """Cosines and sines of the time steps: (n,) of any number type to float32 (n, 256).

    The frequencies are ``MAX_PERIOD ** (-i / half)``: they begin at 1 and stop short of ``1 / MAX_PERIOD``.
    """
    half = FREQUENCIES // 2
    exponent = -math.log(MAX_PERIOD) * torch.arange(half, dtype=torch.float32, device=t.device) / half
    phase = t[:, None].float() * torch.exp(exponent)
    return torch.cat([phase.cos(), phase.sin()], dim=1)


def position_features(width: int, side: int) -> Tensor:
    """Sines and cosines of the places of a ``side`` x ``side`` grid, row by row: float32 (1, side * side, width).

    Half of the features are those of the column, half those of the row.
    """
    omega = 1.0 / MAX_PERIOD ** (torch.arange(width // 4, dtype=torch.float64) / (width // 4))
    phase = torch.outer(torch.arange(side, dtype=torch.float64), omega)
    one = torch.cat([phase.sin(), phase.cos()], dim=1)
    column, row = one.repeat(side, 1), one.repeat_interleave(side, dim=0)
    return torch.cat([column, row], dim=1).float()[None]


def modulate(x: Tensor, shift: Tensor, scale: Tensor) -> Tensor:
    """Shift and scale tokens (n, T, D) by one vector (n, D) an image."""
    return x * (1 + scale[:, None]) + shift[:, None]


def norm(width: int) -> nn.LayerNorm:
    """A layer norm that leaves shift and scale to adaLN."""
    return nn.LayerNorm(width, eps=NORM_EPS, elementwise_affine=False)


class PatchEmbedding(nn.Module):
    """Patches to tokens: (n, C, H, W) to (n, T, D).

    The channels of a condition, if there are such, have columns of their own in the one weight. They are a product
    apart, so that with zero columns the tokens are those of the noise channels alone, to the bit.
    """

    def __init__(self, channels: int, cond_channels: int, width: int, patch: int) -> None:
        super().__init__()
        self.channels = channels
        self.proj = nn.Conv2d(channels + cond_channels, width, patch, stride=patch)

    def forward(self, x: Tensor, cond: Tensor | None) -> Tensor:
        """Embed ``x`` and its condition."""
        weight, stride = self.proj.weight, self.proj.stride
        tokens = functional.conv2d(x, weight[:, : self.channels], self.proj.bias, stride)
        if cond is not None:
            tokens = tokens + functional.conv2d(cond, weight[:, self.channels :], None, stride)
        return tokens.flatten(2).transpose(1, 2)


class TimeEmbedding(nn.Module):
    """A time step to a vector: (n,) to (n, D)."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.mlp = nn.Sequential(nn.Linear(FREQUENCIES, width), nn.SiLU(), nn.Linear(width, width))

    def forward(self, t: Tensor) -> Tensor:
        """Embed time steps."""
        out: Tensor = self.mlp(time_features(t).to(next(self.mlp.parameters()).dtype))
        return out


class LabelEmbedding(nn.Module):
    """A class to a vector: int64 (n,) to (n, D)."""

    def __init__(self, rows: int, width: int) -> None:
        super().__init__()
        self.embedding_table = nn.Embedding(rows, width)

    def forward(self, y: Tensor) -> Tensor:
        """Embed classes."""
        out: Tensor = self.embedding_table(y)
        return out


class Attention(nn.Module):
    """Multi-head self-attention over tokens (n, T, D)."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(width, 3 * width)
        self.proj = nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        """Attend."""
        q, k, v = self.qkv(x).reshape(*x.shape[:2], 3, self.heads, -1).permute(2, 0, 3, 1, 4)
        out: Tensor = self.proj(functional.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2))
        return out


class Mlp(nn.Module):
    """The pointwise network of a block."""

    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        self.fc1 = nn.Linear(width, hidden)
        self.fc2 = nn.Linear(hidden, width)

    def forward(self, x: Tensor) -> Tensor:
        """Apply it to every token."""
        out: Tensor = self.fc2(functional.gelu(self.fc1(x), approximate="tanh"))
        return out


class Block(nn.Module):
    """A transformer block whose norms and residuals are modulated by the condition (figure 3, adaLN-Zero)."""

    def __init__(self, width: int, heads: int, mlp_ratio: float) -> None:
        super().__init__()
        self.norm1 = norm(width)
        self.attn = Attention(width, heads)
        self.norm2 = norm(width)
        self.mlp = Mlp(width, int(width * mlp_ratio))
        self.adaLN_modulation = nn.Sequential(nn.SiLU(), nn.Linear(width, 6 * width))

    def forward(self, x: Tensor, c: Tensor) -> Tensor:
        """Transform tokens (n, T, D) under conditions (n, D)."""
        shift1, scale1, gate1, shift2, scale2, gate2 = self.adaLN_modulation(c).chunk(6, dim=1)
        x = x + gate1[:, None] * self.attn(modulate(self.norm1(x), shift1, scale1))
        x = x + gate2[:, None] * self.mlp(modulate(self.norm2(x), shift2, scale2))
        return x


class FinalLayer(nn.Module):
    """Tokens to patches: (n, T, D) to (n, T, P * P * C)."""

    def __init__(self, width: int, out: int) -> None:
        super().__init__()
        self.norm_final = norm(width)
        self.linear = nn.Linear(width, out)
        self.adaLN_modulation = nn.Sequential(nn.SiLU(), nn.Linear(width, 2 * width))

    def forward(self, x: Tensor, c: Tensor) -> Tensor:
        """Predict."""
        shift, scale = self.adaLN_modulation(c).chunk(2, dim=1)
        out: Tensor = self.linear(modulate(self.norm_final(x), shift, scale))
        return out


class DiT(nn.Module):
    """A diffusion transformer that predicts noise, and how far between their bounds the variances lie.

    Parameters
    ----------
    input_size : int
        Height and width of its input, in latent or image pixels.
    patch_size : int
        Side of the patches that become tokens.
    in_channels : int
        Channels of the noisy input.
    hidden_size, depth, num_heads : int
        Width of the tokens, number of blocks, attention heads of each.
    mlp_ratio : float
        Hidden width of a block's MLP over ``hidden_size``.
    class_dropout_prob : float
        When positive the label table has one more row, for "no class": :attr:`null_label`. Who trains
        replaces labels by it at this rate; the network draws nothing.
    num_classes : int, optional
        When None the network is unconditional: it sees the time step only, and has no label table.
    learn_sigma : bool
        Whether there is a second half of output channels, for the variances.
    cond_channels : int
        Channels of an image that conditions the output, concatenated to the noisy one. Their weights begin at zero, and
        they add nothing to the output channels.

    Attributes
    ----------
    config : dict
        The parameters above: ``DiT(**config)`` has the same structure.

    Raises
    ------
    ArgumentError
        If the sizes do not divide as they must.
    """

    def __init__(
        self,
        input_size: int = 32,
        patch_size: int = 2,
        in_channels: int = 4,
        hidden_size: int = 1152,
        depth: int = 28,
        num_heads: int = 16,
        mlp_ratio: float = 4.0,
        class_dropout_prob: float = 0.1,
        num_classes: int | None = 1000,
        learn_sigma: bool = True,
        cond_channels: int = 0,
    ) -> None:
        super().__init__()
        self.config: dict[str, Any] = {
            "input_size": input_size,
            "patch_size": patch_size,
            "in_channels": in_channels,
            "hidden_size": hidden_size,
            "depth": depth,
            "num_heads": num_heads,
            "mlp_ratio": mlp_ratio,
            "class_dropout_prob": class_dropout_prob,
            "num_classes": num_classes,
            "learn_sigma": learn_sigma,
            "cond_channels": cond_channels,
        }
        check_config(self.config)
        self.input_size = input_size
        self.patch_size = patch_size
        self.in_channels = in_channels
        self.cond_channels = cond_channels
        self.num_classes = num_classes
        self.out_channels = 2 * in_channels if learn_sigma else in_channels
        self.x_embedder = PatchEmbedding(in_channels, cond_channels, hidden_size, patch_size)
        self.t_embedder = TimeEmbedding(hidden_size)
        if num_classes is not None:
            self.y_embedder = LabelEmbedding(num_classes + (class_dropout_prob > 0), hidden_size)
        # A parameter, as in the published files, that no optimiser moves.
        self.pos_embed = nn.Parameter(position_features(hidden_size, input_size // patch_size), requires_grad=False)
        self.blocks = nn.ModuleList(Block(hidden_size, num_heads, mlp_ratio) for _ in range(depth))
        self.final_layer = FinalLayer(hidden_size, patch_size**2 * self.out_channels)
        self.reset_parameters()

    @property
    def null_label(self) -> int | None:
        """The label that means "no class"; None where there is none."""
        return self.num_classes if self.config["class_dropout_prob"] > 0 else None

    def reset_parameters(self) -> None:
        """Draw the weights from torch's global generator: Xavier, with every block the identity and the output zero."""
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.xavier_uniform_(module.weight)
                nn.init.zeros_(module.bias)
        patches = self.x_embedder.proj.weight
        with torch.no_grad():
            # Drawn as the matrix that it is, for the noise channels alone: a condition begins without a say.
            fresh = torch.empty(len(patches), self.in_channels * self.patch_size**2)
            patches.zero_()
            patches[:, : self.in_channels] = nn.init.xavier_uniform_(fresh).view_as(patches[:, : self.in_channels])
        if self.x_embedder.proj.bias is not None:
            nn.init.zeros_(self.x_embedder.proj.bias)
        if self.num_classes is not None:
            nn.init.normal_(self.y_embedder.embedding_table.weight, std=0.02)
        for parameter in self.t_embedder.parameters():
            if parameter.ndim == 2:
                nn.init.normal_(parameter, std=0.02)
        nn.init.zeros_(self.final_layer.linear.weight)
        for module in self.modules():
            if isinstance(module, (Block, FinalLayer)):
                for parameter in module.adaLN_modulation.parameters():
                    nn.init.zeros_(parameter)

    def forward(self, x: Tensor, t: Tensor, y: Tensor | None = None, cond: Tensor | None = None) -> Tensor:
        """Predict the noise in ``x``.

        Parameters
        ----------
        x : Tensor
            (n, C, S, S), noisy.
        t : Tensor
            (n,): time steps, from 0.
        y : Tensor, optional
            int64 (n,): classes. Exactly where the network is class-conditional.
        cond : Tensor, optional
            (n, cond_channels, S, S). Exactly where the network has such channels.

        Returns
        -------
        Tensor
            (n, out_channels, S, S): the noise, then the variances.

        Raises
        ------
        ShapeError
            If an input has another shape.
        ArgumentError
            If one is missing, or not used.
        """
        self.check(x, y, cond)
        tokens = self.x_embedder(x, cond) + self.pos_embed
        c = self.t_embedder(t)
        if y is not None:
            c = c + self.y_embedder(y)
        for block in self.blocks:
            tokens = block(tokens, c)
        return self.unpatch(self.final_layer(tokens, c))

    def unpatch(self, tokens: Tensor) -> Tensor:
        """(n, T, P * P * C) to (n, C, S, S)."""
        side, patch = self.input_size // self.patch_size, self.patch_size
        pixels = tokens.reshape(-1, side, side, patch, patch, self.out_channels)
        return pixels.permute(0, 5, 1, 3, 2, 4).reshape(-1, self.out_channels, self.input_size, self.input_size)

    def check(self, x: Tensor, y: Tensor | None, cond: Tensor | None) -> None:
        """Refuse inputs that do not fit."""
        expected = (self.in_channels, self.input_size, self.input_size)
        if x.ndim != 4 or tuple(x.shape[1:]) != expected:
            message = f"expected x of shape {('n', *expected)}, got {tuple(x.shape)}"
            raise ShapeError(message)
        if (y is None) != (self.num_classes is None):
            has = "no classes" if self.num_classes is None else f"{self.num_classes} classes"
            message = f"the network has {has}: {'drop y' if y is not None else 'y is missing'}"
            raise ArgumentError(message)
        if (cond is None) != (self.cond_channels == 0):
            what = "drop cond" if cond is not None else "cond is missing"
            message = f"the network has {self.cond_channels} channels for a condition: {what}"
            raise ArgumentError(message)
        if cond is not None and cond.shape[1:] != (self.cond_channels, *expected[1:]):
            message = f"expected cond of shape {('n', self.cond_channels, *expected[1:])}, got {tuple(cond.shape)}"
            raise ShapeError(message)


def check_config(config: dict[str, Any]) -> None:
    """Refuse sizes that do not divide as they must."""
    for name in ("input_size", "patch_size", "in_channels", "hidden_size", "depth", "num_heads"):
        if config[name] < 1:
            message = f"{name} must be positive, got {config[name]}"
            raise ArgumentError(message)
    if config["input_size"] % config["patch_size"]:
        message = f"input_size={config['input_size']} is no multiple of patch_size={config['patch_size']}"
        raise ArgumentError(message)
    if config["hidden_size"] % config["num_heads"] or config["hidden_size"] % 4:
        heads = config["num_heads"]
        message = f"hidden_size={config['hidden_size']} must be a multiple of num_heads={heads} and of 4"
        raise ArgumentError(message)
    if config["num_classes"] is not None and config["num_classes"] < 1:
        message = f"num_classes must be positive, or None for an unconditional network; got {config['num_classes']}"
        raise ArgumentError(message)


#: The published networks by their names: ``DiT_models["DiT-XL/2"](input_size=32)``.
DiT_models = {
    f"DiT-{size}/{patch}": partial(DiT, depth=depth, hidden_size=width, num_heads=heads, patch_size=patch)
    for size, (depth, width, heads) in SIZES.items()
    for patch in PATCHES
}
