"""Every random number of a training as a function of its place: (seed, step, position in the batch).

Philox (Salmon et al. 2011) computes numbers from a key and a counter. What a sample draws therefore depends on its
place alone: not on the number of processes, gradient accumulation, the device, or how often the training was stopped.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from rsprune.training.config import TIMESTEPS

__all__ = ["BatchNoise", "EpochPermutation", "batch_noise", "initial_noise", "sampler_seed"]

# What a stream of numbers is for: the second half of the key.
SAMPLES, ORDER, INITIAL, SAMPLER = range(4)


def stream(seed: int, purpose: int, high: int, low: int) -> np.random.Generator:
    """Make a generator of 2^128 numbers that no other stream shares."""
    # The words of the counter, lowest first.
    return np.random.Generator(np.random.Philox(key=[seed, purpose], counter=[0, 0, low, high]))


@dataclass(frozen=True)
class BatchNoise:
    """The random numbers of some samples of a batch."""

    mirror: NDArray[np.float64]  # (n,), uniform in [0, 1): compared with the rate of mirrored images
    drop: NDArray[np.float64]  # (n,), uniform in [0, 1): compared with the rate of dropped labels
    t: Tensor  # int64 (n,): time steps
    posterior: Tensor  # float32 (n, L, h, w), standard normal: draws the latents
    noise: Tensor  # float32 (n, L, h, w), standard normal: what the network predicts


def batch_noise(seed: int, step: int, positions: range, shape: tuple[int, ...]) -> BatchNoise:
    """Draw the random numbers of the samples at some positions of a step's batch, with latents of a given shape."""
    n = len(positions)
    uniform, t = np.empty((n, 2)), np.empty(n, np.int64)
    posterior, noise = np.empty((2, n, *shape), np.float32)
    # One generator is moved from stream to stream, which is cheaper than making one per sample. It fills the arrays
    # with the interpreter's lock released.
    rng = stream(seed, SAMPLES, step, 0)
    start: Any = rng.bit_generator.state
    for i, position in enumerate(positions):
        start["state"]["counter"][2] = position
        rng.bit_generator.state = start
        rng.random(out=uniform[i])
        t[i] = rng.integers(TIMESTEPS)
        rng.standard_normal(out=posterior[i], dtype=np.float32)
        rng.standard_normal(out=noise[i], dtype=np.float32)
    return BatchNoise(*uniform.T, *map(torch.from_numpy, (t, posterior, noise)))


def initial_noise(seed: int, number: int, shape: tuple[int, ...]) -> Tensor:
    """Draw the noise that generated image ``number`` starts from, float32."""
    return torch.from_numpy(stream(seed, INITIAL, 0, number).standard_normal(shape, np.float32))


def sampler_seed(seed: int, number: int) -> int:
    """Return the seed, of 63 bits, of the noise that the sampler adds to generated image ``number``."""
    return int(stream(seed, SAMPLER, 0, number).bit_generator.random_raw()) >> 1


class EpochPermutation:
    """The order of ``images`` images in steps of ``batch`` samples.

    Each epoch is a permutation of its own; batches run on from one epoch to the next.
    """

    def __init__(self, seed: int, images: int, batch: int) -> None:
        self.seed, self.images, self.batch = seed, images, batch
        self._permutation = lru_cache(maxsize=2)(self._permute)

    def _permute(self, epoch: int) -> NDArray[np.int64]:
        return stream(self.seed, ORDER, 0, epoch).permutation(self.images)

    def __call__(self, step: int, position: int) -> int:
        """Return the image at a position of a step's batch."""
        epoch, place = divmod(step * self.batch + position, self.images)
        return int(self._permutation(epoch)[place])
