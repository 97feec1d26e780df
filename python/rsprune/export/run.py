"""`rsprune export`: the images that a run chose, written out as a data set of their own."""

from __future__ import annotations

import csv
import errno
import hashlib
import io
import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from rsprune._core import VERSION
from rsprune.errors import (
    ArgumentError,
    ConfigMismatchError,
    DamagedFileError,
    RspruneError,
)
from rsprune.export.applications import EmbeddingAtlasLayout, FiftyOneLayout
from rsprune.export.chosen import ChosenImages
from rsprune.export.layouts import (
    FolderLayout,
    HuggingFaceLayout,
    Layout,
    LinkLayout,
    ParquetLayout,
    Part,
    Sample,
    TarLayout,
    local_file,
    relative_path,
)
from rsprune.export.options import SHARDED, ExportOptions
from rsprune.io import (
    check_output_file,
    check_output_folder,
    config_diff,
    digest,
    file_digest,
    read_json,
    read_record,
    read_table,
    verified_record,
    write_json,
    write_record,
    write_text,
)
from rsprune.options import keywords
from rsprune.runners import Progress, show_progress
from rsprune.runs.folder import REMEDIES, RunFolder
from rsprune.runs.reader import RunReader
from rsprune.sources import Item, SourceLike, check_outside
from rsprune.sources.exported import FILE_NAME, METADATA, RECORD, WORK
from rsprune.sources.key_lines import line_of_key
from rsprune.storage import address_of, localize, written
from rsprune.temporaries import remove_temporaries

__all__ = ["Export", "export_run"]

LAYOUTS: dict[str, type[Layout]] = {
    "folder": FolderLayout,
    "links": LinkLayout,
    "tar": TarLayout,
    "parquet": ParquetLayout,
    "hf": HuggingFaceLayout,
    "embedding-atlas": EmbeddingAtlasLayout,
    "fiftyone": FiftyOneLayout,
}
#: What a shard of Parquet or a tar file holds at most, if nothing is asked for, and how many images of their own files
#: are written before it is noted that they are there.
SHARD_BYTES, FOLDER_IMAGES = 500_000_000, 1000
#: How the names of lists end.
LISTS = (".csv", ".txt", ".lst")


@dataclass(frozen=True)
class Export:
    """A finished export.

    Attributes
    ----------
    path
        The folder, or the list.
    metrics
        The number of images, their bytes, and the number of files that hold them.
    """

    path: Path
    metrics: dict[str, Any]

    def describe(self) -> str:
        """Put it in a line."""
        size = f" ({self.metrics['bytes']:,} bytes)" if self.metrics["bytes"] else ""
        return f"{self.metrics['images']:,} images{size} written to {self.path}"


@keywords(ExportOptions)
def export_run(
    run: str | Path,
    source: SourceLike,
    *,
    to: str | Path,
    options: ExportOptions,
    progress: bool | Progress = True,
) -> Export:
    """Write the images that a run chose as a data set of their own.

    Encoded images are passed through byte by byte; pixels of stacks and scenes become PNG, without loss. What is
    written is read back and compared. An export that was stopped, in whatever way, goes on where it was when the same
    call is made again, and ends with the same bytes; nothing but a hidden folder is there before it is finished.

    Parameters
    ----------
    run
        The folder of a finished run.
    source
        The images of the run, as :func:`rsprune.prune` was given them.
    to
        The folder to write; of a list the file, ``.csv`` (with keys) or ``.txt``.
    progress
        As for :func:`rsprune.prune`.

    Raises
    ------
    UnfinishedRunError
        The run has not come to its end.
    KeyMismatchError
        ``source`` is not the collection of the run.
    OutputError
        ``to`` holds something else, or lies among the images.
    ConfigMismatchError
        ``to`` holds an export of another run, or in another layout.
    DamagedFileError
        What was written is not what is read back.
    """
    reader = RunReader(run, finished=True)
    images = reader.open_source(source)
    check_outside(to, images)
    if options.layout == "list" and Path(to).suffix.lower() not in LISTS:
        message = f"{os.fspath(to)} is no name of a list; expected one that ends in {', '.join(LISTS)}"
        raise ArgumentError(message)
    plan = {
        "rsprune": VERSION,
        "layout": options.layout,
        "run": reader.folder.run,
        "manifest": file_digest(reader.folder.selection),
        "shard_images": options.shard_images,
        "shard_bytes": options.shard_bytes,
    }
    place = localize(to)
    if options.layout == "list":
        check_output_file(place, _is_own_list)
        check_output_file(_record_of(place), lambda path: read_record(path)["layout"] == "list")
    else:
        _check_folder(place, plan)
    chosen = ChosenImages(reader, images)
    if options.layout in ("list", "links"):
        _check_files(chosen)
    with show_progress(progress) as shown, _no_room(place):
        if options.layout == "list":
            return _write_list(chosen, place, plan)
        return _Writer(chosen, to, plan, options).write(shown)


# --- folders ----------------------------------------------------------------------------------------------------------


class _Writer:
    """Writes an export into a hidden folder, part by part, and moves it to its place when it is whole."""

    def __init__(self, chosen: ChosenImages, to: str | Path, plan: Mapping[str, Any], options: ExportOptions) -> None:
        self.chosen, self.plan, self.address = chosen, plan, to
        self.place = localize(to)
        self.work = self.place / WORK
        self.files = self.work / "files"
        self.in_shards = not issubclass(LAYOUTS[options.layout], FolderLayout)
        self.images = options.shard_images or (len(chosen.keys) if self.in_shards else FOLDER_IMAGES)
        self.bytes = options.shard_bytes or (SHARD_BYTES if options.layout in SHARDED else None)
        self.of_links = options.layout == "links"

    def write(self, progress: Progress) -> Export:
        """Write what is not there yet."""
        is_new = not self.place.exists()
        with RunFolder(self.work).lock():
            if (self.place / RECORD).is_file():
                _verify(self.place)
            else:
                try:
                    write_json(self.work / "plan.json", self.plan)
                    if not (self.work / RECORD).is_file():
                        self._write_parts(progress)
                except BaseException:
                    if not any(self.work.glob("0*.json")):  # nothing to go on with
                        shutil.rmtree(self.work)
                        if is_new:
                            self.place.rmdir()
                    raise
                self._move()
            shutil.rmtree(self.work)
        record = read_record(self.place / RECORD)
        names = ("layout", "images", "bytes", "parts")
        return Export(self.place, {name: record[name] for name in names})

    def _write_parts(self, progress: Progress) -> None:
        layout = LAYOUTS[self.plan["layout"]](self.chosen, self.plan)
        self.files.mkdir(exist_ok=True)
        remove_temporaries(self.work)
        parts: list[Part] = []
        digests: dict[str, str] = {}
        done = 0
        while (found := self._read_part(len(parts))) is not None:
            parts.append(found[0])
            digests |= found[1]
            done += found[0].images
        total = len(self.chosen.keys)
        progress.start("export", total, done)
        stream = _Stream(layout, self.chosen.read(done))
        while done < total:
            part = self._write_part(layout, len(parts), done, stream, progress)
            record = self.work / f"{part.number:06d}.json"
            write_record(record, {"part": asdict(part)}, [] if self.of_links else map(self.files.joinpath, part.files))
            digests |= read_record(record)["files"]
            parts.append(part)
            done += part.images
        progress.finish()
        named = {name.removeprefix("files/"): value for name, value in digests.items()}
        others = layout.complete(self.files, parts, named)
        # Those of single images stand in their table.
        kept = {layout.place(name, len(parts)): value for name, value in named.items()} if self.in_shards else {}
        record_of_all = {
            **self.plan,
            "images": total,
            "bytes": sum(part.bytes for part in parts),
            "parts": len(parts),
            "metadata": self.chosen.metadata_names,
            "files": kept | {name: file_digest(self.files / name) for name in others},
        }
        if self.in_shards:
            for part in parts:
                for name in part.files:
                    target = self.files / layout.place(name, len(parts))
                    target.parent.mkdir(parents=True, exist_ok=True)
                    (self.files / name).replace(target)
        if hasattr(os, "sync"):
            os.sync()  # files of their own were not flushed one by one
        write_json(self.work / RECORD, record_of_all | {"digest": digest(record_of_all)})

    def _read_part(self, number: int) -> tuple[Part, dict[str, str]] | None:
        """Read the record of a part that is whole."""
        path = self.work / f"{number:06d}.json"
        if (record := verified_record(path)) is None:
            return None
        return Part(**record["part"]), read_record(path)["files"]

    def _write_part(self, layout: Layout, number: int, first: int, stream: _Stream, progress: Progress) -> Part:
        """Write a part, and compare what is read back with what was written, and with the manifest."""
        taken: list[tuple[str, str]] = []
        labels: list[str | None] = []
        size = 0

        def samples() -> Iterator[Sample]:
            nonlocal size
            for sample in stream.take(self.images, self.bytes):
                taken.append((sample.item.key, _digest(sample.data)))
                labels.append(sample.item.label)
                size += len(sample.data)
                progress.advance(1)
                yield sample

        files = layout.write(self.files, number, samples())
        part = Part(number, first, len(labels), size, labels, files)
        keys = self.chosen.keys[first : first + part.images]
        found = [(key, _digest(data)) for key, data in layout.read_back(self.files, part)]
        if found != [(key, known) for key, (_, known) in zip(keys, taken, strict=True)]:
            message = f"{self.files / files[0]} does not hold what was written to it: check the disk, and run again"
            raise DamagedFileError(message)
        return part

    def _move(self) -> None:
        """Move everything to its place, the record last."""
        for path in sorted(self.files.iterdir()):
            path.replace(self.place / path.name)
        if address_of(self.address) is not None:
            for path in sorted(self.place.rglob("*")):
                if path.is_file() and path.relative_to(self.place).parts[0] != WORK:
                    written(path)
        (self.work / RECORD).replace(self.place / RECORD)
        written(self.place / RECORD)


class _Stream:
    """The samples that are still to be written, of which a part takes some."""

    def __init__(self, layout: Layout, items: Iterator[tuple[int, Item]]) -> None:
        self._layout, self._items = layout, items
        self._next = self._read()

    def take(self, images: int, size: int | None) -> Iterator[Sample]:
        """Yield as many as go into a part, one at least."""
        count = total = 0
        while (sample := self._next) is not None and count < images:
            count, total = count + 1, total + len(sample.data)
            if count > 1 and size is not None and total > size:
                return
            yield sample
            self._next = self._read()

    def _read(self) -> Sample | None:
        if (found := next(self._items, None)) is None:
            return None
        at, item = found
        try:
            return self._layout.sample(at, item)
        except FileNotFoundError as error:
            reason = f"the run chose the image {item.key!r}, and it is not there any more. Restore it, and run again"
            raise FileNotFoundError(errno.ENOENT, reason, error.filename) from error


def _check_folder(place: Path, plan: Mapping[str, Any]) -> None:
    """Fail where a folder holds anything but this very export."""
    for path, read in ((place / RECORD, read_record), (place / WORK / "plan.json", read_json)):
        if not path.is_file():
            continue
        there = read(path)
        if "layout" not in there:
            break
        if differences := list(config_diff({name: there.get(name) for name in plan}, dict(plan))):
            lines = "\n".join(f"  {line}" for line in differences)
            message = f"{place} holds another export:\n{lines}\nGive the new export another folder, or delete this one"
            raise ConfigMismatchError(message)
        return
    check_output_folder(place)


def _verify(place: Path) -> None:
    """Compare the files of an export with its record, and images of their own with their table."""
    files = dict(read_record(place / RECORD)["files"])
    if METADATA in files and (place / METADATA).is_file():
        table = read_table(place / METADATA)
        if "digest" in table.column_names:
            files |= zip(table[FILE_NAME].to_pylist(), table["digest"].to_pylist(), strict=True)
    for name, known in files.items():
        path = place / name
        if not path.is_file() or file_digest(path) != known:
            message = f"{path} is not as `rsprune export` wrote it. Delete {place}, and export again"
            raise DamagedFileError(message)


def _digest(data: bytes) -> str:
    return hashlib.blake2b(data, digest_size=16).hexdigest()


# --- lists ------------------------------------------------------------------------------------------------------------


def _check_files(chosen: ChosenImages) -> None:
    """Fail where images are no files of their own, before anything is written."""
    for item in chosen.first_items:
        local_file(item)


def _write_list(chosen: ChosenImages, place: Path, plan: Mapping[str, Any]) -> Export:
    """Write the paths of the images, from the folder of the list on."""
    place.parent.mkdir(parents=True, exist_ok=True)
    text = io.StringIO()
    is_csv = place.suffix.lower() == ".csv"
    columns = ["path", "key", *(["label"] if chosen.has_labels else [])]
    writer = csv.writer(text, quoting=csv.QUOTE_ALL, lineterminator="\n")
    if is_csv:
        text.write(",".join(columns) + "\n")
    for _, item in chosen.read():
        file = local_file(item)
        if not os.path.isfile(file):  # noqa: PTH113 (millions)
            reason = f"the run chose the image {item.key!r}, and it is not there any more. Restore it, and run again"
            raise FileNotFoundError(errno.ENOENT, reason, file)
        path = relative_path(file, place.parent)
        if is_csv:
            writer.writerow([path, item.key, *([item.label or ""] if chosen.has_labels else [])])
        else:
            text.write(line_of_key(path) + "\n")
    content = text.getvalue()
    # The record first: by it the command knows its list again, if it was killed between the two.
    record = {**plan, "images": len(chosen.keys), "files": {place.name: _digest(content.encode())}}
    write_json(_record_of(place), record | {"digest": digest(record)})
    write_text(place, content)
    return Export(place, {"layout": "list", "images": len(chosen.keys), "bytes": 0, "parts": 1})


def _record_of(place: Path) -> Path:
    return place.with_name(f"{place.name}.json")


def _is_own_list(path: Path) -> bool:
    return bool(read_record(_record_of(path))["files"].get(path.name) == file_digest(path))


@contextmanager
def _no_room(place: Path) -> Iterator[None]:
    """Say what to do where a disk is full."""
    try:
        yield
    except RspruneError:
        raise
    except OSError as error:
        if error.errno not in REMEDIES:
            raise
        reason = f"{error.strerror}: {REMEDIES[error.errno]}, and the same command goes on where it was"
        raise OSError(error.errno, reason, os.fspath(place)) from error
