"""What a run chose before: what moves between two choices in one folder, and the choice that another one tops up."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from typing_extensions import Self

from rsprune.errors import ArgumentError, DamagedFileError, FormatError
from rsprune.io import canonical_json, digest, read_provenance, read_table, write_table
from rsprune.runs.folder import RunFolder
from rsprune.runs.reader import RunIndex, positions_of

__all__ = ["Choice"]


@dataclass(frozen=True)
class Choice:
    """The images that a run chose.

    Attributes
    ----------
    run
        The digest of its configuration.
    rows
        By shard, their positions in it, ascending.
    """

    run: str
    rows: Mapping[str, NDArray[np.int64]]

    @classmethod
    def read(cls, folder: RunFolder) -> Self | None:
        """Read the manifest of a folder, be it that of an earlier configuration; None if there is none."""
        return cls._read(folder.selection)

    @classmethod
    def _read(cls, path: Path) -> Self | None:
        try:
            table = read_table(path, ["shard", "row"])
            run = str(read_provenance(path).get("run"))
        except (FileNotFoundError, FormatError):
            return None
        rows = table["row"].to_numpy()
        return cls(run, {shard: np.sort(rows[at]) for shard, at in positions_of(table["shard"])})

    @classmethod
    def read_preselected(cls, folder: RunFolder) -> Self | None:
        """Read the choice that the run tops up; None if it has none.

        Raises
        ------
        DamagedFileError
            It is not the one that the configuration names.
        """
        wanted = folder.read_config().get("selection", {}).get("preselected")
        if wanted is None:
            return None
        found = cls._read(folder.preselected)
        if found is None or found.digest != wanted:
            message = (
                f"{folder.preselected} is not as it was written, and nothing else holds what it held. Put it back, or "
                "choose without --preselected"
            )
            raise DamagedFileError(message)
        return found

    @classmethod
    def to_top_up(cls, folder: RunFolder, config: Mapping[str, Any]) -> Self:
        """Return the choice that a call with ``--preselected`` tops up, and keep it in the folder.

        It is the last one of the folder; or, where a call of the same configuration is made again, the one that it
        topped up before.

        Raises
        ------
        ArgumentError
            Nothing has been chosen in the folder.
        """
        stored = cls._read(folder.preselected)
        if stored is not None:
            with contextlib.suppress(FileNotFoundError, DamagedFileError):
                same = {**config, "selection": {**config["selection"], "preselected": stored.digest}}
                if folder.read_config() == json.loads(canonical_json(same)):
                    return stored
        last = cls.read(folder)
        if last is None:
            message = f"{folder.path} holds no choice that could be topped up: begin without --preselected"
            raise ArgumentError(message)
        shards = [name for name in sorted(last.rows) for _ in last.rows[name]]
        rows = np.concatenate([np.empty(0, np.int64), *(last.rows[name] for name in sorted(last.rows))])
        table = pa.table({"shard": pa.array(shards, pa.string()), "row": rows})
        write_table(folder.preselected, table, {"run": last.run})
        return last

    @property
    def digest(self) -> str:
        """What tells it from another choice."""
        return digest({name: self.rows[name].tolist() for name in sorted(self.rows)})

    def __len__(self) -> int:
        return sum(map(len, self.rows.values()))

    def positions(self, index: RunIndex, numbers: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return where the images stand among ``numbers``, ascending ones of rows of the whole collection.

        Raises
        ------
        ArgumentError
            Some are not there.
        """
        parts = [index.first(shard) + rows for shard, rows in self.rows.items()]
        wanted = np.sort(np.concatenate([np.empty(0, np.int64), *parts]))
        at = np.searchsorted(numbers, wanted)
        there = at < len(numbers)
        there[there] = numbers[at[there]] == wanted[there]
        if not there.all():
            message = (
                f"{np.count_nonzero(~there)} of the {len(self)} preselected images cannot be chosen now: they are "
                "left out by other options, below min_similarity, or could not be read. Choose without --preselected, "
                "or without these options"
            )
            raise ArgumentError(message)
        return at

    def describe_moves(self, now: Choice) -> str:
        """Say in a line how many images were chosen before, and how many are now."""
        none = np.empty(0, np.int64)
        both = sum(len(np.intersect1d(rows, now.rows.get(shard, none))) for shard, rows in self.rows.items())
        return f"{len(now) - both:,} new images chosen, {len(self) - both:,} dropped, {both:,} stay"
