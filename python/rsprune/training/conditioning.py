"""Conditions of fine-tuned networks: low resolutions (SR) or label maps (SIS) of their images.

Fine-tuning and sampling open the same :class:`Conditioning`, so that conditions become channels in one way.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from rsprune.errors import ArgumentError, EmptyInputError
from rsprune.sources import Source, SourceLike, open_source
from rsprune.training.autoencoder import Autoencoder
from rsprune.training.label_maps import DATASETS, OneHot, open_pairs
from rsprune.training.latent_cache import LatentCache
from rsprune.training.transforms import ImageTransform, LabelTransform, Transform

__all__ = ["Conditioning", "open_conditioning", "pair_samples"]


@dataclass(frozen=True)
class Conditioning:
    """Images and their conditions: two sources of the same rows, and how their files become channels."""

    task: str  # "sr" for super-resolution, "sis" for semantic image synthesis
    options: Mapping[str, Any]  # what else the recipe records: factor, or dataset and encoding
    images: Source
    transform: ImageTransform
    conditions: Source
    condition_transform: Transform
    codec: Autoencoder  # makes channels of the pixels of a condition

    @property
    def encoding(self) -> tuple[Source, Autoencoder, Transform]:
        """What :func:`~rsprune.training.latent_cache.cache_latents` encodes of the conditions, by what, and how."""
        return self.conditions, self.codec, self.condition_transform

    def channels(self, cache: LatentCache, ids: NDArray[np.int64], mirrored: NDArray[np.bool_] | None = None) -> Tensor:
        """Return the channels of the conditions with numbers ``ids`` in their cache: float32 (n, cond_channels, h, w).

        They are the means of the latents, which need no random numbers.
        """
        moments = cache.moments(ids, np.zeros(len(ids), bool) if mirrored is None else mirrored)
        return self.codec.normalize(moments[:, : cache.latents])

    def read_images(self, positions: NDArray[np.int64]) -> Iterator[tuple[NDArray[np.uint8], str | None]]:
        """Yield the images at ascending positions, uint8 (S, S, C), each with the reason if it cannot be read."""
        first = 0
        for shard in self.images.shards:
            count = self.images.count(shard)
            rows = positions[(positions >= first) & (positions < first + count)] - first
            first += count
            for item in self.images.read(shard, rows.tolist()) if len(rows) else ():
                (image,), failures = self.transform([item.data])
                yield image, f"{item.key}: {failures[0][2]}" if failures else None


def open_conditioning(
    task: str,
    source: SourceLike,
    codec: Autoencoder,
    options: Mapping[str, Any],
    size: int,
    data: Mapping[str, Any],
) -> Conditioning:
    """Open the images of a task and their conditions.

    ``source`` has images of high resolution for the task ``"sr"``, and is the folder of the data set for ``"sis"``;
    ``options`` are ``factor``, or ``dataset`` and ``encoding``; ``codec`` is the autoencoder of the network, whose
    recipe names ``bands`` and ``valid_range`` in its ``data``. An unknown task, or a source that the task cannot take,
    is an :class:`ArgumentError`.
    """
    bands, valid_range = (tuple(data[name]) if data.get(name) else None for name in ("bands", "valid_range"))
    transform = ImageTransform(size, codec.channels, bands, valid_range)
    if task == "sr":
        images = open_source(source)
        low = replace(transform, downscale=options["factor"])
        return Conditioning(task, options, images, transform, images, low, codec)
    if task != "sis":
        message = f"the network takes a condition, and its checkpoint does not say which: task={task!r}"
        raise ArgumentError(message)
    if not isinstance(source, (str, Path)):
        message = f"label maps come from the folder of a data set, got {source!r}"
        raise ArgumentError(message)
    images, labels = open_pairs(options["dataset"], source)
    palette, painted = DATASETS[options["dataset"]], options["encoding"] == "palette"
    encoder = codec if painted else OneHot(len(palette.names), codec.factor)
    return Conditioning(task, options, images, transform, labels, LabelTransform(size, palette, painted), encoder)


def pair_samples(images: LatentCache, conditions: LatentCache) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Pair the samples of two caches that stand in the same rows.

    Returns the numbers of the images whose condition could be read, int64 (n,), at least one, and the number of each
    image's condition, int64 (len(images),), -1 if it has none.
    """
    _, numbers, others = np.intersect1d(images.positions, conditions.positions, return_indices=True)
    if not len(numbers):
        message = f"no image of {images.folder.path} has a condition in {conditions.folder.path} that could be read"
        raise EmptyInputError(message)
    partner = np.full(len(images), -1, np.int64)
    partner[numbers] = others
    return numbers, partner
