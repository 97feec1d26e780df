"""Run folders: where everything lies, whether it is as it was written, and who works on it.

A shard is done when its record is there: a JSON file beside its artefacts, written after them, with the digest of each
and of what they depend on: a part of the configuration, the shard, and of Stage II the rows. The record of a whole run
is ``summary.json``. No artefact holds a time, a path of the machine or a number of threads: the same input gives the
same bytes.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import stat
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import cached_property
from pathlib import Path
from typing import Any

import pyarrow as pa
from filelock import BaseFileLock, FileLock, SoftFileLock, Timeout

from rsprune.errors import (
    ConfigMismatchError,
    DamagedFileError,
    FormatError,
    OutputError,
    RspruneError,
    StorageError,
    UnfinishedRunError,
)
from rsprune.io import (
    canonical_json,
    check_output_folder,
    config_diff,
    digest,
    file_digest,
    read_json,
    read_record,
    write_json,
    write_record,
)
from rsprune.runs.basis import basis_of
from rsprune.runs.checks import REMEDY
from rsprune.runs.schema import EMBEDDING_SCHEMA, ENTROPY_SCHEMA, EXCLUDED_SCHEMA, QUARANTINE_SCHEMA, SELECTION_SCHEMA
from rsprune.runs.shared_lock import SharedLock, why_no_locks
from rsprune.storage import address_of, localize, stand_for
from rsprune.temporaries import remove_temporaries
from rsprune.validation import warn_caller
from rsprune.waiting import waiting_for

__all__ = ["RunFolder"]

#: The format of the tables, records and configuration; another one is not read.
FORMAT = 1
#: Seconds that a lock is waited for: a process that was killed holds its own until its memory is given back.
PATIENCE = 5.0

#: What to do about a file system that fails; other errors say it themselves.
REMEDIES = {
    errno.ENOSPC: "make room on the disk",
    errno.EDQUOT: "make room in the quota",
    errno.EFBIG: "raise the limit of the size of files",
    errno.EROFS: "make the file system writable",
    errno.EIO: "see to the disk",
    errno.ENODEV: "see to the disk",
    errno.ENXIO: "see to the disk",
    errno.ESTALE: "mount the file system again",
    errno.ENOTCONN: "mount the file system again",
    errno.ETIMEDOUT: "mount the file system again",
    errno.EHOSTDOWN: "mount the file system again",
}

#: Where the records of a run's parts lie.
RECORDS = ("*.json", "entropy/*.json", "embeddings/*.json")

#: The room of the choices of a run, each in a folder of its name.
SELECTIONS = "selections"


def is_run(path: Path) -> bool:
    """Tell whether a folder holds a run that makes choices, and not other files of the same names."""
    return (path / "config.json").is_file() and (path / "entropy").is_dir()


class RunFolder:
    """The layout of a run folder, the records of what is done in it, and the lock of the process that works on it.

    Parameters
    ----------
    path
        The folder, or its address. It is made when it does not exist. ``selections/NAME`` in it stands for the run
        with that choice instead of the newest.

    Attributes
    ----------
    path
        The folder of the run.
    choice
        Where the choice lies: in that folder, or in ``selections/NAME``.
    """

    def __init__(self, path: str | Path) -> None:
        self._address = address_of(path)
        if self._address is not None and f"/{SELECTIONS}/" in self._address:
            localize(self._address.rpartition(f"/{SELECTIONS}/")[0])  # the run, in which the choice lies
        self.path = self.choice = localize(path)
        place = self.path if self.path.parent.name == SELECTIONS else self.path.absolute()
        if place.parent.name == SELECTIONS and is_run(place.parent.parent):
            self.path, self.choice = place.parent.parent, place
        self._verified: set[Path] = set()
        self._bases: dict[str, str] = {}
        self._shared = False  # whether other processes work on it as well
        self._started = False

    def __getstate__(self) -> dict[str, Any]:
        return {"path": self.path, "choice": self.choice, "_address": self._address, "_shared": self._shared}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state, _verified=set(), _bases={}, _started=False)
        if self._address is not None:
            stand_for(self._address, self.choice)

    @property
    def config(self) -> Path:
        """The configuration that the run was started with."""
        return self.choice / "config.json"

    @property
    def centroids(self) -> Path:
        """The reference centroids."""
        return self.path / "centroids.safetensors"

    @property
    def selection(self) -> Path:
        """The manifest: one row for each image kept."""
        return self.choice / "selection.parquet"

    @property
    def preselected(self) -> Path:
        """The images of an earlier choice that the run keeps, with ``--preselected``."""
        return self.path / "preselected.parquet"

    @property
    def selected(self) -> Path:
        """The keys of the images kept, one a line."""
        return self.choice / "selected.txt"

    @property
    def quarantine(self) -> Path:
        """The images that could not be read, with their causes."""
        return self.choice / "quarantine.parquet"

    @property
    def excluded(self) -> Path:
        """The embedded images that the options of the choice leave out, with the option; there only if some do."""
        return self.choice / "excluded.parquet"

    @property
    def summary(self) -> Path:
        """The metrics of a finished run, and its record; written last."""
        return self.choice / "summary.json"

    @property
    def put_aside(self) -> Path:
        """Why the run is without shards over which worker processes died; there only if it is."""
        return self.path / "put_aside.json"

    @property
    def report(self) -> Path:
        """The page that shows what was kept and why."""
        return self.choice / "report.html"

    @property
    def selections(self) -> Path:
        """Where the choices of the run lie, each in a folder of its name."""
        return self.path / SELECTIONS

    def entropy(self, shard: str) -> Path:
        """Stage I's table of one input shard."""
        return self.path / "entropy" / f"{shard}.parquet"

    def embeddings(self, shard: str) -> Path:
        """Stage II's rows of one input shard, float16."""
        return self.path / "embeddings" / f"{shard}.npy"

    def assignments(self, shard: str) -> Path:
        """Stage II's table of one input shard."""
        return self.path / "embeddings" / f"{shard}.parquet"

    def schema(self, table: Path) -> pa.Schema:
        """Return the columns that a table of the folder has."""
        known = {self.selection: SELECTION_SCHEMA, self.quarantine: QUARANTINE_SCHEMA, self.excluded: EXCLUDED_SCHEMA}
        return known.get(table, ENTROPY_SCHEMA if table.parent.name == "entropy" else EMBEDDING_SCHEMA)

    def reference(self) -> RunFolder:
        """The folder that holds the reference images' embeddings, laid out like a run folder of its own."""
        return self._inside("reference")

    def dropped(self) -> RunFolder:
        """The folder that holds the clusters of a sample of what Stage I dropped, laid out like a run folder."""
        return self._inside("dropped")

    def _inside(self, name: str) -> RunFolder:
        folder = RunFolder(self.path / name)
        folder._shared = self._shared
        return folder

    def record(self, path: Path) -> Path:
        """Return the record that holds the digest of an artefact."""
        chosen = self.selection, self.selected, self.quarantine, self.excluded
        return self.summary if path in chosen else path.with_suffix(".json")

    # --- configuration -----------------------------------------------------------------------------------------------

    def read_config(self) -> dict[str, Any]:
        """Read the configuration of a run.

        Raises
        ------
        FileNotFoundError
            This is no run folder.
        DamagedFileError
            The file is not as it was written.
        FormatError
            Another version of rsprune wrote the folder, in another format.
        """
        if not self.config.is_file():
            message = f"{self.choice} is not a run folder: it has no config.json"
            raise FileNotFoundError(message)
        try:
            config = read_json(self.config)
        except FormatError as error:
            message = f"{error}. {REMEDY}"
            raise DamagedFileError(message) from error
        if config.pop("digest", None) != digest(config):
            message = f"{self.config} is damaged: its content does not have the digest that it names. {REMEDY}"
            raise DamagedFileError(message)
        if (form := config.pop("format", 0)) != FORMAT:
            message = (
                f"{self.path} was written by rsprune {config.get('rsprune')}, in format {form}; this version reads and "
                f"writes format {FORMAT}. Make the run anew in another folder, or use that version"
            )
            raise FormatError(message)
        return config

    @cached_property
    def run(self) -> str:
        """The digest of the configuration."""
        return digest(self._config)

    @cached_property
    def _config(self) -> dict[str, Any]:
        return self.read_config()

    def basis(self, record: Path) -> str:
        """Return the digest of what the artefacts of a record depend on in the configuration."""
        kind = self._kind(record)
        if kind not in self._bases:
            # The tables of a run are those of its newest choice.
            config = self._config if record.is_relative_to(self.choice) else RunFolder(self.path).read_config()
            self._bases[kind] = digest(basis_of(kind, config))
        return self._bases[kind]

    def _kind(self, path: Path) -> str:
        return path.stem if path.parent in (self.path, self.choice) else path.parent.name

    def start(self, config: Mapping[str, Any], *, changes: Callable[[str], bool] = lambda _: False) -> bool:
        """Begin a run, or go on with one. A damaged configuration is written anew.

        Parameters
        ----------
        config
            The configuration.
        changes
            Tells of the dotted name of a value whether it may be another one than it was: the run is then no longer
            finished, and keeps what does not depend on it.

        Returns
        -------
        bool
            Whether the configuration is another one than it was.

        Raises
        ------
        ConfigMismatchError
            The folder holds a run of another configuration. The message lists what differs.
        OutputError
            The folder holds files that are no run's.
        """
        wanted = json.loads(canonical_json(config))
        intact, differences = False, list[str]()
        if self.config.exists():
            with contextlib.suppress(DamagedFileError):
                differences = list(config_diff(self.read_config(), wanted))
                intact = not differences
                refused = [line for line in differences if not changes(line.partition(": ")[0])]
                if refused:
                    lines = "\n".join(f"  {line}" for line in refused)
                    message = (
                        f"{self.path} holds a run of a different configuration:\n{lines}\n"
                        "Give the new run another folder, or delete this one"
                    )
                    raise ConfigMismatchError(message)
        elif not self._holds(wanted):
            # Another part may have begun the run by now.
            check_output_folder(self.path, *([self.config.name] if self._shared else []))
            if self.config.exists():
                return self.start(config, changes=changes)
        self.path.mkdir(parents=True, exist_ok=True)
        remove_temporaries(self.path, shared=self._shared)
        if not intact:
            if differences:
                self.summary.unlink(missing_ok=True)
            content = wanted | {"format": FORMAT}
            write_json(self.config, content | {"digest": digest(content)})
        for name in ("run", "_config"):
            self.__dict__.pop(name, None)
        self._bases.clear()
        self._verified.clear()
        self._started = True
        return bool(differences)

    def _holds(self, config: dict[str, Any]) -> bool:
        """Tell whether a folder that has lost its configuration has a record of a run of this one."""
        for record in (one for pattern in RECORDS for one in self.path.glob(pattern)):
            with contextlib.suppress(FormatError, OSError):
                if read_record(record).get("basis") == digest(basis_of(self._kind(record), config)):
                    return True
        return False

    # --- records -----------------------------------------------------------------------------------------------------

    def complete(self, record: Path, files: Iterable[Path], values: Mapping[str, Any] | None = None) -> None:
        """Write a record, which says that ``files`` are whole; the last step of any work."""
        write_record(record, {**(values or {}), "basis": self.basis(record)}, files)

    def verify(self, path: Path) -> Path:
        """Return the path of an artefact that is as it was written. Each is checked once in the life of this object.

        Raises
        ------
        UnfinishedRunError
            It is not there, or was not finished: it has no record.
        DamagedFileError
            It, or its record, is not as it was written, or belongs to another configuration.
        """
        if path in self._verified:
            return path
        record = self.record(path)
        for one in (path, record):
            if not one.is_file():
                message = f"the run in {self.path} is not finished: it has no {one.relative_to(self.path)}. {REMEDY}"
                raise UnfinishedRunError(message)
        content = read_record(record)
        if content.get("basis") != self.basis(record):
            message = f"{record} belongs to another configuration than {self.config}. {REMEDY}"
            raise DamagedFileError(message)
        if content["files"].get(path.relative_to(record.parent).as_posix()) != file_digest(path):
            message = f"{path} is damaged: its content does not have the digest that {record.name} names. {REMEDY}"
            raise DamagedFileError(message)
        self._verified.add(path)
        return path

    def is_whole(self, *paths: Path) -> bool:
        """Tell whether artefacts are there and as they were written."""
        self._verified.difference_update(paths)
        try:
            return all(self.verify(path) for path in paths)
        except (UnfinishedRunError, DamagedFileError):
            return False

    # --- lock --------------------------------------------------------------------------------------------------------

    @contextlib.contextmanager
    def lock(self, *, shared: bool = False) -> Iterator[None]:
        """Hold the folder against other processes; the system lets go of it when the process ends, however it ends.

        Those that hold it ``shared``, each for a part of the work, do not exclude each other.

        Raises
        ------
        ConfigMismatchError
            Another process works on it.
        OutputError
            The folder is a choice of a run, or the place of the lock is taken by a link, which would lead to another
            file, or by what is no file.
        StorageError
            The file system fails while the folder is held. The message says what is finished.
        """
        if self.choice != self.path:
            message = f"{self.choice} holds a choice of the run {self.path}: give the run itself, or another folder"
            raise OutputError(message)
        try:
            with self._locked(shared):
                yield
        except RspruneError:
            raise
        except OSError as error:
            place = Path(str(error.filename or self.path))
            if error.errno not in REMEDIES or not place.is_relative_to(self.path):
                raise
            message = f"{place}: {os.strerror(error.errno)}. {self._kept()}: {REMEDIES[error.errno]}"
            failed = StorageError(f"{message}, and the same command goes on from there")
            failed.errno = error.errno
            raise failed from error

    def _kept(self) -> str:
        """Say what is finished, as far as the folder can be read."""
        done = {}
        for name in ("entropy", "embeddings"):
            with contextlib.suppress(OSError):
                done[name] = len(list((self.path / name).glob("*.json")))
        counts = " and ".join(f"{count} {name}/" for name, count in done.items() if count)
        return "Nothing that was finished is lost" + (f" ({counts})" if counts else "")

    def _acquire(self, lock: SharedLock | BaseFileLock) -> None:
        """Take a lock, whose holder may take the folder away with it where nothing has begun."""
        while True:
            try:
                lock.acquire()
            except FileNotFoundError:
                self.path.mkdir(parents=True, exist_ok=True)
            else:
                return

    @contextlib.contextmanager
    def _locked(self, shared: bool) -> Iterator[None]:
        made = not self.path.exists()
        self.path.mkdir(parents=True, exist_ok=True)
        place = self.path / ".lock"
        with contextlib.suppress(FileNotFoundError):
            status = place.lstat()
            if not stat.S_ISREG(status.st_mode) or status.st_nlink > 1:
                message = f"{place} is a link, or no regular file: it is not the lock of a run. Delete it"
                raise OutputError(message)
        lock: SharedLock | BaseFileLock
        why = why_no_locks(place)
        lock = SharedLock(place, PATIENCE) if shared else (SoftFileLock if why else FileLock)(place, timeout=PATIENCE)
        try:
            with waiting_for(f"the process that works on {self.path} to end"):
                self._acquire(lock)
        except Timeout:
            left = f", or delete {place} if none is" if why else ""
            message = f"another process is working on {self.path}; wait for it to end{left}"
            raise ConfigMismatchError(message) from None
        if why:
            how = "nothing keeps other processes out of it" if shared else f"its file {place.name} keeps others out"
            warn_caller(f"the file system of {self.path} has no locks ({why}): {how}")
        self._shared = shared
        try:
            yield
        finally:
            if self._started:  # workers that died left some
                remove_temporaries(self.path, shared=shared)
            begun = self.config.exists()
            if not begun and not (isinstance(lock, SharedLock) and lock.is_held_by_others()):
                # Leave the folder as it was.
                with contextlib.suppress(OSError):  # Windows removes no open file
                    place.unlink()
            lock.release()
            if made and not begun:
                with contextlib.suppress(OSError):  # it is not empty
                    self.path.rmdir()
