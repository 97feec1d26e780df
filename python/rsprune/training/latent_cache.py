"""The latent cache: every image's latents, computed once before training.

The posterior moments of each image and of its mirror image are kept, so that each epoch draws latents anew, as if the
images were encoded in it; a mirrored latent is not the latent of the mirrored image. The folder holds ``config.json``,
``latents/<shard>.npy`` (float16: row, view, M, h, w), ``latents/<shard>.parquet`` (``row``, ``key``, ``label``,
``kind`` and ``message`` of a failure), written after its rows, and ``summary.json`` when it is complete.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from rsprune import _core
from rsprune.concurrency import prefetch_map
from rsprune.errors import ArgumentError, ConfigMismatchError, EmptyInputError, UnfinishedRunError
from rsprune.io import atomic_write, digest, provenance_header, read_json, read_table, write_json, write_table
from rsprune.runners import Progress, run_shards, show_progress
from rsprune.runs.folder import RunFolder
from rsprune.runs.options import source_config
from rsprune.sources import ImageData, Item, Shard, Source, SourceLike, open_source
from rsprune.training.autoencoder import Autoencoder, draw, expected_sums

__all__ = ["Chosen", "LatentCache", "PixelReader", "Reading", "cache_latents", "chosen_rows"]

#: Values that are summed at once: 32 MiB in float64, however large an image is.
BLOCK = 1 << 22

LATENT_SCHEMA = pa.schema(
    [
        pa.field("row", pa.int64(), nullable=False),  # position in the input shard
        pa.field("key", pa.string(), nullable=False),
        pa.field("label", pa.string()),  # the class folder, where there are such
        pa.field("kind", pa.string()),  # why the image was not read; its latents are zeros
        pa.field("message", pa.string()),
    ]
)


@dataclass(frozen=True)
class Chosen:
    """The images of a collection that are trained on.

    Attributes
    ----------
    rows
        For each shard's name the positions within it, ascending.
    digest
        Of the manifest that says so; None for all images.
    """

    rows: dict[str, NDArray[np.int64]]
    digest: str | None


def chosen_rows(source: Source, run: str | Path | None) -> Chosen:
    """All images of a collection, or those that a run chose of it.

    Parameters
    ----------
    source : Source
        The collection.
    run : path, optional
        The run folder.

    Raises
    ------
    ConfigMismatchError
        If the run was of another collection.
    UnfinishedRunError
        If it has no manifest yet.
    """
    if run is None:
        return Chosen({shard.name: np.arange(source.count(shard)) for shard in source.shards}, None)
    folder = RunFolder(run)
    theirs, ours = folder.read_config().get("source"), source_config(source)
    if theirs != ours:
        message = f"{folder.path} chose from another collection: {theirs} there, {ours} here"
        raise ConfigMismatchError(message)
    if not folder.selection.exists():
        message = f"{folder.path} has no selection.parquet: the run is not finished"
        raise UnfinishedRunError(message)
    table = read_table(folder.selection, ["key", "shard", "row"])
    chosen = {shard.name: np.empty(0, np.int64) for shard in source.shards}
    names, number = np.unique(table["shard"].to_numpy().astype(str), return_inverse=True)
    rows = table["row"].to_numpy()[np.lexsort((table["row"].to_numpy(), number))]
    parts = np.split(rows, np.cumsum(np.bincount(number, minlength=len(names)))[:-1])
    chosen.update(zip(names.tolist(), parts, strict=True))
    content = [table[name].to_pylist() for name in table.column_names]
    return Chosen(chosen, digest(content))


@dataclass(frozen=True)
class Reading:
    """How images become pixels.

    Attributes
    ----------
    size
        Height and width: the shorter side is brought to it by Pillow's bicubic filter, and the middle is cut out.
    channels
        How many there are to be.
    bands
        Which they are, counted from 0. RGB, or the first ones, if not given.
    valid_range
        Of 16-bit samples, as for :func:`rsprune.entropy`.
    reduced
        How many times the image is made smaller, and then larger again, both by Pillow's bicubic filter: the low
        resolution that super-resolution begins from.

    Raises
    ------
    ArgumentError
        If there are not as many bands as channels, or the size cannot be reduced so.
    """

    size: int
    channels: int = 3
    bands: tuple[int, ...] | None = None
    valid_range: tuple[int, int] | None = None
    reduced: int = 1

    def __post_init__(self) -> None:
        if self.reduced < 1 or self.size % self.reduced:
            message = f"size={self.size} is no multiple of {self.reduced}, by which it is to be reduced"
            raise ArgumentError(message)
        if self.bands is not None and len(self.bands) != self.channels:
            message = f"{len(self.bands)} bands for images of {self.channels} channels: {self.bands}"
            raise ArgumentError(message)

    def __call__(self, images: Sequence[ImageData]) -> tuple[NDArray[np.uint8], list[tuple[int, str, str]]]:
        """Decode images.

        Returns
        -------
        pixels : ndarray
            uint8 (n, size, size, channels), zero where an image failed.
        failures : list of (int, str, str)
            Number, kind and message of each image that failed.
        """
        pixels = np.zeros((len(images), self.size, self.size, self.channels), np.uint8)
        bands = self.bands or (None if self.channels == 3 else tuple(range(self.channels)))
        failures: dict[int, tuple[int, str, str]] = {}
        for first in range(0, self.channels, 3):  # the core reads three bands at once
            three = np.zeros((*pixels.shape[:3], 3), np.uint8)
            failed = _core.preprocess_images(
                images,
                three,
                interpolation="bicubic",
                resize_to=self.size,
                bands=bands and (bands[first : first + 3] + bands[-1:] * 2)[:3],
                valid_range=self.valid_range,
                threads=1,
            )
            pixels[..., first : first + 3] = three[..., : self.channels - first]
            failures |= {number: failure for failure in failed if (number := failure[0]) not in failures}
        pixels[list(failures)] = 0
        if self.reduced > 1:
            pixels = np.stack([blurred(image, self.reduced) for image in pixels])
        return pixels, [failures[number] for number in sorted(failures)]

    def config(self) -> dict[str, Any]:
        """Say how, as JSON takes it."""
        return {
            "size": self.size,
            "bands": None if self.bands is None else list(self.bands),
            "valid_range": None if self.valid_range is None else list(self.valid_range),
            "reduced": self.reduced,
        }


def blurred(image: NDArray[np.uint8], factor: int) -> NDArray[np.uint8]:
    """An image (S, S, C) made smaller by a factor, and larger again."""
    side = len(image)
    planes = []
    for band in range(image.shape[2]):
        plane = Image.fromarray(np.ascontiguousarray(image[:, :, band]))
        small = plane.resize((side // factor, side // factor), Image.Resampling.BICUBIC)
        planes.append(np.asarray(small.resize((side, side), Image.Resampling.BICUBIC)))
    return np.stack(planes, axis=2)


class PixelReader(Protocol):
    """What makes pixels of encoded images: :class:`Reading`, or another for other files."""

    @property
    def size(self) -> int:
        """Height and width."""

    @property
    def channels(self) -> int:
        """How many there are."""

    def __call__(self, images: Sequence[ImageData]) -> tuple[NDArray[np.uint8], list[tuple[int, str, str]]]:
        """See :meth:`Reading.__call__`."""

    def config(self) -> dict[str, Any]:
        """Say how, as JSON takes it."""


def cache_latents(
    source: SourceLike,
    autoencoder: Autoencoder,
    reading: PixelReader,
    *,
    out: str | Path,
    run: str | Path | None = None,
    mirror: bool = True,
    batch_size: int = 16,
    device: str = "cpu",
    progress: bool | Progress = True,
) -> LatentCache:
    """Encode a collection, resumably: an input shard is the unit of work and of restart.

    Parameters
    ----------
    source
        As for :func:`rsprune.prune`.
    autoencoder : Autoencoder
        See :func:`~rsprune.training.autoencoder.load_autoencoder`.
    reading : Reading
        How the images become pixels, with as many channels as the autoencoder takes.
    out : path
        The folder of the cache.
    run : path, optional
        The run folder of :func:`rsprune.prune`, whose selection is encoded. All images if not given.
    mirror : bool
        Whether to keep the mirror images, too.
    batch_size : int
        Images in one pass. The last bits of latents may depend on it.
    device : str
        Where to encode.

    Raises
    ------
    ConfigMismatchError
        If the folder holds something else.
    ArgumentError
        If the size is no multiple of the autoencoder's factor, or the channels are not the autoencoder's.
    EmptyInputError
        If no image could be read.
    """
    if reading.size < 1 or reading.size % autoencoder.factor:
        message = f"size={reading.size} is no positive multiple of {autoencoder.factor}, the autoencoder's factor"
        raise ArgumentError(message)
    if reading.channels != autoencoder.channels:
        message = f"the autoencoder takes {autoencoder.channels} channels, the images have {reading.channels}"
        raise ArgumentError(message)
    images = open_source(source)
    chosen = chosen_rows(images, run)
    config = provenance_header() | {
        "source": source_config(images),
        "selection": chosen.digest,
        "autoencoder": autoencoder.provenance(),
        **reading.config(),
        "mirror": mirror,
        "batch_size": batch_size,
    }
    folder = RunFolder(out)
    model = autoencoder.to(device)
    with folder.lock(), show_progress(progress) as observer:
        folder.start(config)
        made = [shard for shard in images.shards if len(chosen.rows[shard.name])]
        rows = {shard.name: chosen.rows[shard.name] for shard in made}
        encoding = Encoding(folder, model, reading, mirror, batch_size)
        done = sum(len(rows[shard.name]) for shard in made if encoding.table(shard).exists())
        observer.start("latents", sum(map(len, rows.values())), done)
        run_shards(made, encoding.table, lambda shard: encoding.encode(images, shard, rows[shard.name], observer))
        observer.finish()
        if not folder.summary.exists():
            write_json(folder.summary, LatentCache.scan(folder.path))
    return LatentCache(folder.path)


@dataclass(frozen=True)
class Encoding:
    """What the work on a shard needs."""

    folder: RunFolder
    model: Autoencoder
    reading: PixelReader
    mirror: bool
    batch_size: int

    def table(self, shard: Shard) -> Path:
        """What says that a shard is done."""
        return self.folder.path / "latents" / f"{shard.name}.parquet"

    def encode(self, source: Source, shard: Shard, rows: NDArray[np.int64], observer: Progress) -> None:
        """Write the latents of one shard, and after them its table."""
        side = self.reading.size // self.model.factor
        shape = (len(rows), 1 + self.mirror, self.model.moments, side, side)
        entries: list[dict[str, Any]] = []

        def prepare(start: int, items: list[Item]) -> NDArray[np.uint8]:
            pixels, failures = self.reading([item.data for item in items])
            causes = {i: (kind, why) for i, kind, why in failures}
            for i, item in enumerate(items):
                kind, why = causes.get(i, (None, None))
                entry = {
                    "row": int(rows[start + i]),
                    "key": item.key,
                    "label": item.label,
                    "kind": kind,
                    "message": why,
                }
                entries.append(entry)
            return pixels

        path = self.folder.path / "latents" / f"{shard.name}.npy"
        with atomic_write(path) as beside, beside.open("wb") as file:
            header = {"descr": "<f2", "fortran_order": False, "shape": shape}
            np.lib.format.write_array_header_1_0(file, header)
            items = source.read(shard, rows.tolist())
            # One thread decodes, so that the table's rows keep their order.
            ahead = prefetch_map(prepare, items, self.batch_size, threads=1, depth=4)
            with closing(ahead):
                for pixels in ahead:
                    file.write(self.views(pixels).tobytes())
                    observer.advance(len(pixels))
        failed = np.array([entry["kind"] is not None for entry in entries], bool)
        if failed.any():
            stored = np.lib.format.open_memmap(path, "r+")
            stored[failed] = 0
            stored.flush()
        write_table(self.table(shard), pa.Table.from_pylist(entries, schema=LATENT_SCHEMA), {**provenance_header()})

    @torch.inference_mode()
    def views(self, pixels: NDArray[np.uint8]) -> NDArray[np.float16]:
        """The moments of images (n, S, S, C) and of their mirror images: float16 (n, views, M, h, w)."""
        device = next((parameter.device for parameter in self.model.parameters()), torch.device("cpu"))
        images = torch.from_numpy(pixels).to(device).permute(0, 3, 1, 2).float() / 127.5 - 1
        views = [images, images.flip(3)] if self.mirror else [images]
        moments = torch.stack([self.model.encode(view) for view in views], dim=1)
        out: NDArray[np.float16] = moments.to(torch.float16).cpu().numpy()
        return out


class LatentCache:
    """A complete latent cache, mapped from the disk. Its samples are numbered through all shards, failures left out.

    Parameters
    ----------
    path : path
        Its folder.

    Attributes
    ----------
    config : dict
        What it was made from.
    latents, side : int
        L, and height and width of the latents.
    views : int
        2 where there are mirror images, or 1.
    scale, shift : float
        The autoencoder's; see :meth:`measured` for those of this cache.

    Raises
    ------
    FileNotFoundError, UnfinishedRunError
        If it is none, or not complete.
    """

    def __init__(self, path: str | Path) -> None:
        self.folder = RunFolder(path)
        self.config = self.folder.read_config()
        if not self.folder.summary.exists():
            message = f"the latent cache {self.folder.path} is not complete: run what began it again"
            raise UnfinishedRunError(message)
        self.summary = read_json(self.folder.summary)
        autoencoder = self.config["autoencoder"]
        self.latents, self.side = autoencoder["latents"], self.config["size"] // autoencoder["factor"]
        self.views = 1 + self.config["mirror"]
        self.scale, self.shift = autoencoder["scale"], autoencoder["shift"]
        self._shards, self._offsets, self._rows = self._index()

    def __len__(self) -> int:
        return int(self._offsets[-1])

    @staticmethod
    def _arrays(path: Path) -> Iterator[tuple[NDArray[np.float16], NDArray[np.int64]]]:
        """Each shard's moments, mapped, and which of its rows hold an image."""
        for table in sorted((path / "latents").glob("*.parquet")):
            valid = pc.is_null(read_table(table, ["kind"])["kind"]).to_numpy()
            yield np.load(table.with_suffix(".npy"), mmap_mode="r"), np.flatnonzero(valid)

    def _index(self) -> tuple[list[NDArray[np.float16]], NDArray[np.int64], list[NDArray[np.int64]]]:
        shards, rows = [], []
        for moments, valid in self._arrays(self.folder.path):
            shards.append(moments)
            rows.append(valid)
        return shards, np.cumsum([0, *map(len, rows)]), rows

    @classmethod
    def scan(cls, path: Path) -> dict[str, Any]:
        """The figures of a cache: images, failures, and mean and deviation of its latents, drawn (not of their means).

        Raises
        ------
        EmptyInputError
            If there is no image in it.
        """
        config = read_json(path / "config.json")
        latents = config["autoencoder"]["latents"]
        images = failures = 0
        total = squares = 0.0
        for moments, valid in cls._arrays(path):
            images += len(valid)
            failures += len(moments) - len(valid)
            rows = max(1, BLOCK // moments[0].size) if len(moments) else 1
            for start in range(0, len(valid), rows):
                block = torch.from_numpy(moments[valid[start : start + rows]]).flatten(0, 1)
                sums = expected_sums(block, latents)
                total, squares = total + sums[0], squares + sums[1]
        if not images:
            message = f"no image of {path} could be read: the tables in it say why"
            raise EmptyInputError(message)
        side = config["size"] // config["autoencoder"]["factor"]
        count = images * (1 + config["mirror"]) * latents * side**2
        mean = total / count
        return {
            "images": images,
            "quarantined": failures,
            "mean": mean,
            "deviation": max(squares / count - mean**2, 0.0) ** 0.5,
        }

    def measured(self) -> tuple[float, float]:
        """Scale and shift that bring these latents to mean 0 and deviation 1."""
        return 1 / max(self.summary["deviation"], 1e-12), self.summary["mean"]

    def _locate(self, ids: NDArray[np.int64]) -> Iterator[tuple[int, int]]:
        if len(ids) and not (ids.min() >= 0 and ids.max() < len(self)):
            message = f"samples are numbered from 0 to {len(self) - 1}, got {ids.min()} to {ids.max()}"
            raise ArgumentError(message)
        numbers = np.searchsorted(self._offsets, ids, side="right") - 1
        for number, position in zip(numbers, ids - self._offsets[numbers], strict=True):
            yield int(number), int(self._rows[number][position])

    def moments(self, ids: NDArray[np.int64], mirrored: NDArray[np.bool_]) -> Tensor:
        """The moments of samples, or of their mirror images: float32 (n, M, h, w).

        Raises
        ------
        ArgumentError
            For a number that no sample has, or mirror images where there are none.
        """
        if mirrored.any() and self.views == 1:
            message = f"the latent cache {self.folder.path} has no mirror images: make it with mirror=True"
            raise ArgumentError(message)
        places = zip(self._locate(ids), mirrored, strict=True)
        out = [self._shards[number][row, int(view)] for (number, row), view in places]
        return torch.from_numpy(np.stack(out)).float()

    def sample(self, ids: NDArray[np.int64], mirrored: NDArray[np.bool_], noise: Tensor) -> Tensor:
        """Draw latents, neither shifted nor scaled: what the autoencoder's own posterior draws from these moments.

        Parameters
        ----------
        ids : ndarray
            int64 (n,): numbers of samples.
        mirrored : ndarray
            bool (n,): whether to take the mirror image.
        noise : Tensor
            float32 (n, L, h, w), standard normal.
        """
        return draw(self.moments(ids, mirrored), self.latents, noise)

    @cached_property
    def positions(self) -> NDArray[np.int64]:
        """int64 (N,): where each sample stands among all that were to be encoded, failures counted."""
        before = np.cumsum([0, *(len(moments) for moments in self._shards)])
        return np.concatenate([rows + start for rows, start in zip(self._rows, before, strict=False)])

    @cached_property
    def labels(self) -> list[str | None]:
        """The class folder of each sample."""
        return self._column("label")

    @cached_property
    def keys(self) -> list[str]:
        """The key of each sample."""
        return self._column("key")

    def _column(self, name: str) -> list[Any]:
        values: list[Any] = []
        for table in sorted((self.folder.path / "latents").glob("*.parquet")):
            read = read_table(table, [name, "kind"])
            values += read.filter(pc.is_null(read["kind"]))[name].to_pylist()
        return values
