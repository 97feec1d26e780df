"""How a checkpoint names its tensors: whose layout it is, and which of them are the image tower's."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Literal, NamedTuple

from rsprune.encoders.weights import refuse

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["Layout", "Tower", "image_tower"]

#: "transformers": SiglipModel, CLIPModel and their vision halves. "trunk": open_clip around a timm tower. "open_clip":
#: its own towers, and OpenAI's. "plain": a tower alone, in the names of the library that defines it.
Layout = Literal["transformers", "trunk", "open_clip", "plain"]

#: What else such files hold: the text tower, the temperature, and buffers of older versions.
NOT_THE_IMAGE = {
    "transformers": r"text_model\.|text_projection\.|logit_scale$|logit_bias$",
    "trunk": r"text\.|logit_scale$|logit_bias$",
    "open_clip": r"text\.|transformer\.|token_embedding\.|positional_embedding$|ln_final\.|text_projection|attn_mask$"
    r"|logit_scale$|logit_bias$|input_resolution$|context_length$|vocab_size$",
    "plain": r"(?!)",
}

#: The transformers library kept the towers' positions, which are 0, 1, 2, ..., as a buffer.
POSITIONS = "embeddings.position_ids"


class Tower(NamedTuple):
    """The image tower's tensors, by the names that its layout gives them without a prefix."""

    layout: Layout
    state: dict[str, Tensor]


def image_tower(state: dict[str, Tensor], path: Path) -> Tower:
    """Tell the layout of a checkpoint by its names, and take the image tower out.

    Raises
    ------
    WeightsError
        For names that belong neither to an image tower nor to what goes with one.
    """
    layout, prefix = _recognise(state)
    inside = {key.removeprefix(prefix): value for key, value in state.items() if key.startswith(prefix)}
    outside = [key for key in state if not key.startswith(prefix)]
    if layout == "transformers":
        inside.pop(POSITIONS, None)
        if "visual_projection.weight" in outside:  # CLIP's: part of its image tower
            outside.remove("visual_projection.weight")
            inside["visual_projection.weight"] = state["visual_projection.weight"]
    strangers = sorted(key for key in outside if not re.match(NOT_THE_IMAGE[layout], key))
    if strangers:
        refuse(path, [f"{len(strangers)} unexpected keys ({', '.join(strangers[:5])}{', ...' * (len(strangers) > 5)})"])
    return Tower(layout, inside)


def _recognise(state: dict[str, Tensor]) -> tuple[Layout, str]:
    for layout, prefix in (("transformers", "vision_model."), ("trunk", "visual.trunk."), ("open_clip", "visual.")):
        if any(key.startswith(prefix) for key in state):
            return layout, prefix  # type: ignore[return-value]
    if any(key.startswith("encoder.layer") for key in state):  # transformers' vision models have no prefix since 5.0
        return "transformers", ""
    return "plain", ""
