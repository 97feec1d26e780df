"""A self-test: the cosines between an encoder's embeddings of six known images are those that are stored."""

from __future__ import annotations

import json
import time
from dataclasses import dataclass
from importlib import resources
from itertools import combinations

import numpy as np
from numpy.typing import NDArray

from rsprune.encoders.base import Encoder

__all__ = ["TOLERANCE", "Check", "check", "check_images"]

#: How far a cosine may be from the stored one: by precision. Another form of GELU, a crop instead of a squash, or
#: channels in another order move cosines by 1e-3 and more.
TOLERANCE = {"float32": 1e-4, "bfloat16": 1e-2, "float16": 2e-3}

#: Images that are timed.
TIMED = 32


@dataclass(frozen=True)
class Check:
    """The outcome of a self-test."""

    cosines: NDArray[np.float64]  # (15,): of each pair of the six images, in order
    worst: float | None  # the largest difference from a stored cosine; None where none are stored for these weights
    precision: str  # what the network computed in
    images_per_second: float  # on images that are decoded already

    @property
    def passed(self) -> bool:
        """Return whether the embeddings differ, and have the stored cosines where there are any."""
        apart = bool(self.cosines.max() < 1 - 1e-6)
        return apart and (self.worst is None or self.worst <= TOLERANCE[self.precision])


def check_images() -> list[bytes]:
    """Return the six images, encoded: parts of NASA's Blue Marble, which is in the public domain."""
    folder = resources.files("rsprune.encoders") / "check_images"
    return [file.read_bytes() for file in sorted(folder.iterdir(), key=lambda file: file.name)]


def check(encoder: Encoder) -> Check:
    """Embed the six images, and compare their cosines with those that are stored for the encoder's weights."""
    rows = encoder.encode(check_images()).astype(np.float64)
    cosines = np.array([rows[i] @ rows[j] for i, j in combinations(range(len(rows)), 2)])
    provenance = encoder.provenance()
    stored = json.loads((resources.files("rsprune.encoders") / "expected_cosines.json").read_text())
    expected = stored.get(encoder.name, {}).get(provenance["weights"]["sha256"])
    pixels = encoder.preprocess(check_images() * (TIMED // 6 + 1))[:TIMED]
    begun = time.perf_counter()
    encoder.forward(pixels)
    return Check(
        cosines,
        None if expected is None else float(np.abs(cosines - expected).max()),
        provenance["runtime"]["precision"],
        TIMED / (time.perf_counter() - begun),
    )
