"""A folder that `rsprune export` wrote: image files, or links to some, and a table of their keys."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import suppress
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from rsprune.errors import FormatError, SourceError
from rsprune.io import read_record, read_table
from rsprune.sources.base import Shard
from rsprune.sources.filesystem import check_regular, join, local_path
from rsprune.sources.image_files import SHARD_IMAGES, FileSource, NamedFile
from rsprune.storage import is_remote

if TYPE_CHECKING:
    import pyarrow as pa

__all__ = ["FILE_NAME", "METADATA", "RECORD", "WORK", "ExportedFolder", "exported_layout"]

#: The record of a finished export, the folder of one that goes on, the table of the files, and its column of names.
RECORD, WORK, METADATA, FILE_NAME = "export.json", ".export", "metadata.parquet", "file_name"


class ExportedFolder(FileSource):
    """The images of an export as files, by the keys that they had in their collection.

    Parameters
    ----------
    root : str or Path
        The folder, or its address.

    Raises
    ------
    DamagedFileError
        Its record or its table is not as it was written.
    """

    def __init__(self, root: str | Path) -> None:
        self.folders = [root]
        self._columns = list(read_record(local_path(join(os.fspath(root), RECORD))).get("metadata", []))
        super().__init__("folder", root, self._listed(os.fspath(root)))

    def _listed(self, root: str) -> Iterator[NamedFile]:
        table = read_table(local_path(join(root, METADATA)))
        labels = table["label"].to_pylist() if "label" in table.column_names else [None] * len(table)
        for key, label, name in zip(table["key"].to_pylist(), labels, table[FILE_NAME].to_pylist(), strict=True):
            yield NamedFile(key, "" if label is None else str(label), path=name)

    @property
    def metadata_schema(self) -> pa.Schema:
        """The columns that the collection has given."""
        return self._metadata.schema

    def read_metadata(self, shard: Shard, rows: Sequence[int]) -> pa.Table:
        """Read the metadata of some images of a shard."""
        first = self.shards.index(shard) * SHARD_IMAGES
        return self._metadata.take([first + row for row in rows])

    @property
    def metadata_at_hand(self) -> bool:
        """It is: one table has it."""
        return True

    @cached_property
    def _metadata(self) -> pa.Table:
        return read_table(local_path(join(self._root, METADATA)), self._columns).replace_schema_metadata(None)


def exported_layout(root: str | Path) -> str | None:
    """Return the layout in which a folder was exported; None if it was not.

    Raises
    ------
    SourceError
        It is an export that was not finished.
    """
    root = os.fspath(root)
    try:
        check_regular(join(root, RECORD))
    except OSError:
        # What is not finished is not uploaded.
        if not is_remote(root) and Path(root, WORK, "plan.json").is_file():
            message = f"{root} holds an export that is not finished: run its `rsprune export` again"
            raise SourceError(message) from None
        return None
    with suppress(FormatError):  # of another program, or none of ours any more
        return read_record(local_path(join(root, RECORD))).get("layout")
    return None
