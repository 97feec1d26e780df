"""Arrow files, as ``save_to_disk`` of the library ``datasets`` writes them: one file is one shard."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from typing_extensions import Self

from rsprune.errors import EmptyInputError, SourceError
from rsprune.io import read_json
from rsprune.sources.filesystem import file_size, join, local_path
from rsprune.sources.table import TableSource
from rsprune.storage import is_remote

if TYPE_CHECKING:
    import pyarrow as pa

__all__ = ["ArrowSource", "data_set_files"]

STATE, SPLITS = "state.json", "dataset_dict.json"
#: What an Arrow stream ends with, and what a file of Arrow's other format begins and ends with.
END, FILE_MARK = b"\xff\xff\xff\xff\0\0\0\0", b"ARROW1"


class ArrowSource(TableSource):
    """Arrow files with a column of images: a folder of ``save_to_disk``, or files by themselves.

    Of a folder with several splits one is named behind ``#``. The rows are those of the data set, in its order. Files
    are mapped into memory, and a batch of rows is touched at a time.
    """

    reads: ClassVar[str] = "a data set of save_to_disk ('folder#train'), Arrow files (.arrow)"
    kind: ClassVar[str] = "arrow"
    extensions: ClassVar[tuple[str, ...]] = (".arrow",)
    beside: ClassVar[str] = ".json"

    @classmethod
    def matches(cls, spec: str | os.PathLike[str] | Sequence[Any]) -> bool:
        """Return whether ``spec`` is a folder of ``save_to_disk``, or names Arrow files."""
        if isinstance(spec, str) and not is_remote(spec):
            folder = _split(spec)[0]
            if any(Path(folder, name).is_file() for name in (STATE, SPLITS)):
                return True
        return super().matches(spec) or (isinstance(spec, str) and is_remote(spec) and bool(_split(spec)[1]))

    @classmethod
    def open(cls, spec: Any, image_column: str | None = None) -> Self:
        """Open a folder, or the files that ``spec`` stands for."""
        if super().matches(spec):
            return super().open(spec, image_column)
        return cls(data_set_files(*_split(spec))).with_column(image_column)

    @classmethod
    def open_folder(cls, root: str, paths: Sequence[str]) -> Self:
        """Open a folder of a data set that ``datasets`` has saved, or of other Arrow files."""
        saved = _is_there(join(root, STATE)) or _is_there(join(root, SPLITS))
        return cls(data_set_files(root, None) if saved else paths)

    def read_schema(self, path: str) -> pa.Schema:
        """Read the columns of a file."""
        with _opened(path) as reader:
            return reader.schema

    def count_rows(self, path: str) -> int:
        """Count the rows of a file: reads what stands before each batch."""
        import pyarrow as pa

        with _opened(path) as reader:
            rows: int = sum(batch.num_rows for batch in _all(reader))
        with pa.OSFile(local_path(path)) as file:
            size = file.size()
            mark = file.read_at(len(FILE_MARK), 0)
            if mark != FILE_MARK and file.read_at(len(END), max(size - len(END), 0)) != END:
                message = f"it has no mark of its end behind {rows:,} rows"
                raise pa.ArrowInvalid(message)
        return rows

    def batches(self, path: str, columns: Sequence[str], rows: Sequence[int]) -> Iterator[tuple[int, pa.RecordBatch]]:
        """Yield the batches that hold some of ascending ``rows``, and the number of each one's first row."""
        position = first = 0
        with _opened(path, columns) as reader:
            for batch in _all(reader):
                end = first + batch.num_rows
                if position < len(rows) and rows[position] < end:
                    batch.validate(full=True)
                    yield first, batch
                while position < len(rows) and rows[position] < end:
                    position += 1
                if position == len(rows):
                    return
                first = end


def data_set_files(folder: str, split: str | None) -> list[str]:
    """List the files of a data set in their order, of one split if there are several.

    Raises
    ------
    SourceError
        There is no such split, or several and none is named; or the data set has an index of its rows beside them.
    EmptyInputError
        It has no rows.
    """
    if _is_there(join(folder, SPLITS)):
        splits = read_json(local_path(join(folder, SPLITS))).get("splits", [])
        if split is None and len(splits) == 1:
            split = splits[0]
        if split is None or split not in splits:
            what = "has several splits" if split is None else f"has no split {split!r}"
            example = f"'{folder}#{splits[0]}'" if splits else "another folder"
            message = f"{folder} {what}; its splits are {', '.join(map(str, splits))}. Name one of them: {example}"
            raise SourceError(message)
        folder = join(folder, split)
    elif split is not None:
        message = f"{folder} has no splits: leave out '#{split}'"
        raise SourceError(message)
    state = read_json(local_path(join(folder, STATE)))
    if state.get("_indices_files") or state.get("_indices_data_files"):
        message = (
            f"{folder} has an index that reorders its rows, which current versions of datasets do not read: write it "
            "anew with datasets 1.x, flatten_indices() and save_to_disk()"
        )
        raise SourceError(message)
    files = [join(folder, file["filename"]) for file in state.get("_data_files", [])]
    if not files:
        message = f"{folder} is a data set without rows"
        raise EmptyInputError(message)
    return files


def _split(spec: str) -> tuple[str, str | None]:
    folder, mark, split = spec.rpartition("#")
    return (folder.rstrip("/"), split) if mark and not Path(spec).exists() else (spec.rstrip("/") or spec, None)


def _is_there(path: str) -> bool:
    try:
        return file_size(path) >= 0
    except (FileNotFoundError, NotADirectoryError):
        return False


@contextmanager
def _opened(path: str, columns: Sequence[str] | None = None) -> Iterator[Any]:
    """Open a file of either of Arrow's formats, for some of its columns."""
    import pyarrow as pa
    from pyarrow import ipc

    with pa.memory_map(local_path(path)) as file:
        is_file = file.read(len(FILE_MARK)) == FILE_MARK
        file.seek(0)
        open_reader = ipc.open_file if is_file else ipc.open_stream
        if columns is None:
            with open_reader(file) as reader:
                yield reader
            return
        with open_reader(file) as reader:
            names = reader.schema.names
        file.seek(0)
        fields = [names.index(name if name in names else name.rpartition(".")[0]) for name in columns]
        options = ipc.IpcReadOptions(included_fields=fields)
        with open_reader(file, options=options) as reader:
            yield reader


def _all(reader: Any) -> Iterator[pa.RecordBatch]:
    """Yield the batches of a reader of either kind."""
    if hasattr(reader, "num_record_batches"):
        return map(reader.get_batch, range(reader.num_record_batches))
    return iter(reader)
