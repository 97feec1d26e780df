"""Everything."""

from __future__ import annotations

from rsprune.strategies.base import Choice, Inputs, strategy

__all__ = ["full"]


@strategy(budget="none")
def full(inputs: Inputs) -> Choice:
    """Every valid row: what training on the whole collection is compared with."""
    return Choice(inputs.candidates)
