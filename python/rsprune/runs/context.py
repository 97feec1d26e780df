"""What the stages of a run share: its folder, its configuration, and what its collection and encoder are."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from rsprune import _core
from rsprune.encoders.loader import check_finite
from rsprune.errors import BandsError, DamagedFileError
from rsprune.io import digest, provenance_header
from rsprune.runs.basis import shard_digests
from rsprune.runs.config import DecodeOptions, EncoderOptions, GrayOptions
from rsprune.runs.folder import RunFolder
from rsprune.sources import Source
from rsprune.sources.damaged import left_out

__all__ = ["RunContext", "check_bands", "encoder_config", "source_config"]


@dataclass(frozen=True)
class RunContext:
    """Context shared by the stages of a run: output folder, configuration, threads, and what the collection is.

    ``left_out`` are its shards that are left out, ``shards`` the digests of the others: see :func:`shard_digests`.
    """

    folder: RunFolder
    config: dict[str, Any]
    threads: int | None = None
    left_out: Mapping[str, str] = field(default_factory=dict)
    passed_over: Mapping[str, int] = field(default_factory=dict)
    shards: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def of(
        cls,
        folder: RunFolder,
        config: dict[str, Any],
        source: Source,
        threads: int | None = None,
        fingerprint: Mapping[str, Any] | None = None,
    ) -> RunContext:
        """Make the context of a run of a collection, whose ``fingerprint`` is taken if it is not known."""
        shards = shard_digests(fingerprint or source.fingerprint(), [shard.name for shard in source.shards])
        return cls(folder, config, threads, left_out(source), source.passed_over, shards)

    @property
    def skipped(self) -> dict[str, Any]:
        """The names of the shards that are left out, and what is passed over, for ``summary.json``; each if any is."""
        shards = {"left_out": sorted(self.left_out)} if self.left_out else {}
        return shards | ({"passed_over": dict(self.passed_over)} if self.passed_over else {})

    @property
    def provenance(self) -> dict[str, Any]:
        """The provenance that every artefact of the whole run carries."""
        return {**provenance_header(), "run": digest(self.config), "config": self.config}


def check_bands(source: Source, *, gray: GrayOptions | None = None, decode: DecodeOptions | None = None) -> None:
    """Fail where a collection whose bands are known lacks those that Stage I (``gray``) or an encoder is to read.

    Raises
    ------
    BandsError
        It names a file.
    """
    for count, name in source.band_counts.items():
        image = np.zeros((8, 8, count), np.uint8)
        failures = [] if gray is None else gray.measure([image], 1)[1]
        if decode is not None:
            out = np.empty((1, 8, 8, 3), np.uint8)
            failures += _core.preprocess_images([image], out, interpolation="bicubic", **decode.settings())
        for _, kind, message in failures:
            if kind == "bands":
                message = f"{name}: {message}"
                raise BandsError(message)


def encoder_config(options: EncoderOptions, folder: RunFolder) -> dict[str, Any]:
    """Return what embeddings depend on: the encoder's provenance and the size of a batch.

    A batch size that is not asked for is that of the run which ``folder`` already holds: what fits in a GPU's memory
    today may be more or less than what fitted when the run began, and the last bits of an embedding depend on it.
    """
    check_finite(options.model)
    begun = None
    with contextlib.suppress(FileNotFoundError, DamagedFileError):
        begun = folder.read_config().get("encoder", {}).get("batch_size")
    return options.model.provenance() | {"batch_size": options.batch_size or begun or options.model.batch_size}


def source_config(source: Source, fingerprint: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """Return what identifies a collection, in a few words: every artefact carries it."""
    fingerprint = fingerprint or source.fingerprint()
    config = {"kind": fingerprint["kind"], "images": source.total(), "digest": digest(fingerprint)}
    if source.options:
        config["options"] = dict(source.options)
    return config | ({"left_out": sorted(left_out(source))} if left_out(source) else {})
