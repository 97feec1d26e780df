"""`rsprune.plan`: what a run will read, write, hold and roughly take, before it begins."""

from __future__ import annotations

import math
import os
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from rsprune import strategies
from rsprune.concurrency import WRITER_DEPTH
from rsprune.errors import as_html
from rsprune.export.options import SHARDED, ExportOptions, Layout
from rsprune.export.run import SHARD_BYTES
from rsprune.io import check_output_folder
from rsprune.options import keywords
from rsprune.runners.parts import share_out
from rsprune.runners.progress import describe_seconds
from rsprune.runs.config import PruneOptions
from rsprune.runs.folder import RunFolder
from rsprune.runs.prepare import prepare
from rsprune.runs.reference import ImageReference, Reference, ReferenceLike
from rsprune.runs.rehearsal import UNMEASURED, Rehearsal, peak_bytes, rehearse, reset_peak
from rsprune.runs.selections import choice_name
from rsprune.runs.stages.embedding_writer import BLOCK
from rsprune.sources import Source, SourceLike, check_outside
from rsprune.sources.batches import BATCH_BYTES
from rsprune.storage import address_of
from rsprune.validation import check_integer, fraction_of

__all__ = ["Plan", "StagePlan", "plan"]

# What one row costs in the tables, measured on keys of some ten characters: key, figures, zstd.
TABLE_BYTES = 24
# What one row of a shard costs in memory while it is worked on: label, similarity, its name, and lists of these.
LABEL_BYTES = 4 + 4 + 128
# What one image of the budget costs while a run chooses, measured on 15 millions (docs/scale.md).
CHOSEN_BYTES = 100
# What one survivor costs then where the strategy works on all of them: its row, entropy, label and similarity.
ROW_BYTES = 24


@dataclass(frozen=True)
class StagePlan:
    """What one stage of a run will do.

    Attributes
    ----------
    name
        ``reference``, ``entropy``, ``embed``, ``select`` or ``export``.
    images
        How many images it works on.
    read_bytes, write_bytes
        Bytes from the collection or the reference, and bytes written.
    requests
        Requests to the storage that reading takes; 0 for local files. Each file that is written to an address is one
        more.
    files
        Files that it writes.
    images_per_second
        The speed of one machine, or of one GPU; None if it was not measured.
    seconds
        How long it takes on all of them; None if it was not measured.
    """

    name: str
    images: int
    read_bytes: int = 0
    requests: int = 0
    write_bytes: int = 0
    files: int = 0
    images_per_second: float | None = None
    seconds: float | None = None


@dataclass(frozen=True)
class Plan:
    """What a run will do. Bytes are bytes, seconds are None where they were not measured.

    Attributes
    ----------
    images, shards
        The collection.
    survivors, budget, k, quota
        What Stage I and Stage II keep, the number of centroids, and the images nearest to each.
    reference_images, dimensions
        Images that the centroids are fitted on, and numbers of an embedding.
    machines, gpus
        What it runs on.
    memory_bytes
        The most memory that a process takes.
    free_bytes
        The space that is free where the run folder is to be; None where that is not known.
    setup_seconds
        How long it takes to load the encoder and to write the report.
    stages
        The stages, in order.
    """

    images: int
    shards: int
    survivors: int
    budget: int
    k: int
    quota: int
    reference_images: int
    dimensions: int
    machines: int
    gpus: int
    memory_bytes: int
    setup_seconds: float | None
    stages: tuple[StagePlan, ...]
    free_bytes: int | None = None

    @property
    def read_bytes(self) -> int:
        """Bytes read by all stages."""
        return sum(stage.read_bytes for stage in self.stages)

    @property
    def write_bytes(self) -> int:
        """Bytes written by all stages."""
        return sum(stage.write_bytes for stage in self.stages)

    @property
    def seconds(self) -> float | None:
        """The time of all stages; None where one of them is not known."""
        return added(self.setup_seconds, *(stage.seconds for stage in self.stages))

    def stage(self, name: str) -> StagePlan:
        """Return a stage by its name."""
        return next(stage for stage in self.stages if stage.name == name)

    def _repr_html_(self) -> str:
        return as_html(self.describe())

    def _room(self) -> str:
        """Say whether there is room for the run."""
        if self.free_bytes is None:
            return ""
        enough = "" if self.free_bytes > self.write_bytes else ": not enough"
        return f", of {size(self.free_bytes)} free{enough}"

    def describe(self) -> str:
        """Put the plan in words."""
        shards = "1 shard" if self.shards == 1 else f"{self.shards:,} shards"
        where = "1 machine" if self.machines == 1 else f"{self.machines:,} machines"
        where += f", {self.gpus:,} GPU{'s' * (self.gpus > 1)}" if self.gpus else ""
        rows = [("stage", "images", "reads", "requests", "writes", "files", "images/s", "time")]
        for stage in self.stages:
            speed = "" if stage.images_per_second is None else f"{stage.images_per_second:,.0f}"
            rows.append(
                (
                    stage.name,
                    f"{stage.images:,}",
                    size(stage.read_bytes) if stage.read_bytes else "",
                    f"{stage.requests:,}" if stage.requests else "",
                    size(stage.write_bytes) if stage.write_bytes else "",
                    f"{stage.files:,}" if stage.files else "",
                    speed,
                    "" if stage.seconds is None else describe_seconds(stage.seconds),
                )
            )
        used = [column for column in zip(*rows, strict=True) if any(column[1:])]
        widths = [max(map(len, column)) for column in used]
        table = [
            "  ".join(
                cell.ljust(width) if at == 0 else cell.rjust(width)
                for at, (cell, width) in enumerate(zip(row, widths, strict=True))
            ).rstrip()
            for row in zip(*used, strict=True)
        ]
        time = "not measured" if self.seconds is None else describe_seconds(self.seconds)
        return "\n".join(
            [
                f"{self.images:,} images in {shards}; {self.reference_images:,} reference images",
                f"Stage I keeps {self.survivors:,} images, Stage II {self.budget:,} of them: "
                f"{self.quota:,} nearest to each of {self.k:,} centroids, and the rest",
                "",
                *table,
                "",
                f"time    {time} on {where}",
                f"disk    {size(self.write_bytes)}{self._room()}",
                f"memory  {size(self.memory_bytes)}",
            ]
        )


@keywords(PruneOptions)
def plan(
    source: SourceLike,
    *,
    reference: ReferenceLike,
    out: str | Path | None = None,
    options: PruneOptions,
    measure: bool = True,
    machines: int = 1,
    gpus: int = 0,
    export: Layout | None = None,
) -> Plan:
    """Say what :func:`rsprune.prune` with the same arguments will read, write, hold and roughly take.

    Parameters
    ----------
    source, reference, out
        See :func:`rsprune.prune`. Nothing is written to ``out``; without it, the free space there is not known.
    measure
        Carry the run out on a sample from all over the collection, for some 20 s, and see how long each stage takes,
        and how much memory. Otherwise the memory is that of this process and of batches, and an encoder that is known
        by its name is not loaded: its weights need not be there, and come on top.
    machines, gpus
        On how many machines like this one the run is to be, and on how many GPUs like this machine's; 0 for machines
        that embed on what this one embeds on. Shards are what they share.
    export
        The layout in which the images that are kept are written out afterwards; see `rsprune export`.

    Raises
    ------
    RspruneError
        Whatever :func:`rsprune.prune` raises for these arguments, or for the images of the sample.
    """
    check_integer("machines", machines)
    check_integer("gpus", gpus, minimum=0)
    written = None if export is None else ExportOptions(export)
    reset_peak()
    images, threads = options.source.open(source), options.execution.threads
    encoder = options.encoder.model if measure else options.encoder.outline
    if out is not None:
        check_outside(out, images)
        check_output_folder(out, "config.json")
    prepared = prepare(images, reference, options, encoder, None if out is None else RunFolder(out))
    opened, total, budget = prepared.reference, prepared.total, prepared.budget
    choice_name(options, prepared.selection)
    survivors = max(fraction_of(options.entropy_keep, total), budget)
    if measure:
        found = rehearse(images, opened, options, written, budget=budget, survivors=survivors)
        survivors = max(budget, round(found.survivors * total)) if options.tau is not None else survivors
    else:
        found = UNMEASURED
    largest = max(map(images.count, images.shards))
    held = peak_bytes() + min(largest, BLOCK) * 2 * encoder.dim * (WRITER_DEPTH + 2) + largest * LABEL_BYTES
    if not measure:
        workers = threads or os.cpu_count() or 1
        held += (workers + 2) * min(encoder.batch_size, survivors) * 3 * encoder.size**2 + BATCH_BYTES
    rule, choice = strategies.get(options.choice.strategy.strategy), options.choice
    whole = not rule.quotas or choice.shares or prepared.leaving_out.is_used
    choosing = budget * CHOSEN_BYTES + (survivors * ROW_BYTES if whole else 0)
    return Plan(
        images=total,
        shards=len(images.shards),
        survivors=survivors,
        budget=budget,
        k=opened.k,
        quota=budget // opened.k,
        reference_images=opened.images,
        dimensions=encoder.dim,
        machines=machines,
        gpus=gpus,
        memory_bytes=held + max(choosing, opened.images * 4 * encoder.dim),
        setup_seconds=found.setup_seconds,
        stages=(
            *reference_stage(opened, encoder.dim, found, gpus or machines),
            entropy_stage(images, found, machines),
            embed_stage(images, survivors, encoder.dim * prepared.keep_embeddings, found, gpus or machines),
            *dropped_stage(images, survivors, options, found, gpus or machines),
            select_stage(total, survivors, budget, found),
            *export_stage(images, budget, written, found),
        ),
        free_bytes=None if out is None else free_bytes(out),
    )


def free_bytes(out: str | Path) -> int | None:
    """Return the space that is free where a folder is to be made; None for an address."""
    if address_of(out) is not None:
        return None
    place = Path(out).absolute()
    return shutil.disk_usage(next(one for one in (place, *place.parents) if one.exists())).free


def reference_stage(reference: Reference, dim: int, found: Rehearsal, workers: int) -> Iterator[StagePlan]:
    """Yield the plan of the centroids, unless they are fitted already."""
    count = reference.images
    if isinstance(reference, ImageReference):
        source = reference.source
        part = count / source.total()
        yield StagePlan(
            "reference",
            count,
            read_bytes=round(part * bytes_of(source)),
            requests=round(part * requests_of(source)),
            write_bytes=count * (2 * dim + TABLE_BYTES),
            files=3 * len(source.shards) + 2,
            images_per_second=rate(found.embed),
            seconds=added(times(found.embed, count, largest_share(source, workers)), times(found.fit, count)),
        )
    elif count:
        yield StagePlan("reference", count, files=2, seconds=times(found.fit, count))


def entropy_stage(images: Source, found: Rehearsal, workers: int) -> StagePlan:
    """Return the plan of Stage I."""
    total = images.total()
    return StagePlan(
        "entropy",
        total,
        read_bytes=bytes_of(images),
        requests=requests_of(images),
        write_bytes=total * TABLE_BYTES,
        files=2 * len(images.shards),
        images_per_second=rate(found.entropy),
        seconds=times(found.entropy, total, largest_share(images, workers)),
    )


def embed_stage(images: Source, survivors: int, dim: int, found: Rehearsal, workers: int) -> StagePlan:
    """Return the plan of the embeddings, of which so many dimensions are kept."""
    part = survivors / images.total()
    return StagePlan(
        "embed",
        survivors,
        read_bytes=round(part * bytes_of(images)),
        requests=round(part * requests_of(images)),
        write_bytes=survivors * (2 * dim + TABLE_BYTES),
        files=(3 if dim else 2) * len(images.shards),
        images_per_second=rate(found.embed),
        seconds=times(found.embed, survivors, largest_share(images, workers)),
    )


def dropped_stage(
    images: Source, survivors: int, options: PruneOptions, found: Rehearsal, workers: int
) -> Iterator[StagePlan]:
    """Yield the plan of the embeddings of a sample of what Stage I drops, if there is to be one."""
    total = images.total()
    count = min(options.coverage_sample, total - survivors)
    if count:
        yield StagePlan(
            "dropped",
            count,
            read_bytes=round(count / total * bytes_of(images)),
            requests=round(count / total * requests_of(images)),
            write_bytes=count * TABLE_BYTES,
            files=2 * min(count, len(images.shards)),
            images_per_second=rate(found.embed),
            seconds=times(found.embed, count, largest_share(images, workers)),
        )


def select_stage(total: int, survivors: int, budget: int, found: Rehearsal) -> StagePlan:
    """Return the plan of Stage II's choice, which is made by one process."""
    seconds = added(times(found.select, survivors), times(found.rank, total))
    return StagePlan("select", survivors, write_bytes=budget * 2 * TABLE_BYTES, files=5, seconds=seconds)


def export_stage(images: Source, budget: int, export: ExportOptions | None, found: Rehearsal) -> Iterator[StagePlan]:
    """Yield the plan of the export, if there is to be one."""
    if export is None:
        return
    copied = 0 if export.layout in ("links", "list") else round(bytes_of(images) * budget / images.total())
    files = {"list": 1, "embedding-atlas": 1}.get(export.layout, budget)
    if export.layout in SHARDED:
        files = max(1, math.ceil(copied / SHARD_BYTES))
    yield StagePlan(
        "export",
        budget,
        read_bytes=copied,
        requests=round(requests_of(images) * budget / images.total()) if copied else 0,
        write_bytes=copied + budget * TABLE_BYTES,
        files=files + 2,
        images_per_second=rate(found.export),
        seconds=times(found.export, budget),
    )


def largest_share(source: Source, workers: int) -> float:
    """Return the part of the work that falls to the one of several workers that has most of it."""
    sizes = [source.size(shard) for shard in source.shards]
    loads = [sum(sizes[number] for number in share) for share in share_out(sizes, workers)]
    return max(loads) / sum(sizes) if sum(sizes) else 1.0


def bytes_of(source: Source) -> int:
    """Return how many bytes a collection has."""
    return sum(map(source.size, source.shards))


def requests_of(source: Source) -> int:
    """Return how many requests to a storage it takes to read a collection."""
    return sum(map(source.requests, source.shards))


def times(cost: float | None, count: int, share: float = 1.0) -> float | None:
    """Return the seconds of so many images, or None if it is not known what one costs."""
    return None if cost is None else cost * count * share


def added(*seconds: float | None) -> float | None:
    """Add seconds; None where one of them is not known."""
    known = [one for one in seconds if one is not None]
    return sum(known) if len(known) == len(seconds) else None


def rate(cost: float | None) -> float | None:
    """Return images a second."""
    return 1 / cost if cost else None


def size(count: float) -> str:
    """Print a number of bytes: 21.5 GB."""
    for unit in ("B", "kB", "MB", "GB"):
        if count < 1000:
            return f"{count:.0f} B" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1000
    return f"{count:.1f} TB"
