"""The reference: what the centroids are fitted on, in any of the forms that a user has it in."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from rsprune import _core
from rsprune.apportion import apportion
from rsprune.centroids import Centroids, fit_centroids
from rsprune.encoders import Encoder
from rsprune.errors import ArgumentError, EncoderMismatchError
from rsprune.io import canonical_json
from rsprune.runs.options import Pixels, Work, source_config
from rsprune.runs.quarantine import write_quarantine
from rsprune.runs.stages import embed_shards
from rsprune.sources import Source, SourceLike, open_source
from rsprune.sources.concat import ConcatSource
from rsprune.validation import check_integer

__all__ = ["Reference", "ReferenceLike", "SourceLike", "open_reference"]

ReferenceLike = SourceLike | Centroids | NDArray[Any]


class Reference(Protocol):
    """Something that centroids come from."""

    @property
    def k(self) -> int:
        """The number of centroids."""

    @property
    def images(self) -> int:
        """How many images have to be embedded for them."""

    def fingerprint(self) -> dict[str, Any]:
        """What it is made of, for the configuration of a run."""

    def check(self, encoder: Encoder) -> None:
        """Fail early when it cannot serve ``encoder``."""

    def centroids(self, work: Work, encoder: Encoder, pixels: Pixels, batch_size: int | None) -> Centroids:
        """Make the centroids, and keep them in the run folder."""

    def embeddings(self, work: Work) -> Any | None:
        """The embeddings that the centroids were made of, once they are; None where those came as they are."""


def open_reference(
    reference: ReferenceLike, *, k: int, seed: int, max_per_class: int | None = None, max_images: int | None = None
) -> Reference:
    """Tell what ``reference`` is: fitted centroids, embeddings, or images, of which a balanced draw may be taken."""
    given = {"max_per_class": max_per_class, "max_images": max_images}
    limits = {name: check_integer(name, limit) for name, limit in given.items() if limit is not None}
    prior = _open(reference, k, seed, limits)
    if limits and not isinstance(prior, Images):
        msg = f"{next(iter(limits))} is for reference images; the reference is embeddings or fitted centroids"
        raise ArgumentError(msg)
    return prior


def _open(reference: ReferenceLike, k: int, seed: int, limits: dict[str, int]) -> Reference:
    if isinstance(reference, Centroids):
        return Fitted(reference)
    if isinstance(reference, (str, Path)):
        path = Path(reference)
        if path.suffix == ".safetensors":
            return Fitted(Centroids.load(path))
        if path.suffix == ".npy":
            return Embeddings(np.load(path, mmap_mode="r"), k, seed)
    if isinstance(reference, np.ndarray):
        return Embeddings(reference, k, seed)
    return Images(open_source(reference), k, seed, limits)


@dataclass(frozen=True)
class Fitted:
    """Centroids that were fitted before."""

    fitted: Centroids
    images: int = 0

    @property
    def k(self) -> int:
        """The number of centroids."""
        return self.fitted.k

    def fingerprint(self) -> dict[str, Any]:
        """The digest of the centroids."""
        return {"fitted": digest_of(self.fitted.vectors)}

    def check(self, encoder: Encoder) -> None:
        """Fail when the centroids belong to another encoder or dimension."""
        check_same_encoder(self.fitted, encoder)

    def centroids(self, work: Work, encoder: Encoder, pixels: Pixels, batch_size: int | None) -> Centroids:
        """Copy the centroids into the run folder."""
        self.fitted.save(work.folder.centroids)
        return self.fitted

    def embeddings(self, work: Work) -> Any | None:
        """None: they are not there."""
        return None


@dataclass(frozen=True)
class Embeddings:
    """Embeddings of the reference images, made before."""

    rows: NDArray[Any]
    k: int
    seed: int
    images: int = 0

    def fingerprint(self) -> dict[str, Any]:
        """The digest of the embeddings, and what is fitted on them."""
        return {"embeddings": digest_of(self.rows), "k": self.k, "seed": self.seed}

    def check(self, encoder: Encoder) -> None:
        """Fail when the embeddings have another dimension, or are fewer than the centroids."""
        check_enough(len(self.rows), self.k)
        if self.rows.ndim == 2 and self.rows.shape[1] != encoder.dim:
            msg = (
                f"the reference embeddings have {self.rows.shape[1]} dimensions, {encoder.name} makes {encoder.dim}: "
                "embed the reference images with the same encoder"
            )
            raise EncoderMismatchError(msg)

    def centroids(self, work: Work, encoder: Encoder, pixels: Pixels, batch_size: int | None) -> Centroids:
        """Fit the centroids on the embeddings."""
        if not work.folder.centroids.exists():
            fit_centroids(self.rows, self.k, seed=self.seed, threads=work.threads).save(work.folder.centroids)
        return Centroids.load(work.folder.centroids)

    def embeddings(self, work: Work) -> Any | None:
        """The rows themselves."""
        return self.rows


@dataclass(frozen=True)
class Images:
    """Reference images, embedded here: all of them, or within ``limits`` a balanced draw."""

    source: Source
    k: int
    seed: int
    limits: dict[str, int]

    @property
    def images(self) -> int:
        """How many reference images are taken."""
        return sum(map(len, self.rows.values()))

    @cached_property
    def rows(self) -> dict[str, NDArray[np.int64]]:
        """For each shard's name the positions within it that are taken, ascending."""
        counts = [self.source.count(shard) for shard in self.source.shards]
        if not self.limits:
            return {shard.name: np.arange(count) for shard, count in zip(self.source.shards, counts, strict=True)}
        taken = balanced_draw(classes_of(self.source), seed=self.seed, **self.limits)
        parts = np.split(taken, np.cumsum(counts)[:-1])
        return {shard.name: np.flatnonzero(part) for shard, part in zip(self.source.shards, parts, strict=True)}

    def fingerprint(self) -> dict[str, Any]:
        """The fingerprint of the images, which of them are taken, and what is fitted on their embeddings."""
        return {"images": source_config(self.source), "k": self.k, "seed": self.seed, **self.limits}

    def check(self, encoder: Encoder) -> None:
        """Fail when there are fewer images than centroids."""
        check_enough(self.images, self.k)

    def centroids(self, work: Work, encoder: Encoder, pixels: Pixels, batch_size: int | None) -> Centroids:
        """Embed the images into ``reference/``, and fit the centroids on them."""
        if not work.folder.centroids.exists():
            inside = replace(work, folder=work.folder.reference())
            embed_shards(inside, self.source, self.rows, encoder, None, pixels, batch_size, stage="reference")
            if unread := write_quarantine(inside):
                work.observer.note(f"{unread} reference images could not be read: {inside.folder.quarantine}")
            shards = [inside.folder.embeddings(shard.name) for shard in self.source.shards]
            work.observer.start("centroids", self.images, 0)
            fitted = fit_centroids(shards, self.k, seed=self.seed, encoder=encoder.provenance(), threads=work.threads)
            fitted.save(work.folder.centroids)
            work.observer.advance(self.images)
            work.observer.finish()
        return Centroids.load(work.folder.centroids)

    def embeddings(self, work: Work) -> Any | None:
        """Their files in ``reference/``."""
        return [work.folder.reference().embeddings(shard.name) for shard in self.source.shards]


def classes_of(source: Source) -> list[str]:
    """The class of every image, in the order of the rows: its set's number, where several are joined, and its label."""
    joined = isinstance(source, ConcatSource)
    return [
        f"{shard.name.partition('-')[0] if joined else ''}/{item.label or ''}"
        for shard in source.shards
        for item in source.read(shard)
    ]


def balanced_draw(
    classes: Sequence[str], *, seed: int, max_per_class: int | None = None, max_images: int | None = None
) -> NDArray[np.bool_]:
    """Draw images, no more than so many of a class, and no more than so many in all: classes alike (water-filling).

    Of a class come the rows i of the smallest ``hash64(seed, i)``. Of classes that cannot all have one more, the larger
    ones have it, then the first by name.

    Returns
    -------
    NDArray
        bool (N,).
    """
    names, of = np.unique(np.asarray(classes), return_inverse=True)
    sizes = np.bincount(of, minlength=len(names))
    most = sizes if max_per_class is None else np.minimum(sizes, max_per_class)
    shares = most.tolist()
    if max_images is not None:
        shares = apportion(min(max_images, sum(shares)), upper=shares).tolist()
    order = np.lexsort((_core.hash64(seed, 0, len(of)), of))  # stable: ties to the lower row
    place = np.empty(len(of), np.int64)
    place[order] = np.arange(len(of)) - np.repeat(np.cumsum(sizes) - sizes, sizes)
    taken: NDArray[np.bool_] = place < np.asarray(shares)[of]
    return taken


def check_enough(rows: int, k: int) -> None:
    """Fail when ``k`` centroids are asked of fewer rows."""
    if k > rows:
        msg = f"{k} centroids cannot be fitted on {rows} reference images: lower k (--k), or give more images"
        raise ArgumentError(msg)


def check_same_encoder(centroids: Centroids, encoder: Encoder) -> None:
    """Fail when ``centroids`` were fitted on embeddings of another encoder."""
    if centroids.dim != encoder.dim:
        msg = f"the centroids have {centroids.dim} dimensions, {encoder.name} makes {encoder.dim}"
        raise EncoderMismatchError(msg)
    check_same_making(centroids.meta.get("encoder"), encoder.provenance(), "the centroids")


def check_same_making(there: Any, here: Any, what: str) -> None:
    """Fail when two encoders' provenances differ in what embeddings depend on; one that is not known passes."""
    if not isinstance(there, dict) or not isinstance(here, dict):
        return
    for name in ("name", "architecture", "weights", "preprocessing"):
        if canonical_json(there.get(name)) != canonical_json(here.get(name)):
            msg = (
                f"{what} were made with another encoder ({name}: {there.get(name)!r} there, {here.get(name)!r} here): "
                f"make them anew with {here.get('name')}"
            )
            raise EncoderMismatchError(msg)


def digest_of(array: NDArray[Any]) -> str:
    """BLAKE2b-128 of an array's values, block by block."""
    digest = hashlib.blake2b(f"{array.dtype.str} {array.shape}".encode(), digest_size=16)
    for start in range(0, len(array), 4096):
        digest.update(np.ascontiguousarray(array[start : start + 4096]).tobytes())
    return digest.hexdigest()
