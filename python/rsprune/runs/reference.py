"""The reference: what the centroids are fitted on, in any of the forms that a user has it in."""

from __future__ import annotations

import hashlib
import itertools
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from typing_extensions import Self, override

from rsprune import _core
from rsprune.apportion import apportion
from rsprune.calibration import calibrate
from rsprune.centroids import Centroids, fit_centroids
from rsprune.embedding_tables import is_table, is_vectors
from rsprune.embeddings import Embeddings, as_rows, embedding_files
from rsprune.encoders import Encoder
from rsprune.errors import ArgumentError, EmptyInputError, EncoderMismatchError, SourceError, naming
from rsprune.io import canonical_json
from rsprune.runs.config import GrayOptions, ReferenceOptions, SourceOptions
from rsprune.runs.context import RunContext, source_config
from rsprune.runs.reader import RunReader
from rsprune.sources import Shard, Source, SourceLike, open_source
from rsprune.sources.batches import batched
from rsprune.sources.concat import ConcatSource
from rsprune.sources.damaged import whole
from rsprune.sources.filesystem import load_array
from rsprune.sources.published import PUBLISHED, fetch_published
from rsprune.storage import is_remote

__all__ = ["FittedReference", "ImageReference", "Reference", "ReferenceLike", "open_reference"]

ReferenceLike = SourceLike | Centroids | NDArray[Any]

#: Images whose entropies are measured at a time.
BATCH = 1024
#: The reference that is a sample of the pool itself, and how many images that has unless another number is given.
SELF, SELF_IMAGES = "self", 50_000


class Reference(ABC):
    """Something that centroids come from."""

    k: int  # the number of centroids
    images: int = 0  # how many images have to be embedded for them

    @abstractmethod
    def fingerprint(self) -> dict[str, Any]:
        """Say what it is made of, for the configuration of a run."""

    @abstractmethod
    def check(self, encoder: Encoder) -> None:
        """Fail early when it cannot serve ``encoder``."""

    @abstractmethod
    def fit(self, context: RunContext) -> Centroids:
        """Make the centroids."""

    @abstractmethod
    def embeddings(self, context: RunContext) -> Any | None:
        """Return the embeddings of the reference images; None where only centroids were given."""


def open_reference(
    reference: ReferenceLike,
    options: ReferenceOptions,
    opening: SourceOptions | None = None,
    *,
    seed: int,
    pool: Source | None = None,
) -> Reference:
    """Tell what ``reference`` is: fitted centroids, embeddings, or images, of which a balanced draw may be taken.

    ``"self"`` stands for a sample of the ``pool`` that is pruned, and the name of a published scene set for this set.
    """
    opened = _open(reference, options, opening or SourceOptions(), seed, pool)
    for name in ("reference_max_per_class", "reference_max_images", "reference_weight"):
        if getattr(options, name) is not None and not isinstance(opened, ImageReference):
            message = f"{name} is for reference images; the reference is embeddings or fitted centroids"
            raise ArgumentError(message)
    return opened


def _open(
    reference: ReferenceLike, options: ReferenceOptions, opening: SourceOptions, seed: int, pool: Source | None
) -> Reference:
    if isinstance(reference, (list, tuple)) and len(reference) == 1:
        (reference,) = reference
    if isinstance(reference, str) and reference == SELF and not Path(SELF).exists():
        if pool is None or options.reference_weight or options.reference_max_per_class:
            what = "there is none here" if pool is None else "it has neither sets nor classes"
            message = f"the reference {SELF!r} is a sample of the collection that is pruned: {what}"
            raise ArgumentError(message)
        return ImageReference(pool, options, seed, of_pool=True)
    if isinstance(reference, Centroids):
        return FittedReference(reference)
    if isinstance(reference, (str, Path)) and Path(reference).suffix == ".safetensors":
        return FittedReference(Centroids.load(reference))
    if holds_embeddings(reference):
        return EmbeddedReference.open(reference, options.k, seed)
    parts = [_published(part) for part in (reference if isinstance(reference, (list, tuple)) else [reference])]
    if weights := options.reference_weight:
        if len(weights) != len(parts):
            message = f"reference_weight has {len(weights)} numbers, and the reference {len(parts)} sets: give one each"
            raise ArgumentError(message)
        source = opening.open(ConcatSource([open_source(part) for part in parts]))
    else:
        source = opening.open(parts if len(parts) > 1 else parts[0])
    source.total()  # names all damaged shards
    return ImageReference(source, options, seed)


def holds_embeddings(reference: Any) -> bool:
    """Whether a reference is embeddings, and no images: an array, or files of such.

    A ``.npy`` file of more than two dimensions is a stack of images; a table is embeddings if it has a column of
    vectors and none of bytes, or if the column that is named behind it is one of vectors.
    """
    if isinstance(reference, (list, tuple)):
        return bool(reference) and all(map(holds_embeddings, reference))
    if not isinstance(reference, (str, Path)):
        return isinstance(reference, np.ndarray)
    if is_remote(reference):
        return False
    try:
        file = embedding_files(reference)[0]
        if is_table(file):
            return is_vectors(file)
    except (EmptyInputError, OSError, SourceError):
        return False  # whatever is wrong is said by who opens it
    with naming(file):
        array = Path(file).suffix == ".npy" and load_array(Path(file), mmap_mode="r")
    return array is not False and array.ndim <= 2


def _published(part: Any) -> Any:
    """Return where a published set is that is named, and anything else as it is."""
    if not isinstance(part, str) or part.lower() not in PUBLISHED or Path(part).exists():
        return part
    folder = fetch_published(part.lower())
    # All splits of a reference are of use.
    return f"{folder}/**/*.parquet" if any(folder.rglob("*.parquet")) else folder


@dataclass(frozen=True)
class FittedReference(Reference):
    """Centroids that were fitted before."""

    fitted: Centroids

    @property
    def k(self) -> int:  # type: ignore[override]
        """The number of centroids."""
        return self.fitted.k

    @override
    def fingerprint(self) -> dict[str, Any]:
        return {"fitted": digest_of(self.fitted.vectors)}

    @override
    def check(self, encoder: Encoder) -> None:
        check_same_encoder(self.fitted, encoder)

    @override
    def fit(self, context: RunContext) -> Centroids:
        return self.fitted

    @override
    def embeddings(self, context: RunContext) -> Any | None:
        return None


@dataclass(frozen=True)
class EmbeddedReference(Reference):
    """Embeddings of the reference images that were made before: an array, or files: see :func:`as_rows`."""

    rows: Embeddings  # (M, D)
    k: int
    seed: int

    @classmethod
    def open(cls, rows: Any, k: int, seed: int) -> Self:
        """Open embeddings, and see that ``k`` centroids can be fitted on them."""
        with naming(rows if isinstance(rows, (str, Path)) else "the reference"):
            if isinstance(rows, (str, Path)) and Path(rows).suffix == ".npy" and Path(rows).is_file():
                load_array(Path(rows), mmap_mode="r")  # Python objects are of no use, whatever their numbers are
            opened = as_rows(rows)
            check_enough(int(opened.valid().sum()), k)
        return cls(opened, k, seed)

    @override
    def fingerprint(self) -> dict[str, Any]:
        return {"embeddings": f"blake3:{self.rows.on_host().digest(threads=None)}", "k": self.k, "seed": self.seed}

    @override
    def check(self, encoder: Encoder) -> None:
        if self.rows.shape[1] != encoder.dim:
            message = (
                f"the reference embeddings have {self.rows.shape[1]} dimensions, {encoder.name} makes {encoder.dim}: "
                "embed the reference images with the same encoder"
            )
            raise EncoderMismatchError(message)

    @override
    def fit(self, context: RunContext) -> Centroids:
        return fit_centroids(self.rows, self.k, seed=self.seed, threads=context.threads)

    @override
    def embeddings(self, context: RunContext) -> Any | None:
        return self.rows


@dataclass(frozen=True)
class ImageReference(Reference):
    """Reference images, which a run embeds into ``reference/``: all of them, or a balanced draw."""

    source: Source
    options: ReferenceOptions
    seed: int
    of_pool: bool = False  # whether the source is the collection that is pruned, of which a sample is taken
    calibration: GrayOptions | None = None  # how entropies are measured that calibrate the centroids, if any do

    @property
    def k(self) -> int:  # type: ignore[override]
        """The number of centroids."""
        return self.options.k

    @property
    def images(self) -> int:  # type: ignore[override]
        """How many reference images are taken."""
        return sum(map(len, self.rows.values()))

    @property
    def limits(self) -> dict[str, int]:
        """The limits of the draw that are given."""
        options = self.options
        most = options.reference_max_images or (SELF_IMAGES if self.of_pool else None)
        given = {"max_per_class": options.reference_max_per_class, "max_images": most}
        return {name: limit for name, limit in given.items() if limit is not None}

    @property
    def weights(self) -> list[float]:
        """The weights of the sets; none if no draw is made for them."""
        return list(self.options.reference_weight or ())

    @cached_property
    def rows(self) -> dict[str, NDArray[np.int64]]:
        """For each shard's name the positions within it that are taken, ascending."""
        counts = [self.source.count(shard) for shard in self.source.shards]
        if not self.limits and not self.weights:
            return {shard.name: np.arange(count) for shard, count in zip(self.source.shards, counts, strict=True)}
        classes = [""] * sum(counts) if self.of_pool else classes_of(self.source)
        if self.weights:
            taken = weighted_draw(classes, self.weights, seed=self.seed, **self.limits)
        else:
            taken = balanced_draw(classes, seed=self.seed, **self.limits)
        parts = np.split(taken, np.cumsum(counts)[:-1])
        return {shard.name: np.flatnonzero(part) for shard, part in zip(self.source.shards, parts, strict=True)}

    @override
    def fingerprint(self) -> dict[str, Any]:
        own: dict[str, Any] = {"self": True} if self.of_pool else {}
        if self.weights:
            own["weights"] = self.weights
        if self.calibration is not None:
            own["calibration"] = self.calibration.config()
        return {"images": source_config(self.source), "k": self.k, "seed": self.seed, **self.limits, **own}

    @override
    def check(self, encoder: Encoder) -> None:
        check_enough(self.images, self.k)

    @override
    def fit(self, context: RunContext) -> Centroids:
        encoder = {name: value for name, value in context.config["encoder"].items() if name != "batch_size"}
        rows, threads = as_rows(self.embeddings(context)), context.threads
        fitted = fit_centroids(rows, self.k, seed=self.seed, encoder=encoder, threads=threads)
        if self.calibration is None:
            return fitted
        return calibrate(fitted, rows, self.entropies(self.calibration, threads), threads=threads)

    def entropies(self, options: GrayOptions, threads: int | None) -> NDArray[np.float64]:
        """Measure the entropies of the images that are taken, in bits; NaN for those that cannot be read."""
        parts = [self.source.read(shard, self.rows[shard.name].tolist()) for shard in self.source.shards]
        batches = (batch for part in parts for batch in batched(part, BATCH))
        measured = [options.measure([item.data for item in items], threads)[0] for items in batches]
        return np.concatenate([np.empty(0), *(scores[:, 0] for scores in measured)])

    @override
    def embeddings(self, context: RunContext) -> Any | None:
        return RunReader(context.folder.reference()).embeddings()


def classes_of(source: Source) -> list[str]:
    """Return the class of every image in the order of the rows: its label, after the number of its set if joined."""
    joined = isinstance(whole(source), ConcatSource)
    return [
        f"{shard.name.partition('-')[0] if joined else ''}/{label or ''}"
        for shard in source.shards
        for label in labels_of(source, shard)
    ]


def labels_of(source: Source, shard: Shard) -> list[str | None]:
    """Return the class of every image of a shard, reading the images if there is no other way."""
    labels = source.read_labels(shard)
    return [item.label for item in source.read(shard)] if labels is None else labels


def balanced_draw(
    classes: Sequence[str], *, seed: int, max_per_class: int | None = None, max_images: int | None = None
) -> NDArray[np.bool_]:
    """Draw images, no more than so many of a class, and no more than so many in all, shared evenly over the classes.

    A class gives the rows i of the smallest ``hash64(seed, i)``. Where not all classes can give one more image, the
    larger ones do, then the first by name.

    Returns
    -------
    NDArray
        bool (N,).
    """
    names, class_of = np.unique(np.asarray(classes), return_inverse=True)
    sizes = np.bincount(class_of, minlength=len(names))
    upper = sizes if max_per_class is None else np.minimum(sizes, max_per_class)
    shares = upper.tolist()
    if max_images is not None:
        shares = apportion(min(max_images, sum(shares)), upper=shares).tolist()
    order = np.lexsort((_core.hash64(seed, 0, len(class_of)), class_of))  # stable: ties to the lower row
    rank = np.empty(len(class_of), np.int64)
    rank[order] = np.arange(len(class_of)) - np.repeat(np.cumsum(sizes) - sizes, sizes)
    taken: NDArray[np.bool_] = rank < np.asarray(shares)[class_of]
    return taken


def weighted_draw(
    classes: Sequence[str],
    weights: Sequence[float],
    *,
    seed: int,
    max_per_class: int | None = None,
    max_images: int | None = None,
) -> NDArray[np.bool_]:
    """Draw images of several sets in the ratio of their ``weights``: as many as that allows, or ``max_images``.

    The number of the set stands before each of ``classes``, which are in the order of the sets. Within a set the draw
    is that of :func:`balanced_draw`.

    Returns
    -------
    NDArray
        bool (N,).

    Raises
    ------
    ArgumentError
        A weight leaves no image of its set.
    """
    numbers = [int(name.partition("/")[0]) for name in classes]
    bounds = np.searchsorted(numbers, np.arange(len(weights) + 1)).tolist()
    sets = [classes[start:end] for start, end in itertools.pairwise(bounds)]
    exact = [Fraction(str(weight)) for weight in weights]
    there = [sum(min(count, max_per_class or count) for count in Counter(names).values()) for names in sets]
    unit = min(count / weight for count, weight in zip(there, exact, strict=True))
    if max_images is not None:
        unit = min(unit, Fraction(max_images) / sum(exact))
    shares = [int(unit * weight) for weight in exact]
    if 0 in shares:
        message = f"reference_weight is {list(weights)}, which leaves no image of a set; the sets have {there} images"
        raise ArgumentError(message)
    draws = [
        balanced_draw(names, seed=seed, max_per_class=max_per_class, max_images=share)
        for names, share in zip(sets, shares, strict=True)
    ]
    return np.concatenate(draws)


def check_enough(rows: int, k: int) -> None:
    """Fail when ``k`` centroids are asked of fewer rows."""
    if k > rows:
        message = f"{k} centroids cannot be fitted on {rows} reference images: lower k (--k), or give more images"
        raise ArgumentError(message)


def calibrated(reference: Reference, gray: GrayOptions) -> Reference:
    """Return a reference whose centroids know the entropies of their scenes; see :func:`rsprune.calibrate`.

    Raises
    ------
    ArgumentError
        They cannot: it is no images, but embeddings, or centroids without ``tau``.
    """
    if isinstance(reference, ImageReference):
        return replace(reference, calibration=gray)
    if isinstance(reference, FittedReference) and reference.fitted.tau is not None:
        return reference
    what = "centroids without tau" if isinstance(reference, FittedReference) else "embeddings"
    message = (
        f"the reference is {what}, which do not say how much entropy its scenes have: give its images, or centroids "
        "of `rsprune centroids --calibrate`"
    )
    raise ArgumentError(message)


def check_same_encoder(centroids: Centroids, encoder: Encoder) -> None:
    """Fail when ``centroids`` were fitted on embeddings of another encoder."""
    if centroids.dim != encoder.dim:
        message = f"the centroids have {centroids.dim} dimensions, {encoder.name} makes {encoder.dim}"
        raise EncoderMismatchError(message)
    check_same_provenance(centroids.meta.get("encoder"), encoder.provenance(), "the centroids")


def check_same_provenance(there: Any, here: Any, what: str) -> None:
    """Fail when two encoders' provenances differ in what embeddings depend on; one that is not known passes."""
    if not (isinstance(there, dict) and isinstance(here, dict) and there and here):
        return
    for name in ("name", "architecture", "weights", "preprocessing"):
        if canonical_json(there.get(name)) != canonical_json(here.get(name)):
            message = (
                f"{what} were made with another encoder ({name}: {there.get(name)!r} there, {here.get(name)!r} here): "
                f"make them anew with {here.get('name')}"
            )
            raise EncoderMismatchError(message)


def digest_of(array: NDArray[Any]) -> str:
    """BLAKE2b-128 of an array's values, block by block."""
    digest = hashlib.blake2b(f"{array.dtype.str} {array.shape}".encode(), digest_size=16)
    for start in range(0, len(array), 4096):
        digest.update(np.ascontiguousarray(array[start : start + 4096]).tobytes())
    return digest.hexdigest()
