"""The layouts that applications open: a table for Embedding Atlas, and a data set for FiftyOne."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from typing_extensions import override

from rsprune import _core
from rsprune.export.chosen import ChosenImages
from rsprune.export.layouts import FolderLayout, ParquetLayout, Part, plain
from rsprune.io import atomic_write, write_json
from rsprune.report.embedding_map import draw_sample, principal_plane
from rsprune.runs.schema import manifest_schema

__all__ = ["EmbeddingAtlasLayout", "FiftyOneLayout"]

#: The columns of places on the map, and how many are made at a time.
PLACES = pa.schema([pa.field("x", pa.float64()), pa.field("y", pa.float64())])
BLOCK = 10_000
#: FiftyOne's two files, and the release whose form they have: later ones bring it up to theirs.
DATA_SET, SAMPLES, RELEASE = "metadata.json", "samples.json", "1.0.0"
#: Fields that FiftyOne has for itself.
OWN = ("id", "filepath", "tags", "metadata", "created_at", "last_modified_at", "media_type", "media_reference", "pk")


class EmbeddingAtlasLayout(ParquetLayout):
    """A single file of Parquet with the place of every image on the map, if the run kept its embeddings."""

    def __init__(self, chosen: ChosenImages, provenance: Mapping[str, Any]) -> None:
        super().__init__(chosen, provenance)
        self._places = map_places(chosen)

    @override
    def rows(self, first: int, labels: Sequence[str | None]) -> pa.Table:
        table = super().rows(first, labels)
        if self._places is None:
            return table
        x, y = self._places[first : first + len(labels)].T
        columns = [pa.array(x), pa.array(y), *table.columns]
        return pa.Table.from_arrays(columns, schema=manifest_schema(PLACES, table.schema))

    @override
    def place(self, name: str, parts: int) -> str:
        return "images.parquet"


class FiftyOneLayout(FolderLayout):
    """Image files below ``data/``, with the manifest as fields of FiftyOne's own files, and as in other folders."""

    @override
    def name(self, at: int, head: bytes) -> str:
        return f"data/{super().name(at, head)}"

    @override
    def complete(self, folder: Path, parts: Sequence[Part], digests: Mapping[str, str]) -> list[str]:
        files = [name for part in parts for name in part.files]
        table = self.rows(0, [label for part in parts for label in part.labels])
        types = field_types(table.schema)
        fields = [{"name": name, "ftype": f"fiftyone.core.fields.{type_}"} for name, type_ in types.items()]
        write_json(folder / DATA_SET, {"version": RELEASE, "media_type": "image", "sample_fields": fields})
        batches = table.rename_columns(list(types)).to_batches(max_chunksize=BLOCK)
        rows = (row for batch in batches for row in batch.to_pylist())
        order = (_core.hash64(0, 0, len(files)) / 2.0**64).tolist()  # in which FiftyOne shuffles
        with atomic_write(folder / SAMPLES) as beside, beside.open("w", encoding="utf-8", newline="\n") as file:
            file.write('{"samples": [')
            for at, (name, row) in enumerate(zip(files, rows, strict=True)):
                sample = {"filepath": name, "tags": [], "_media_type": "image", "_rand": order[at]}
                sample |= {field: field_value(value, types[field]) for field, value in row.items()}
                file.write(f"{',' if at else ''}\n{json.dumps(sample, ensure_ascii=False)}")
            file.write("\n]}\n")
        return [*super().complete(folder, parts, digests), DATA_SET, SAMPLES]


def map_places(chosen: ChosenImages) -> NDArray[np.float64] | None:
    """Return the places of images in the plane of the report's map, (N, 2); None if the run kept no embeddings."""
    run, row = chosen.reader, chosen.manifest["row"].to_numpy()
    if not run.config.get("keep_embeddings", False):
        return None
    sample = draw_sample(run)
    mean, plane, _ = principal_plane(np.concatenate([sample.rows, sample.references]))
    places = np.empty((len(row), 2))
    for shard, at in chosen.by_shard:
        embedded = run.assignments(shard, ["row"])["row"].to_numpy()
        stored = np.load(run.folder.verify(run.folder.embeddings(shard)), mmap_mode="r")
        for some in np.array_split(at, len(at) // BLOCK + 1):
            places[some] = (stored[np.searchsorted(embedded, row[some])] - mean) @ plane
    return places


def field_types(schema: pa.Schema) -> dict[str, str]:
    """Return the types of FiftyOne's fields for columns, by names that it takes."""
    names = [re.sub(r"[.$]", "_", name).lstrip("_") or "column" for name in schema.names]
    own = pa.schema([(name, pa.null()) for name in OWN])
    fields = list(manifest_schema(own, pa.schema(list(zip(names, schema.types, strict=True)))))
    return {field.name: field_type(field.type) for field in fields[len(own) :]}


def field_type(type_: pa.DataType) -> str:
    """Return the type of a field for that of a column: text where there is no other, as for uint64."""
    if pa.types.is_boolean(type_):
        return "BooleanField"
    if pa.types.is_integer(type_) and type_ != pa.uint64():
        return "IntField"
    return "FloatField" if pa.types.is_floating(type_) else "StringField"


def field_value(value: Any, type_: str) -> Any:
    """Make the value of a field; text of lists and the like is JSON."""
    value = plain(value)
    is_ready = type_ != "StringField" or value is None or isinstance(value, str)
    return value if is_ready else json.dumps(value, ensure_ascii=False)
