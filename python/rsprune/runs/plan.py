"""`rsprune.plan`: what a run will read, write, hold and roughly take, before it begins."""

from __future__ import annotations

import contextlib
import itertools
import os
import resource
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from rsprune.concurrency import WRITER_DEPTH
from rsprune.encoders.loader import embed_items
from rsprune.options import keywords
from rsprune.runs.config import GrayOptions, PruneOptions
from rsprune.runs.reference import ReferenceLike, open_reference
from rsprune.runs.stages.embedding_writer import BLOCK
from rsprune.selection import budget_rows
from rsprune.sources import Item, Source, SourceLike
from rsprune.sources.batches import BATCH_BYTES, batched
from rsprune.validation import fraction_of

__all__ = ["Plan", "plan"]

# Images that each stage is timed on. Stage I takes milliseconds for these, an encoder on two cores some ten seconds.
ENTROPY_SAMPLE, EMBED_SAMPLE = 512, 128
# What one row costs in the tables, measured on keys of some ten characters: key, figures, zstd.
TABLE_BYTES = 24
# What one row of a shard costs in memory while it is worked on: label, similarity, its name, and lists of these.
LABEL_BYTES = 4 + 4 + 128
# What one image costs while a run decides: the hash of its key, twice, or its label, similarity and row number.
IMAGE_BYTES = 32
# What one survivor costs then: its row, entropy, label and similarity.
ROW_BYTES = 24


@dataclass(frozen=True)
class Plan:
    """What a run will do. Bytes are bytes, seconds are None where they were not measured."""

    images: int
    shards: int
    read_bytes: int
    survivors: int
    budget: int
    k: int
    quota: int
    reference_images: int
    dimensions: int
    write_bytes: int
    memory_bytes: int
    entropy_seconds: float | None
    embed_seconds: float | None

    def describe(self) -> str:
        """Put the plan in words."""
        shards = "1 shard" if self.shards == 1 else f"{self.shards:,} shards"
        lines = [
            f"reads    {self.images:,} images in {shards}, {size(self.read_bytes)}; "
            f"{self.reference_images:,} reference images",
            f"Stage I  keeps {self.survivors:,} images{took(self.entropy_seconds)}",
            f"Stage II embeds {self.survivors + self.reference_images:,} images"
            f" in {self.dimensions:,} dimensions{took(self.embed_seconds)}",
            f"keeps    {self.budget:,} images, {self.quota:,} nearest to each of {self.k:,} centroids",
            f"writes   {size(self.write_bytes)}",
            f"holds    {size(self.memory_bytes)} of memory",
        ]
        return "\n".join(lines)


@keywords(PruneOptions)
def plan(source: SourceLike, *, reference: ReferenceLike, options: PruneOptions, measure: bool = True) -> Plan:
    """Say what :func:`rsprune.prune` with the same arguments will read, write, hold and roughly take.

    Parameters
    ----------
    source, reference
        See :func:`rsprune.prune`.
    measure
        Time both stages on a few hundred images of the collection, and see how much memory they take. Otherwise that
        is this process's, the encoder in it, and what batches of its images take.
    """
    reset_peak()
    images, encoder, threads = options.source.open(source), options.encoder.model, options.execution.threads
    total = images.total()
    budget = budget_rows(options.choice.strategy.keep, total)
    seed = options.choice.strategy.seed
    opened = open_reference(reference, options.reference, options.source.of_reference(), seed=seed, pool=images)
    opened.check(encoder)
    survivors = max(fraction_of(options.entropy_keep, total), budget)
    to_embed = survivors + opened.images
    kept = opened.images + options.keep_embeddings * survivors
    largest = max(map(images.count, images.shards))
    rates = (entropy_rate(images, options.gray, threads), embed_rate(images, options, threads)) if measure else None
    held = peak_bytes() + min(largest, BLOCK) * 2 * encoder.dim * (WRITER_DEPTH + 2)
    if not measure:
        workers = threads or os.cpu_count() or 1
        held += (workers + 2) * min(encoder.batch_size, survivors) * 3 * encoder.size**2 + BATCH_BYTES
    return Plan(
        images=total,
        shards=len(images.shards),
        read_bytes=sum(map(images.size, images.shards)),
        survivors=survivors,
        budget=budget,
        k=opened.k,
        quota=budget // opened.k,
        reference_images=opened.images,
        dimensions=encoder.dim,
        write_bytes=kept * 2 * encoder.dim + (total + to_embed + budget) * TABLE_BYTES,
        memory_bytes=(
            held
            + max(total * IMAGE_BYTES + survivors * ROW_BYTES, opened.images * 4 * encoder.dim)
            + largest * LABEL_BYTES
        ),
        entropy_seconds=total / rates[0] if rates else None,
        embed_seconds=to_embed / rates[1] if rates else None,
    )


def entropy_rate(images: Source, options: GrayOptions, threads: int | None) -> float:
    """Measure Stage I on the first images of the collection, in images a second."""
    measured, begun = 0, time.perf_counter()
    for items in batched(itertools.islice(first_items(images), ENTROPY_SAMPLE), ENTROPY_SAMPLE):
        options.measure([item.data for item in items], threads)
        measured += len(items)
        del items
    return measured / (time.perf_counter() - begun)


def embed_rate(images: Source, options: PruneOptions, threads: int | None) -> float:
    """Measure the encoder with its decoding on the first images of the collection, in images a second."""
    sample = itertools.islice(first_items(images), EMBED_SAMPLE)
    measured, begun = 0, time.perf_counter()
    for block in embed_items(options.encoder.model, sample, threads=threads, **options.gray.decode.settings()):
        measured += len(block.positions) + len(block.failures)
    return measured / (time.perf_counter() - begun)


STATUS, RESET = Path("/proc/self/status"), Path("/proc/self/clear_refs")


def reset_peak() -> None:
    """Have the peak of this process's memory counted anew, where the system can."""
    with contextlib.suppress(OSError):
        RESET.write_text("5")


def peak_bytes() -> int:
    """Return the peak of this process's memory."""
    if STATUS.exists():
        return int(STATUS.read_text().split("VmHWM:")[1].split()[0]) << 10
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss  # in bytes where there is no /proc


def first_items(images: Source) -> Iterator[Item]:
    """Yield the images of a collection, in order."""
    for shard in images.shards:
        yield from images.read(shard)


def size(count: float) -> str:
    """Print a number of bytes: 21.5 GB."""
    for unit in ("B", "kB", "MB", "GB"):
        if count < 1000:
            return f"{count:.0f} B" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1000
    return f"{count:.1f} TB"


def took(seconds: float | None) -> str:
    """Print a measured time: `, about 3 min 20 s`."""
    if seconds is None:
        return ""
    minutes, left = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    parts = [f"{hours} h"] * (hours > 0) + [f"{minutes} min"] * (minutes > 0) + [f"{left} s"] * (hours == 0)
    return f", about {' '.join(parts)}"
