"""The map of the embeddings: a sample of the images in the two directions in which they differ most."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any

import numpy as np
import pyarrow as pa
from markupsafe import Markup
from numpy.typing import NDArray

from rsprune import _core, charts
from rsprune.encoders import Encoder, load_encoder
from rsprune.encoders.loader import embed_items
from rsprune.report.examples import SEED, Example, Extremes, draw_order
from rsprune.report.gallery import SMALL, Gallery
from rsprune.report.statistics import RunStatistics
from rsprune.runs.coverage import cluster_name
from rsprune.runs.reader import NOT_CHOSEN, RunReader
from rsprune.runs.reference import check_same_provenance
from rsprune.runs.verify import decode_of
from rsprune.sources import Shard, Source
from rsprune.sources.keys import read_known

__all__ = ["EmbeddingSample", "draw_sample", "embedding_map"]

DRAWN = 1500  # images that were kept, and as many that Stage II dropped
COMPARED = 5000  # images that were kept, to be compared with each other: those drawn, and more
REFERENCES = 1000
PICTURES = 400  # of each of the two; of the others the key is told
SHARDS = 64  # from which images are drawn: their embeddings are read whole, to be checked
WIDTH, HEIGHT, MARGIN = 1000, 640, 20  # units of the map


@dataclass(frozen=True)
class EmbeddingSample:
    """Some images with their embeddings, float32 rows; no images if there are no embeddings.

    The images of the map are the first of those that are compared.
    """

    compared: Sequence[Example]  # that were kept
    rows_compared: NDArray[np.float32]
    dropped: Sequence[Example]  # by Stage II
    rows_dropped: NDArray[np.float32]
    references: NDArray[np.float32]
    shards: tuple[int, int] = (0, 0)  # from so many of so many shards

    @property
    def kept(self) -> Sequence[Example]:
        """The images of the map that were kept."""
        return self.compared[:DRAWN]

    @property
    def rows(self) -> NDArray[np.float32]:
        """The embeddings of the images of the map, those that were kept first."""
        return np.concatenate([self.rows_compared[:DRAWN], self.rows_dropped])

    @property
    def images(self) -> list[Example]:
        """The images of the map."""
        return [*self.kept, *self.dropped]

    @property
    def pictured(self) -> list[Example]:
        """Those of which the map has pictures."""
        return [*self.kept[:PICTURES], *self.dropped[:PICTURES]]


def draw_sample(
    run: RunReader, source: Source | None = None, again: int = 0, encoder: Encoder | None = None
) -> EmbeddingSample:
    """Draw images by a seed, and read their embeddings; of a run that kept none, embed ``again`` images once more."""
    references, stored = reference_rows(run), bool(run.config.get("keep_embeddings", False))
    if not stored and not (again and source is not None):
        return EmbeddingSample((), references[:0], (), references[:0], references)
    names = drawn_shards(run)
    sizes = (COMPARED, DRAWN) if stored else (again - again // 2, again // 2)
    kept, dropped = map(Extremes, sizes)
    for name in names:
        shard = run.rows(name)
        for some, at in (
            (kept, np.flatnonzero((shard.phase != NOT_CHOSEN) & (shard.cluster >= 0))),
            (dropped, np.flatnonzero((shard.phase == NOT_CHOSEN) & (shard.cluster >= 0))),
        ):
            some.offer(shard, shard.row[at], draw_order(shard, shard.row[at], SEED), at=at)
    drawn = [some.only(run.index) for some in (kept, dropped)]
    images = sorted({one for group in drawn for one in group})
    rows: Mapping[Example, NDArray[np.floating]]
    if stored or source is None:
        rows = stored_rows(run, images)
    else:
        rows = embedded_rows(run, images, source, encoder or load_encoder(run.config["encoder"]["name"]))
    groups = [[one for one in group if one in rows] for group in drawn]
    dim = next((len(row) for row in rows.values()), references.shape[1])
    found = [np.array([rows[one] for one in group], np.float32).reshape(len(group), dim) for group in groups]
    return EmbeddingSample(groups[0], found[0], groups[1], found[1], references, (len(names), len(run.shards)))


def stored_rows(run: RunReader, images: Sequence[Example]) -> dict[Example, NDArray[np.float16]]:
    """Read the embeddings of images that a run kept."""
    rows: dict[Example, NDArray[np.float16]] = {}
    for name, group in groupby(images, lambda one: one.shard):
        mine = list(group)
        row = run.assignments(name, ["row"])["row"].to_numpy()
        stored = np.load(run.folder.verify(run.folder.embeddings(name)), mmap_mode="r")
        rows.update(zip(mine, stored[np.searchsorted(row, [one.row for one in mine])], strict=True))
    return rows


def embedded_rows(
    run: RunReader, images: Sequence[Example], source: Source, encoder: Encoder
) -> dict[Example, NDArray[np.float32]]:
    """Embed images as the run did; those that cannot be read now are left out."""
    check_same_provenance(run.config["encoder"], encoder.provenance(), f"the embeddings in {run.folder.path}")
    options = decode_of(run.config.get("pixels") or run.config.get("entropy") or {}).settings()
    rows: dict[Example, NDArray[np.float32]] = {}
    for name, group in groupby(images, lambda one: one.shard):
        mine = list(group)
        at = [one.row for one in mine]
        items = read_known(source, Shard(name), at, run.names(name).take(pa.array(at)).to_pylist(), run.folder.path)
        for block in embed_items(encoder, items, batch_size=encoder.batch_size, **options):
            rows |= {mine[i]: row for i, row in zip(block.positions.tolist(), block.embeddings, strict=True)}
    return rows


def drawn_shards(run: RunReader) -> list[str]:
    """Return the shards from which images are drawn: all of a few, and some by the seed."""
    order = np.argsort(_core.hash64(SEED, 0, len(run.shards)), kind="stable")[:SHARDS]
    return [run.shards[i] for i in sorted(order.tolist())]


def reference_rows(run: RunReader) -> NDArray[np.float32]:
    """Read some embeddings of the reference images, or none if there are only centroids: float32 (n, D)."""
    dim = run.centroids.vectors.shape[1]
    if (reference := run.reference) is None:
        return np.empty((0, dim), np.float32)
    names = drawn_shards(reference)
    parts = [np.load(reference.folder.verify(reference.folder.embeddings(name)), mmap_mode="r") for name in names]
    total = sum(map(len, parts))
    numbers = np.sort(np.argsort(_core.hash64(SEED, 0, total), kind="stable")[:REFERENCES])
    ends = np.cumsum([0, *map(len, parts)])
    drawn = [
        part[numbers[(numbers >= start) & (numbers < end)] - start]
        for part, start, end in zip(parts, ends[:-1], ends[1:], strict=True)
    ]
    rows = np.concatenate([np.empty((0, dim), np.float32), *drawn])
    return np.asarray(rows[np.isfinite(rows).all(axis=1)], np.float32)


def principal_plane(rows: NDArray[np.float32]) -> tuple[NDArray[np.float64], NDArray[np.float64], float]:
    """Find the plane in which rows differ most: principal component analysis.

    Returns the mean, (D,), two orthonormal directions, (D, 2), and the share of the variance that they explain. The
    sign of a direction is such that its largest component is positive.
    """
    values = rows.astype(np.float64)
    mean = values.mean(axis=0)
    values -= mean
    small = values.shape[0] < values.shape[1]
    gram = values @ values.T if small else values.T @ values
    variances, vectors = np.linalg.eigh(gram)
    top = vectors[:, ::-1][:, :2]
    if small:
        top = values.T @ top
        top /= np.maximum(np.linalg.norm(top, axis=0), 1e-30)
    plane = np.zeros((values.shape[1], 2))
    plane[:, : top.shape[1]] = top
    largest = plane[np.argmax(np.abs(plane), axis=0), np.arange(2)]
    plane *= np.where(largest < 0, -1, 1)
    share = variances[::-1][:2].sum() / max(float(variances.sum()), 1e-30)
    return mean, plane, float(share)


def embedding_map(
    run: RunReader, counts: RunStatistics, sample: EmbeddingSample, gallery: Gallery
) -> dict[str, Any] | None:
    """Return the map as the template takes it; None where there is nothing to draw."""
    centroids = run.centroids.vectors
    rows = sample.rows
    every = np.concatenate([rows, sample.references, *([] if len(rows) else [centroids])])
    if len(every) < 3:
        return None
    mean, plane, share = principal_plane(every)
    places = fit((every - mean) @ plane)
    images, references = len(rows), len(sample.references)
    series = [
        charts.Dots("reference", "reference", places[images : images + references]),
        charts.Dots("rest", "dropped by Stage II", places[len(sample.kept) : images]),
        charts.Dots("kept", "kept", places[: len(sample.kept)]),
    ]
    coverage = run.summary.get("coverage", {})
    points = [
        point(
            gallery, one, place, "kept" if i < len(sample.kept) else "dropped", cluster_name(coverage, one.cluster or 0)
        )
        for i, (one, place) in enumerate(zip(sample.images, places.tolist(), strict=False))
    ]
    bubbles: list[charts.Bubble] = []
    if not images:
        clusters = run.summary["clusters"]
        for k, (x, y) in enumerate(places[references:].tolist()):
            pool, kept = clusters["pool"][k], clusters["quota"][k] + clusters["fill"][k] + int(counts.preselected[k])
            label = f"{cluster_name(coverage, k)}: {kept:,} of {pool:,} kept"
            bubbles.append(charts.Bubble(x, y, kept, pool, label))
            nearest = counts.strips[k].nearest if k in counts.strips else ()
            key = gallery.key(nearest[0]) if nearest else ""
            points.append({"x": x, "y": y, "key": key, "text": label})
    chart = charts.scatter("map-chart", "Map of the embeddings", series, bubbles, width=WIDTH, height=HEIGHT)
    pictures = {gallery.key(one): gallery.picture(one, SMALL) for one in sample.pictured}
    return {
        "chart": Markup(chart),
        "legend": [(one.style, one.name) for one in reversed(series) if len(one.places)],
        "data": {
            "width": WIDTH,
            "height": HEIGHT,
            "points": points,
            "pictures": {key: address for key, address in pictures.items() if address is not None},
        },
        "share": share,
        "kept": len(sample.kept),
        "dropped": len(sample.dropped),
        "embedded": sum(run.summary["clusters"]["pool"]),
        "references": references,
        "shards": sample.shards,
    }


def point(gallery: Gallery, one: Example, place: Sequence[float], what: str, cluster: str) -> dict[str, Any]:
    """Describe a point for the script."""
    x, y = place
    return {"x": x, "y": y, "key": gallery.key(one), "text": f"{what}, {one.similarity:.3f} to {cluster}"}


def fit(places: NDArray[np.float64]) -> NDArray[np.float64]:
    """Scale coordinates evenly to the map, and round them: to a tenth of a unit."""
    low, high = places.min(axis=0), places.max(axis=0)
    room = np.array([WIDTH, HEIGHT]) - 2 * MARGIN
    scale = float(np.min(room / np.maximum(high - low, 1e-12)))
    middle = (places - (low + high) / 2) * (scale, -scale)  # upwards is larger
    placed: NDArray[np.float64] = np.round(middle + np.array([WIDTH, HEIGHT]) / 2, 1)
    return placed
