"""The interface of encoders, and where they run."""

from __future__ import annotations

import os
from abc import ABC, abstractmethod
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import numpy as np
from numpy.typing import NDArray

from rsprune.encoders.preprocess import ImageLike, Preprocessing, core_image
from rsprune.errors import failure
from rsprune.options import Options, option

__all__ = ["NOT_FINITE", "DeviceOptions", "Encoder", "Precision"]

#: The numbers that a network computes with. "auto": bfloat16 where the device has instructions for it.
Precision = Literal["auto", "float32", "bfloat16", "float16"]


@dataclass(frozen=True)
class DeviceOptions(Options):
    """Where and how an encoder runs."""

    panel: ClassVar[str] = "The encoder"

    device: str | None = option(
        None, help="The device of the encoder: cpu, cuda, or cuda:0,cuda:1. Default: every GPU, or the CPU."
    )
    precision: Precision = option("auto", help="What the encoder computes in. auto: bfloat16 where the device has it.")
    compile: bool = option(False, help="Compile the encoder: slow to start, faster afterwards.")


#: Why an image has no embedding that the encoder could not make one of.
NOT_FINITE = ("not_finite", "the encoder gives numbers for it that are not finite")


class Encoder(ABC):
    """Maps images to unit vectors."""

    name: str  # that :func:`rsprune.encoders.load_encoder` knows it by
    dim: int  # D, the number of dimensions of an embedding
    device: str  # "cpu", "cuda" or "cuda:<n>"
    batch_size: int  # how many images go through the network at once, unless the caller says otherwise
    preprocessing: Preprocessing  # what is done to an image before
    concurrency: int = 1  # how many batches :meth:`forward` takes at once, each from a thread of its own
    one_batch_per_core: bool = False  # whether each of them runs on one core of the CPU

    @property
    def size(self) -> int:
        """S, the width and height in pixels of what the network sees."""
        return self.preprocessing.size

    @abstractmethod
    def provenance(self) -> dict[str, Any]:
        """Describe what made the embeddings.

        Returns
        -------
        dict
            ``name``, ``architecture``, ``dim``, ``weights`` (``file``, ``sha256``), ``preprocessing``: embeddings that
            differ in these must not be mixed. ``runtime`` (versions, kind of device, precision): embeddings that
            differ in this alone agree up to rounding. Only strings, numbers, lists and dicts.
        """

    @abstractmethod
    def forward(self, pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Map one batch of preprocessed pixels, uint8 (n, 3, S, S), to embeddings, float32 (n, D) of unit rows.

        The other images of its batch show in an embedding by rounding alone: by less than 1e-5 in float32.
        """

    def preprocess(self, images: Sequence[ImageLike], *, threads: int | None = None) -> NDArray[np.uint8]:
        """Bring images to the size of the network: uint8 (n, 3, S, S), with the channels last in memory.

        The values are scaled on the device, in :meth:`forward`. For ``images``, and what is raised, see :meth:`encode`.
        ``threads`` decode and resize, all cores by default; the result does not depend on them.
        """
        items = [core_image(image) for image in images]
        pixels, failures = self.preprocessing.apply(items, threads=threads)
        for number, kind, message in failures:
            item = items[number]
            raise failure(kind, message, item if isinstance(item, str) else f"images[{number}]")
        return pixels.transpose(0, 3, 1, 2)

    def encode(self, images: Sequence[ImageLike]) -> NDArray[np.float32]:
        """Embed images.

        Parameters
        ----------
        images : sequence
            uint8 pixels, encoded bytes, paths or Pillow images, of any sizes.

        Returns
        -------
        ndarray
            float32 (n, D), unit rows.

        Raises
        ------
        ImageError, OSError, ShapeError, DtypeError
            For the first image that is none, or has no embedding. :func:`rsprune.encoders.loader.embed_items` reports
            such and goes on.
        """
        embeddings = np.empty((len(images), self.dim), np.float32)

        def encode(start: int) -> None:
            batch = images[start : start + self.batch_size]
            pixels = self.preprocess(batch, threads=1 if self.one_batch_per_core else None)
            embeddings[start : start + len(batch)] = rows = self.forward(pixels)
            for number in np.flatnonzero(~np.isfinite(rows).all(axis=1))[:1]:
                raise failure(*NOT_FINITE, f"images[{start + number}]")

        with ThreadPoolExecutor(os.cpu_count() if self.one_batch_per_core else 1) as pool:
            list(pool.map(encode, range(0, len(images), self.batch_size)))
        return embeddings
