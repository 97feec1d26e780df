"""The one reader of run folders: it checks whatever it reads against its digest and its range."""

from __future__ import annotations

import contextlib
from collections.abc import Collection, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from rsprune.centroids import Centroids
from rsprune.entropy import SCORES
from rsprune.errors import ConfigMismatchError, DamagedFileError, UnfinishedRunError
from rsprune.io import digest, read_record, read_table
from rsprune.runs.checks import REMEDY, check_config, check_summary, check_table
from rsprune.runs.folder import RunFolder
from rsprune.runs.rows import RunIndex, ShardRows, positions_of
from rsprune.runs.schema import EMBEDDING_SCHEMA, QUARANTINE_SCHEMA, SELECTION_SCHEMA
from rsprune.runs.summary import KeyForm, key_form
from rsprune.selection import COUNTS, Selection
from rsprune.sources import Source, SourceLike, open_source
from rsprune.sources.damaged import without_shards
from rsprune.sources.keys import check_keys, compare_keys

__all__ = ["NOT_CHOSEN", "PHASES", "RunIndex", "RunReader", "ShardRows", "open_as_run", "positions_of"]

#: The phases, as ``selection.parquet`` numbers them.
PHASES = ("quota", "fill", "preselected")
NOT_CHOSEN = -1
KEYS_NOTE = "names repeat from shard to shard: the key of an image is shard/name"


class RunReader:
    """Reads a run folder, shard by shard.

    Parameters
    ----------
    run
        The folder.
    finished
        Whether the run must have come to its end.

    Attributes
    ----------
    config
        The configuration of the run.

    Raises
    ------
    FileNotFoundError
        It is no run folder.
    UnfinishedRunError
        The run has not come to its end, or, in the methods, not to what is asked for.
    DamagedFileError
        A file, here or in the methods, is not as it was written.
    """

    def __init__(self, run: RunFolder | str | Path, *, finished: bool = False) -> None:
        self.folder = run if isinstance(run, RunFolder) else RunFolder(run)
        self.config = self.folder.read_config()
        check_config(self.folder.config, self.config)
        self._joined: set[str] = set()
        self._finished = finished
        if finished:
            if "selection" not in self.config:
                stages = "`rsprune entropy`, `embed` or `centroids` has written it"
                message = f"{self.folder.path} holds no choice of images: {stages}. `rsprune prune` chooses"
                raise UnfinishedRunError(message)
            self.summary  # noqa: B018 (raises)
            for path in (self.folder.quarantine, self.folder.selection):
                self.folder.verify(path)

    def __iter__(self) -> Iterator[ShardRows]:
        return map(self.rows, self.shards)

    # --- the run as a whole ------------------------------------------------------------------------------------------

    @cached_property
    def shards(self) -> tuple[str, ...]:
        """The names of the shards that are done, sorted."""
        rooms = (self.folder.path / room for room in ("entropy", "embeddings"))
        return tuple(sorted({path.stem for room in rooms for path in room.glob("*.json")}))

    @cached_property
    def summary(self) -> dict[str, Any]:
        """The metrics of a finished run."""
        path = self.folder.summary
        if not path.is_file():
            message = f"the run in {self.folder.path} is not finished: it has no {path.name}. {REMEDY}"
            raise UnfinishedRunError(message)
        summary = read_record(path)
        if summary.pop("basis", None) != self.folder.run:
            message = f"{path} belongs to another configuration than {self.folder.config}. {REMEDY}"
            raise DamagedFileError(message)
        del summary["files"]
        check_summary(path, summary, needs=None if self._finished else {})
        return summary

    @cached_property
    def index(self) -> RunIndex:
        """The numbers of the rows."""
        counts = [pq.read_metadata(self.folder.verify(self.folder.entropy(one))).num_rows for one in self.shards]
        return RunIndex(self.shards, np.cumsum([0, *counts]))

    @property
    def images(self) -> int:
        """The images of the whole collection, those included that were dropped or could not be read."""
        return int(self.config["source"]["images"])

    def option(self, name: str, default: str) -> str:
        """Return an option of the selection."""
        return str(self.config.get("selection", {}).get(name, default))

    @property
    def within(self) -> str:
        """The option ``within`` of the selection."""
        return self.option("within", "nearest")

    @property
    def fill(self) -> str:
        """The option ``fill`` of the selection."""
        return self.option("fill", "global")

    @property
    def strategy(self) -> str:
        """The strategy of Stage II."""
        return self.option("strategy", "rsprune")

    @property
    def centroids(self) -> Centroids:
        """The reference centroids."""
        return Centroids.load(self.folder.verify(self.folder.centroids))

    @property
    def reference(self) -> RunReader | None:
        """The reference images of the run; None if it has none of its own."""
        folder = self.folder.reference()
        return RunReader(folder) if folder.config.is_file() else None

    @cached_property
    def key_form(self) -> KeyForm:
        """How a key is made of an image's name: a finished run says, and otherwise all names are looked at."""
        with contextlib.suppress(UnfinishedRunError, DamagedFileError):
            form: KeyForm = self.summary.get("keys", "name")
            return form
        return key_form(
            self.names(shard) if self.folder.entropy(shard).is_file() else self.assignments(shard, ["key"])["key"]
            for shard in self.shards
        )

    def keys_note(self) -> list[str]:
        """Say how images are named, in a line, if it is not by their names alone."""
        return [KEYS_NOTE] if self.key_form == "shard/name" else []

    def as_keys(self, shard: str, names: pa.ChunkedArray) -> pa.ChunkedArray:
        """Make keys of names in a shard."""
        return names if self.key_form == "name" else pc.binary_join_element_wise(shard, names, "/")

    def as_names(self, shard: str, keys: Sequence[str]) -> list[str]:
        """Make names in a shard of keys."""
        return list(keys) if self.key_form == "name" else [key.removeprefix(f"{shard}/") for key in keys]

    # --- tables ------------------------------------------------------------------------------------------------------

    def table(self, path: Path, columns: Sequence[str] | None = None) -> pa.Table:
        """Read a table of the folder, or some of its columns."""
        table = read_table(self.folder.verify(path), columns)
        check_table(path, table, self.folder.schema(path), whole=columns is None)
        return table

    def selected(self, columns: Sequence[str] | None = None) -> pa.Table:
        """Read the manifest. Its rows must be rows of their shards, and its clusters those of the summary."""
        table = self.table(self.folder.selection, columns)
        if not {"shard", "row"} <= set(table.column_names):
            return table
        known, row = set(self.shards), table["row"].to_numpy()
        for shard, at in positions_of(table["shard"]):
            rows = row[at]
            size = self.index.count(shard) if shard in known else 0
            if rows.max() >= size or len(np.unique(rows)) < len(rows):
                message = f"{self.folder.selection} is damaged: it names rows that {shard} does not have. {REMEDY}"
                raise DamagedFileError(message)
        return table

    def metadata_names(self) -> list[str]:
        """Return the columns of the manifest that the collection gave; none if there is no manifest."""
        there = pq.read_schema(self.folder.selection).names if self.folder.selection.is_file() else []
        return [name for name in there if name not in SELECTION_SCHEMA.names]

    def metadata(self, places: Collection[tuple[str, int]]) -> dict[tuple[str, int], dict[str, Any]]:
        """Read what the collection said of images that were chosen, by shard and row; empty if it said nothing."""
        wanted = pa.array(sorted({row for _, row in places}), pa.int64())
        names = self.metadata_names()
        with pq.ParquetFile(self.folder.verify(self.folder.selection)) as file:
            batches = file.iter_batches(columns=["shard", "row", *names]) if names and places else ()
            rows = [row for batch in batches for row in batch.filter(pc.is_in(batch["row"], wanted)).to_pylist()]
        found = {(row.pop("shard"), row.pop("row")): row for row in rows}
        return {place: found[place] for place in places if place in found}

    def quarantine(self, columns: Sequence[str] | None = None) -> pa.Table:
        """Read the table of images that could not be read."""
        return self.table(self.folder.quarantine, columns)

    def quarantine_batches(self) -> Iterator[pa.Table]:
        """Read the same piece by piece."""
        path = self.folder.verify(self.folder.quarantine)
        with pq.ParquetFile(path, page_checksum_verification=True) as file:
            for batch in file.iter_batches():
                table = pa.Table.from_batches([batch])
                check_table(path, table, QUARANTINE_SCHEMA, whole=True)
                yield table

    def names(self, shard: str) -> pa.ChunkedArray:
        """Read the names that all rows of a shard have in it, as the source gives them."""
        return self.table(self.folder.entropy(shard), ["key"])["key"]

    def keys(self, shard: str) -> pa.ChunkedArray:
        """Read the keys of all rows of a shard."""
        return self.as_keys(shard, self.names(shard))

    def entropy(self, shard: str) -> NDArray[np.float64]:
        """Read the entropies of a shard, float64 (n,) in bits; NaN where an image could not be read."""
        values: NDArray[np.float64] = self.table(self.folder.entropy(shard), ["entropy"])["entropy"].to_numpy()
        return values.astype(np.float64)

    def assignments(self, shard: str, columns: Sequence[str] | None = None) -> pa.Table:
        """Read Stage II's table of a shard; of no rows if it has embedded nothing of it.

        Raises
        ------
        KeyMismatchError
            Stage I has read other images in these rows.
        """
        if shard not in self._joined and self.folder.record(self.folder.entropy(shard)).is_file():
            names = self.names(shard)
            table = self.table(self.folder.assignments(shard), ["row", "key"])
            # A row beyond the last one has no name.
            known = names.take(pc.if_else(pc.less(table["row"], len(names)), table["row"], None))
            if not table["key"].equals(known):
                rows = table["row"].to_pylist()
                compare_keys(shard, rows, known.to_pylist(), table["key"].to_pylist(), self.folder.path)
            self._joined.add(shard)
        return self.table(self.folder.assignments(shard), columns)

    @cached_property
    def embedded_index(self) -> RunIndex:
        """The numbers of the rows that were embedded, counted through all shards."""
        paths = [self.folder.verify(self.folder.assignments(shard)) for shard in self.shards]
        return RunIndex(self.shards, np.cumsum([0, *(pq.read_metadata(path).num_rows for path in paths)]))

    def embedded(self, *columns: str) -> list[NDArray[Any]]:
        """Read columns of numbers of all rows that were embedded, in the order of the rows, a shard at a time."""
        index = self.embedded_index
        types = [EMBEDDING_SCHEMA.field(name).type.to_pandas_dtype() for name in columns]
        found = [np.empty(len(index), dtype) for dtype in types]
        for i, shard in enumerate(self.shards):
            table = self.assignments(shard, columns)
            for name, column in zip(columns, found, strict=True):
                values = table[name] if name == "similarity" else table[name].fill_null(-1)
                column[index.offsets[i] : index.offsets[i + 1]] = values.to_numpy()
        return found

    def embedded_numbers(self) -> NDArray[np.int64]:
        """Return the numbers that the embedded rows have in the whole collection, ascending: int64 (M,)."""
        parts = [self.index.first(one) + self.assignments(one, ["row"])["row"].to_numpy() for one in self.shards]
        return np.concatenate([np.empty(0, np.int64), *parts])

    def embedded_at(self, at: NDArray[np.int64]) -> Iterator[tuple[pa.Table, NDArray[np.int64]]]:
        """Yield ``key``, ``shard`` and ``row`` of some embedded rows, a shard at a time, and their places in ``at``.

        ``at`` are their ascending numbers among all rows that were embedded.
        """
        schema = pa.schema([("key", pa.string()), ("shard", pa.string()), EMBEDDING_SCHEMA.field("row")])
        for shard, rows, places in self.embedded_index.locate(at):
            table = self.assignments(shard, ["key", "row"]).take(pa.array(rows))
            columns = [self.as_keys(shard, table["key"]), pa.repeat(shard, len(rows)), table["row"]]
            yield pa.Table.from_arrays(columns, schema=schema), places

    def ranked_at(self, numbers: NDArray[np.int64]) -> Iterator[tuple[pa.Table, NDArray[np.int64]]]:
        """Yield ``key``, ``shard``, ``row``, entropy and scores of some rows, a shard at a time, and their places.

        ``numbers`` are their ascending numbers among all rows of the collection.
        """
        schema = pa.schema([SELECTION_SCHEMA.field(name) for name in ("key", "shard", "row", *SCORES)])
        for shard, rows, places in self.index.locate(numbers):
            table = self.table(self.folder.entropy(shard), ["key", *SCORES]).take(pa.array(rows))
            scores = [table[name] for name in SCORES]
            columns = [self.as_keys(shard, table["key"]), pa.repeat(shard, len(rows)), pa.array(rows), *scores]
            yield pa.Table.from_arrays(columns, schema=schema), places

    def embeddings(self) -> list[Path]:
        """Return the files of all embeddings, checked."""
        paths = [self.folder.embeddings(shard) for shard in self.shards]
        with ThreadPoolExecutor() as pool:
            return list(pool.map(self.folder.verify, paths))

    def embedded_entropy(self) -> NDArray[np.float64]:
        """Read the entropies of all rows that were embedded, float64 (M,) in bits."""
        parts = [self.entropy(one)[self.assignments(one, ["row"])["row"].to_numpy()] for one in self.shards]
        return np.concatenate(parts)

    def open_source(self, source: SourceLike) -> Source:
        """Open the collection of the run as the run did: with the same options, without the shards that it left out."""
        config = self.config.get("source", {})
        opened = source if isinstance(source, Source) else open_source(source, **config.get("options", {}))
        return without_shards(opened, config.get("left_out", []))

    def whole_table(self, shard: str) -> Path | None:
        """Return a table of a shard that is as it was written; that of Stage I, if it is."""
        places = (self.folder.entropy(shard), self.folder.assignments(shard))
        return next((path for path in places if self.folder.is_whole(path)), None)

    def check_source(self, source: Source, *, grown: Collection[str] = ()) -> None:
        """Compare the keys of a collection with those that it had when the shards that are done were read.

        Those that have ``grown`` are passed over.

        Raises
        ------
        KeyMismatchError
            It names the shard, and the first row whose key is another one now.
        """
        for shard in source.shards:
            path = None if shard.name in grown else self.whole_table(shard.name)
            if path is not None and (found := source.read_keys(shard)) is not None:
                # The record's digest spares the table; it is that of all rows if the stage took all.
                if read_record(self.folder.record(path)).get("keys") == digest(found):
                    continue
                table = self.table(path, ["key"] if path == self.folder.entropy(shard.name) else ["row", "key"])
                rows = table["row"].to_pylist() if "row" in table.column_names else None
                check_keys(source, shard, rows, table["key"].to_pylist(), self.folder.path)

    # --- a finished run ----------------------------------------------------------------------------------------------

    @cached_property
    def chosen(self) -> dict[str, tuple[NDArray[np.int64], NDArray[np.int8]]]:
        """By shard, the positions of the rows that Stage II chose, and their phases."""
        table = self.selected(["shard", "row", "phase"])
        rows, phases = table["row"].to_numpy(), table["phase"].to_numpy().astype(np.int8)
        return {shard: (rows[at], phases[at]) for shard, at in positions_of(table["shard"])}

    @cached_property
    def holds_survivors(self) -> bool:
        """Whether Stage I keeps for the newest choice of the run what it kept for this one."""
        if self.folder.choice == self.folder.path:
            return True
        newest, kept = RunReader(self.folder.path).summary, ("images", "tau", "survivors")
        return all(newest.get(name) == self.summary.get(name) for name in kept)

    @cached_property
    def excluded(self) -> dict[str, tuple[NDArray[np.int64], NDArray[Any]]]:
        """By shard, the positions of the embedded rows that were left out of the choice, and by which option."""
        if "excluded" not in self.summary:
            return {}
        table = self.table(self.folder.excluded, ["shard", "row", "reason"])
        rows, reasons = table["row"].to_numpy(), np.array(table["reason"].to_pylist(), object)
        return {shard: (rows[at], reasons[at]) for shard, at in positions_of(table["shard"])}

    def excluded_numbers(self, *options: str) -> NDArray[np.int64]:
        """Return the numbers in the whole collection of the rows that some options left out, ascending."""
        parts = [np.empty(0, np.int64)]
        for shard, (rows, reasons) in self.excluded.items():
            parts.append(self.index.first(shard) + rows[np.isin(reasons, options)])
        return np.concatenate(parts)

    def rows(self, shard: str) -> ShardRows:
        """Read what became of the rows of one shard.

        Raises
        ------
        ConfigMismatchError
            The choice was made from other images than those that the tables hold for a newer one.
        """
        if not self.holds_survivors:
            message = (
                f"{self.folder.choice} was chosen from other images than Stage I keeps for the newest choice of the "
                "run: what became of the others is no longer there. Make the call that chose it again"
            )
            raise ConfigMismatchError(message)
        entropy = self.entropy(shard)
        table = self.assignments(shard, ["row", "label", "similarity"])
        row = table["row"].to_numpy()
        phase = np.full(len(entropy), NOT_CHOSEN, np.int8)
        if shard in self.chosen:
            rows, phases = self.chosen[shard]
            phase[rows] = phases
        return ShardRows(
            name=shard,
            first=self.index.first(shard),
            entropy=entropy,
            row=row,
            cluster=table["label"].fill_null(-1).to_numpy(),
            similarity=table["similarity"].to_numpy().astype(np.float32),
            phase=phase[row],
        )

    def invalid_rows(self) -> NDArray[np.int64]:
        """Read the numbers of the images that Stage I kept and that could not be embedded."""
        found = []
        for shard in self.shards:
            table = self.assignments(shard, ["row", "label"])
            failed = table["label"].fill_null(-1).to_numpy() < 0
            found.append(table["row"].to_numpy()[failed] + self.index.first(shard))
        return np.concatenate(found)

    def selection(self) -> Selection:
        """Read the selection of a finished run. Its rows are numbered through the whole collection."""
        table = self.selected(["shard", "row", "cluster", "similarity", "phase"])
        summary = self.summary
        outside = [np.empty(0, np.int64)]
        if (least := self.config["selection"].get("min_similarity")) is not None:
            for shard in self.shards:
                rows = self.assignments(shard, ["row", "similarity"])
                below = rows["similarity"].to_numpy() < np.float32(least)
                outside.append(rows["row"].to_numpy()[below] + self.index.first(shard))
        clusters = summary["clusters"]
        counts = np.zeros(len(clusters["pool"]), COUNTS)
        for name in ("pool", "quota", "fill"):
            counts[name] = clusters[name]
        indices = table["row"].to_numpy().copy()
        for shard, at in positions_of(table["shard"]):
            indices[at] += self.index.first(shard)
        return Selection(
            indices=indices,
            cluster=table["cluster"].to_numpy(),
            similarity=table["similarity"].to_numpy(),
            phase=table["phase"].to_numpy(),
            counts=counts,
            invalid=self.invalid_rows() if summary.get("invalid", {}).get("rows") else np.empty(0, np.int64),
            budget=summary["budget"],
            k=len(counts),
            total=summary["images"],
            outside=np.concatenate(outside),
            leaks=self.excluded_numbers("leaks"),
            duplicates=self.excluded_numbers("dedup"),
            surplus=self.excluded_numbers("max_per_group"),
        )


def open_as_run(source: SourceLike, run: RunFolder | str | Path | None) -> Source:
    """Open a collection as ``run`` did, or by its form alone where there is no run."""
    return open_source(source) if run is None else RunReader(run).open_source(source)
