"""A run over very many images, without an encoder: time, and memory of the process that drives it.

The tables of both stages are drawn, shard by shard, in processes of their own; the cut, and the choice of what is
kept, are those of a run. With ``--files`` or ``--tars`` Stage I is a run's own, too, on as many copies (links) of a few
images: in files of their own, or in tar files.

    python -m benches.scale --images 100_000_000 --shards 2_000
    python -m benches.scale --images 1_000_000 --shards 250 --files photos/
    python -m benches.scale --images 1_000_000 --shards 250 --tars photos/
"""

import argparse
import multiprocessing
import os
import resource
import shutil
import tarfile
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from rsprune import fit_centroids
from rsprune.errors import SourceError
from rsprune.io import digest
from rsprune.report import write_report
from rsprune.runners.base import Runner
from rsprune.runners.local import LocalRunner
from rsprune.runners.processes import ProcessRunner
from rsprune.runners.progress import Progress
from rsprune.runs.config import ChoiceOptions, GrayOptions
from rsprune.runs.context import RunContext
from rsprune.runs.folder import RunFolder
from rsprune.runs.reader import RunReader
from rsprune.runs.reference import FittedReference
from rsprune.runs.schema import EMBEDDING_SCHEMA, ENTROPY_SCHEMA
from rsprune.runs.stages import EntropyStage, SelectStage
from rsprune.runs.stages.base import RunStage
from rsprune.runs.stages.entropy import EntropyCut, EntropyRanking, cut_entropies, score_columns
from rsprune.runs.summary import ShardSummary
from rsprune.sources import Shard, Source, open_source
from rsprune.validation import fraction_of

K, DIM = 200, 32
UNREAD = 0.0005  # the part of the images that cannot be read


@dataclass(frozen=True)
class Simulated(Source):
    """A collection of which there is nothing but the names of its shards."""

    images: int
    parts: int

    kind = "simulated"

    @cached_property
    def shards(self):
        return tuple(Shard(f"part-{i:05d}") for i in range(self.parts))

    def count(self, shard):
        return self.images // self.parts

    def read(self, shard, rows=None):
        message = "a simulated collection has no images to read: its tables are drawn"
        raise SourceError(message)

    def size(self, shard):
        return 0

    def fingerprint(self):
        return {"kind": self.kind, "shards": [shard.name for shard in self.shards]}


def drawn(shard: Shard, stream: int) -> np.random.Generator:
    return np.random.default_rng([stream, *shard.name.encode()])


def failed(bad: np.ndarray) -> list[pa.Array]:
    """The columns `kind` and `message`."""
    texts = ("truncated", "the file ends in the middle of the image")
    return [pc.if_else(pa.array(bad), pa.scalar(text), pa.scalar(None, pa.string())) for text in texts]


class DrawnEntropies(EntropyStage):
    """Stage I, without images: entropies about 6 bits, as of aerial scenes."""

    def run(self, shard, advance):
        count, draw = self.count(shard), drawn(shard, 1)
        entropy = np.clip(draw.normal(6.2, 0.8, count), 0, 8)
        bad = draw.random(count) < UNREAD
        entropy[bad] = np.nan
        digits = pc.utf8_lpad(pa.array(np.arange(count)).cast(pa.string()), 6, "0")
        keys = pc.binary_join_element_wise(shard.name.removeprefix("part-"), digits, "_")
        sides, mean, spread = np.full(count, 256.0), draw.uniform(20, 220, count), draw.uniform(5, 80, count)
        scores = np.stack([entropy, sides, sides, mean, spread, spread**2, draw.choice([75.0, 90.0], count)], axis=1)
        scores[bad] = np.nan
        columns = [keys, *score_columns(scores), *failed(bad)]
        self.write(self.outputs(shard)[0], shard, columns, ENTROPY_SCHEMA)
        self.complete(shard)
        advance(count)
        return ShardSummary().update(count, ["truncated"] * int(bad.sum()), entropy)


@dataclass(frozen=True)
class DrawnAssignments(RunStage):
    """Stage II, without an encoder: clusters of very different sizes, each with similarities of its own."""

    source: Simulated
    survivors: EntropyCut
    name: str = "embed"

    @property
    def shards(self):
        return self.source.shards

    def count(self, shard):
        return self.survivors.count(shard)

    def outputs(self, shard):
        return (self.context.folder.assignments(shard.name),)

    def run(self, shard, advance):
        rows, draw = self.survivors.rows(shard), drawn(shard, 2)
        names = RunReader(self.context.folder).names(shard.name).take(pa.array(rows)).combine_chunks()
        label = np.minimum(draw.geometric(0.02, len(rows)) - 1, K - 1).astype(np.int32)
        middle = 0.3 + 0.5 * np.random.default_rng(3).random(K)
        similarity = np.clip(draw.normal(middle[label], 0.08), -1, 1).astype(np.float32)
        bad = draw.random(len(rows)) < UNREAD
        label[bad], similarity[bad] = -1, np.nan
        numbers = [pa.array(label), pa.array(similarity, from_pandas=True)]
        self.write(self.outputs(shard)[0], shard, [pa.array(rows), names, *numbers, *failed(bad)], EMBEDDING_SCHEMA)
        self.complete(shard)
        advance(len(rows))
        return self.summarize(shard)

    def summarize(self, shard):
        return ShardSummary(images=self.count(shard))


def worked() -> float:
    """Return the seconds of CPU that this process and those that it started have taken."""
    usages = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(usage.ru_utime + usage.ru_stime for usage in usages)


@dataclass
class Clock:
    """Prints the time of each step, and the most memory that the process has taken so far, its workers left out."""

    begun: float = field(default_factory=time.perf_counter)
    worked: float = field(default_factory=worked)

    def lap(self, step: str) -> None:
        now, work = time.perf_counter(), worked()
        times = f"{now - self.begun:8.1f} s, {work - self.worked:8.1f} s of CPU"
        most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        print(f"{step:<40} {times}   {most / 2**20:6.2f} GiB at most", flush=True)
        self.begun, self.worked = now, work


def link_files(images: int, folders: int, some: list[Path], room: Path) -> Path:
    """Give every image `images / len(some)` names, in folders."""
    for i in range(folders):
        (room / f"{i:05d}").mkdir(parents=True)
        for j in range(images // folders):
            os.link(some[j % len(some)], room / f"{i:05d}" / f"{j:06d}.jpg")
    return room


def link_tars(images: int, shards: int, some: list[Path], room: Path) -> Path:
    """Pack one tar file, and give it as many names."""
    room.mkdir()
    first = room / "00000.tar"
    with tarfile.open(first, "w") as tar:
        for j in range(images // shards):
            tar.add(some[j % len(some)], f"{j:06d}.jpg")
    for i in range(1, shards):
        os.link(first, room / f"{i:05d}.tar")
    return room


def simulate(source: Source, stage_one: type, keep: float, run: RunFolder, runner: Runner, rule: ChoiceOptions) -> None:
    clock, begun = Clock(), time.perf_counter()
    total = source.total()
    fingerprint = digest(source.fingerprint())
    clock.lap("the fingerprint")
    budget = fraction_of(keep, total)
    config = {
        "source": {"kind": "simulated", "images": total, "digest": fingerprint},
        "selection": {"images": total, "budget": budget},
    }
    run.start(config)
    context = RunContext(run, config)
    fitted = fit_centroids(np.random.default_rng(0).standard_normal((K, DIM)).astype(np.float32), K, n_init=1)
    fitted.save(run.centroids)
    run.complete(run.record(run.centroids), [run.centroids])
    summary = runner.map_merge(stage_one(context, source, GrayOptions()))
    clock.lap("Stage I" if stage_one is EntropyStage else "drawing the tables of Stage I")
    cut = cut_entropies(EntropyRanking(RunReader(run), summary), budget, Progress(), keep=2 * keep)
    clock.lap("the cut")
    runner.map_merge(DrawnAssignments(context, source, cut))
    clock.lap("drawing the tables of Stage II")
    LocalRunner().map_merge(SelectStage(context, source, rule, budget, FittedReference(fitted), cut))
    clock.lap(f"the choice of {budget:,} of {cut.total:,}")
    selection = RunReader(run, finished=True).selection()
    clock.lap(f"reading the selection of {len(selection):,}")
    print(f"in all {time.perf_counter() - begun:.1f} s")
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as alone:
        print(alone.submit(report, run.path).result())


def report(run: Path) -> str:
    """Write the report of a run, in a process of its own, so that its memory is not that of the stages."""
    begun = time.perf_counter()
    size = write_report(run).stat().st_size
    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return f"the report, {size / 1e6:.1f} MB: {time.perf_counter() - begun:.1f} s, {most / 2**20:.2f} GiB at most"


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benches.scale", description=__doc__)
    parser.add_argument("--images", type=int, default=1_000_000)
    parser.add_argument("--shards", type=int, default=200)
    parser.add_argument("--files", help="a folder of JPEG files, on the disk of --room")
    parser.add_argument("--tars", help="the same")
    parser.add_argument("--keep", type=float, default=0.15)
    parser.add_argument("--within", default="nearest")
    parser.add_argument("--fill", default="global")
    parser.add_argument("--workers", type=int, default=None, help="processes that do Stage I, and draw tables")
    parser.add_argument("--room", help="a folder with some 20 bytes an image to spare")
    options = parser.parse_args()
    folder = Path(tempfile.mkdtemp(dir=options.room))
    try:
        source, stage_one = Simulated(options.images, options.shards), DrawnEntropies
        if some := options.files or options.tars:
            link = link_files if options.files else link_tars
            room = link(options.images, options.shards, sorted(Path(some).glob("*.jpg")), folder / "images")
            clock = Clock()
            source, stage_one = open_source(room), EntropyStage
            source.total()
            clock.lap("the listing, and the number of images")
        print(f"{source.total():,} images in {len(source.shards):,} shards")
        rule = ChoiceOptions(within=options.within, fill=options.fill)
        simulate(source, stage_one, options.keep, RunFolder(folder / "run"), ProcessRunner(options.workers), rule)
        size = sum(path.stat().st_size for path in (folder / "run").rglob("*") if path.is_file())
        print(f"{size / 2**30:.2f} GiB in the run folder")
    finally:
        shutil.rmtree(folder)


if __name__ == "__main__":
    main()
