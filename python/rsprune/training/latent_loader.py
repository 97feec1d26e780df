"""Batches of training samples, made from the latent cache ahead of their use."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from rsprune.concurrency import prefetch_map, single_threaded
from rsprune.training.autoencoder import Autoencoder
from rsprune.training.config import OptimizerConfig
from rsprune.training.dit import DiT
from rsprune.training.latent_cache import LatentCache
from rsprune.training.rng import EpochPermutation, batch_noise

__all__ = ["Batch", "LatentLoader", "Loader", "load_ahead"]

#: Threads that make micro-batches, and micro-batches that may be ready before they are needed.
THREADS, DEPTH = 4, 4


@dataclass(frozen=True)
class Batch:
    """Training samples; ``y`` and ``cond`` are None for a network that takes none."""

    x: Tensor  # float32 (n, L, h, w): normalized latents
    noise: Tensor  # float32 (n, L, h, w): the noise that is added to them
    t: Tensor  # int64 (n,): time steps
    y: Tensor | None = None  # int64 (n,): classes
    cond: Tensor | None = None  # float32 (n, cond_channels, h, w): conditions

    def to(self, device: torch.device) -> Batch:
        """Move the batch to a device."""

        def move(value: Tensor) -> Tensor:
            return (value.pin_memory() if device.type == "cuda" else value).to(device, non_blocking=True)

        y, cond = (None if value is None else move(value) for value in (self.y, self.cond))
        return Batch(move(self.x), move(self.noise), move(self.t), y, cond)


#: Makes the samples at some positions of a step's batch.
Loader = Callable[[int, range], Batch]


class LatentLoader:
    """Makes the samples of a step from the latent cache, whose latents ``codec`` normalizes.

    Half of the samples are mirror images if ``mirror``. ``classes`` are the class folders in the order of the labels,
    for a class-conditional network; ``numbers``, int64 (n,), are the samples of the cache to train on, by default all;
    ``condition`` maps numbers of samples, and whether they are mirrored, to conditions (n, cond_channels, h, w).
    """

    def __init__(
        self,
        cache: LatentCache,
        codec: Autoencoder,
        network: DiT,
        optimizer: OptimizerConfig,
        *,
        mirror: bool,
        classes: list[str] | None = None,
        numbers: NDArray[np.int64] | None = None,
        condition: Callable[[NDArray[np.int64], NDArray[np.bool_]], Tensor] | None = None,
    ) -> None:
        self.cache, self.normalize, self.mirror, self.condition = cache, codec.normalize, mirror, condition
        self.numbers = np.arange(len(cache)) if numbers is None else numbers
        self.seed = optimizer.seed
        self.permutation = EpochPermutation(self.seed, len(self.numbers), optimizer.batch)
        self.null_label, self.dropout = network.null_label, network.config["class_dropout_prob"]
        self.labels: list[int] | None = None
        if classes is not None:
            label_of = {name: label for label, name in enumerate(classes)}
            self.labels = [label_of[name] for name in cache.labels if name is not None]

    def __call__(self, step: int, positions: range) -> Batch:
        """Make the samples at some positions of a step's batch."""
        shape = (self.cache.latents, self.cache.side, self.cache.side)
        drawn = batch_noise(self.seed, step, positions, shape)
        ids = self.numbers[[self.permutation(step, position) for position in positions]]
        mirrored = self.mirror & (drawn.mirror < 0.5)
        latents = self.cache.sample(ids, mirrored, drawn.posterior)
        y = None
        if self.labels is not None:
            labels = [self.labels[i] for i in ids]
            y = torch.tensor(
                [self.null_label if u < self.dropout else y for u, y in zip(drawn.drop, labels, strict=True)]
            )
        cond = None if self.condition is None else self.condition(ids, mirrored)
        return Batch(self.normalize(latents), drawn.noise, drawn.t, y, cond)


def load_ahead(loader: Loader, places: Iterable[tuple[int, range]]) -> Generator[Batch, None, None]:
    """Yield the batches of (step, positions) in order, made ahead by threads."""

    def load(_: int, chunk: list[tuple[int, range]]) -> Batch:
        # PyTorch's work stays in this thread: more OpenMP threads than cores would slow the network down.
        with single_threaded():
            return loader(*chunk[0])

    return prefetch_map(load, places, 1, threads=THREADS, depth=DEPTH)
