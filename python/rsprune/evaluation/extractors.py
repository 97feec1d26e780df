"""Feature extractors, each with its provenance: a metric without its extractor says nothing."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Iterator
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from rsprune.encoders import Encoder
from rsprune.sources.batches import batched

__all__ = ["EncoderExtractor", "Extractor", "batches"]


class Extractor(Protocol):
    """Maps images to features."""

    name: str
    frechet: str  # what the Frechet distance of these features is called
    kernel: str  # and their kernel distance

    def provenance(self) -> dict[str, Any]:
        """``name``, ``weights`` (``file``, ``sha256``), ``resize`` (the rule, in words), and what else matters."""

    def features(self, images: Iterable[NDArray[np.uint8]]) -> NDArray[np.float32]:
        """Features (N, D) of images, uint8 (H, W, 3)."""


class EncoderExtractor:
    """The features of an encoder of rsprune: unit rows. Distances between them are never called FID or KID."""

    def __init__(self, encoder: Encoder) -> None:
        self.encoder = encoder
        self.name = encoder.name
        self.frechet, self.kernel = f"FD ({encoder.name})", f"KD ({encoder.name})"

    def provenance(self) -> dict[str, Any]:
        """That of the encoder; its preprocessing is the rule of resizing."""
        made = self.encoder.provenance()
        return {"name": self.name, "weights": made["weights"], "resize": made["preprocessing"], "encoder": made}

    def features(self, images: Iterable[NDArray[np.uint8]]) -> NDArray[np.float32]:
        """Embed images, a batch at a time."""
        size = self.encoder.batch_size
        return np.concatenate([self.encoder.encode(batch) for batch in batched(images, size, math.inf)])


def batches(images: Iterable[NDArray[np.uint8]], size: int) -> Iterator[NDArray[np.uint8]]:
    """Stack neighbors of one shape, at most ``size`` together: uint8 (n, H, W, 3)."""
    for _, neighbors in itertools.groupby(images, key=np.shape):
        yield from map(np.stack, batched(neighbors, size, math.inf))
