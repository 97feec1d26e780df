"""Every random number of a training, by its place: (seed, step, position in the batch).

Philox (Salmon et al. 2011) makes numbers from a key and a counter. What a sample draws therefore depends on nothing
else: not on the number of processes, on accumulation, on the device, or on how often the training was stopped.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from rsprune.training.gaussian_diffusion import STEPS

__all__ = ["Draw", "Draws", "Order", "draw_batch", "draw_sample", "start_noise", "way_seed"]

# The second half of the key: what the numbers are for.
SAMPLES, ORDER, STARTS, WAYS = range(4)


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


@dataclass(frozen=True)
class Draws:
    """What the samples of a batch draw: each what :class:`Draw` has, as arrays (n, ...).

    Attributes
    ----------
    mirrored, dropped
        float64 (n,).
    t
        int64 (n,).
    posterior, noise
        float32 (n, L, h, w).
    """

    mirrored: NDArray[np.float64]
    dropped: NDArray[np.float64]
    t: Tensor
    posterior: Tensor
    noise: Tensor


def draw_batch(seed: int, step: int, positions: range, shape: tuple[int, ...]) -> Draws:
    """The draws of :func:`draw_sample` at some positions of a step's batch, sooner.

    One generator is brought from place to place, and fills the arrays with the interpreter's lock released.
    """
    n = len(positions)
    uniform, t = np.empty((n, 2)), np.empty(n, np.int64)
    posterior, noise = np.empty((2, n, *shape), np.float32)
    rng = stream(seed, SAMPLES, step, 0)
    start: Any = rng.bit_generator.state
    for i, position in enumerate(positions):
        start["state"]["counter"][2] = position
        rng.bit_generator.state = start
        rng.random(out=uniform[i])
        t[i] = rng.integers(STEPS)
        rng.standard_normal(out=posterior[i], dtype=np.float32)
        rng.standard_normal(out=noise[i], dtype=np.float32)
    return Draws(*uniform.T, *map(torch.from_numpy, (t, posterior, noise)))


def start_noise(seed: int, number: int, shape: tuple[int, ...]) -> Tensor:
    """The noise that a generated image begins as, float32."""
    return torch.from_numpy(stream(seed, STARTS, 0, number).standard_normal(shape, np.float32))


def way_seed(seed: int, number: int) -> int:
    """The seed of the noise that is added to a generated image on its way, in 63 bits."""
    return int(stream(seed, WAYS, 0, number).bit_generator.random_raw()) >> 1


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
