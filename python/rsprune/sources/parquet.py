"""Parquet files: one file is one shard."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, ClassVar

from typing_extensions import Self

from rsprune.errors import SourceError
from rsprune.sources.filesystem import Ranges, local_path
from rsprune.sources.table import BATCH_BYTES, BATCH_ROWS, TableSource
from rsprune.storage import is_remote

if TYPE_CHECKING:
    import pyarrow as pa
    import pyarrow.parquet as pq

__all__ = ["ParquetSource"]

#: The split that a file belongs to, as the Hub names it: ``data/train-00000-of-00005.parquet``, ``train/0000.parquet``.
SPLIT = re.compile(r"/(train|validation|valid|val|dev|test)(?=[-/.][^/]*\.parquet$)")
#: What is read of a column at a time.
BUFFER_BYTES = 1 << 20
#: What is read at first of the end of a remote file, which says how long its footer is.
FOOTER_BYTES = 1 << 16


class ParquetSource(TableSource):
    """Parquet files with a column of images, such as the Hub's ``data/train-00000-of-00005.parquet``.

    Row groups are read one at a time, a batch of rows at a time, and only the columns that are needed.
    """

    reads: ClassVar[str] = "Parquet files (.parquet)"
    kind: ClassVar[str] = "parquet"
    extensions: ClassVar[tuple[str, ...]] = (".parquet",)

    @classmethod
    def open_folder(cls, root: str, paths: Sequence[str]) -> Self:
        """Open the files below a folder, which must be of one split.

        Raises
        ------
        SourceError
            There are files of several splits: a subset of them together is no subset of either.
        """
        splits: dict[str, list[str]] = {}
        for path in paths:
            match = SPLIT.search(path.removeprefix(root))
            splits.setdefault(match[1] if match else "", []).append(path)
        if len(splits) > 1:
            several = ", ".join(f"{name or 'no split'} ({len(found)})" for name, found in splits.items())
            path = next(path for name, found in splits.items() if name for path in found)
            folder, _, name = path.rpartition("/")
            numbered = re.match(r"(.*?)\d+-of-\d+", name)
            pattern = f"{folder}/{numbered[1] if numbered else ''}*.parquet"
            message = f"{root} has Parquet files of several splits: {several}. Give those of one: {pattern!r}"
            raise SourceError(message)
        return cls(paths)

    def read_schema(self, path: str) -> pa.Schema:
        """Read the columns of a file."""
        with _opened(path, footer=True) as file:
            return file.schema_arrow

    def count_rows(self, path: str) -> int:
        """Count the rows of a file."""
        with _opened(path, footer=True) as file:
            return int(file.metadata.num_rows)

    def batches(self, path: str, columns: Sequence[str], rows: Sequence[int]) -> Iterator[tuple[int, pa.RecordBatch]]:
        """Yield the batches that hold some of ascending ``rows``, and the number of each one's first row."""
        position = first = 0
        with _opened(path) as file:
            for number in range(file.num_row_groups):
                group = file.metadata.row_group(number)
                end = first + group.num_rows
                if position < len(rows) and rows[position] < end:
                    # Of all columns: damage in what is said of one of them would abort the process.
                    size = group.total_byte_size // max(group.num_rows, 1)
                    step = max(1, min(BATCH_ROWS, BATCH_BYTES // max(size, 1)))
                    at = first
                    for batch in file.iter_batches(step, row_groups=[number], columns=list(columns)):
                        if position < len(rows) and rows[position] < at + batch.num_rows <= end:
                            yield at, batch
                        at += batch.num_rows
                        while position < len(rows) and rows[position] < at:
                            position += 1
                        if position == len(rows) or rows[position] >= end:
                            break
                first = end


@contextmanager
def _opened(path: str, *, footer: bool = False) -> Iterator[pq.ParquetFile]:
    """Open a file, or its ``footer`` alone, for which a remote one is not fetched."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    if footer and is_remote(path):
        remote = Ranges(path)
        size = int(remote.length)
        tail = remote.read_at(FOOTER_BYTES, max(0, size - FOOTER_BYTES))
        length = int.from_bytes(tail[-8:-4], "little") + 8
        if len(tail) < length <= size:
            tail = remote.read_at(length, size - length)
        with pq.ParquetFile(pa.BufferReader(tail)) as opened:
            yield opened
        return
    # A file of Arrow's own: one of Python's is let go of in Arrow's threads, which abort the process when it is ending.
    with pa.OSFile(local_path(path)) as file, pq.ParquetFile(file, buffer_size=BUFFER_BYTES) as opened:
        yield opened
