"""One stage alone, for those who run the method step by step. Each writes the same run folder as `prune` does."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from rsprune import strategies
from rsprune.centroids import Centroids
from rsprune.encoders import Encoder
from rsprune.encoders.base import Precision
from rsprune.entropy import Gray, top_entropies
from rsprune.errors import ArgumentError
from rsprune.io import digest, provenance_header, read_table, write_table
from rsprune.runners import Progress, show_progress
from rsprune.runs.choice import OWN
from rsprune.runs.folder import RunFolder
from rsprune.runs.options import Pixels, Work, encoder_config, open_encoder, source_config
from rsprune.runs.quarantine import write_quarantine
from rsprune.runs.reader import read_pool
from rsprune.runs.reference import (
    ReferenceLike,
    SourceLike,
    check_same_encoder,
    check_same_making,
    digest_of,
    open_reference,
)
from rsprune.runs.stages import embed_shards, entropy_shards
from rsprune.selection import Fill, Selection, Within, budget_rows, check_min_similarity, select_assigned
from rsprune.sources import open_source
from rsprune.validation import fraction_of

__all__ = ["Outcome", "centroids_run", "embed_run", "entropy_run", "select_run"]


@dataclass(frozen=True)
class Outcome:
    """What one stage made: where it is, its figures, and the same in words."""

    path: Path
    figures: dict[str, Any]
    text: str


def entropy_run(
    source: SourceLike,
    *,
    out: str | Path,
    gray: Gray = "bt601",
    bands: Sequence[int] | None = None,
    nodata: int | None = None,
    valid_range: tuple[int, int] | None = None,
    max_pixels: int | None = None,
    threads: int | None = None,
    progress: bool | Progress = True,
) -> Outcome:
    """Measure the entropy of every image of a collection, resumably: Stage I without a cut.

    The parameters are those of :func:`rsprune.prune`. The figures name the threshold that common cuts imply.
    """
    images = open_source(source)
    pixels = Pixels(gray, None if bands is None else tuple(bands), nodata, valid_range, max_pixels)
    config = provenance_header() | {"source": source_config(images), "entropy": pixels.config()}
    folder = RunFolder(out)
    with folder.lock(), show_progress(progress) as observer:
        work = Work.begin(folder, config, observer, threads)
        entropy_shards(work, images, pixels)
        pool = read_pool(folder)
        quarantined = write_quarantine(work, pool)
    readable = int(np.count_nonzero(~np.isnan(pool.entropy)))
    cuts = {}
    for keep in (0.10, 0.30, 0.50):
        if rows := min(fraction_of(keep, len(pool)), readable):
            cuts[f"{keep:.2f}"] = float(pool.entropy[top_entropies(pool.entropy, rows)].min())
    figures = {"images": len(pool), "quarantined": quarantined, "tau": cuts}
    lines = [f"{len(pool):,} images, {quarantined:,} in quarantine"]
    lines += [f"the top {float(keep):.0%} have {tau:.4f} bits or more" for keep, tau in cuts.items()]
    return Outcome(folder.path, figures, "\n".join([*lines, f"written to {folder.path / 'entropy'}"]))


def embed_run(
    source: SourceLike,
    *,
    out: str | Path,
    encoder: str | Encoder = "git-rsclip",
    weights: str | Path | None = None,
    device: str | None = None,
    precision: Precision = "auto",
    compile: bool = False,
    batch_size: int | None = None,
    centroids: str | Path | Centroids | None = None,
    keep_embeddings: bool | None = None,
    bands: Sequence[int] | None = None,
    valid_range: tuple[int, int] | None = None,
    max_pixels: int | None = None,
    threads: int | None = None,
    progress: bool | Progress = True,
) -> Outcome:
    """Embed every image of a collection, resumably; with ``centroids`` also assign each to the nearest of them.

    The other parameters are those of :func:`rsprune.prune`.

    Parameters
    ----------
    keep_embeddings
        Write the embeddings themselves. When None: unless ``centroids`` are given.
    """
    images = open_source(source)
    model = open_encoder(encoder, weights, device, precision, compile)
    fitted = Centroids.load(centroids) if isinstance(centroids, (str, Path)) else centroids
    if fitted is not None:
        check_same_encoder(fitted, model)
    pixels = Pixels("bt601", None if bands is None else tuple(bands), None, valid_range, max_pixels)
    keep = fitted is None if keep_embeddings is None else keep_embeddings
    folder = RunFolder(out)
    making = encoder_config(model, batch_size, folder)
    config = provenance_header() | {
        "source": source_config(images),
        "pixels": pixels.decoding(),
        "encoder": making,
        "centroids": None if fitted is None else digest_of(fitted.vectors),
        "keep_embeddings": keep,
    }
    with folder.lock(), show_progress(progress) as observer:
        work = Work.begin(folder, config, observer, threads)
        everything = {shard.name: np.arange(images.count(shard)) for shard in images.shards}
        embed_shards(work, images, everything, model, fitted, pixels, making["batch_size"], keep=keep)
        quarantined = write_quarantine(work)
    rows = sum(map(len, everything.values()))
    figures = {"images": rows, "quarantined": quarantined, "dimensions": model.dim}
    text = f"{rows:,} images, {quarantined:,} in quarantine\nwritten to {folder.path / 'embeddings'}"
    return Outcome(folder.path, figures, text)


def centroids_run(
    reference: ReferenceLike,
    *,
    out: str | Path,
    encoder: str | Encoder = "git-rsclip",
    weights: str | Path | None = None,
    device: str | None = None,
    precision: Precision = "auto",
    compile: bool = False,
    batch_size: int | None = None,
    k: int = 200,
    max_per_class: int | None = None,
    max_images: int | None = None,
    seed: int = 0,
    threads: int | None = None,
    progress: bool | Progress = True,
) -> Outcome:
    """Fit reference centroids, resumably: ``out/centroids.safetensors``.

    The parameters are those of :func:`rsprune.prune`, where ``max_per_class`` and ``max_images`` begin with
    ``reference_``.
    """
    prior = open_reference(reference, k=k, seed=seed, max_per_class=max_per_class, max_images=max_images)
    model = open_encoder(encoder, weights, device, precision, compile)
    prior.check(model)
    folder = RunFolder(out)
    making = encoder_config(model, batch_size, folder)
    config = provenance_header() | {
        "encoder": making,
        "centroids": prior.fingerprint(),
    }
    with folder.lock(), show_progress(progress) as observer:
        work = Work.begin(folder, config, observer, threads)
        fitted = prior.centroids(work, model, Pixels(), making["batch_size"])
    figures = {"k": fitted.k, "dimensions": fitted.dim, "objective": fitted.meta.get("objective")}
    return Outcome(folder.path, figures, f"{fitted.k} centroids of {fitted.dim} dimensions in {folder.centroids}")


def select_run(
    embeds: str | Path,
    *,
    centroids: str | Path | Centroids | None = None,
    keep: int | float | None = 0.15,
    out: str | Path,
    fill: Fill = "global",
    within: Within = "nearest",
    min_similarity: float | None = None,
    strategy: str = "rsprune",
    strategy_options: Mapping[str, Any] | None = None,
    reference: Any = None,
    entropy: str | Path | None = None,
    score: str | Path | None = None,
    labels: str | Path | None = None,
    seed: int = 0,
    threads: int | None = None,
) -> Outcome:
    """Choose rows of embeddings that are on the disk, and write the manifest ``out`` (Parquet).

    Parameters
    ----------
    embeds
        A folder that :func:`embed_run` or :func:`rsprune.prune` wrote, whose keys the manifest then names; a ``.npy``
        file; a folder of shards.
    strategy, strategy_options
        See :func:`rsprune.strategies.select`; the options of ``"rsprune"`` are ``fill``, ``within`` and
        ``min_similarity``.
    reference
        Embeddings of the reference images.
    entropy, score, labels
        ``.npy`` files of a number a row.

    Raises
    ------
    EncoderMismatchError
        The folder's embeddings were made with another encoder than the centroids.
    ArgumentError
        The folder holds no embeddings, but only clusters and similarities, and those of other centroids.
    """
    fitted = Centroids.load(centroids) if isinstance(centroids, (str, Path)) else centroids
    folder = RunFolder(embeds)
    embedded = folder.config.is_file()
    options = dict(strategy_options or {})
    if strategy == OWN:
        options |= {"fill": fill, "within": within, "min_similarity": check_min_similarity(min_similarity)}
    elif min_similarity is not None:
        msg = f"min_similarity is an option of the strategy {OWN!r}, not of {strategy!r}"
        raise ArgumentError(msg)
    choice = {"strategy": strategy, "strategy_options": options, "seed": seed}

    def choose(rows: Any) -> Selection:
        return strategies.select(
            strategy,
            rows,
            keep,
            reference=reference,
            centroids=fitted,
            entropy=None if entropy is None else np.load(entropy),
            score=None if score is None else np.load(score),
            labels=None if labels is None else np.load(labels),
            seed=seed,
            threads=threads,
            **options,
        )

    if not embedded:
        chosen = choose(embeds)
        chosen.to_parquet(out, choice)
    else:
        making = None if fitted is None else fitted.meta.get("encoder")
        check_same_making(making, folder.read_config().get("encoder"), "the centroids")
        shards = sorted(path.stem for path in (folder.path / "embeddings").glob("*.parquet"))
        tables = [
            table.append_column("shard", pa.array([shard] * len(table), pa.string()))
            for shard in shards
            if len(table := read_table(folder.assignments(shard), ["key", "row", "label", "similarity"]))
        ]
        embedded_rows = pa.concat_tables(tables)
        if folder.read_config().get("keep_embeddings", True):
            chosen = choose([folder.embeddings(shard) for shard in shards])
        else:
            k = check_assigned_to(folder, fitted, strategy)
            chosen = select_assigned(
                embedded_rows["label"].to_numpy(),
                embedded_rows["similarity"].to_numpy(),
                budget_rows(keep, len(embedded_rows)),
                k=k,
                fill=fill,
                within=within,
                min_similarity=min_similarity,
                seed=seed,
                threads=threads,
            )
        table = embedded_rows.take(pa.array(chosen.indices)).select(["key", "shard", "row"])
        for name in ("cluster", "similarity", "phase"):
            table = table.append_column(name, pa.array(getattr(chosen, name)))
        write_table(
            out, table.combine_chunks(), {**provenance_header(), "embeddings": digest(folder.read_config()), **choice}
        )
    figures = {"selected": len(chosen), "k": chosen.k, "invalid": len(chosen.invalid)}
    figures["outside"] = len(chosen.outside)
    return Outcome(Path(out), figures, f"{chosen.summary()}\nwritten to {out}")


def check_assigned_to(folder: RunFolder, centroids: Centroids | None, strategy: str) -> int:
    """Fail when a choice needs more than the clusters that a folder names; return the number of these."""
    again = f"{folder.path} holds no embeddings, but clusters and similarities: embed again with --keep-embeddings"
    if strategy != OWN or centroids is None:
        msg = f"{again} for the strategy {strategy!r}"
        raise ArgumentError(msg)
    if folder.centroids.is_file():
        theirs = digest_of(Centroids.load(folder.centroids).vectors)
    else:
        theirs = folder.read_config()["centroids"]
    if theirs != digest_of(centroids.vectors):
        msg = f"{again}, or choose with the centroids of these clusters"
        raise ArgumentError(msg)
    return centroids.k
