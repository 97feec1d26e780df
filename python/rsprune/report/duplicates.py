"""Near-duplicates among the images that were kept."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from rsprune import _core
from rsprune.embeddings import as_rows
from rsprune.report.embedding_map import EmbeddingSample
from rsprune.report.examples import Example

__all__ = ["BOUND", "Duplicates", "find_duplicates"]

BOUND = 0.95  # images whose cosine is above it are near-duplicates
PAIRS_SHOWN = 12


@dataclass(frozen=True)
class Duplicates:
    """Near-duplicates among some images.

    Attributes
    ----------
    looked_at
        The number of images that were compared, each with all others.
    found
        How many of them have another one with a cosine above :data:`BOUND`.
    most
        The highest cosine of two of the images.
    pairs
        The most similar pairs of these, with their cosines.
    """

    looked_at: int
    found: int
    most: float
    pairs: Sequence[tuple[Example, Example, float]]


def find_duplicates(sample: EmbeddingSample) -> Duplicates | None:
    """Compare the kept images of a sample; None if it has fewer than two."""
    count = len(sample.compared)
    if count < 2:
        return None
    rows = as_rows(sample.rows_compared).on_host()
    nearest, cosine = (values[:, 0] for values in _core.knn(rows, rows, k=1, exclude_self=True, threads=None))
    near = np.flatnonzero(cosine > np.float32(BOUND))
    pairs = {
        (min(i, j), max(i, j)): value
        for i, j, value in zip(near.tolist(), nearest[near].tolist(), cosine[near].tolist(), strict=True)
    }
    most = sorted(pairs, key=lambda pair: (-pairs[pair], pair))[:PAIRS_SHOWN]
    shown = [(sample.compared[i], sample.compared[j], pairs[i, j]) for i, j in most]
    return Duplicates(count, len(near), float(cosine.max()), shown)
