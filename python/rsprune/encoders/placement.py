"""Where and how an encoder runs: what the user chooses, whatever the encoder."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

from rsprune.errors import ArgumentError

__all__ = ["Placement", "Precision"]

#: The numbers that a network computes with. "auto": bfloat16 where the device has instructions for it.
Precision = Literal["auto", "float32", "bfloat16", "float16"]


@dataclass(frozen=True, slots=True)
class Placement:
    """Where and how an encoder runs.

    Attributes
    ----------
    device : str, optional
        ``"cpu"``, ``"cuda"``, ``"cuda:1"``, or several with commas between them. Every GPU if not given, or the CPU
        where there is none.
    precision : str
        ``"auto"``, ``"float32"``, ``"bfloat16"`` or ``"float16"``.
    compile : bool
        Have PyTorch compile the network: a minute or more at the start, faster from then on. It needs a C++ compiler.
    """

    device: str | None = None
    precision: Precision = "auto"
    compile: bool = False

    def __post_init__(self) -> None:
        """Refuse a precision that is none."""
        if self.precision not in get_args(Precision):
            message = f"precision is {self.precision!r}; expected one of {', '.join(get_args(Precision))}"
            raise ArgumentError(message)
