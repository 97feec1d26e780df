"""The images that the options of a choice leave out: excluded, leaked, near-duplicates, or over a maximum."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from rsprune.embeddings import Embeddings, as_rows
from rsprune.encoders import Encoder
from rsprune.errors import ArgumentError, ShapeError, naming
from rsprune.io import digest, write_tables
from rsprune.left_out import check_found, find_left_out, is_keys, load_excluded, read_excluded
from rsprune.quotas import Groups
from rsprune.runners import Progress
from rsprune.runs.config import ChoiceOptions
from rsprune.runs.folder import RunFolder
from rsprune.runs.reader import RunReader
from rsprune.runs.reference import check_same_provenance, digest_of
from rsprune.runs.schema import EXCLUDED_SCHEMA
from rsprune.selection import SelectOptions
from rsprune.sources import Shard, Source
from rsprune.sources.passing import reading_source
from rsprune.validation import check_row_numbers, warn_caller

__all__ = ["REASONS", "Excluded", "LeavingOut", "check_groups", "group_column", "settle_rows"]

#: Why an image is left out: the option that did it. Numbers of reasons count from 1.
REASONS = ("exclude", "leaks", "dedup", "max_per_group")
#: Groups that are no column of the metadata.
PLACES = ("folder", "shard")


@dataclass(frozen=True)
class Excluded:
    """The embedded images that a choice leaves out.

    Attributes
    ----------
    reason
        uint8 (M,): of each image that was embedded the number of the reason in :data:`REASONS`, counted from 1; 0 for
        those that can be chosen.
    groups
        The group of each image that was embedded, where the choice has groups.
    """

    reason: NDArray[np.uint8]
    groups: Groups | None

    def counts(self) -> dict[str, int]:
        """Count the images by reason, for ``summary.json``."""
        found = np.bincount(self.reason, minlength=len(REASONS) + 1).tolist()
        return {name: count for name, count in zip(REASONS, found[1:], strict=True) if count}

    def write(self, folder: RunFolder, reader: RunReader, provenance: Mapping[str, Any]) -> None:
        """Write ``excluded.parquet``: a row an image, with its reason."""

        def tables() -> Iterator[pa.Table]:
            names = pa.array([None, *REASONS])
            for table, at in reader.embedded_at(np.flatnonzero(self.reason).astype(np.int64)):
                there = np.flatnonzero(self.reason)[at]
                yield table.append_column("reason", names.take(pa.array(self.reason[there])))

        write_tables(folder.excluded, EXCLUDED_SCHEMA, (one.cast(EXCLUDED_SCHEMA) for one in tables()), provenance)


@dataclass(frozen=True)
class LeavingOut:
    """What the options of a choice leave out, as far as it is known before an image is read."""

    options: ChoiceOptions
    exclude: Any = None  # keys, row numbers or a mask
    leaks: Embeddings | None = None  # of the evaluation set
    rows: Mapping[str, NDArray[np.int64]] = field(default_factory=dict)  # by shard, the positions that are excluded

    @classmethod
    def read(cls, options: ChoiceOptions, source: Source, encoder: Encoder, *, keep_embeddings: bool) -> LeavingOut:
        """Read and check the options before a run begins.

        Raises
        ------
        ArgumentError
            They need embeddings that the run does not keep, or the collection has no such column.
        EncoderMismatchError, ShapeError
            The evaluation set was embedded by another encoder.
        """
        check_compares(vars(options), keep_embeddings)
        check_groups(options.groups, source)
        found = None if options.leaks is None else load_leaks(options.leaks, encoder)
        return cls(options, load_excluded(options.exclude), found)

    @property
    def is_used(self) -> bool:
        """Whether any of the options is given."""
        return any(getattr(self.options, name) is not None for name in REASONS)

    def config(self) -> dict[str, Any]:
        """Return the options as the configuration of a run names them: only those that are given."""
        options = self.options
        given: dict[str, Any] = {
            name: value
            for name in ("groups", "quotas", "max_per_group", "dedup", "leak_eps")
            if (value := getattr(options, name)) is not None
        }
        if isinstance(options.quotas, Mapping):
            given["quotas"] = {str(name): quota for name, quota in options.quotas.items()}
        if self.exclude is not None:
            listed = sorted(set(self.exclude)) if is_keys(self.exclude) else np.asarray(self.exclude).tolist()
            given["exclude"] = digest(listed)
        if self.leaks is not None:
            given["leaks"] = digest([digest_of(self.leaks.take(np.arange(self.leaks.shape[0])))])
        return given

    def find(self, reader: RunReader, progress: Progress) -> dict[str, NDArray[np.int64]]:
        """Find the images to exclude among those that Stage I has read: their positions by shard.

        Raises
        ------
        ArgumentError
            None of the keys is there, or the collection has fewer rows.
        """
        if self.exclude is None:
            return {}
        if not is_keys(self.exclude):
            rows = np.unique(check_row_numbers("exclude", self.exclude, len(reader.index)))
            if len(rows) and (rows[0] < 0 or rows[-1] >= len(reader.index)):
                odd = int(rows[0] if rows[0] < 0 else rows[-1])
                message = f"exclude names the row {odd} of a collection of {len(reader.index)} images"
                raise ArgumentError(message)
            return {shard: places for shard, places, _ in reader.index.locate(rows)}
        wanted, found, there = pa.array(sorted(set(self.exclude)), pa.string()), {}, 0
        for shard in reader.shards:
            keys = reader.keys(shard)
            rows = np.flatnonzero(pc.is_in(keys, value_set=wanted).to_numpy())
            there += len(pc.unique(keys.take(pa.array(rows))))
            found[shard] = rows
        check_found(self.exclude, there, progress.note)
        return found

    @cached_property
    def needs_groups(self) -> bool:
        """Whether the group of each image is looked up."""
        return self.options.groups is not None

    def apply(self, reader: RunReader, source: Source, kept: NDArray[np.int64], threads: int | None) -> Excluded:
        """Find what is left out of the embedded images; ``kept`` are the numbers of preselected ones among them."""
        options = self.options
        labels, similarity = reader.embedded("label", "similarity")
        never = [np.empty(0, np.int64)]
        groups: list[str] = []
        codes: dict[str, int] = {}
        of = np.empty(len(labels) if self.needs_groups else 0, np.int64)
        for i, shard in enumerate(reader.shards):
            start, stop = reader.embedded_index.offsets[i : i + 2]
            rows = reader.assignments(shard, ["row"])["row"].to_numpy()
            if shard in self.rows:
                never.append(start + np.flatnonzero(np.isin(rows, self.rows[shard])))
            if self.needs_groups and len(rows):
                values = group_column(source, shard, rows, reader.names(shard), str(options.groups))
                encoded = values.dictionary_encode()
                numbers = [codes.setdefault(name, len(codes)) for name in encoded.dictionary.to_pylist()]
                of[start:stop] = np.array(numbers, np.int64)[encoded.indices.to_numpy()]
        found = None
        if self.needs_groups:
            groups = sorted(codes)
            place = np.empty(len(codes), np.int64)
            place[[codes[name] for name in groups]] = np.arange(len(groups))
            found = Groups(groups, place[of])
        excluded = np.concatenate(never)
        rows_of = as_rows(reader.embeddings()) if options.dedup is not None or options.leaks is not None else None
        # An image that is out of the domain is not there for the others; it is counted as such, and not here.
        left_out = find_left_out(
            SelectOptions(
                min_similarity=options.min_similarity,
                dedup=options.dedup,
                leaks=self.leaks,
                leak_eps=options.leak_eps,
                max_per_group=options.max_per_group,
                groups=found,
            ),
            labels,
            similarity,
            similarity,
            rows=rows_of,
            groups=found,
            excluded=excluded,
            preselected=kept,
            threads=threads,
        )
        reason = np.zeros(len(labels), np.uint8)
        for number, rows in enumerate((excluded, left_out.leaks, left_out.duplicates, left_out.surplus), start=1):
            reason[rows] = number
        return Excluded(reason, found)


def settle_rows(
    settings: Mapping[str, Any],
    rows: int,
    *,
    reader: RunReader | None,
    source: Source | None,
    names: Any | None,
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Read what options say of rows of embeddings that are on the disk, in files and by keys and columns.

    ``reader`` is that of their run, ``source`` its collection, or ``names`` are the keys of embeddings alone. Returns
    the options, and what a manifest tells in the place of those that are no JSON values.

    Raises
    ------
    ArgumentError
        A column or keys that the rows do not have.
    """
    if reader is not None:
        check_compares(settings, bool(reader.config.get("keep_embeddings", True)))
    settled, told = dict(settings), {}
    if settings.get("exclude") is not None:
        keys = None if names is None else names.to_pylist()
        exclude = load_excluded(settings["exclude"])
        if reader is not None and is_keys(exclude):
            wanted, found = pa.array(sorted(set(exclude)), pa.string()), [np.empty(0, np.int64)]
            for i, shard in enumerate(reader.shards):
                there = reader.as_keys(shard, reader.assignments(shard, ["key"])["key"])
                at = np.flatnonzero(pc.is_in(there, value_set=wanted).to_numpy())
                found.append(reader.embedded_index.offsets[i] + at)
            settled["exclude"] = np.concatenate(found)
            check_found(exclude, len(settled["exclude"]), warn_caller)
        else:
            settled["exclude"] = read_excluded(exclude, rows, keys)
    groups = settings.get("groups")
    if isinstance(groups, (str, Path)) and Path(groups).suffix != ".npy":
        if reader is None or (source is None and groups not in PLACES):
            there = "a file of the group of each row (.npy)"
            if reader is not None:
                there += ", or with the collection (--source) a column of its metadata, or folder, or shard"
            message = f"groups is {str(groups)!r}; expected {there}"
            raise ArgumentError(message)
        if source is not None:
            check_groups(groups, source)
        parts = [np.empty(0, object)]
        for shard in reader.shards:
            at = reader.assignments(shard, ["row", "key"])
            if len(at):
                values = group_of_rows(source, shard, at["row"].to_numpy(), at["key"], str(groups))
                parts.append(values.to_numpy(zero_copy_only=False))
        settled["groups"], told["groups"] = np.concatenate(parts), str(groups)
    if settings.get("leaks") is not None:
        encoder = None if reader is None else reader.config.get("encoder")
        settled["leaks"] = found_rows = open_leaks(settings["leaks"], encoder)
        told["leaks"] = digest_of(found_rows.take(np.arange(found_rows.shape[0])))
    return settled, told


def check_compares(options: Mapping[str, Any], keep_embeddings: bool) -> None:
    """Fail where options compare embeddings, and a run keeps none."""
    for name in ("dedup", "leaks"):
        if options.get(name) is not None and not keep_embeddings:
            message = (
                f"{name} compares the embeddings themselves: prune with --keep-embeddings (keep_embeddings=True), "
                "which keeps them in the run folder, 2 bytes a dimension"
            )
            raise ArgumentError(message)


def open_leaks(leaks: Any, encoder: Any) -> Embeddings:
    """See the embeddings of an evaluation set as rows; those of a run must be of the encoder, if it is known."""
    folder = Path(leaks) if isinstance(leaks, (str, Path)) else None
    if folder is None or not (folder / "config.json").is_file():
        with naming(folder or "leaks"):
            return as_rows(leaks)
    reader = RunReader(folder)
    check_same_provenance(reader.config.get("encoder"), encoder, f"the embeddings in {folder}")
    if not reader.config.get("keep_embeddings", True):
        message = f"{folder} holds no embeddings, but clusters: embed the evaluation set with --keep-embeddings"
        raise ArgumentError(message)
    return as_rows(reader.embeddings())


def load_leaks(leaks: Any, encoder: Encoder) -> Embeddings:
    """See the embeddings of an evaluation set as rows, which must be those of the encoder."""
    rows = open_leaks(leaks, encoder.provenance())
    if rows.shape[1] != encoder.dim:
        message = (
            f"the evaluation set of leaks has {rows.shape[1]} dimensions, the encoder {encoder.name} {encoder.dim}: "
            "use one encoder for both"
        )
        raise ShapeError(message)
    return rows


def check_groups(groups: Any, source: Source) -> None:
    """Fail where a collection has no such column.

    Raises
    ------
    ArgumentError
        It names those that there are.
    """
    if groups is None:
        return
    schema = source.metadata_schema
    column, _, path = (groups, "", "") if groups in schema.names else str(groups).partition(".")
    kind = schema.field(column).type if column in schema.names else None
    if kind is None and groups not in PLACES:
        known = [
            f"{one.name}.FIELD" if pa.types.is_struct(one.type) or one.name == "json" else one.name for one in schema
        ]
        message = f"groups is {groups!r}; expected one of {', '.join((*known, *PLACES))}"
        raise ArgumentError(message)
    if kind is not None and (pa.types.is_nested(kind) and not (path and pa.types.is_struct(kind))):
        message = f"groups is {groups!r}, a column of {kind}; expected one of strings or numbers"
        raise ArgumentError(message)


def group_column(source: Source, shard: str, rows: NDArray[np.int64], names: pa.ChunkedArray, groups: str) -> pa.Array:
    """Read the group of some images of a shard, as strings; an image without one is of the group ``(none)``.

    ``names`` are those of all images of the shard.
    """
    return group_of_rows(source, shard, rows, names.take(pa.array(rows)), groups)


def group_of_rows(
    source: Source | None, shard: str, rows: NDArray[np.int64], names: pa.ChunkedArray, groups: str
) -> pa.Array:
    """Do the same with the ``names`` of these images alone; without a source there are no columns."""
    columns = [] if source is None else source.metadata_schema.names
    column, _, path = (groups, "", "") if groups in columns else groups.partition(".")
    if source is not None and column in columns:
        with reading_source():
            values = source.read_metadata(Shard(shard), rows.tolist())[column]
        if path:
            values = pa.chunked_array([[field_of(one, path.split(".")) for one in values.to_pylist()]], pa.string())
        values = values.cast(pa.string())
    elif groups == "shard":
        values = pa.chunked_array([pa.repeat(shard, len(rows))])
    else:
        values = pc.replace_substring_regex(names, r"/?[^/]*$", "")
    return pc.fill_null(values, "(none)").combine_chunks()


def field_of(value: Any, path: Sequence[str]) -> str | None:
    """Return a field of an object, or of the JSON text of one, as text; None if it has none."""
    if isinstance(value, (str, bytes)):
        try:
            value = json.loads(value)
        except (ValueError, RecursionError):
            return None
    for name in path:
        value = value.get(name) if isinstance(value, dict) else None
    return value if value is None or isinstance(value, str) else json.dumps(value, sort_keys=True)
