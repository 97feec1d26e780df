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

from rsprune.encoders.weights import weights_provenance
from rsprune.errors import ArgumentError, ConfigMismatchError
from rsprune.io import atomic_write, config_diff, provenance_header, write_npz
from rsprune.runners import Progress, show_progress
from rsprune.runs.folder import RunFolder
from rsprune.sources import SourceLike
from rsprune.training.autoencoder import Autoencoder, load_autoencoder
from rsprune.training.checkpoint import Which, load_dit, read_checkpoint
from rsprune.training.conditioning import Conditions, open_conditions
from rsprune.training.distributed import processes
from rsprune.training.dit import DiT
from rsprune.training.gaussian_diffusion import Sampler, guided, sample
from rsprune.training.image_grid import to_pixels, write_grid, write_image
from rsprune.training.latent_cache import LatentCache
from rsprune.training.rng import start_noise, way_seed
from rsprune.training.trainer import Precision, autocast, precision_on
from rsprune.validation import check_integer

__all__ = ["Sampled", "Sampling", "codec_of", "draw_images", "sample_run"]

#: Bands that a PNG file holds; the fourth is written as alpha.
FILED = (1, 3, 4)

#: Images of the picture that shows some of them.
SHOWN = 36


@dataclass(frozen=True)
class Sampling:
    """How images are drawn.

    Attributes
    ----------
    sampler, steps
        See :func:`~rsprune.training.gaussian_diffusion.make_scheduler`.
    guidance
        The scale of classifier-free guidance; 1 is none.
    batch
        Images at once. Their last bits may depend on it.
    seed
        Of all noise: image ``i`` begins from the same noise in whatever batch it is.

    Raises
    ------
    ArgumentError
        If the batch or the seed is none that there can be.
    """

    sampler: Sampler = "ddpm"
    steps: int = 250
    guidance: float = 1.0
    batch: int = 32
    seed: int = 0

    def __post_init__(self) -> None:
        check_integer("batch", self.batch)
        check_integer("seed", self.seed, minimum=0)


@dataclass(frozen=True)
class Sampled:
    """What was drawn: the folder, and its figures."""

    path: Path
    figures: dict[str, Any]

    def describe(self) -> str:
        """Say what was drawn, in a line."""
        return f"{self.figures['images']:,} images in {self.path / 'images'}, and together in samples.npz beside it"


def codec_of(recipe: dict[str, Any], autoencoder: str | Path | None) -> Autoencoder:
    """The autoencoder that a network was trained with, scaled as it was.

    Parameters
    ----------
    recipe : dict
        Of a checkpoint; empty for a published one.
    autoencoder : str or path, optional
        Where it lies. Not needed for a network that was trained on pixels.

    Raises
    ------
    ArgumentError
        If it is needed and not given.
    ConfigMismatchError
        If it is another one.
    """
    known = recipe.get("data", {}).get("autoencoder", {})
    if autoencoder is None:
        if known.get("autoencoder") != "identity":
            message = "the network works on latents: name the autoencoder that decodes them"
            raise ArgumentError(message)
        autoencoder = "identity"
    codec = load_autoencoder(autoencoder, known.get("channels", 3))
    if known and (differences := list(config_diff(known, codec.provenance()))):
        lines = "\n".join(f"  {line}" for line in differences)
        message = f"the network was trained with another autoencoder than {autoencoder}:\n{lines}"
        raise ConfigMismatchError(message)
    codec.scale, codec.shift = recipe.get("scale", codec.scale), recipe.get("shift", codec.shift)
    return codec


def sample_run(
    checkpoint: str | Path,
    *,
    out: str | Path,
    images: int = 64,
    autoencoder: str | Path | None = None,
    weights: Which = "ema",
    classes: Sequence[str] | None = None,
    condition: SourceLike | None = None,
    sampling: Sampling = Sampling(),
    precision: Precision = "auto",
    device: str | None = None,
    progress: bool | Progress = True,
) -> Sampled:
    """Draw images, resumably: the same call draws those that are not there yet.

    Writes ``images/<number>.png``, ``samples.npz`` (uint8 (n, H, W, C) under ``arr_0``, as the ADM evaluation suite
    reads it), ``samples.png`` with some of them, and ``config.json`` with what they were made from.

    Parameters
    ----------
    checkpoint : path
        Of `rsprune train`, or a published one.
    out : path
        The folder.
    images : int
        How many.
    autoencoder : str or path, optional
        See :func:`codec_of`.
    weights : str
        ``"ema"`` or ``"model"``.
    classes : sequence of str, optional
        Names of class folders, or numbers; image ``i`` is of the class ``i`` modulo their number. All classes if not
        given. Of a conditional network only.
    condition : optional
        Of a fine-tuned network only: images to make small and draw again, or the folder of label maps; see
        :func:`~rsprune.training.conditioning.open_conditions`. Image ``i`` is drawn from the ``i``-th that could be
        read; ``conditions.csv`` names them, ``originals/<number>.png`` are the real images, and their latents are kept
        beside the folder, in ``<out>-conditions``.
    sampling : Sampling
        How.
    precision, device
        As for :func:`~rsprune.training.pretrain.pretrain`.

    Raises
    ------
    ArgumentError
        If the network has no such class, or none to be guided by; if the condition is missing, not used, or of fewer
        images.
    ConfigMismatchError
        If the folder holds other images.
    """
    check_integer("images", images)
    path = Path(checkpoint)
    recipe = read_checkpoint(path, mmap=True).get("recipe") or {}
    network = load_dit(path, weights)
    if (condition is None) != (network.cond_channels == 0):
        does = "takes a condition, which is missing" if condition is None else "takes no condition"
        message = f"the network in {path} {does}"
        raise ArgumentError(message)
    codec = codec_of(recipe, autoencoder)
    if codec.channels not in FILED:
        message = f"images of {codec.channels} bands have no place in PNG files, which hold 1, 3 or 4"
        raise ArgumentError(message)
    labels = label_numbers(network, recipe.get("classes"), classes)
    if sampling.guidance != 1 and (labels is None or network.null_label is None):
        lacks = "is unconditional" if labels is None else 'knows no label for "no class"'
        message = f"the network {lacks}, and guidance needs both classes and none: use guidance=1"
        raise ArgumentError(message)
    with processes(device) as us, show_progress(progress) as observer:
        number = precision_on(us.device, precision)
        config = provenance_header() | {
            "checkpoint": weights_provenance(path),
            "weights": weights,
            "autoencoder": codec.provenance(),
            "classes": labels,
            "sampling": vars(sampling),
            "precision": number,
        }
        folder = RunFolder(out)
        network.to(us.device)
        codec.to(us.device)

        given = None
        if condition is not None:
            place = folder.path.resolve()  # the folder may be "."
            place = place.with_name(place.name + "-conditions")
            found = open_conditions(recipe, condition, codec)
            given = Given(found, found.cache(place, str(us.device), observer))
            if images > len(given.cache):
                message = f"{images} images cannot be drawn from {len(given.cache)} conditions"
                raise ArgumentError(message)
            config |= {"condition": given.cache.config}

        def denoiser(numbers: list[int]) -> Callable[[Tensor, Tensor], Tensor]:
            cond = None if given is None else given(numbers).to(us.device)

            def call(x: Tensor, t: Tensor, y: Tensor | None = None) -> Tensor:
                with autocast(us.device, number):
                    noise: Tensor = network(x, t, y, cond)
                return noise

            if labels is None:
                return call
            y = torch.tensor([labels[i % len(labels)] for i in numbers], device=us.device)
            return guided(call, y, network.null_label or 0, sampling.guidance, network.in_channels)

        with folder.lock():
            folder.start(config)
            if given is not None:
                write_keys(folder.path / "conditions.csv", given.cache.keys[:images])
                given.write_originals(folder.path, images, observer)
            draw_images(folder.path, images, network, codec, denoiser, sampling, observer)
    return Sampled(folder.path, {"images": images, "folder": str(folder.path)})


@dataclass(frozen=True)
class Given:
    """What images are drawn from."""

    conditions: Conditions
    cache: LatentCache

    def __call__(self, numbers: list[int]) -> Tensor:
        """The channels that condition the images of these numbers."""
        moments = self.cache.moments(np.array(numbers, np.int64), np.zeros(len(numbers), bool))
        return self.conditions.codec.normalize(moments[:, : self.cache.latents])

    def write_originals(self, folder: Path, images: int, observer: Progress) -> None:
        """Write the image that each drawn one is to be like, under the same name."""
        paths = [image_path(folder, number, "originals") for number in range(images)]
        missing = [number for number, path in enumerate(paths) if not path.exists()]
        found = self.conditions.read_originals(self.cache.positions[missing])
        for number, (image, failure) in zip(missing, found, strict=True):
            if failure is None:
                write_image(image, paths[number])
            else:
                observer.note(f"image {number} has no original: {failure}")


def image_path(folder: Path, number: int, kind: str = "images") -> Path:
    """Where an image lies."""
    return folder / kind / f"{number:06d}.png"


def label_numbers(network: DiT, names: list[str] | None, classes: Sequence[str] | None) -> list[int] | None:
    """The labels that images are drawn of, in turn."""
    if network.num_classes is None:
        if classes:
            message = f"the network is unconditional: it has no classes {', '.join(classes)}"
            raise ArgumentError(message)
        return None
    if not classes:
        return list(range(network.num_classes))
    # A folder may have a number for a name, and then the name counts.
    known = {str(i): i for i in range(network.num_classes)} | {name: i for i, name in enumerate(names or [])}
    for name in classes:
        if name not in known:
            message = f"no class {name!r}: there are {', '.join(names or [f'0 to {network.num_classes - 1}'])}"
            raise ArgumentError(message)
    return [known[name] for name in classes]


def write_keys(path: Path, keys: Sequence[str]) -> None:
    """Write which condition each image was drawn from, as a table; keys may hold commas."""
    with atomic_write(path) as beside, beside.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(("number", "key"))
        writer.writerows(enumerate(keys))


def draw_images(
    folder: Path,
    images: int,
    network: DiT,
    codec: Autoencoder,
    denoiser: Callable[[list[int]], Callable[[Tensor, Tensor], Tensor]],
    sampling: Sampling,
    observer: Progress,
) -> None:
    """Draw the images that a folder lacks, batch by batch, and gather all.

    Parameters
    ----------
    denoiser : callable
        The network under the conditions of the images of these numbers.
    """
    device = next(network.parameters()).device
    shape = (network.in_channels, network.input_size, network.input_size)
    paths = [image_path(folder, number) for number in range(images)]
    batches = [list(range(start, min(start + sampling.batch, images))) for start in range(0, images, sampling.batch)]
    missing = [batch for batch in batches if not all(paths[number].exists() for number in batch)]
    observer.start("sample", images, images - sum(map(len, missing)))
    for batch in missing:
        start = torch.stack([start_noise(sampling.seed, number, shape) for number in batch])
        # A generator of its own: what is added to one image does not depend on those beside it.
        generators = [torch.Generator().manual_seed(way_seed(sampling.seed, number)) for number in batch]
        latents = sample(denoiser(batch), start.to(device), sampling.sampler, sampling.steps, generators)
        with torch.inference_mode():
            pixels = to_pixels(codec.decode(latents))
        for number, image in zip(batch, pixels, strict=True):
            write_image(image, paths[number])
        observer.advance(len(batch))
    observer.finish()
    gather(folder, paths)


def gather(folder: Path, paths: list[Path]) -> None:
    """Write all images as one archive, and some as a picture."""
    write_npz(folder / "samples.npz", map(read_image, paths), len(paths))
    write_grid(np.stack([read_image(path) for path in paths[:SHOWN]]), folder / "samples.png")


def read_image(path: Path) -> NDArray[np.uint8]:
    """Read what :func:`~rsprune.training.image_grid.write_image` wrote: uint8 (H, W, C)."""
    with Image.open(path) as image:
        pixels: NDArray[np.uint8] = np.asarray(image)
    return pixels if pixels.ndim == 3 else pixels[..., None]
