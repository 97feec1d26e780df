"""DiT for diffusers, exactly as it was trained.

diffusers' own DiTTransformer2DModel embeds the time step at slightly other frequencies than those that DiT was trained
with. This file is copied beside exported weights: load the folder with `trust_remote_code=True`.
"""

from __future__ import annotations

import functools
from typing import Any

from diffusers import DiTTransformer2DModel
from torch import Tensor

__all__ = ["DiTTransformer"]


class DiTTransformer(DiTTransformer2DModel):  # type: ignore[misc, unused-ignore]
    """diffusers' class with the frequencies of the paper, and a label for "no class" that DiTPipeline finds."""

    # diffusers reads the configuration from this signature.
    @functools.wraps(DiTTransformer2DModel.__init__)  # type: ignore[misc, unused-ignore]
    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        for block in self.transformer_blocks:
            block.norm1.emb.time_proj.downscale_freq_shift = 0

    def forward(
        self,
        hidden_states: Tensor,
        timestep: Tensor | None = None,
        class_labels: Tensor | None = None,
        **kwargs: Any,
    ) -> Any:
        """Forward as diffusers does. The pipeline's label for "no class" is 1000, however many classes there are."""
        if class_labels is not None:
            class_labels = class_labels.clamp(max=self.config.num_embeds_ada_norm)
        return super().forward(hidden_states, timestep, class_labels, **kwargs)
