"""Measuring what a run will take: the run itself, on a sample of its images."""

from __future__ import annotations

import contextlib
import itertools
import math
import resource
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from typing_extensions import override

from rsprune import strategies
from rsprune.encoders.base import Encoder
from rsprune.encoders.loader import check_finite
from rsprune.errors import RspruneError
from rsprune.export.options import ExportOptions
from rsprune.export.run import export_run
from rsprune.runners import Progress
from rsprune.runs.config import (
    ChoiceOptions,
    ExecutionOptions,
    GrayOptions,
    PruneOptions,
    ReferenceOptions,
    SourceOptions,
    StrategyOptions,
)
from rsprune.runs.prune import prune
from rsprune.runs.reference import Reference
from rsprune.runs.stages.select import settings_of
from rsprune.sources import Item, Source
from rsprune.sources.batches import batched
from rsprune.sources.sample import spread_sample

__all__ = ["UNMEASURED", "Rehearsal", "peak_bytes", "rehearse", "reset_peak"]

#: An encoder is measured on so many images at least and at most: those that it embeds in so many seconds.
EMBED_LEAST, EMBED_MOST, EMBED_SECONDS = 16, 1024, 15.0
#: Stage I is measured on so many images, or for so long: it takes milliseconds for what an encoder takes seconds for.
ENTROPY_SAMPLE, ENTROPY_SECONDS = 4096, 4.0
#: Reference rows that the K-means is measured on.
FIT_ROWS = 4096
#: Rows that a strategy is measured on, and twice as many: they tell how its time grows with the rows.
STRATEGY_ROWS = 4000
#: Seconds that reading the tables takes for an image of the collection, and for a survivor; measured on ten millions.
RANK_SECONDS, JOIN_SECONDS = 2e-7, 1.5e-6


@dataclass(frozen=True)
class Rehearsal:
    """What was measured, in seconds an image; None for what was not."""

    setup_seconds: float | None = None  # to load the encoder, and to write the report
    survivors: float = 1.0  # the fraction that Stage I keeps
    fit: float | None = None
    entropy: float | None = None
    embed: float | None = None
    rank: float | None = None
    select: float | None = None
    export: float | None = None


UNMEASURED = Rehearsal()


@dataclass
class StageTimes(Progress):
    """Takes the time of each stage of a run, and counts its images."""

    seconds: dict[str, float] = field(default_factory=dict)
    images: dict[str, int] = field(default_factory=dict)
    begun: float = 0.0
    stage: str = ""

    @override
    def start(self, stage: str, total: int, done: int) -> None:
        self.stage, self.images[stage], self.begun = stage, total, time.perf_counter()

    @override
    def finish(self) -> None:
        self.seconds[self.stage] = time.perf_counter() - self.begun

    def cost(self, stage: str) -> float:
        """Return the seconds an image."""
        return self.seconds[stage] / self.images[stage]


def rehearse(
    images: Source,
    reference: Reference,
    options: PruneOptions,
    export: ExportOptions | None,
    *,
    budget: int,
    survivors: int,
) -> Rehearsal:
    """Carry out a run on a sample of its images, in a folder that is removed again.

    The centroids are those of made-up rows, and the strategy is the one by quotas: the real one is measured on made-up
    rows, too, as a sample may have fewer images than it makes clusters.

    Raises
    ------
    RspruneError
        What the run would raise for the images of the sample.
    """
    encoder, total, threads = options.encoder.model, images.total(), options.execution.threads
    begun = time.perf_counter()
    check_finite(encoder)
    loading = time.perf_counter() - begun
    wanted = math.ceil(embed_sample(encoder) * total / survivors)
    sample = spread_sample(images, wanted)
    drawn = sample.total()
    # Chosen is as much as there is, so that the export has something to do, unless a threshold may leave less.
    kept = survivors if options.tau is None else budget
    rule = StrategyOptions(keep=max(1, drawn * kept // total), seed=options.choice.strategy.seed)
    smaller = replace(
        options,
        choice=ChoiceOptions(rule),
        reference=ReferenceOptions(reference.k),
        source=SourceOptions(options.source.on_damaged_shard),
        execution=ExecutionOptions(threads),
        coverage_sample=0,
        keep_embeddings=options.keep_embeddings or not strategies.get(options.choice.strategy.strategy).quotas,
    )
    rows = made_up(max(reference.k, min(reference.images, FIT_ROWS)), encoder.dim)
    timed = StageTimes()
    with tempfile.TemporaryDirectory(prefix="rsprune-plan-") as folder:
        begun = time.perf_counter()
        run = prune(sample, reference=rows, out=Path(folder, "run"), options=smaller, progress=timed)
        rest = time.perf_counter() - begun - sum(timed.seconds.values())
        known = run.reader.config["entropy"]["valid_range"]  # "auto" has become numbers
        gray = replace(options.gray, decode=replace(options.gray.decode, valid_range=known))
        exporting = None
        if export is not None:
            begun = time.perf_counter()
            to = Path(folder, "subset.csv" if export.layout == "list" else "subset")
            export_run(run.path, sample, to=to, options=export, progress=False)
            exporting = (time.perf_counter() - begun) / len(run.selection)
    return Rehearsal(
        setup_seconds=loading + rest,
        survivors=run.summary["survivors"] / drawn,
        fit=timed.seconds["centroids"] / len(rows),
        entropy=entropy_cost(spread_sample(images, ENTROPY_SAMPLE), gray, threads),
        embed=timed.cost("embed"),
        rank=RANK_SECONDS,
        select=select_cost(options, encoder.dim, reference.k, survivors, budget),
        export=exporting,
    )


def embed_sample(encoder: Encoder) -> int:
    """Return how many images an encoder is measured on."""
    size = encoder.batch_size
    pixels = np.zeros((size, 3, encoder.size, encoder.size), np.uint8)
    begun = time.perf_counter()
    encoder.forward(pixels[:1])
    one = time.perf_counter() - begun
    if one * size < EMBED_SECONDS / 3:
        begun = time.perf_counter()
        encoder.forward(pixels)
        one = (time.perf_counter() - begun) / size
    return int(min(max(EMBED_SECONDS / one, EMBED_LEAST), EMBED_MOST))


def entropy_cost(sample: Source, gray: GrayOptions, threads: int | None) -> float:
    """Return the seconds that Stage I takes for an image."""
    measured, begun = 0, time.perf_counter()
    for items in batched(itertools.islice(items_of(sample), ENTROPY_SAMPLE), ENTROPY_SAMPLE // 4):
        gray.measure([item.data for item in items], threads)
        measured += len(items)
        del items
        if time.perf_counter() - begun > ENTROPY_SECONDS:
            break
    return (time.perf_counter() - begun) / measured


def select_cost(options: PruneOptions, dim: int, k: int, survivors: int, budget: int) -> float | None:
    """Return the seconds that the choice takes for a survivor; None where the strategy cannot do with made-up rows."""
    method = strategies.get(options.choice.strategy.strategy)
    if method.quotas:
        return JOIN_SECONDS

    def choose(rows: int) -> float:
        embeds = made_up(rows, dim)
        known = {"embeds": embeds, "centroids": embeds[:k], "reference": embeds, "entropy": np.linspace(0, 8, rows)}
        rule, threads = options.choice.strategy, options.execution.threads
        begun = time.perf_counter()
        keep = max(1, rows * budget // survivors)
        strategies.select_from(method.name, known, keep, seed=rule.seed, threads=threads, **settings_of(options.choice))
        return time.perf_counter() - begun

    rows = min(survivors, STRATEGY_ROWS)
    try:
        few, many = choose(rows), choose(2 * rows)
    except RspruneError:
        return None
    power = min(max(math.log2(many / few), 1.0), 2.0)
    growth = (survivors / (2 * rows)) ** (power - 1)
    return float(JOIN_SECONDS + many / (2 * rows) * growth)


def made_up(rows: int, dim: int) -> NDArray[np.float32]:
    """Make unit rows of noise."""
    noise = np.random.default_rng(0).standard_normal((rows, dim), np.float32)
    unit: NDArray[np.float32] = noise / np.linalg.norm(noise, axis=1, keepdims=True)
    return unit


def items_of(images: Source) -> Iterator[Item]:
    """Yield the images of a collection, in order."""
    for shard in images.shards:
        yield from images.read(shard)


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
