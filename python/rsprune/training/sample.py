"""`rsprune sample`: images from a trained network, as files and as the archive that evaluation suites read."""

from __future__ import annotations

import csv
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from rsprune.encoders.checkpoints import weights_provenance
from rsprune.errors import ArgumentError, ConfigMismatchError
from rsprune.io import atomic_write, config_diff, provenance_header, write_npz
from rsprune.options import keywords, to_config
from rsprune.runners import Progress, show_progress
from rsprune.runs.folder import RunFolder
from rsprune.sources import SourceLike, check_outside
from rsprune.training.autoencoder import Autoencoder, load_autoencoder
from rsprune.training.checkpoint import load_dit, read_checkpoint
from rsprune.training.conditioning import Conditioning, open_conditioning
from rsprune.training.config import SampleOptions, SamplerConfig
from rsprune.training.distributed import join_processes
from rsprune.training.dit import DiT
from rsprune.training.gaussian_diffusion import Denoiser, p_sample_loop, with_guidance
from rsprune.training.image_grid import to_pixels, write_grid, write_image
from rsprune.training.latent_cache import LatentCache, cache_latents
from rsprune.training.rng import initial_noise, sampler_seed
from rsprune.training.trainer import autocast, resolve_precision

__all__ = ["Sampled", "recipe_autoencoder", "sample_images", "sample_run"]

#: Numbers of bands that a PNG file can hold; the fourth is written as alpha.
PNG_BANDS = (1, 3, 4)

#: Images in the grid ``samples.png``.
GRID_IMAGES = 36


@dataclass(frozen=True)
class Sampled:
    """The result of sampling: the folder, and its metrics."""

    path: Path
    metrics: dict[str, Any]

    def describe(self) -> str:
        """Summarize the result in a line."""
        return f"{self.metrics['images']:,} images in {self.path / 'images'}, and together in samples.npz beside it"


def recipe_autoencoder(recipe: dict[str, Any], autoencoder: str | Path | None) -> Autoencoder:
    """Load the autoencoder that a network was trained with, and normalize its latents as they were.

    The ``recipe`` of a published checkpoint is empty. A network trained on pixels needs no ``autoencoder``.
    """
    known = recipe.get("data", {}).get("autoencoder", {})
    if autoencoder is None:
        if known.get("autoencoder") != "identity":
            message = "the network works on latents: name the autoencoder that decodes them"
            raise ArgumentError(message)
        autoencoder = "identity"
    codec = load_autoencoder(autoencoder, known.get("channels", 3))
    # The network may have been trained on another scale than the autoencoder's own, which the recipe holds.
    codec.scale, codec.shift = known.get("scale", codec.scale), known.get("shift", codec.shift)
    if known and (differences := list(config_diff(known, codec.provenance()))):
        lines = "\n".join(f"  {line}" for line in differences)
        message = f"the network was trained with another autoencoder than {autoencoder}:\n{lines}"
        raise ConfigMismatchError(message)
    codec.scale, codec.shift = recipe.get("scale", codec.scale), recipe.get("shift", codec.shift)
    return codec


@keywords(SampleOptions)
def sample_run(
    checkpoint: str | Path,
    *,
    out: str | Path,
    condition: SourceLike | None = None,
    options: SampleOptions,
    progress: bool | Progress = True,
) -> Sampled:
    """Draw images, resumably: the same call draws those that are missing.

    Writes ``images/<number>.png``, ``samples.npz`` (uint8 (n, H, W, C) as ``arr_0``, as the ADM evaluation suite reads
    it), ``samples.png`` with some of them, and ``config.json`` with what they depend on.

    Parameters
    ----------
    checkpoint, out : path
        A checkpoint of `rsprune train` or `rsprune finetune`, or a published one; the folder.
    condition : optional
        For a fine-tuned network only: the images whose low resolutions are enlarged, or the folder of the label maps;
        see :func:`~rsprune.training.conditioning.open_conditioning`. Image ``i`` is drawn from the ``i``-th that could
        be read; ``conditions.csv`` lists them, ``originals/<number>.png`` are the real images, and their latents are
        kept beside the folder, in ``<out>-conditions``.
    progress : bool or Progress
        As for :func:`rsprune.prune`.

    Raises
    ------
    ArgumentError
        The network has no such class, or cannot be guided; the condition is missing, not used, or of fewer images.
    ConfigMismatchError
        The folder holds other images.
    """
    path, sampling = Path(checkpoint), options.sampling
    recipe = read_checkpoint(path, mmap=True).get("recipe") or {}
    network = load_dit(path, options.weights)
    if (condition is None) != (network.cond_channels == 0):
        does = "takes a condition, which is missing" if condition is None else "takes no condition"
        message = f"the network in {path} {does}"
        raise ArgumentError(message)
    codec = recipe_autoencoder(recipe, options.autoencoder)
    if codec.channels not in PNG_BANDS:
        message = f"images of {codec.channels} bands cannot be written as PNG files, which hold 1, 3 or 4"
        raise ArgumentError(message)
    labels = class_labels(network, recipe.get("classes"), options.classes)
    if sampling.guidance != 1 and (labels is None or network.null_label is None):
        lacks = "is unconditional" if labels is None else 'has no label for "no class"'
        message = f"the network {lacks}, and guidance needs both classes and none: use guidance=1"
        raise ArgumentError(message)
    folder = RunFolder(out)
    with join_processes(options.device) as dist, show_progress(progress) as shown:
        device, precision = dist.device, resolve_precision(options.precision, dist.device)
        config = provenance_header() | {
            "checkpoint": weights_provenance(path),
            "weights": options.weights,
            "autoencoder": codec.provenance(),
            "classes": labels,
            "sampling": to_config(sampling),
            "precision": precision,
        }
        network.to(device)
        codec.to(device)

        pairs: Conditioning | None = None
        if condition is not None:
            task, data = str(recipe.get("task")), recipe.get("data", {})  # as they were opened in fine-tuning
            pairs = open_conditioning(task, condition, codec, recipe.get("options", {}), data.get("size", 0), data)
            check_outside(folder.path, pairs.images, pairs.conditions)
            place = folder.path.resolve()  # the folder may be "."
            kept = place.with_name(f"{place.name}-conditions")
            cache = cache_latents(*pairs.encoding, out=kept, mirror=False, device=str(device), progress=shown)
            if options.images > len(cache):
                message = f"images is {options.images}; expected at most the number of conditions, {len(cache)}"
                raise ArgumentError(message)
            config |= {"condition": cache.config}

        def denoiser(numbers: list[int]) -> Denoiser:
            cond = None if pairs is None else pairs.channels(cache, np.array(numbers)).to(device)

            def denoise(x: Tensor, t: Tensor, y: Tensor | None = None) -> Tensor:
                with autocast(device, precision):
                    output: Tensor = network(x, t, y, cond)
                return output

            if labels is None:
                return denoise
            y = torch.tensor([labels[i % len(labels)] for i in numbers], device=device)
            return with_guidance(denoise, y, network.null_label or 0, sampling.guidance, network.in_channels)

        with folder.lock():
            folder.start(config)
            if pairs is not None:
                write_keys(folder.path / "conditions.csv", cache.keys[: options.images])
                write_originals(folder.path, pairs, cache, options.images, shown)
            sample_images(folder.path, options.images, network, codec, denoiser, sampling, shown)
    return Sampled(folder.path, {"images": options.images, "folder": str(folder.path)})


def image_path(folder: Path, number: int, kind: str = "images") -> Path:
    """Return the path of an image."""
    return folder / kind / f"{number:06d}.png"


def class_labels(network: DiT, names: list[str] | None, classes: Sequence[str] | None) -> list[int] | None:
    """Return the labels to sample in turn; None for an unconditional network."""
    if network.num_classes is None:
        if classes:
            message = f"the network is unconditional: it has no classes {', '.join(classes)}"
            raise ArgumentError(message)
        return None
    if not classes:
        return list(range(network.num_classes))
    # A class folder may have a number for a name, and then the name counts.
    known = {str(i): i for i in range(network.num_classes)} | {name: i for i, name in enumerate(names or [])}
    for name in classes:
        if name not in known:
            message = f"no class {name!r}: there are {', '.join(names or [f'0 to {network.num_classes - 1}'])}"
            raise ArgumentError(message)
    return [known[name] for name in classes]


def write_keys(path: Path, keys: Sequence[str]) -> None:
    """Write the key of each image's condition as a CSV table; keys may hold commas."""
    with atomic_write(path) as temporary, temporary.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(("number", "key"))
        writer.writerows(enumerate(keys))


def write_originals(folder: Path, pairs: Conditioning, cache: LatentCache, images: int, progress: Progress) -> None:
    """Write the real image of each generated one, under the same name."""
    paths = [image_path(folder, number, "originals") for number in range(images)]
    missing = [number for number, path in enumerate(paths) if not path.exists()]
    for number, (image, failure) in zip(missing, pairs.read_images(cache.positions[missing]), strict=True):
        if failure is None:
            write_image(image, paths[number])
        else:
            progress.note(f"image {number} has no original: {failure}")


def sample_images(
    folder: Path,
    images: int,
    network: DiT,
    codec: Autoencoder,
    denoiser: Callable[[list[int]], Denoiser],
    sampling: SamplerConfig,
    progress: Progress,
) -> None:
    """Draw the images that a folder lacks, batch by batch, then write all of them as an archive.

    ``denoiser`` returns the network under the conditions of the images with given numbers.
    """
    device = next(network.parameters()).device
    shape = (network.in_channels, network.input_size, network.input_size)
    paths = [image_path(folder, number) for number in range(images)]
    batches = [list(range(start, min(start + sampling.batch, images))) for start in range(0, images, sampling.batch)]
    missing = [batch for batch in batches if not all(paths[number].exists() for number in batch)]
    progress.start("sample", images, images - sum(map(len, missing)))
    for batch in missing:
        noise = torch.stack([initial_noise(sampling.seed, number, shape) for number in batch])
        # One generator per image: the noise added to an image does not depend on the others in its batch.
        generators = [torch.Generator().manual_seed(sampler_seed(sampling.seed, number)) for number in batch]
        latents = p_sample_loop(denoiser(batch), noise.to(device), sampling.sampler, sampling.steps, generators)
        with torch.inference_mode():
            pixels = to_pixels(codec.decode(latents))
        for number, image in zip(batch, pixels, strict=True):
            write_image(image, paths[number])
        progress.advance(len(batch))
    progress.finish()
    write_npz(folder / "samples.npz", map(read_image, paths), len(paths))
    write_grid(np.stack([read_image(path) for path in paths[:GRID_IMAGES]]), folder / "samples.png")


def read_image(path: Path) -> NDArray[np.uint8]:
    """Read what :func:`~rsprune.training.image_grid.write_image` wrote: uint8 (H, W, C)."""
    with Image.open(path) as image:
        pixels: NDArray[np.uint8] = np.asarray(image)
    return pixels if pixels.ndim == 3 else pixels[..., None]
