"""Small stages, which other processes can import: each writes a file a shard, and counts."""

import os
import signal
from dataclasses import dataclass, field
from pathlib import Path

from rsprune.io import write_json
from rsprune.runners import Stage
from rsprune.sources import Shard


@dataclass
class Count:
    images: int = 0
    names: set[str] = field(default_factory=set)

    def merge(self, other):
        self.images += other.images
        self.names = self.names | other.names


@dataclass(frozen=True)
class Counting(Stage[Count]):
    """Works on shards of 1, 2, 3 ... images; ``fails`` on one, and is killed ``dies`` times at one."""

    folder: Path
    size: int = 4
    fails: str | None = None
    dies: tuple[str, int] = ("", 0)
    name: str = "counting"
    threads: int | None = None

    @property
    def shards(self):
        return tuple(Shard(f"s{i}") for i in range(self.size))

    def count(self, shard):
        return 1 + int(shard.name[1:])

    def outputs(self, shard):
        return (self.folder / f"{shard.name}.json",)

    def is_done(self, shard):
        return self.outputs(shard)[0].exists()

    def summarize(self, shard):
        return Count(self.count(shard), {shard.name})

    def run(self, shard, advance):
        if shard.name == self.fails:
            message = f"{shard.name} is broken"
            raise ValueError(message)
        deaths = self.folder / "deaths"
        if shard.name == self.dies[0] and deaths.stat().st_size < self.dies[1]:
            with deaths.open("a") as file:
                file.write("x")
            os.kill(os.getpid(), signal.SIGKILL)
        advance(self.count(shard))
        write_json(self.outputs(shard)[0], {"process": os.getpid()})
        return self.summarize(shard)
