"""What a run did to the kinds of scenes: which clusters lost all of their images, to which stage, and what they are.

Stage I looks at no embedding, so a sample of what it drops is embedded to tell which kinds of scenes these are.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from typing_extensions import override

from rsprune import _core
from rsprune.assignment import assign
from rsprune.centroids import Centroids
from rsprune.io import provenance_header
from rsprune.options import to_config
from rsprune.runners import Progress, Runner
from rsprune.runs.config import DecodeOptions, EncoderOptions
from rsprune.runs.context import RunContext, source_config
from rsprune.runs.coverage import coverage_of
from rsprune.runs.folder import RunFolder
from rsprune.runs.reader import RunReader
from rsprune.runs.reference import ImageReference, Reference, digest_of, labels_of
from rsprune.runs.stages.embed import EmbedStage, SomeRows
from rsprune.runs.stages.entropy import EntropyCut
from rsprune.runs.stages.kept_shares import kept_shares
from rsprune.runs.start import GROWS
from rsprune.sources import Shard, Source
from rsprune.sources.damaged import without_shards

__all__ = ["ClusterNames", "DroppedSample", "Scenes", "draw_dropped", "embed_dropped", "name_clusters"]


@dataclass(frozen=True)
class ClusterNames:
    """The clusters by the classes of the reference images in them.

    Attributes
    ----------
    names
        The most frequent class of each cluster, the first by name among equals; None if there are no classes.
    shares
        Its share of the cluster's reference images.
    images
        int64 (K,): the reference images of each cluster.
    """

    names: tuple[str | None, ...]
    shares: tuple[float, ...]
    images: NDArray[np.int64]


@dataclass(frozen=True)
class DroppedSample:
    """Images that Stage I dropped, drawn by the seed.

    Attributes
    ----------
    dropped
        How many images Stage I dropped.
    clusters
        int64 (K,): those of the sample, by the nearest centroid.
    """

    dropped: int
    clusters: NDArray[np.int64]


@dataclass(frozen=True)
class NamedRows(SomeRows):
    """Images given by their positions in each shard, which Stage I of a run has read."""

    folder: RunFolder

    @override
    def keys(self, shard: Shard) -> list[str]:
        """Read the names that Stage I has read."""
        names: list[str] = RunReader(self.folder).names(shard.name).take(pa.array(self.rows(shard))).to_pylist()
        return names


def name_clusters(reference: Reference, context: RunContext, centroids: Centroids) -> ClusterNames | None:
    """Name the clusters by the reference images around their centroids; None if the reference is no images."""
    if not isinstance(reference, ImageReference):
        return None
    labels = assign(reference.embeddings(context), centroids, threads=context.threads).labels
    classes: list[str | None] = []
    if not reference.of_pool:
        for shard in reference.source.shards:
            rows = reference.rows[shard.name]
            found = labels_of(reference.source, shard) if len(rows) else []
            classes += [found[row] for row in rows.tolist()]
    images = np.bincount(labels[labels >= 0], minlength=centroids.k)
    names: list[str | None] = []
    shares: list[float] = []
    table = counts_by(classes, labels, centroids.k)
    for k in range(centroids.k):
        known = sorted(((-count, name) for name, count in table[k].items()))
        names.append(known[0][1] if known else None)
        shares.append(-known[0][0] / int(images[k]) if known else 0.0)
    return ClusterNames(tuple(names), tuple(shares), images)


def counts_by(classes: list[str | None], labels: NDArray[np.int32], k: int) -> list[dict[str, int]]:
    """Count the classes of each of ``k`` clusters."""
    table: list[dict[str, int]] = [{} for _ in range(k)]
    for name, label in zip(classes, labels.tolist(), strict=False):
        if name is not None and label >= 0:
            table[label][name] = table[label].get(name, 0) + 1
    return table


def draw_dropped(
    source: Source, survivors: EntropyCut, size: int, seed: int
) -> tuple[int, dict[str, NDArray[np.int64]]]:
    """Draw images that Stage I dropped: those of the smallest ``hash64(seed, row)``.

    Returns how many it dropped, and the positions of the drawn ones by shard. Memory: a shard, and the sample.
    """
    reader = RunReader(survivors.folder)
    dropped, keys, rows = 0, [np.empty(0, np.uint64)], [np.empty(0, np.int64)]
    for shard in source.shards:
        lost = ~np.isnan(reader.entropy(shard.name))
        lost[survivors.rows(shard)] = False
        at = np.flatnonzero(lost)
        dropped += len(at)
        first = survivors.first[shard.name]
        hashes = _core.hash64(seed, first, first + len(lost))[at]
        few = np.argsort(hashes, kind="stable")[:size]
        keys.append(hashes[few])
        rows.append(first + at[few])
        if sum(map(len, keys)) > 4 * size:
            keys, rows = smallest(keys, rows, size)
    (_,), (drawn,) = smallest(keys, rows, size)
    drawn.sort()
    return dropped, {shard: rows for shard, rows, _ in reader.index.locate(drawn)}


def smallest(
    keys: list[NDArray[np.uint64]], rows: list[NDArray[np.int64]], size: int
) -> tuple[list[NDArray[np.uint64]], list[NDArray[np.int64]]]:
    """Keep the rows of the smallest keys."""
    both = np.concatenate(keys), np.concatenate(rows)
    order = np.lexsort((both[1], both[0]))[:size]
    return [both[0][order]], [both[1][order]]


def embed_dropped(
    context: RunContext,
    source: Source,
    survivors: EntropyCut,
    encoder: EncoderOptions,
    decode: DecodeOptions,
    centroids: Centroids,
    runner: Runner,
    progress: Progress,
    *,
    size: int,
    seed: int,
) -> DroppedSample:
    """Embed a sample of what Stage I dropped, into ``dropped/`` of the run folder, and count it by cluster."""
    dropped, rows = draw_dropped(source, survivors, size, seed)
    counts = np.zeros(centroids.k, np.int64)
    if not rows:
        return DroppedSample(dropped, counts)
    folder = context.folder.dropped()
    config: dict[str, Any] = provenance_header() | {
        "source": source_config(source),
        "pixels": to_config(decode),
        "encoder": context.config["encoder"],
        "centroids": digest_of(centroids.vectors),
        "keep_embeddings": False,
    }
    inside = RunContext.of(folder, config, source, context.threads)
    folder.start(config, changes=lambda name: name in GROWS)
    some = without_shards(source, [shard.name for shard in source.shards if shard.name not in rows])
    batch_size = config["encoder"]["batch_size"]
    stage = EmbedStage(
        inside,
        some,
        NamedRows(rows, context.folder),
        encoder,
        decode,
        batch_size,
        centroids,
        keep=False,
        name="dropped",
    )
    runner.map_merge(stage, progress)
    reader = RunReader(folder)
    for name in rows:
        labels = reader.assignments(name, ["label"])["label"].drop_null().to_numpy()
        counts += np.bincount(labels[labels >= 0], minlength=centroids.k)
    return DroppedSample(dropped, counts)


@dataclass(frozen=True)
class Scenes:
    """What is known of the kinds of scenes before the choice is made."""

    names: ClusterNames | None
    dropped: DroppedSample

    def coverage(
        self, source: Source, survivors: EntropyCut, counts: NDArray[np.void], kept: Mapping[str, NDArray[np.int64]]
    ) -> dict[str, Any]:
        """Return the coverage of a choice; ``counts`` are those of the selection, ``kept`` its positions by shard."""
        return coverage_of(
            counts["pool"],
            counts["quota"] + counts["fill"] + counts["preselected"],
            dropped=self.dropped.dropped,
            sample=self.dropped.clusters,
            names=None if self.names is None else self.names.names,
            shares=None if self.names is None else self.names.shares,
            shares_kept=kept_shares(source, survivors, kept),
        )
