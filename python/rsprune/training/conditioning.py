"""The conditions of a fine-tuned network, for drawing from it: made as they were in fine-tuning."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rsprune.errors import ArgumentError
from rsprune.runners import Progress
from rsprune.sources import Source, SourceLike, open_source
from rsprune.training.autoencoder import Autoencoder
from rsprune.training.label_maps import DATASETS, LabelReading, OneHot, open_pairs
from rsprune.training.latent_cache import LatentCache, PixelReader, Reading, cache_latents

__all__ = ["Conditions", "open_conditions"]


@dataclass(frozen=True)
class Conditions:
    """What images are drawn from, and what they are to be like, row by row.

    Attributes
    ----------
    source, reading, codec
        The conditions: their files, how those become pixels, and what makes channels of the pixels.
    originals, original_reading
        The images that the conditions are of.
    """

    source: Source
    reading: PixelReader
    codec: Autoencoder
    originals: Source
    original_reading: Reading

    def cache(self, out: Path, device: str, observer: Progress) -> LatentCache:
        """Encode the conditions into a folder."""
        return cache_latents(
            self.source, self.codec, self.reading, out=out, mirror=False, device=device, progress=observer
        )

    def read_originals(self, positions: NDArray[np.int64]) -> Iterator[tuple[NDArray[np.uint8], str | None]]:
        """The images at ascending positions as the network draws them, (S, S, C), with why one cannot be read."""
        first = 0
        for shard in self.originals.shards:
            count = self.originals.count(shard)
            mine = positions[(positions >= first) & (positions < first + count)] - first
            first += count
            for item in self.originals.read(shard, mine.tolist()) if len(mine) else ():
                (image,), failures = self.original_reading([item.data])
                yield image, f"{item.key}: {failures[0][2]}" if failures else None


def open_conditions(recipe: Mapping[str, Any], source: SourceLike, codec: Autoencoder) -> Conditions:
    """Find what images are to be drawn from.

    Parameters
    ----------
    recipe : mapping
        Of the fine-tuned network.
    source
        Of a network for super-resolution, images of high resolution, which are made small; of one for label maps, the
        folder of the data set.
    codec : Autoencoder
        The network's.

    Raises
    ------
    ArgumentError
        If the recipe is of no such network.
    """
    task, options, made = recipe.get("task"), recipe.get("options", {}), recipe.get("conditions", {})
    if task not in ("sr", "sis"):
        message = f"the network takes a condition, and its checkpoint does not say which: task={task!r}"
        raise ArgumentError(message)
    data = recipe["data"]
    bands, extent = (tuple(data[name]) if data[name] else None for name in ("bands", "valid_range"))
    original_reading = Reading(data["size"], codec.channels, bands, extent)
    if task == "sr":
        images = open_source(source)
        low = Reading(made["size"], codec.channels, bands, extent, options["factor"])
        return Conditions(images, low, codec, images, original_reading)
    if not isinstance(source, (str, Path)):
        message = f"label maps come from the folder of a data set, got {source!r}"
        raise ArgumentError(message)
    originals, labels = open_pairs(options["dataset"], source)
    palette, painted = DATASETS[options["dataset"]], options["encoding"] == "palette"
    own = codec if painted else OneHot(len(palette.names), codec.factor)
    return Conditions(labels, LabelReading(made["size"], palette, painted), own, originals, original_reading)
