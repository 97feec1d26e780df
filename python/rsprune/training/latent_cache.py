"""The latent cache: the latents of every image, computed once before training.

The posterior moments of each image and of its mirror image are kept, so that each epoch draws latents anew, as if the
images were encoded in it. (The latents of the mirrored image are not the mirrored latents.) The folder holds
``config.json``; ``latents/<shard>.npy``, float16 (row, view, M, h, w); ``latents/<shard>.parquet``, with ``row``,
``key``, ``label``, and ``kind`` and ``message`` of a failure; ``latents/<shard>.json``, the record of both with their
digests; and ``summary.json`` when it is complete.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import torch
from numpy.typing import NDArray
from torch import Tensor

from rsprune.concurrency import prefetch_map
from rsprune.errors import (
    ArgumentError,
    ConfigMismatchError,
    DamagedFileError,
    EmptyInputError,
    UnfinishedRunError,
    WeightsError,
    shown,
)
from rsprune.io import atomic_write, digest, provenance_header, read_table, write_table
from rsprune.runners import Progress, show_progress
from rsprune.runs.checks import REMEDY
from rsprune.runs.context import source_config
from rsprune.runs.folder import RunFolder
from rsprune.runs.reader import RunReader, open_as_run, positions_of
from rsprune.runs.summary import key_form
from rsprune.sources import Item, Shard, Source, SourceLike, check_outside
from rsprune.sources.base import with_reasons
from rsprune.sources.keys import check_keys, read_known
from rsprune.training.autoencoder import Autoencoder, expected_moments, sample_posterior
from rsprune.training.transforms import Transform

__all__ = ["LatentCache", "cache_latents", "selected_rows"]

#: Number of values that are summed at once: 32 MiB in float64, however large an image is.
BLOCK = 1 << 22

LATENT_SCHEMA = pa.schema(
    [
        pa.field("row", pa.int64(), nullable=False),  # position in the input shard
        pa.field("key", pa.string(), nullable=False),
        pa.field("label", pa.string()),  # the class folder, if there is one
        pa.field("kind", pa.string()),  # why the image was not read; its latents are zeros
        pa.field("message", pa.string()),
    ]
)


@dataclass(frozen=True)
class SelectedRows:
    """Rows of a collection that are encoded."""

    rows: dict[str, NDArray[np.int64]]  # by shard: their positions within it, (n,), ascending
    keys: dict[str, list[str]]  # by shard: the names that they had in it when the run read them; empty without a run
    run: RunReader | None = None  # None if all rows of the collection are taken
    digest: str | None = None  # of the run's manifest

    def read(self, source: Source, shard: Shard) -> Iterator[Item]:
        """Read the rows of a shard."""
        rows = self.rows[shard.name].tolist()
        if self.run is None:
            return source.read(shard, rows)
        return read_known(source, shard, rows, self.keys[shard.name], self.run.folder.path)


def selected_rows(source: Source, run: str | Path | None) -> SelectedRows:
    """Return the rows of a collection that a run selected, or all rows if ``run`` is None."""
    if run is None:
        return SelectedRows({shard.name: np.arange(source.count(shard)) for shard in source.shards}, {})
    reader = RunReader(run)
    reader.check_source(source)
    selected_from, given = reader.config.get("source"), source_config(source)
    if selected_from != given:
        message = f"{reader.folder.path} selected from another collection: {selected_from} there, {given} here"
        raise ConfigMismatchError(message)
    table = reader.selected(["key", "shard", "row"])
    rows = {shard.name: np.empty(0, np.int64) for shard in source.shards}
    keys: dict[str, list[str]] = {name: [] for name in rows}
    for name, at in positions_of(table["shard"]):
        chosen = table.take(pa.array(at)).sort_by("row")
        rows[name], keys[name] = chosen["row"].to_numpy(), reader.as_names(name, chosen["key"].to_pylist())
    manifest = digest([table[name].to_pylist() for name in table.column_names])
    return SelectedRows(rows, keys, reader, manifest)


def cache_latents(
    source: SourceLike,
    autoencoder: Autoencoder,
    transform: Transform,
    *,
    out: str | Path,
    run: str | Path | None = None,
    mirror: bool = True,
    batch_size: int = 16,
    device: str = "cpu",
    progress: bool | Progress = True,
) -> LatentCache:
    """Encode a collection into the folder ``out``, resumably: an input shard is the unit of work and of restart.

    ``transform`` makes pixels of the images, with as many channels as the ``autoencoder`` takes; with ``mirror`` the
    mirror images are encoded, too. ``run`` is the folder of a run whose selection is encoded; by default all images
    are. The last bits of latents may depend on ``batch_size``, the number of images per forward pass.

    Raises
    ------
    ConfigMismatchError
        The folder holds something else.
    KeyMismatchError
        The run, or the folder, is of other images.
    ArgumentError
        The size is no multiple of the autoencoder's factor, or the channels are not the autoencoder's.
    WeightsError
        The latents of an image are NaN, or beyond the range of float16: nothing more is encoded then.
    EmptyInputError
        No image could be read.
    """
    if transform.size < 1 or transform.size % autoencoder.factor:
        message = f"size={transform.size} is no positive multiple of {autoencoder.factor}, the autoencoder's factor"
        raise ArgumentError(message)
    if transform.channels != autoencoder.channels:
        message = f"the autoencoder takes {autoencoder.channels} channels, the images have {transform.channels}"
        raise ArgumentError(message)
    images = open_as_run(source, run)
    check_outside(out, images)
    identity = source_config(images)
    selection = selected_rows(images, run)
    config = provenance_header() | {
        "source": identity,
        "selection": selection.digest,
        "autoencoder": autoencoder.provenance(),
        **transform.config(),
        "mirror": mirror,
        "batch_size": batch_size,
    }
    folder = RunFolder(out)
    encoder = ShardEncoder(folder.path / "latents", autoencoder.to(device), transform, mirror, batch_size)
    shape = (1, transform.size, transform.size, transform.channels)
    noise = np.random.default_rng(0).integers(0, autoencoder.values, shape, np.uint8)
    encoder.moments(noise, ["noise"])
    with folder.lock(), show_progress(progress) as shown:
        shards = [shard for shard in images.shards if len(selection.rows[shard.name])]
        done = [shard for shard in shards if folder.is_whole(encoder.table(shard), encoder.rows(shard))]
        for shard in done:
            table = read_table(encoder.table(shard), ["row", "key"])
            check_keys(images, shard, table["row"].to_pylist(), table["key"].to_pylist(), folder.path)
        folder.start(config)
        counts = {shard: len(selection.rows[shard.name]) for shard in shards}
        shown.start("latents", sum(counts.values()), sum(counts[shard] for shard in done))
        for shard in shards:
            if shard not in done:
                encoder.encode(selection.read(images, shard), shard, selection.rows[shard.name], shown)
                made = encoder.table(shard)
                folder.complete(folder.record(made), [made, encoder.rows(shard)])
        shown.finish()
        if not is_complete(folder):
            tables = (read_table(encoder.table(shard), ["key"])["key"].to_pylist() for shard in shards)
            form = key_form(tables) if selection.run is None else selection.run.key_form
            folder.complete(folder.summary, [], {**LatentCache.scan(folder), "keys": form})
    return LatentCache(folder.path)


def is_complete(folder: RunFolder) -> bool:
    """Tell whether the summary of a cache is there and as it was written."""
    try:
        return bool(RunReader(folder).summary)
    except (UnfinishedRunError, DamagedFileError):
        return False


@dataclass(frozen=True)
class ShardEncoder:
    """Encodes the images of one shard at a time into a folder."""

    folder: Path
    model: Autoencoder
    transform: Transform
    mirror: bool
    batch_size: int

    def table(self, shard: Shard) -> Path:
        """Return the table of a shard."""
        return self.folder / f"{shard.name}.parquet"

    def rows(self, shard: Shard) -> Path:
        """Return the latents of a shard."""
        return self.folder / f"{shard.name}.npy"

    def encode(self, images: Iterator[Item], shard: Shard, rows: NDArray[np.int64], progress: Progress) -> None:
        """Write the latents of the ``images`` at some rows of one shard, and after them its table."""
        side = self.transform.size // self.model.factor
        shape = (len(rows), 1 + self.mirror, self.model.moments, side, side)
        entries: list[dict[str, Any]] = []

        def read(start: int, items: list[Item]) -> NDArray[np.uint8]:
            images = [item.data for item in items]
            pixels, failures = self.transform(images)
            causes = {number: (kind, shown(message)) for number, kind, message in with_reasons(images, failures)}
            for i, item in enumerate(items):
                kind, message = causes.get(i, (None, None))
                row = int(rows[start + i])
                entries.append({"row": row, "key": item.key, "label": item.label, "kind": kind, "message": message})
            return pixels

        path = self.rows(shard)
        with atomic_write(path) as temporary, temporary.open("wb") as file:
            header = {"descr": "<f2", "fortran_order": False, "shape": shape}
            np.lib.format.write_array_header_1_0(file, header)
            # A single thread decodes, so that the rows of the table keep their order.
            with closing(prefetch_map(read, images, self.batch_size, threads=1, depth=4)) as batches:
                done = 0
                for pixels in batches:
                    batch = entries[done : done + len(pixels)]
                    done += len(pixels)
                    file.write(self.moments(pixels, [entry["key"] for entry in batch]).tobytes())
                    progress.advance(len(pixels))
        failed = np.array([entry["kind"] is not None for entry in entries], bool)
        if failed.any():
            stored = np.lib.format.open_memmap(path, "r+")
            stored[failed] = 0
            stored.flush()
        write_table(self.table(shard), pa.Table.from_pylist(entries, schema=LATENT_SCHEMA), {**provenance_header()})

    @torch.inference_mode()
    def moments(self, pixels: NDArray[np.uint8], keys: list[str]) -> NDArray[np.float16]:
        """Encode images (n, S, S, C), and their mirror images if wanted: float16 (n, views, M, h, w)."""
        device = next((parameter.device for parameter in self.model.parameters()), torch.device("cpu"))
        images = torch.from_numpy(pixels).to(device).permute(0, 3, 1, 2).float() / 127.5 - 1
        views = [images, images.flip(3)] if self.mirror else [images]
        moments = torch.stack([self.model.encode(view) for view in views], dim=1)
        out: NDArray[np.float16] = moments.to(torch.float16).cpu().numpy()
        # The logarithm of a variance may be infinite: it is clamped where it is used.
        wrong = np.isnan(out).any(axis=(1, 2, 3, 4)) | np.isinf(out[:, :, : self.model.latents]).any(axis=(1, 2, 3, 4))
        if wrong.any():
            at = int(wrong.argmax())
            largest = float(moments[at].abs().max())
            what = "NaN" if math.isnan(largest) else f"up to {largest:g}, and float16 ends at 65504"
            files = ", ".join(file["file"] for file in self.model.source.get("files", ()))
            message = (
                f"the autoencoder ({files}) maps {keys[at]} to latents of {what}: the weights are damaged or others'"
            )
            raise WeightsError(message)
        return out


class LatentCache:
    """A complete latent cache, memory-mapped. Samples are numbered across shards; images that failed are left out.

    ``config`` says what the latents depend on. They have ``latents`` channels L, and ``side`` is their height and
    width; ``views`` is 2 if there are mirror images, else 1. ``scale`` and ``shift`` are those of the autoencoder;
    :meth:`measured` returns those of this cache.

    Raises
    ------
    FileNotFoundError, UnfinishedRunError
        The folder holds no cache, or an incomplete one.
    DamagedFileError
        A file is not as it was written. The command that made the cache makes it anew.
    """

    def __init__(self, path: str | Path) -> None:
        self.folder = RunFolder(path)
        self.config = self.folder.read_config()
        if not self.folder.summary.exists():
            message = f"the latent cache {self.folder.path} is not complete: run the command that began it again"
            raise UnfinishedRunError(message)
        self.summary = RunReader(self.folder).summary
        autoencoder = self.config["autoencoder"]
        self.latents, self.side = autoencoder["latents"], self.config["size"] // autoencoder["factor"]
        self.views = 1 + self.config["mirror"]
        self.scale, self.shift = autoencoder["scale"], autoencoder["shift"]
        self._shards, self._rows = zip(*self._arrays(self.folder), strict=True)
        self._offsets = np.cumsum([0, *map(len, self._rows)])
        if len(self) != self.summary["images"]:
            message = f"{self.folder.path} holds {len(self)} images of {self.summary['images']}. {REMEDY}"
            raise DamagedFileError(message)

    def __len__(self) -> int:
        return int(self._offsets[-1])

    @staticmethod
    def _arrays(folder: RunFolder) -> Iterator[tuple[NDArray[np.float16], NDArray[np.int64]]]:
        """Yield the moments of each shard, memory-mapped, and the rows that hold an image, both checked."""
        for table in sorted((folder.path / "latents").glob("*.parquet")):
            valid = pc.is_null(read_table(folder.verify(table), ["kind"])["kind"]).to_numpy()
            yield np.load(folder.verify(table.with_suffix(".npy")), mmap_mode="r"), np.flatnonzero(valid)

    @classmethod
    def scan(cls, folder: RunFolder) -> dict[str, Any]:
        """Summarize a cache of an image or more: images, failures, mean and deviation of the latents drawn from it."""
        images = failures = 0
        for moments, valid in cls._arrays(folder):
            images += len(valid)
            failures += len(moments) - len(valid)
        if not images:
            message = f"no image of {folder.path} could be read: the tables in it say why"
            raise EmptyInputError(message)
        latents = folder.read_config()["autoencoder"]["latents"]
        mean, deviation = expected_moments(cls._blocks(folder), latents)
        return {"images": images, "quarantined": failures, "mean": mean, "deviation": deviation}

    @classmethod
    def _blocks(cls, folder: RunFolder) -> Iterator[Tensor]:
        """Yield the moments of all images and views, (n, M, h, w), few enough at once to be summed in memory."""
        for moments, valid in cls._arrays(folder):
            rows = max(1, BLOCK // moments[0].size) if len(moments) else 1
            for start in range(0, len(valid), rows):
                yield torch.from_numpy(moments[valid[start : start + rows]]).flatten(0, 1)

    def measured(self) -> tuple[float, float]:
        """Return the scale and shift that bring these latents to mean 0 and standard deviation 1."""
        return 1 / max(self.summary["deviation"], 1e-12), self.summary["mean"]

    def _locate(self, ids: NDArray[np.int64]) -> Iterator[tuple[int, int]]:
        if len(ids) and not (ids.min() >= 0 and ids.max() < len(self)):
            message = f"samples are numbered from 0 to {len(self) - 1}, got {ids.min()} to {ids.max()}"
            raise ArgumentError(message)
        shards = np.searchsorted(self._offsets, ids, side="right") - 1
        for shard, position in zip(shards, ids - self._offsets[shards], strict=True):
            yield int(shard), int(self._rows[shard][position])

    def moments(self, ids: NDArray[np.int64], mirrored: NDArray[np.bool_]) -> Tensor:
        """Read the moments of samples, or of their mirror images, which there must be: float32 (n, M, h, w)."""
        if mirrored.any() and self.views == 1:
            message = f"the latent cache {self.folder.path} has no mirror images: make it with mirror=True"
            raise ArgumentError(message)
        places = zip(self._locate(ids), mirrored, strict=True)
        out = [self._shards[shard][row, int(view)] for (shard, row), view in places]
        return torch.from_numpy(np.stack(out)).float()

    def sample(self, ids: NDArray[np.int64], mirrored: NDArray[np.bool_], noise: Tensor) -> Tensor:
        """Draw latents, neither shifted nor scaled, as the autoencoder's own posterior does from these moments.

        Samples ``ids``, int64 (n,), are ``mirrored``, bool (n,), or not; ``noise``, float32 (n, L, h, w), is standard
        normal.
        """
        return sample_posterior(self.moments(ids, mirrored), self.latents, noise)

    @cached_property
    def positions(self) -> NDArray[np.int64]:
        """int64 (N,): position of each sample among all images that were to be encoded, failures included."""
        before = np.cumsum([0, *(len(moments) for moments in self._shards)])
        return np.concatenate([rows + start for rows, start in zip(self._rows, before, strict=False)])

    @property
    def _samples(self) -> pa.Table:
        tables = []
        for path in sorted((self.folder.path / "latents").glob("*.parquet")):
            table = read_table(path)
            if self.summary.get("keys") == "shard/name":
                keys = pc.binary_join_element_wise(path.stem, table["key"], "/")
                table = table.set_column(table.column_names.index("key"), "key", keys)
            tables.append(table.filter(pc.is_null(table["kind"])))
        return pa.concat_tables(tables)

    @cached_property
    def labels(self) -> list[str | None]:
        """Class folder of each sample."""
        return list(self._samples["label"].to_pylist())

    @cached_property
    def keys(self) -> list[str]:
        """Key of each sample."""
        return list(self._samples["key"].to_pylist())
