"""Every random number of a training, by its place: (seed, step, position in the batch).

Philox (Salmon et al. 2011) makes numbers from a key and a counter. What a sample draws therefore depends on nothing
else: not on the number of processes, on accumulation, on the device, or on how often the training was stopped.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from rsprune.diffusion.noise import STEPS

__all__ = ["Draw", "Order", "draw_sample", "start_noise"]

# The second half of the key: what the numbers are for.
SAMPLES, ORDER, STARTS = range(3)


def stream(seed: int, purpose: int, high: int, low: int) -> np.random.Generator:
    """A stream of numbers of its own."""
    # The words of the counter, lowest first: a stream has 2^128 numbers to itself.
    return np.random.Generator(np.random.Philox(key=[seed, purpose], counter=[0, 0, low, high]))


@dataclass(frozen=True)
class Draw:
    """What one sample of a batch draws.

    Attributes
    ----------
    mirrored, dropped
        Uniform in [0, 1): compared with the rates of mirror images and of dropped labels.
    t
        Its time step.
    posterior, noise
        float32 (L, h, w), standard normal: for the latents, and to be predicted.
    """

    mirrored: float
    dropped: float
    t: int
    posterior: Tensor
    noise: Tensor


def draw_sample(seed: int, step: int, position: int, shape: tuple[int, ...]) -> Draw:
    """The draws of the sample at a position of a step's batch."""
    rng = stream(seed, SAMPLES, step, position)
    mirrored, dropped = rng.random(2)
    t = int(rng.integers(STEPS))
    normal = torch.from_numpy(rng.standard_normal((2, *shape), np.float32))
    return Draw(float(mirrored), float(dropped), t, normal[0], normal[1])


def start_noise(seed: int, number: int, shape: tuple[int, ...]) -> Tensor:
    """The noise that a generated image begins as, float32."""
    return torch.from_numpy(stream(seed, STARTS, 0, number).standard_normal(shape, np.float32))


class Order:
    """The order of the images: each epoch in an order of its own, batches running on from one epoch to the next.

    Parameters
    ----------
    seed, images, batch : int
        The training's seed, the number of images, and how many of them a step takes.
    """

    def __init__(self, seed: int, images: int, batch: int) -> None:
        self.seed, self.images, self.batch = seed, images, batch
        self._epoch = lru_cache(maxsize=2)(self._shuffle)

    def _shuffle(self, epoch: int) -> NDArray[np.int64]:
        return stream(self.seed, ORDER, 0, epoch).permutation(self.images)

    def __call__(self, step: int, position: int) -> int:
        """The image at a position of a step's batch."""
        epoch, place = divmod(step * self.batch + position, self.images)
        return int(self._epoch(epoch)[place])
