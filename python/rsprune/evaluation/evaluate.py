"""Comparison of generated images with real ones, as sets and in pairs."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rsprune.errors import ArgumentError, ShapeError, needed_by
from rsprune.evaluation.extractors import Extractor
from rsprune.evaluation.images import Images, ImagesLike, open_images, some
from rsprune.evaluation.kid import kernel_distance
from rsprune.evaluation.lpips import Lpips
from rsprune.evaluation.pairs import pair_rows, read_in_order
from rsprune.evaluation.prdc import prdc
from rsprune.evaluation.statistics import Statistics, frechet_distance
from rsprune.io import digest, provenance_header, read_json, verified_record, write_json, write_npy, write_record
from rsprune.options import Options, keywords, option
from rsprune.sources.keys import compare_keys

__all__ = [
    "Evaluation",
    "EvaluationOptions",
    "Metric",
    "compare_features",
    "evaluate",
    "evaluate_pairs",
]

#: Height and width of the windows of SSIM.
WINDOW = 11

OPTIONS: Mapping[str, Mapping[str, Any]] = {
    "PSNR": {"peak": 255},
    "SSIM": {"window": "Gaussian of sigma 1.5 (Wang et al., 2004)", "range": 255, "channels": "averaged"},
}


@dataclass(frozen=True)
class Metric:
    """A metric, with everything that it depends on."""

    metric: str  # FID and KID only where the extractor is FID's Inception network
    value: float
    spread: float | None  # standard deviation between subsets (kernel distances) or pairs; None where there is none
    extractor: Mapping[str, Any]  # provenance of the features: name, weights with their SHA-256, rule of resizing
    n_real: int  # numbers of images
    n_gen: int
    seed: int
    options: Mapping[str, Any]  # of the metric


@dataclass(frozen=True)
class Evaluation:
    """The metrics of a set of generated images."""

    metrics: tuple[Metric, ...]

    def __getitem__(self, metric: str) -> float:
        """Return the value of a metric; a ``KeyError`` if it was not computed, or with several extractors."""
        values = [one.value for one in self.metrics if one.metric == metric]
        if len(values) != 1:
            raise KeyError(metric)
        return values[0]

    def describe(self) -> str:
        """Describe the metrics, one on each line."""
        lines = []
        for one in self.metrics:
            spread = "" if one.spread is None else f" +- {one.spread:.4g}"
            lines.append(
                f"{one.metric}: {one.value:.6g}{spread}   ({one.extractor['name']}, weights {sha(one.extractor)}, "
                f"{one.n_real:,} real, {one.n_gen:,} generated, seed {one.seed})"
            )
        return "\n".join(lines)

    def save(self, path: str | Path) -> None:
        """Write all metrics, with all that they depend on, as JSON."""
        write_json(path, {**provenance_header(), "metrics": [asdict(one) for one in self.metrics]})

    @staticmethod
    def is_saved(path: Path) -> bool:
        """Tell whether :meth:`save` wrote a file."""
        return {"rsprune", "metrics"} <= read_json(path).keys()

    def __add__(self, other: Evaluation) -> Evaluation:
        return Evaluation(self.metrics + other.metrics)


@dataclass(frozen=True)
class EvaluationOptions(Options):
    """Options of :func:`evaluate`."""

    size: int | None = option(
        None,
        help="Bring images of collections to this height and width first: that of the generated ones where the real "
        "ones are larger, or the distance includes that between resolutions. Default: as they are.",
        minimum=1,
    )
    count: int | None = option(
        None,
        help="Use so many images of both sets, drawn by seed. Default: all. The Frechet distance is biased by the "
        "number of images: compare values of one count only.",
        minimum=2,
    )
    subsets: int = option(100, help="Number of subsets of the kernel distance.", minimum=1, hidden=True)
    subset_size: int = option(
        1000, help="Images in a subset, at most as many as in either set.", minimum=2, hidden=True
    )
    k: int = option(5, help="Neighbors of precision, recall, density and coverage.", minimum=1, hidden=True)
    seed: int = option(0, help="Random seed.")
    cache: Path | None = option(
        None, help="A folder that keeps features and statistics of the real set for the next evaluation."
    )


@keywords(EvaluationOptions)
def evaluate(
    generated: ImagesLike, real: ImagesLike, extractors: Sequence[Extractor], *, options: EvaluationOptions
) -> Evaluation:
    """Compare generated images with real ones as sets: by Frechet and kernel distance, and by their overlap.

    Parameters
    ----------
    generated, real
        See :func:`rsprune.evaluation.open_images`.
    extractors
        :class:`rsprune.evaluation.Inception` for FID and KID; :class:`rsprune.evaluation.EncoderExtractor` for the
        same distances in the space of an encoder, which get another name.

    Raises
    ------
    ArgumentError
        An option out of range, no extractor, or sets that are too small.
    KeyMismatchError
        The cache holds features of other images of the same names and sizes of files.
    ImageError, OSError
        An image that cannot be read: it is not left out, since a figure of fewer images is another figure.
    """
    if not extractors:
        message = "no extractors; expected at least one"
        raise ArgumentError(message)
    count, seed = options.count, options.seed
    made, found = open_images(generated, options.size), open_images(real, options.size)
    if count is not None and count > min(len(made), len(found)):
        message = f"count is {count}, but there are {len(made)} generated and {len(found)} real images"
        raise ArgumentError(message)
    metrics: list[Metric] = []
    for extractor in extractors:
        features = extractor.features(made.read(some(made, count, seed)))
        metrics += compare_features(features, found, extractor, options)
    return Evaluation(tuple(metrics))


def compare_features(
    features: NDArray[np.float32], real: Images, extractor: Extractor, options: EvaluationOptions
) -> list[Metric]:
    """Compute the metrics of generated images, given their features (M, D), against real ones: see :func:`evaluate`."""
    provenance = extractor.provenance()
    of_real, statistics = real_features(real, extractor, options)
    numbers = {"n_real": len(of_real), "n_gen": len(features), "seed": options.seed}
    size = min(options.subset_size, len(of_real), len(features))
    kernel = kernel_distance(of_real, features, subsets=options.subsets, subset_size=size, seed=options.seed)
    overlap = prdc(of_real, features, k=options.k)
    distance = frechet_distance(statistics, features)
    drawn = {"subsets": options.subsets, "subset_size": size, "degree": 3}
    return [
        Metric(extractor.frechet, distance, None, provenance, **numbers, options={}),
        Metric(extractor.kernel, kernel.mean, kernel.spread, provenance, **numbers, options=drawn),
        *(
            Metric(name, getattr(overlap, name), None, provenance, **numbers, options={"k": options.k})
            for name in ("precision", "recall", "density", "coverage")
        ),
    ]


def evaluate_pairs(generated: ImagesLike, real: ImagesLike, *, lpips: Lpips | None = None) -> Evaluation:
    """Compare each generated image with its own real one: PSNR, SSIM, and LPIPS where it is given.

    Parameters
    ----------
    generated, real
        As for :func:`evaluate`, as many of both, of the same sizes. Images of collections are paired by their keys
        (below the folder of all and without the ending, or without what stands before the last ``/``), those of
        arrays by their places. An array's images belong to those of a folder in natural order: ``2.png`` before
        ``10.png``.
    lpips
        See :class:`rsprune.evaluation.Lpips`.

    Returns
    -------
    Evaluation
        Means over the pairs, with their standard deviations. The PSNR of two equal images is infinite, and so then is
        the mean.

    Raises
    ------
    ArgumentError
        Sets of different numbers or keys, or an array beside a collection that is no folder and in no natural order.
    ShapeError
        A pair of different sizes, or of fewer than 11 pixels a side.
    MissingDependencyError
        scikit-image is not installed.
    """
    with needed_by("SSIM", "eval"):
        from skimage.metrics import structural_similarity
    made, found = open_images(generated), open_images(real)
    values: dict[str, list[float]] = {name: [] for name in ("PSNR", "SSIM", "LPIPS") if lpips or name != "LPIPS"}
    names, rows = pair_rows(made, found)
    for name, a, b in zip(names, made.read(np.arange(len(made))), read_in_order(found, rows), strict=True):
        if a.shape != b.shape:
            message = f"{name} is of shape {a.shape}, its real image of {b.shape}; expected pairs of one size"
            raise ShapeError(message)
        if min(a.shape[:2]) < WINDOW:
            message = f"{name} is of shape {a.shape}; SSIM looks through windows of {WINDOW} pixels"
            raise ShapeError(message)
        error = float(((a.astype(np.float64) - b) ** 2).mean())
        values["PSNR"].append(10 * math.log10(255**2 / error) if error else math.inf)
        similarity: Any = structural_similarity(  # type: ignore[no-untyped-call]
            a, b, data_range=255, channel_axis=-1, gaussian_weights=True, sigma=1.5, use_sample_covariance=False
        )
        values["SSIM"].append(float(similarity))
        if lpips:
            values["LPIPS"].append(lpips(a, b))
    pixels = {"name": "pixels", "weights": None, "resize": "none"}
    metrics = []
    for metric, each in values.items():
        extractor = lpips.provenance() if lpips and metric == "LPIPS" else pixels
        options = OPTIONS.get(metric, {})
        spread = float(np.std(each)) if np.isfinite(each).all() else None
        size = {"n_real": len(each), "n_gen": len(each), "seed": 0}
        metrics.append(Metric(metric, float(np.mean(each)), spread, extractor, **size, options=options))
    return Evaluation(tuple(metrics))


def real_features(
    real: Images, extractor: Extractor, options: EvaluationOptions
) -> tuple[NDArray[np.float32], Statistics]:
    """Return features and statistics of the real images, from the cache if they are there."""
    rows = some(real, options.count, options.seed)
    seed = None if len(rows) == len(real) else options.seed  # None: nothing was drawn
    of = {"extractor": extractor.provenance(), "images": real.fingerprint(), "n": len(rows), "seed": seed}
    path = None if options.cache is None else Path(options.cache) / f"{digest(of)}.safetensors"
    keys = None if path is None else real.keys()
    if path is not None and (kept := verified_record(path.with_suffix(".json"))) is not None:
        if keys is not None:
            for shard, known in kept["keys"].items():
                compare_keys(shard, range(len(known)), known, keys.get(shard, []), path)
        return np.load(path.with_suffix(".npy"), mmap_mode="r"), Statistics.load(path)
    features = extractor.features(real.read(rows))
    statistics = Statistics.of(features, {**provenance_header(), **of})
    if path is not None:
        write_npy(path.with_suffix(".npy"), features)
        statistics.save(path)
        write_record(path.with_suffix(".json"), {"keys": keys}, [path, path.with_suffix(".npy")])  # what is complete
    return features, statistics


def sha(extractor: Mapping[str, Any]) -> str:
    """Abbreviate the SHA-256 of the weights."""
    weights = extractor.get("weights")
    if not weights:
        return "none"
    return str(weights.get("sha256") or weights["backbone"]["sha256"])[:12]
