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
from pathlib import Path
from typing import Any, TextIO

from rsprune.errors import ConfigMismatchError
from rsprune.io import canonical_json, config_diff, read_json, remove_temporaries, write_json

__all__ = ["RunFolder"]

#: Seconds that a lock is waited for: a process that was killed holds its own until its memory is given back.
PATIENCE = 5.0


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
