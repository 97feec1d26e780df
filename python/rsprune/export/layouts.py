"""The layouts that hold images: how a shard of an export is written, and how it is read back."""

from __future__ import annotations

import io
import json
import math
import os
import tarfile
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import pyarrow as pa
import pyarrow.parquet as pq
from typing_extensions import override

from rsprune.errors import SourceError
from rsprune.export.chosen import ChosenImages
from rsprune.export.images import encoded
from rsprune.export.names import file_stems, split_extension
from rsprune.io import atomic_write, canonical_json, write_table, write_text
from rsprune.sources import Item
from rsprune.sources.exported import FILE_NAME, METADATA
from rsprune.sources.filesystem import read_head
from rsprune.sources.formats import HEAD, extension_of

__all__ = [
    "FolderLayout",
    "HuggingFaceLayout",
    "Layout",
    "LinkLayout",
    "ParquetLayout",
    "Part",
    "Sample",
    "TarLayout",
    "local_file",
    "plain",
    "relative_path",
]

#: Images and bytes of a row group of Parquet: what a reader holds of it.
GROUP_IMAGES, GROUP_BYTES = 100, 1 << 25
#: The card of a data set, in the form that the Hub reads.
CARD = "README.md"
CARD_TEXT = """---
configs:
- config_name: default
  data_files:
  - split: train
    path: data/train-*.parquet
---

{images:,} of the {total:,} images of a collection, chosen by rsprune. Their license is that of the collection.

The columns: `image`; `key`, the name of the image in the collection, with its `shard` and `row`; `entropy` in bits;
`cluster`, the nearest reference centroid, and `similarity`, the cosine to it; `phase`, 0 for the quota of the cluster
and 1 for the rest of the budget. Those behind them are the collection's own.
"""
IMAGE = pa.field("image", pa.struct([pa.field("bytes", pa.binary()), pa.field("path", pa.string())]))


@dataclass(frozen=True)
class Sample:
    """An image on its way.

    Attributes
    ----------
    at
        Its place in the manifest.
    item
        What the source gives.
    data
        Its encoded bytes; empty for a link.
    name
        The path of its file below a folder.
    """

    at: int
    item: Item
    data: bytes
    name: str


@dataclass(frozen=True)
class Part:
    """Neighboring images of the manifest that are written together, and go on together when an export is resumed.

    Attributes
    ----------
    number
        Of the part.
    first, images
        The place of the first in the manifest, and how many there are.
    bytes
        What they take, encoded.
    labels
        The class of each.
    files
        The names of the files that hold them.
    """

    number: int
    first: int
    images: int
    bytes: int
    labels: list[str | None]
    files: list[str]


class Layout(ABC):
    """Writes the images of an export.

    Parameters
    ----------
    chosen
        The images.
    provenance
        What identifies the export, for the files that can carry it.
    """

    #: Whether names have neither folders nor dots.
    flat: ClassVar[bool] = False

    def __init__(self, chosen: ChosenImages, provenance: Mapping[str, Any]) -> None:
        self.chosen, self.provenance = chosen, provenance
        self._stems = file_stems(chosen.keys, flat=self.flat)
        self.labelled = chosen.has_labels and "label" not in chosen.manifest.column_names

    def sample(self, at: int, item: Item) -> Sample:
        """Make a sample of what the source gives."""
        data = encoded(item.key, item.data)
        return Sample(at, item, data, self.name(at, data))

    def name(self, at: int, head: bytes) -> str:
        """Return the path of an image: with the extension of its key, or if that has none with that of its content."""
        return self._stems[at] + (split_extension(self.chosen.keys[at])[1] or extension_of(head) or ".img")

    def rows(self, first: int, labels: Sequence[str | None]) -> pa.Table:
        """Return what the manifest says of neighboring images, with their classes where the collection has some."""
        table = self.chosen.manifest.slice(first, len(labels))
        return table.append_column("label", pa.array(labels, pa.string())) if self.labelled else table

    @abstractmethod
    def write(self, folder: Path, number: int, samples: Iterator[Sample]) -> list[str]:
        """Write the samples of a part below a folder; return the names of the files."""

    @abstractmethod
    def read_back(self, folder: Path, part: Part) -> Iterator[tuple[str, bytes]]:
        """Yield the key and the bytes of every image of a part from its files, in their order."""

    def complete(self, folder: Path, parts: Sequence[Part], digests: Mapping[str, str]) -> list[str]:
        """Write what goes with all parts; return the names of the files."""
        return []

    def place(self, name: str, parts: int) -> str:
        """Return where what lies at the top of the folder belongs when all parts are there."""
        return name


class FolderLayout(Layout):
    """Image files at their keys, and ``metadata.parquet`` with the name of each: what `datasets` calls imagefolder."""

    @override
    def write(self, folder: Path, number: int, samples: Iterator[Sample]) -> list[str]:
        names = []
        for sample in samples:
            path = folder / sample.name
            path.parent.mkdir(parents=True, exist_ok=True)
            self.write_file(folder, sample)
            names.append(sample.name)
        return names

    def write_file(self, folder: Path, sample: Sample) -> None:
        """Write one image."""
        (folder / sample.name).write_bytes(sample.data)

    @override
    def read_back(self, folder: Path, part: Part) -> Iterator[tuple[str, bytes]]:
        for at, name in enumerate(part.files, part.first):
            yield self.chosen.keys[at], (folder / name).read_bytes()

    @override
    def complete(self, folder: Path, parts: Sequence[Part], digests: Mapping[str, str]) -> list[str]:
        names = [name for part in parts for name in part.files]
        table = self.rows(0, [label for part in parts for label in part.labels])
        table = table.add_column(0, FILE_NAME, pa.array(names, pa.string()))
        if digests:
            table = table.append_column("digest", pa.array([digests[name] for name in names], pa.string()))
        write_table(folder / METADATA, table, self.provenance)
        return [METADATA]


class LinkLayout(FolderLayout):
    """Symbolic links to the image files of the collection, in the layout of a folder."""

    @override
    def sample(self, at: int, item: Item) -> Sample:
        return Sample(at, item, b"", self.name(at, read_head(local_file(item), HEAD)))

    @override
    def write_file(self, folder: Path, sample: Sample) -> None:
        link = folder / sample.name
        link.unlink(missing_ok=True)
        link.symlink_to(relative_path(local_file(sample.item), self._place(folder, sample.name)))

    @override
    def read_back(self, folder: Path, part: Part) -> Iterator[tuple[str, bytes]]:
        for at, name in enumerate(part.files, part.first):
            place = self._place(folder, name)
            os.stat(os.path.normpath(place / (folder / name).readlink()))  # noqa: PTH116
            yield self.chosen.keys[at], b""

    @staticmethod
    def _place(folder: Path, name: str) -> Path:
        """Return the folder that a link is moved to when the export is finished, two above."""
        return (folder.parents[1] / name).parent.resolve()


class TarLayout(Layout):
    """Tar files of WebDataset: of each image its file, its row of the manifest in JSON, its class and its key."""

    flat = True

    @override
    def write(self, folder: Path, number: int, samples: Iterator[Sample]) -> list[str]:
        name = f"{number:05d}.tar"
        with atomic_write(folder / name) as beside, tarfile.open(beside, "w", format=tarfile.PAX_FORMAT) as tar:
            for sample in samples:
                stem = self._stems[sample.at]
                row = self.rows(sample.at, [sample.item.label]).to_pylist()[0]
                members = {sample.name.removeprefix(stem): sample.data}
                members[".json"] = json.dumps(plain(row), ensure_ascii=False, sort_keys=True).encode()
                members[".img_name"] = row["key"].encode()  # as in RS5M: the key, whatever the file is called
                if sample.item.label is not None:
                    members[".cls"] = sample.item.label.encode()
                for extension, content in members.items():
                    info = tarfile.TarInfo(stem + extension)  # no time, no owner
                    info.size = len(content)
                    tar.addfile(info, io.BytesIO(content))
        return [name]

    @override
    def read_back(self, folder: Path, part: Part) -> Iterator[tuple[str, bytes]]:
        with tarfile.open(folder / part.files[0]) as tar:
            image = b""
            for member in tar:
                file = tar.extractfile(member)
                content = b"" if file is None else file.read()
                if member.name.endswith(".json"):
                    yield json.loads(content)["key"], image
                elif not member.name.endswith((".cls", ".img_name")):
                    image = content


class ParquetLayout(Layout):
    """Parquet files with a column of images, as `datasets` writes them, and the columns of the manifest."""

    @override
    def write(self, folder: Path, number: int, samples: Iterator[Sample]) -> list[str]:
        name = f"{number:05d}.parquet"
        with atomic_write(folder / name) as beside:
            schema = self._schema()
            with pq.ParquetWriter(beside, schema, write_page_checksum=True) as writer:
                group: list[Sample] = []
                for sample in samples:
                    group.append(sample)
                    if len(group) == GROUP_IMAGES or sum(len(one.data) for one in group) >= GROUP_BYTES:
                        writer.write_table(self._table(group, schema))
                        group = []
                if group:
                    writer.write_table(self._table(group, schema))
        return [name]

    def _schema(self) -> pa.Schema:
        features = {"info": {"features": {"image": {"_type": "Image"}}}}
        metadata = {"huggingface": json.dumps(features), "rsprune": canonical_json(self.provenance)}
        return pa.schema([IMAGE, *self.rows(0, [None]).schema], metadata=metadata)

    def _table(self, group: Sequence[Sample], schema: pa.Schema) -> pa.Table:
        images = pa.array([{"bytes": one.data, "path": one.name} for one in group], IMAGE.type)
        rows = self.rows(group[0].at, [one.item.label for one in group])
        return pa.Table.from_arrays([images, *rows.columns], schema=schema)

    @override
    def read_back(self, folder: Path, part: Part) -> Iterator[tuple[str, bytes]]:
        with pa.OSFile(str(folder / part.files[0])) as file, pq.ParquetFile(file) as table:
            for batch in table.iter_batches(GROUP_IMAGES, columns=["image.bytes", "key"]):
                for row in batch.to_pylist():
                    yield row["key"], row["image"]["bytes"]


class HuggingFaceLayout(ParquetLayout):
    """A data set as the Hub has it: ``data/train-00000-of-00005.parquet``, and a card that says what it is."""

    @override
    def complete(self, folder: Path, parts: Sequence[Part], digests: Mapping[str, str]) -> list[str]:
        write_text(folder / CARD, CARD_TEXT.format(images=len(self.chosen.keys), total=self.chosen.reader.images))
        return [CARD]

    @override
    def place(self, name: str, parts: int) -> str:
        return name if name == CARD else f"data/train-{Path(name).stem}-of-{parts:05d}.parquet"


def local_file(item: Item) -> str:
    """Return the path of an image that is a local file of its own.

    Raises
    ------
    SourceError
        It lies in a larger file, or elsewhere.
    """
    if isinstance(item.data, str):
        return item.data
    message = (
        f"links and lists need images that are local files of their own, and {item.key!r} lies in a larger file, or "
        "elsewhere: write it with --as folder, tar or parquet"
    )
    raise SourceError(message)


def relative_path(target: str, folder: Path) -> str:
    """Return the way from a folder to a file; the whole path where there is none, as between drives."""
    whole = os.path.abspath(target)  # noqa: PTH100 (the links of the collection stay)
    try:
        return os.path.relpath(whole, folder.resolve())
    except ValueError:
        return whole


def plain(value: Any) -> Any:
    """Make a JSON value of a cell: dates and the like are text, and what is no number is null."""
    if isinstance(value, dict):
        return {str(name): plain(one) for name, one in value.items()}
    if isinstance(value, list):
        return [plain(one) for one in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value if value is None or isinstance(value, (bool, int, float, str)) else str(value)
