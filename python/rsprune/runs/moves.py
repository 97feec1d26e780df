"""What moves between two choices in one run folder."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from typing_extensions import Self

from rsprune.errors import FormatError
from rsprune.io import read_provenance, read_table
from rsprune.runs.folder import RunFolder
from rsprune.runs.reader import positions_of

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
        try:
            table = read_table(folder.selection, ["shard", "row"])
            run = str(read_provenance(folder.selection).get("run"))
        except (FileNotFoundError, FormatError):
            return None
        rows = table["row"].to_numpy()
        return cls(run, {shard: np.sort(rows[at]) for shard, at in positions_of(table["shard"])})

    def __len__(self) -> int:
        return sum(map(len, self.rows.values()))

    def describe_moves(self, now: Choice) -> str:
        """Say in a line how many images were chosen before, and how many are now."""
        none = np.empty(0, np.int64)
        both = sum(len(np.intersect1d(rows, now.rows.get(shard, none))) for shard, rows in self.rows.items())
        return f"{len(now) - both:,} new images chosen, {len(self) - both:,} dropped, {both:,} stay"
