"""Stage I of RS-Prune alone."""

from __future__ import annotations

from rsprune.strategies.base import Choice, Inputs, strategy
from rsprune.strategies.ranking import best

__all__ = ["entropy"]


@strategy(needs=("entropy",))
def entropy(inputs: Inputs) -> Choice:
    """The images of highest entropy: Stage I of RS-Prune alone.

    (H descending, row ascending); RS-Prune (arXiv 2512.23239), Sec. 3.2 and 4.4.1. Reads no embeddings.
    """
    return Choice(best(-inputs.need("entropy"), inputs.candidates, inputs.rows_wanted))
