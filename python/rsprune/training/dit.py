"""The diffusion transformer: DiT with adaLN-Zero blocks (Peebles and Xie, ICCV 2023, arXiv 2212.09748, section 3).

Written from the paper. Parameters carry the names of the published checkpoints, which therefore load unchanged.
Shapes: n images, C channels, S the side of the input, P the side of a patch, T = (S / P)^2 tokens, D their width.
"""

from __future__ import annotations

import inspect
import math
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from typing_extensions import override

from rsprune.errors import ArgumentError, ShapeError
from rsprune.validation import check_integer

__all__ = ["DiT", "DiT_models"]

#: The sizes of table 1 in the paper: depth, width, attention heads.
SIZES = {"S": (12, 384, 6), "B": (12, 768, 12), "L": (24, 1024, 16), "XL": (28, 1152, 16)}
PATCHES = (2, 4, 8)

#: Width of the sinusoidal timestep embedding, and its longest period over 2 pi.
FREQUENCIES = 256
MAX_PERIOD = 10_000

#: Epsilon of every LayerNorm.
NORM_EPS = 1e-6


def timestep_embedding(t: Tensor) -> Tensor:
    """Sinusoidal embedding of time steps (n,): float32 (n, 256), cosines first.

    The frequencies begin at 1 and stop short of ``1 / MAX_PERIOD``.
    """
    half = FREQUENCIES // 2
    exponent = -math.log(MAX_PERIOD) * torch.arange(half, dtype=torch.float32, device=t.device) / half
    phase = t[:, None].float() * torch.exp(exponent)  # (n, 128)
    return torch.cat([phase.cos(), phase.sin()], dim=1)  # (n, 256)


def sincos_pos_embed_2d(width: int, side: int) -> Tensor:
    """Sinusoidal embedding of the positions of a ``side`` x ``side`` grid, row by row: float32 (1, side * side, width).

    The first half of the features encodes the column, the second half the row.
    """
    omega = 1.0 / MAX_PERIOD ** (torch.arange(width // 4, dtype=torch.float64) / (width // 4))
    phase = torch.outer(torch.arange(side, dtype=torch.float64), omega)  # (side, width / 4)
    axis = torch.cat([phase.sin(), phase.cos()], dim=1)  # (side, width / 2)
    column, row = axis.repeat(side, 1), axis.repeat_interleave(side, dim=0)  # (side * side, width / 2) each
    return torch.cat([column, row], dim=1).float()[None]


def modulate(x: Tensor, shift: Tensor, scale: Tensor) -> Tensor:
    """Shift and scale the tokens (n, T, D) of each image by its own vectors (n, D)."""
    return x * (1 + scale[:, None]) + shift[:, None]


def layer_norm(width: int) -> nn.LayerNorm:
    """Make a LayerNorm without affine parameters: shift and scale come from adaLN."""
    return nn.LayerNorm(width, eps=NORM_EPS, elementwise_affine=False)


class PatchEmbedding(nn.Module):
    """Embed patches as tokens: (n, C, S, S) to (n, T, D).

    The channels of a condition, if there are any, have columns of their own in the one weight. They are convolved
    separately, so that with zero columns the tokens equal those of the noisy input alone, to the bit.
    """

    def __init__(self, channels: int, cond_channels: int, width: int, patch: int) -> None:
        super().__init__()
        self.channels = channels
        self.proj = nn.Conv2d(channels + cond_channels, width, patch, stride=patch)

    @override
    def forward(self, x: Tensor, cond: Tensor | None) -> Tensor:
        weight, stride = self.proj.weight, self.proj.stride
        tokens = functional.conv2d(x, weight[:, : self.channels], self.proj.bias, stride)  # (n, D, S/P, S/P)
        if cond is not None:
            tokens = tokens + functional.conv2d(cond, weight[:, self.channels :], None, stride)
        return tokens.flatten(2).transpose(1, 2)  # (n, T, D)


class TimeEmbedding(nn.Module):
    """Embed time steps: (n,) to (n, D)."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.mlp = nn.Sequential(nn.Linear(FREQUENCIES, width), nn.SiLU(), nn.Linear(width, width))

    @override
    def forward(self, t: Tensor) -> Tensor:
        out: Tensor = self.mlp(timestep_embedding(t).to(next(self.mlp.parameters()).dtype))
        return out


class LabelEmbedding(nn.Module):
    """Embed classes: int64 (n,) to (n, D)."""

    def __init__(self, rows: int, width: int) -> None:
        super().__init__()
        self.embedding_table = nn.Embedding(rows, width)

    @override
    def forward(self, y: Tensor) -> Tensor:
        out: Tensor = self.embedding_table(y)
        return out


class Attention(nn.Module):
    """Multi-head self-attention over tokens (n, T, D)."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(width, 3 * width)
        self.proj = nn.Linear(width, width)

    @override
    def forward(self, x: Tensor) -> Tensor:
        q, k, v = self.qkv(x).reshape(*x.shape[:2], 3, self.heads, -1).permute(2, 0, 3, 1, 4)  # (n, heads, T, D/heads)
        x = functional.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2)  # (n, T, D)
        out: Tensor = self.proj(x)
        return out


class Mlp(nn.Module):
    """The pointwise feed-forward network of a block: (n, T, D) to (n, T, D)."""

    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        self.fc1 = nn.Linear(width, hidden)
        self.fc2 = nn.Linear(hidden, width)

    @override
    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.fc2(functional.gelu(self.fc1(x), approximate="tanh"))
        return out


class Block(nn.Module):
    """A transformer block whose norms and residuals are modulated by the condition (adaLN-Zero, figure 3)."""

    def __init__(self, width: int, heads: int, mlp_ratio: float) -> None:
        super().__init__()
        self.norm1 = layer_norm(width)
        self.attn = Attention(width, heads)
        self.norm2 = layer_norm(width)
        self.mlp = Mlp(width, int(width * mlp_ratio))
        self.adaLN_modulation = nn.Sequential(nn.SiLU(), nn.Linear(width, 6 * width))

    def forward(self, x: Tensor, c: Tensor) -> Tensor:
        """Transform tokens (n, T, D) under condition vectors (n, D)."""
        shift1, scale1, gate1, shift2, scale2, gate2 = self.adaLN_modulation(c).chunk(6, dim=1)  # (n, D) each
        x = x + gate1[:, None] * self.attn(modulate(self.norm1(x), shift1, scale1))
        x = x + gate2[:, None] * self.mlp(modulate(self.norm2(x), shift2, scale2))
        return x


class FinalLayer(nn.Module):
    """Project tokens to patches: (n, T, D) to (n, T, P * P * C)."""

    def __init__(self, width: int, out: int) -> None:
        super().__init__()
        self.norm_final = layer_norm(width)
        self.linear = nn.Linear(width, out)
        self.adaLN_modulation = nn.Sequential(nn.SiLU(), nn.Linear(width, 2 * width))

    @override
    def forward(self, x: Tensor, c: Tensor) -> Tensor:
        shift, scale = self.adaLN_modulation(c).chunk(2, dim=1)  # (n, D) each
        out: Tensor = self.linear(modulate(self.norm_final(x), shift, scale))
        return out


class DiT(nn.Module):
    """A diffusion transformer that predicts the noise, and where the variances lie between their bounds.

    The noisy input has ``in_channels`` and ``input_size`` pixels a side, of a latent or an image, and is cut into
    patches of ``patch_size``. Tokens of width ``hidden_size`` pass ``depth`` blocks of ``num_heads`` attention heads,
    whose MLPs are ``mlp_ratio`` times as wide. Sizes that do not divide as they must are an :class:`ArgumentError`.

    With ``num_classes`` None the network sees the time step only, without a label table. Otherwise, if
    ``class_dropout_prob`` is positive, the table has an additional row for "no class", :attr:`null_label`, with which
    the data loader replaces labels at this rate; the network itself drops nothing. With ``learn_sigma`` the output has
    a second half of channels, for the variances. ``cond_channels`` are those of an image that conditions the output,
    concatenated to the noisy input; their weights start at zero.
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
        config = locals()
        super().__init__()
        #: The parameters: ``DiT(**config)`` has the same structure.
        self.config: dict[str, Any] = {name: config[name] for name in inspect.signature(DiT).parameters}
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
        # A parameter, as in the published files, though it is never trained.
        self.pos_embed = nn.Parameter(sincos_pos_embed_2d(hidden_size, input_size // patch_size), requires_grad=False)
        self.blocks = nn.ModuleList(Block(hidden_size, num_heads, mlp_ratio) for _ in range(depth))
        self.final_layer = FinalLayer(hidden_size, patch_size**2 * self.out_channels)
        self.initialize_weights()

    @property
    def null_label(self) -> int | None:
        """The label for "no class"; None if the network has none."""
        return self.num_classes if self.config["class_dropout_prob"] > 0 else None

    def initialize_weights(self) -> None:
        """Initialize from torch's global generator: Xavier, with every block the identity and the output zero."""
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.xavier_uniform_(module.weight)
                nn.init.zeros_(module.bias)
        patches = self.x_embedder.proj.weight
        with torch.no_grad():
            # Initialized as a linear layer over the noise channels alone: those of a condition start at zero.
            matrix = torch.empty(len(patches), self.in_channels * self.patch_size**2)
            patches.zero_()
            patches[:, : self.in_channels] = nn.init.xavier_uniform_(matrix).view_as(patches[:, : self.in_channels])
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
        """Predict the noise, and the variances, (n, out_channels, S, S), of the noisy input ``x`` (n, C, S, S).

        ``t`` (n,) are the time steps, counted from 0. ``y``, int64 (n,), are classes, and ``cond`` is
        (n, cond_channels, S, S): required if the network takes them, and refused otherwise.

        Raises
        ------
        ShapeError
            An input has another shape.
        ArgumentError
            ``y`` or ``cond`` is missing, or not used by this network.
        """
        self.check_inputs(x, y, cond)
        tokens = self.x_embedder(x, cond) + self.pos_embed  # (n, T, D)
        c = self.t_embedder(t)  # (n, D)
        if y is not None:
            c = c + self.y_embedder(y)
        for block in self.blocks:
            tokens = block(tokens, c)
        return self.unpatchify(self.final_layer(tokens, c))

    def unpatchify(self, tokens: Tensor) -> Tensor:
        """Arrange patches (n, T, P * P * C) as images (n, C, S, S)."""
        side, patch = self.input_size // self.patch_size, self.patch_size
        pixels = tokens.reshape(-1, side, side, patch, patch, self.out_channels)  # (n, h, w, P, P, C)
        return pixels.permute(0, 5, 1, 3, 2, 4).reshape(-1, self.out_channels, self.input_size, self.input_size)

    def check_inputs(self, x: Tensor, y: Tensor | None, cond: Tensor | None) -> None:
        """Check that the inputs fit the network."""
        inputs = (("y", y, self.num_classes or 0, "classes"), ("cond", cond, self.cond_channels, "condition channels"))
        for name, value, count, unit in inputs:
            if (value is None) != (count == 0):
                message = f"the network has {count} {unit}: {name} is {'missing' if value is None else 'not used'}"
                raise ArgumentError(message)
        for name, value, channels in (("x", x, self.in_channels), ("cond", cond, self.cond_channels)):
            expected = (channels, self.input_size, self.input_size)
            if value is not None and value.shape[1:] != expected:
                message = f"expected {name} of shape {('n', *expected)}, got {tuple(value.shape)}"
                raise ShapeError(message)


def check_config(config: dict[str, Any]) -> None:
    """Check that the sizes divide as they must."""
    for name in ("input_size", "patch_size", "in_channels", "hidden_size", "depth", "num_heads"):
        check_integer(name, config[name])
    if config["input_size"] % config["patch_size"]:
        message = f"input_size={config['input_size']} is no multiple of patch_size={config['patch_size']}"
        raise ArgumentError(message)
    if config["hidden_size"] % config["num_heads"] or config["hidden_size"] % 4:
        heads = config["num_heads"]
        message = f"hidden_size={config['hidden_size']} must be a multiple of num_heads={heads} and of 4"
        raise ArgumentError(message)
    if config["num_classes"] is not None:
        check_integer("num_classes", config["num_classes"])


#: Constructors of the published networks by name: ``DiT_models["DiT-XL/2"](input_size=32)``.
DiT_models = {
    f"DiT-{size}/{patch}": partial(DiT, depth=depth, hidden_size=width, num_heads=heads, patch_size=patch)
    for size, (depth, width, heads) in SIZES.items()
    for patch in PATCHES
}
