"""Run folders: what lies where, how it is written, and what it says of its own making.

Every file is written beside its place, flushed to the disk and renamed, so that a file that exists is whole: a killed
process leaves nothing but temporary files, which the next run removes. Parquet files carry their provenance in the
schema metadata under ``rsprune``. No artefact holds a time, a path of the machine or a number of threads: the same
input gives the same bytes.
"""

from __future__ import annotations

import contextlib
import json
import os
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TextIO

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from rsprune.errors import ConfigMismatchError
from rsprune.io import canonical_json, config_diff, read_json, read_table, remove_temporaries, write_json
from rsprune.sources.keys import repeated

__all__ = ["Pool", "RunFolder", "keys_of", "read_pool"]

#: Seconds that a lock is waited for: a process that was killed holds its own until its memory is given back.
PATIENCE = 5.0

ENTROPY_SCHEMA = pa.schema(
    [
        pa.field("key", pa.string(), nullable=False),
        pa.field("entropy", pa.float64()),  # bits; null where the image was not read
        pa.field("kind", pa.string()),  # why not, in one word
        pa.field("message", pa.string()),
    ]
)
EMBEDDING_SCHEMA = pa.schema(
    [
        pa.field("row", pa.int64(), nullable=False),  # position in the input shard
        pa.field("key", pa.string(), nullable=False),
        pa.field("label", pa.int32()),  # nearest centroid; null where there are no centroids, -1 for an invalid row
        pa.field("similarity", pa.float32()),
        pa.field("kind", pa.string()),
        pa.field("message", pa.string()),
    ]
)
SELECTION_SCHEMA = pa.schema(
    [
        pa.field("key", pa.string(), nullable=False),
        pa.field("shard", pa.string(), nullable=False),
        pa.field("row", pa.int64(), nullable=False),
        pa.field("entropy", pa.float64(), nullable=False),
        pa.field("cluster", pa.int32(), nullable=False),
        pa.field("similarity", pa.float32(), nullable=False),
        pa.field("phase", pa.uint8(), nullable=False),  # 0 quota, 1 fill, 2 preselected
    ]
)
QUARANTINE_SCHEMA = pa.schema(
    [
        pa.field("key", pa.string(), nullable=False),
        pa.field("shard", pa.string(), nullable=False),
        pa.field("row", pa.int64(), nullable=False),
        pa.field("stage", pa.string(), nullable=False),
        pa.field("kind", pa.string(), nullable=False),
        pa.field("message", pa.string(), nullable=False),
    ]
)


class RunFolder:
    """The layout of a run folder, and the lock of the process that works on it.

    Parameters
    ----------
    path
        The folder. It is made when it does not exist.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)

    @property
    def config(self) -> Path:
        """What the run was started with."""
        return self.path / "config.json"

    @property
    def centroids(self) -> Path:
        """The reference centroids."""
        return self.path / "centroids.safetensors"

    @property
    def selection(self) -> Path:
        """The manifest: one row for each image kept."""
        return self.path / "selection.parquet"

    @property
    def selected(self) -> Path:
        """The keys of the images kept, one a line."""
        return self.path / "selected.txt"

    @property
    def quarantine(self) -> Path:
        """The images that could not be read, with their causes."""
        return self.path / "quarantine.parquet"

    @property
    def summary(self) -> Path:
        """The figures of a finished run."""
        return self.path / "summary.json"

    @property
    def report(self) -> Path:
        """The page that shows what was kept and why."""
        return self.path / "report.html"

    def entropy(self, shard: str) -> Path:
        """Stage I's table of one input shard."""
        return self.path / "entropy" / f"{shard}.parquet"

    def embeddings(self, shard: str) -> Path:
        """Stage II's rows of one input shard, float16."""
        return self.path / "embeddings" / f"{shard}.npy"

    def assignments(self, shard: str) -> Path:
        """Stage II's table of one input shard; written after its rows."""
        return self.path / "embeddings" / f"{shard}.parquet"

    def reference(self) -> RunFolder:
        """The folder that holds the reference images' embeddings, laid out like a run folder of its own."""
        return RunFolder(self.path / "reference")

    def read_config(self) -> dict[str, Any]:
        """Read the configuration of a run.

        Raises
        ------
        FileNotFoundError
            This is no run folder.
        FormatError
            The file is not JSON.
        """
        if not self.config.is_file():
            msg = f"{self.path} is not a run folder: it has no config.json"
            raise FileNotFoundError(msg)
        return read_json(self.config)

    def start(self, config: Mapping[str, Any]) -> None:
        """Begin a run, or go on with one of the same configuration.

        Raises
        ------
        ConfigMismatchError
            The folder holds a run of another configuration, or files that are no run's. The message lists what differs.
        """
        wanted = json.loads(canonical_json(config))
        if self.config.exists():
            differences = list(config_diff(self.read_config(), wanted))
            if differences:
                lines = "\n".join(f"  {line}" for line in differences)
                msg = (
                    f"{self.path} holds a run of a different configuration:\n{lines}\n"
                    "Give the new run another folder, or delete this one"
                )
                raise ConfigMismatchError(msg)
        elif self.path.is_dir() and any(not entry.name.startswith(".") for entry in self.path.iterdir()):
            msg = f"{self.path} is not empty and is not a run folder (it has no config.json). Give the run a new folder"
            raise ConfigMismatchError(msg)
        else:
            self.path.mkdir(parents=True, exist_ok=True)
            write_json(self.config, wanted)
        remove_temporaries(self.path)

    @contextlib.contextmanager
    def lock(self) -> Iterator[None]:
        """Hold the folder against other processes; the system lets go of it when the process ends, however it ends.

        Raises
        ------
        ConfigMismatchError
            Another process works on it.
        """
        self.path.mkdir(parents=True, exist_ok=True)
        place = self.path / ".lock"
        with place.open("w") as file:
            if not take_lock(file, place):
                msg = f"another process is working on {self.path}; wait for it to end"
                raise ConfigMismatchError(msg)
            try:
                yield
            finally:
                if not self.config.exists():  # no run began here: leave the folder as it was
                    place.unlink(missing_ok=True)


def take_lock(file: TextIO, place: Path) -> bool:
    """Lock the open file of a path, waiting a little for another process to let go of it; say whether it did."""
    try:
        import fcntl
    except ImportError:  # Windows: no advisory locks, the user keeps two runs apart
        return True
    end = time.monotonic() + PATIENCE
    while True:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() > end:
                return False
            time.sleep(0.05)
        else:
            # Who had it may have removed it, and a third process made another.
            return place.exists() and os.path.samestat(place.stat(), os.fstat(file.fileno()))


@dataclass(frozen=True)
class Pool:
    """What Stage I found. Rows are numbered through all shards, in the order of the shards' names.

    Attributes
    ----------
    shards
        The shards' names.
    offsets
        int64 (S + 1,): the first row of each shard, and at the end the number of rows N.
    entropy
        float64 (N,), bits; NaN where an image was not read or repeats the key of an earlier one.
    duplicates
        int64: the rows that repeat the key of an earlier row.
    """

    shards: tuple[str, ...]
    offsets: NDArray[np.int64]
    entropy: NDArray[np.float64]
    duplicates: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.entropy)

    def rows_of(self, shard: str) -> slice:
        """The rows of one shard."""
        i = self.shards.index(shard)
        return slice(int(self.offsets[i]), int(self.offsets[i + 1]))

    def locate(self, row: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """The number of each row's shard, and its position within that shard."""
        shard = np.searchsorted(self.offsets, row, side="right") - 1
        return shard, row - self.offsets[shard]


def read_pool(folder: RunFolder) -> Pool:
    """Read Stage I's tables. Memory: 24 bytes a row, and the keys of one shard."""
    shards = tuple(sorted(path.stem for path in (folder.path / "entropy").glob("*.parquet")))
    entropy: list[NDArray[np.float64]] = [np.empty(0)]
    hashes: list[NDArray[np.int64]] = [np.empty(0, np.int64)]
    for shard in shards:
        table = read_table(folder.entropy(shard), ["key", "entropy"])
        entropy.append(table["entropy"].to_numpy())
        hashes.append(np.fromiter(map(hash, table["key"].to_pylist()), np.int64, len(table)))
    offsets = np.cumsum([len(part) for part in entropy])
    pool = Pool(shards, offsets, np.concatenate(entropy), np.empty(0, np.int64))
    duplicates = repeated_keys(folder, pool, np.concatenate(hashes))
    pool.entropy[duplicates] = np.nan
    return replace(pool, duplicates=duplicates)


def repeated_keys(folder: RunFolder, pool: Pool, hashes: NDArray[np.int64]) -> NDArray[np.int64]:
    """The rows whose key an earlier row has: found by 64-bit hash, confirmed by the keys themselves."""
    suspects = repeated(hashes)
    seen: set[str] = set()
    repeats = []
    for row, key in zip(suspects, keys_of(folder, pool, suspects), strict=True):
        if key in seen:
            repeats.append(row)
        seen.add(key)
    return np.array(repeats, np.int64)


def keys_of(folder: RunFolder, pool: Pool, rows: NDArray[np.int64]) -> list[str]:
    """The keys of ascending ``rows``, read shard by shard."""
    keys: list[str] = []
    shard, position = pool.locate(rows)
    for i in np.unique(shard):
        column = read_table(folder.entropy(pool.shards[i]), ["key"])["key"]
        keys += column.take(pa.array(position[shard == i])).to_pylist()
    return keys
