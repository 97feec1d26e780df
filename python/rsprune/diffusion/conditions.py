"""The conditions of a fine-tuned network, for drawing from it: made as they were in fine-tuning."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rsprune.diffusion.autoencoder import Autoencoder
from rsprune.diffusion.latents import LatentCache, PixelReader, Reading, cache_latents
from rsprune.diffusion.segments import DATASETS, LabelReading, OneHot, open_pairs
from rsprune.errors import ArgumentError
from rsprune.runners import Observer
from rsprune.sources import Source, SourceSpec, open_source

__all__ = ["cache_conditions"]


def cache_conditions(
    recipe: Mapping[str, Any], source: SourceSpec, codec: Autoencoder, out: Path, device: str, observer: Observer
) -> tuple[LatentCache, Autoencoder]:
    """Encode what images are to be drawn from.

    Parameters
    ----------
    recipe : mapping
        Of the fine-tuned network.
    source
        Of a network for super-resolution, images of high resolution, which are made small; of one for label maps, the
        folder of the data set.
    codec : Autoencoder
        The network's.
    out : Path
        The folder of the cache.
    device, observer
        Where to encode, and who watches.

    Returns
    -------
    cache : LatentCache
        The conditions.
    codec : Autoencoder
        What scales them.

    Raises
    ------
    ArgumentError
        If the recipe is of no such network.
    """
    task, options, made = recipe.get("task"), recipe.get("options", {}), recipe.get("conditions", {})
    reading: PixelReader
    if task == "sr":
        bands, extent = (tuple(made[name]) if made[name] else None for name in ("bands", "valid_range"))
        images: Source = open_source(source)
        reading = Reading(made["size"], codec.channels, bands, extent, options["factor"])
        own = codec
    elif task == "sis":
        if not isinstance(source, (str, Path)):
            message = f"label maps come from the folder of a data set, got {source!r}"
            raise ArgumentError(message)
        images = open_pairs(options["dataset"], source)[1]
        palette, painted = DATASETS[options["dataset"]], options["encoding"] == "palette"
        reading = LabelReading(made["size"], palette, painted)
        own = codec if painted else OneHot(len(palette.names), codec.factor)
    else:
        message = f"the network takes a condition, and its checkpoint does not say which: task={task!r}"
        raise ArgumentError(message)
    return cache_latents(images, own, reading, out=out, mirror=False, device=device, progress=observer), own
