"""Files: atomic writing, JSON, Parquet, NumPy arrays, digests, and the provenance that artefacts carry.

Every file is written beside its place, flushed to the disk and renamed, so that a file that exists is whole: a killed
process leaves nothing but temporary files, which the next run removes. What is written to an address, such as
``s3://bucket/key``, is uploaded then. Parquet files carry their provenance in the schema metadata under ``rsprune``.
"""

from __future__ import annotations

import errno
import hashlib
import json
import math
import os
import zipfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from rsprune._core import VERSION
from rsprune.errors import DamagedFileError, FormatError, OutputError, RspruneError, ShapeError
from rsprune.storage import localize, written
from rsprune.temporaries import unfinished

if TYPE_CHECKING:
    import pyarrow as pa
    import pyarrow.parquet as pq

__all__ = [
    "abbreviate",
    "atomic_write",
    "canonical_json",
    "check_output_file",
    "check_output_folder",
    "check_pointer",
    "check_record",
    "config_diff",
    "digest",
    "file_digest",
    "is_own_npz",
    "parse_json",
    "provenance_header",
    "read_json",
    "read_provenance",
    "read_record",
    "read_table",
    "verified_record",
    "write_json",
    "write_npy",
    "write_npz",
    "write_record",
    "write_table",
    "write_tables",
    "write_text",
]

#: Rows of a row group of tables that are written piece by piece.
ROW_GROUP = 1 << 17

#: The comment of the archives that :func:`write_npz` writes.
NPZ_COMMENT = b"rsprune"


@contextmanager
def atomic_write(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Give a path to write to, beside ``path``; rename it to ``path`` at the end, or remove it after an error.

    Whoever reads ``path`` meanwhile, or after the process was killed, finds the old file or the new one. An error of
    the system names ``path``: a full disk tells no file by itself.
    """
    target = localize(path)
    target.parent.mkdir(parents=True, exist_ok=True)
    with unfinished(target) as beside:
        try:
            yield beside
            # Onto the disk before the name points to it: after a power cut the name must not lead to an empty file.
            with beside.open("rb+") as file:
                os.fsync(file.fileno())
            beside.replace(target)
            sync_folder(target.parent)
            written(target)
        except RspruneError:
            raise
        except OSError as error:
            if error.filename not in (None, os.fspath(beside)):
                raise
            reason = error.strerror or str(error).replace(os.fspath(beside), os.fspath(target))
            raise type(error)(error.errno or errno.EIO, reason, os.fspath(target)) from error


def sync_folder(folder: Path) -> None:
    """Flush the names in a folder to the disk, where the system can: a rename must outlive a power cut, too."""
    with suppress(OSError):  # Windows opens no folder, and some file systems do not flush one
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def check_output_file(path: str | os.PathLike[str], is_own: Callable[[Path], bool]) -> Path:
    """Fail where writing a file would replace one that the same command did not make; called before any work.

    Parameters
    ----------
    path
        The file to write.
    is_own
        Tells by the content of a file whether the command made it. It may raise what reading another file raises.

    Raises
    ------
    OutputError
        The file is there, and is another one; or it is a folder.
    """
    path = localize(path)
    if path.is_dir():
        message = f"{path} is a folder; expected the name of a file to write"
        raise OutputError(message)
    if path.exists():
        try:
            own = is_own(path)
        except (FormatError, OSError, ValueError):
            own = False
        if not own:
            message = f"{path} exists, and this command did not make it: give another name, or delete it"
            raise OutputError(message)
    return path


def check_output_folder(path: str | os.PathLike[str], *own: str) -> Path:
    """Fail where a folder holds files, but none of the names ``own``, by which a command knows its folders.

    Raises
    ------
    OutputError
        The folder holds something else; or it is a file.
    """
    path = localize(path)
    if path.exists() and not path.is_dir():
        message = f"{path} is a file; expected a folder to write to"
        raise OutputError(message)
    there = {entry.name for entry in path.iterdir() if not entry.name.startswith(".")} if path.is_dir() else set()
    if there and not there & set(own):
        message = f"{path} is not empty, and this command did not make it: give a new folder"
        raise OutputError(message)
    return path


def write_npy(path: str | os.PathLike[str], array: NDArray[Any]) -> None:
    """Write an array as a ``.npy`` file."""
    with atomic_write(path) as beside, beside.open("wb") as file:
        np.save(file, array)


def write_npz(path: str | os.PathLike[str], images: Iterable[NDArray[np.uint8]], count: int) -> None:
    """Write ``count`` images, one by one, as ``arr_0`` of an ``.npz`` file: uint8 (count, H, W, C), without a time.

    Raises
    ------
    ShapeError
        Images of different sizes.
    """
    shape: tuple[int, ...] | None = None
    with (
        atomic_write(path) as beside,
        zipfile.ZipFile(beside, "w", zipfile.ZIP_STORED) as archive,
        archive.open(zipfile.ZipInfo("arr_0.npy"), "w", force_zip64=True) as file,
    ):
        for image in images:
            if shape is None:
                shape = image.shape
                header = {"descr": "|u1", "fortran_order": False, "shape": (count, *shape)}
                np.lib.format.write_array_header_1_0(file, header)
            if image.shape != shape:
                message = f"images of shapes {shape} and {image.shape}; an .npz file holds one array of equal images"
                raise ShapeError(message)
            file.write(np.ascontiguousarray(image).data)
        archive.comment = NPZ_COMMENT


def is_own_npz(path: Path) -> bool:
    """Tell whether :func:`write_npz` wrote a file."""
    if not zipfile.is_zipfile(path):
        return False
    with zipfile.ZipFile(path) as archive:
        return archive.comment == NPZ_COMMENT


def canonical_json(value: Any) -> str:
    """JSON with sorted keys and no spaces to choose: equal values give equal text."""
    return json.dumps(value, sort_keys=True, ensure_ascii=False, separators=(",", ":"), allow_nan=False)


def digest(value: Any) -> str:
    """BLAKE2b-128 of a JSON value, in hexadecimal. Half a surrogate pair, as damage may leave, is no error."""
    return hashlib.blake2b(canonical_json(value).encode(errors="surrogatepass"), digest_size=16).hexdigest()


def file_digest(path: str | os.PathLike[str]) -> str:
    """BLAKE2b-128 of a file's content, in hexadecimal."""
    state = hashlib.blake2b(digest_size=16)
    with Path(path).open("rb") as file:
        while chunk := file.read(1 << 20):
            state.update(chunk)
    return state.hexdigest()


def write_text(path: str | Path, text: str) -> None:
    """Write a text file atomically."""
    with atomic_write(path) as beside:
        beside.write_text(text, encoding="utf-8", newline="\n")


def write_json(path: str | Path, value: Any) -> None:
    """Write a JSON file atomically, indented for people."""
    write_text(path, json.dumps(value, indent=2, sort_keys=True, ensure_ascii=False, allow_nan=False) + "\n")


def check_pointer(path: str | os.PathLike[str], error: type[Exception] = FormatError) -> None:
    """Refuse, with that ``error``, what Git LFS leaves in the place of a file that it has not fetched."""
    pointer = b"version https://git-lfs.github.com/spec/"
    if os.path.isfile(path):  # noqa: PTH113 - no pipe, which would wait for a writer
        with Path(path).open("rb") as file:
            if file.read(len(pointer)) == pointer:
                message = f"{path} is a Git LFS pointer, not the file itself: get that with `git lfs pull`"
                raise error(message)


def parse_json(text: str | bytes) -> Any:
    """Parse JSON; a number that is not finite, such as NaN or 1e999, is a ``ValueError``, as it is no JSON."""
    return json.loads(text, parse_float=_finite, parse_constant=_finite)


def _finite(text: str) -> float:
    if math.isfinite(number := float(text)):
        return number
    message = f"{text} is no finite number"
    raise ValueError(message)


def read_json(path: str | Path) -> dict[str, Any]:
    """Read a JSON file that holds an object.

    Raises
    ------
    FormatError
        It holds something else.
    """
    path = Path(path)
    check_pointer(path)
    try:
        value = parse_json(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        message = f"{path} is not JSON: {error}"
        raise FormatError(message) from error
    if not isinstance(value, dict):
        message = f"{path} should hold a JSON object, not {type(value).__name__}"
        raise FormatError(message)
    return value


def write_record(path: str | Path, value: Mapping[str, Any], files: Iterable[Path]) -> None:
    """Write a JSON object together with the digests of the ``files`` that it completes, and with its own."""
    path = Path(path)
    record = {**value, "files": {file.relative_to(path.parent).as_posix(): file_digest(file) for file in files}}
    write_json(path, record | {"digest": digest(record)})


def read_record(path: str | Path) -> dict[str, Any]:
    """Read what :func:`write_record` wrote. Its files are not looked at.

    Raises
    ------
    DamagedFileError
        The file is not as it was written.
    """
    try:
        record = read_json(path)
    except FormatError as error:
        raise DamagedFileError(str(error)) from error
    if record.pop("digest", None) != digest(record) or not isinstance(record.get("files"), dict):
        message = f"{path} is damaged: its content does not have the digest that it names"
        raise DamagedFileError(message)
    return record


def check_record(path: Path) -> None:
    """Compare a file with the digest in the record beside it; files without a record are passed over.

    Raises
    ------
    DamagedFileError
        It, or its record, is not as it was written.
    """
    beside = path.with_suffix(".json")
    try:
        if not {"digest", "files"} <= read_json(beside).keys():
            return
    except (FileNotFoundError, FormatError):
        return
    known = read_record(beside)["files"].get(path.name)
    if known is not None and known != file_digest(path):
        message = f"{path} is damaged: its content does not have the digest that {beside.name} names"
        raise DamagedFileError(message)


def verified_record(path: Path) -> dict[str, Any] | None:
    """Read a record whose files are all as they were written; None if it, or one of them, is missing or damaged."""
    try:
        record = read_record(path)
        whole = all(file_digest(path.parent / name) == known for name, known in record.pop("files").items())
    except (DamagedFileError, FileNotFoundError):
        return None
    return record if whole else None


def write_table(path: str | Path, table: pa.Table, provenance: Mapping[str, Any]) -> None:
    """Write a Parquet file atomically, with ``provenance`` in its schema metadata."""
    with table_writer(path, table.schema, provenance) as writer:
        writer.write_table(table)


def write_tables(path: str | Path, schema: pa.Schema, tables: Iterable[pa.Table], provenance: Mapping[str, Any]) -> int:
    """Write tables one behind the other, of which about a row group is in memory; return the number of rows.

    The file is the one that :func:`write_table` makes of the whole, where that has no more than a row group.
    """
    import pyarrow as pa

    with table_writer(path, schema, provenance) as writer:
        waiting, written = schema.empty_table(), 0
        for table in tables:
            waiting = pa.concat_tables([waiting, table])
            while len(waiting) >= ROW_GROUP:
                group, waiting = waiting.slice(0, ROW_GROUP), waiting.slice(ROW_GROUP).combine_chunks()
                written += len(group)
                columns = group.columns
                del table, group
                writer.write_table(contiguous(columns, schema))
        if len(waiting) or not written:
            written += len(waiting)
            columns = waiting.columns
            del waiting
            writer.write_table(contiguous(columns, schema))
        return written


def contiguous(columns: list[pa.ChunkedArray], schema: pa.Schema) -> pa.Table:
    """Make a table of one chunk a column. It takes the columns out of the list: only one of them is there twice."""
    import pyarrow as pa

    whole = [pa.table([columns.pop(0)], [field.name]).combine_chunks()[0] for field in schema]
    return pa.Table.from_arrays(whole, schema=schema)


@contextmanager
def table_writer(path: str | Path, schema: pa.Schema, provenance: Mapping[str, Any]) -> Iterator[pq.ParquetWriter]:
    """Open a Parquet file that is written beside its place, and put there at the end."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    schema = schema.with_metadata({"rsprune": canonical_json(provenance)})
    # A dictionary of measurements, hardly any of which occurs twice, takes more room than they do.
    measured = [field.name for field in schema if field.type in (pa.float32(), pa.float64())]
    form: dict[str, Any] = {"compression": "zstd", "write_page_checksum": True}
    if measured:
        form["use_dictionary"] = [name for name in schema.names if name not in measured]
        form["column_encoding"] = dict.fromkeys(measured, "BYTE_STREAM_SPLIT")
    with atomic_write(path) as beside, pq.ParquetWriter(beside, schema, **form) as writer:
        yield writer


def read_table(path: str | Path, columns: Sequence[str] | None = None) -> pa.Table:
    """Read a Parquet file whole, or some of its columns.

    Raises
    ------
    DamagedFileError
        A page has not the checksum that it was written with, or a value is out of its range.
    FormatError
        The file is not Parquet, or lacks a column.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    check_pointer(path)
    # A file of Arrow's own: one of Python's is let go of in Arrow's threads, which abort the process when it is ending.
    with pa.OSFile(os.fspath(path)) as file:
        try:
            wanted = None if columns is None else list(columns)
            table = pq.read_table(file, columns=wanted, page_checksum_verification=True)
            table.validate(full=True)
        except (pa.ArrowException, OSError, ValueError) as error:  # pyarrow raises them all for damaged files
            cause = next(iter(str(error).splitlines()), type(error).__name__)  # the rest may list all columns
            message = f"{path} is damaged, or not a Parquet file of rsprune: {cause}. Delete it and run again"
            raise DamagedFileError(message) from error
    if missing := [name for name in columns or () if name not in table.column_names]:
        message = f"{path} has no column {missing[0]!r}; it has {', '.join(table.column_names)}"
        raise FormatError(message)
    return table


def read_provenance(path: str | Path) -> dict[str, Any]:
    """Read the provenance of a Parquet file; empty when it carries none.

    Raises
    ------
    FormatError
        The file is not Parquet.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        return dict(parse_json((pq.read_schema(path).metadata or {}).get(b"rsprune", b"{}")))
    except (pa.ArrowException, OSError, TypeError, ValueError, RecursionError) as error:
        message = f"{path} is not a Parquet file of rsprune: {error}"
        raise FormatError(message) from error


def config_diff(old: Any, new: Any, where: str = "", names: tuple[str, str] = ("there", "now")) -> Iterator[str]:
    """Yield one line for each place where two JSON values differ; ``names`` say which of the two a value is in."""
    if isinstance(old, dict) and isinstance(new, dict):
        for name in sorted(old.keys() | new.keys()):
            yield from config_diff(old.get(name), new.get(name), f"{where}.{name}" if where else name, names)
    elif old != new:
        yield f"{where}: {abbreviate(old)} {names[0]}, {abbreviate(new)} {names[1]}"


def abbreviate(value: Any) -> str:
    """Print a JSON value in at most 60 characters."""
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 60 else text[:57] + "..."


def provenance_header() -> dict[str, str]:
    """What made an artefact: rsprune, whose version names its decoder too."""
    return {"rsprune": VERSION, "decoder": f"rsprune-core {VERSION}"}
