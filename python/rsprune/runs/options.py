"""What a run can be told, beside its input and output."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from rsprune.encoders import Encoder, load_encoder
from rsprune.encoders.base import Precision
from rsprune.entropy import Gray
from rsprune.io import digest, provenance_header
from rsprune.runners import Progress
from rsprune.runs.folder import RunFolder
from rsprune.sources import Source

__all__ = ["Pixels", "Work", "encoder_config", "open_encoder", "source_config"]


@dataclass(frozen=True)
class Pixels:
    """How pixels are read; :func:`rsprune.entropy` explains each option."""

    gray: Gray = "bt601"
    bands: tuple[int, ...] | None = None
    nodata: int | None = None
    valid_range: tuple[int, int] | None = None
    max_pixels: int | None = None

    def config(self) -> dict[str, Any]:
        """The options of Stage I, as JSON values."""
        return asdict(self)

    def decoding(self) -> dict[str, Any]:
        """The options that an encoder's input depends on."""
        return {name: value for name, value in asdict(self).items() if name not in ("gray", "nodata")}


@dataclass(frozen=True)
class Work:
    """Where a stage writes, what its artefacts say of their making, who watches, and how many threads it may use."""

    folder: RunFolder
    provenance: dict[str, Any]
    observer: Progress
    threads: int | None = None

    @classmethod
    def begin(cls, folder: RunFolder, config: dict[str, Any], observer: Progress, threads: int | None) -> Work:
        """Begin or go on in ``folder``; see :meth:`RunFolder.start`."""
        folder.start(config)
        return cls(folder, {**provenance_header(), "run": digest(config), "config": config}, observer, threads)


def open_encoder(
    encoder: str | Encoder, weights: str | Path | None, device: str | None, precision: Precision, compile: bool
) -> Encoder:
    """Load an encoder by its name; one that is loaded already stays as it is."""
    if isinstance(encoder, Encoder):
        return encoder
    return load_encoder(encoder, weights=weights, device=device, precision=precision, compile=compile)


def encoder_config(encoder: Encoder, batch_size: int | None, folder: RunFolder) -> dict[str, Any]:
    """What the embeddings depend on: the encoder's provenance and the size of a batch.

    A batch that is not asked for is that of the run which ``folder`` already holds: what fits in a GPU's memory today
    may be more or less than what fitted when the run began, and the last bits of an embedding depend on it.
    """
    begun = folder.read_config().get("encoder", {}).get("batch_size") if folder.config.exists() else None
    return encoder.provenance() | {"batch_size": batch_size or begun or encoder.batch_size}


def source_config(source: Source) -> dict[str, Any]:
    """What identifies a collection, in a few words: every artefact carries it."""
    fingerprint = source.fingerprint()
    return {"kind": fingerprint["kind"], "images": source.total(), "digest": digest(fingerprint)}
