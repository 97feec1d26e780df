"""Stage II's first part: the embeddings of images, and the nearest centroid of each."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from concurrent.futures import Future
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from typing_extensions import override

from rsprune.centroids import Centroids
from rsprune.concurrency import WriterThread
from rsprune.encoders.loader import embed_items
from rsprune.errors import FormatError, UnreadShardError
from rsprune.io import digest, file_digest, provenance_header, read_provenance, read_record, read_table
from rsprune.options import keywords, to_config
from rsprune.runners import Advance, Progress, show_progress
from rsprune.runs.basis import basis_of
from rsprune.runs.config import DecodeOptions, EmbedOptions, EncoderOptions
from rsprune.runs.context import RunContext, check_bands, encoder_config, source_config
from rsprune.runs.folder import RunFolder
from rsprune.runs.put_aside import leaving_out_lost, without_put_aside
from rsprune.runs.quarantine import describe_causes, write_quarantine
from rsprune.runs.reader import RunReader
from rsprune.runs.reference import check_same_encoder, digest_of
from rsprune.runs.schema import EMBEDDING_SCHEMA
from rsprune.runs.stages.base import REPEATED, RunStage, StageResult, failure_columns, require_read
from rsprune.runs.stages.embedding_writer import EmbeddingWriter, KeptRows
from rsprune.runs.stages.entropy import require_readable
from rsprune.runs.start import start_run
from rsprune.runs.summary import ShardSummary, describe_passed_over
from rsprune.runs.value_range import settle_range
from rsprune.sources import Item, Shard, Source, SourceLike, check_outside
from rsprune.sources.keys import read_known
from rsprune.sources.passing import reading

__all__ = ["EmbedStage", "RowSubset", "SomeRows", "embed_run"]


class RowSubset(Protocol):
    """The images of a collection that are embedded."""

    def rows(self, shard: Shard) -> NDArray[np.int64]:
        """Return their positions in a shard, ascending."""

    def count(self, shard: Shard) -> int:
        """Count them in a shard."""

    def keys(self, shard: Shard) -> list[str] | None:
        """Return the keys that they are known by; None if they were never read before."""


@dataclass(frozen=True)
class SomeRows:
    """Images given by their positions in each shard."""

    positions: Mapping[str, NDArray[np.int64]]

    def rows(self, shard: Shard) -> NDArray[np.int64]:
        """Return the given positions."""
        return self.positions[shard.name]

    def count(self, shard: Shard) -> int:
        """Count the given positions."""
        return len(self.positions[shard.name])

    def keys(self, shard: Shard) -> list[str] | None:
        """Return None: positions are drawn, and not read."""
        return None


@dataclass(frozen=True)
class EmbedStage(RunStage):
    """Writes ``embeddings/<shard>.parquet``, and ``.npy`` (float16 unit rows) where embeddings are kept.

    An image that cannot be read has a row of NaN, label -1, and a table row that says why. While the encoder works, a
    thread assigns and writes the rows that came before.

    Parameters
    ----------
    context
        The run.
    source
        The images.
    subset
        Which of them are embedded; None for all.
    encoder
        Which encoder, and where it runs.
    decode
        How pixels are read.
    batch_size
        Images in one forward pass.
    centroids
        Where given, the table names the nearest centroid of each row and their similarity, computed from the float16
        row as stored.
    keep
        Whether the embeddings themselves are written.
    name
        What progress calls the stage.
    """

    source: Source
    subset: RowSubset | None
    encoder: EncoderOptions
    decode: DecodeOptions
    batch_size: int
    centroids: Centroids | None = None
    keep: bool = True
    name: str = "embed"

    @property
    @override
    def shards(self) -> tuple[Shard, ...]:
        return self.source.shards

    @property
    @override
    def device(self) -> str:
        return self.encoder.model.device

    @override
    def count(self, shard: Shard) -> int:
        return (self.subset or self.source).count(shard)

    def _rows(self, shard: Shard) -> NDArray[np.int64]:
        return np.arange(self.source.count(shard)) if self.subset is None else self.subset.rows(shard)

    @override
    def depends_on(self, shard: Shard) -> dict[str, Any]:
        rows = {} if self.subset is None else {"rows": digest_of(self._rows(shard))}
        return super().depends_on(shard) | rows

    @override
    def outputs(self, shard: Shard) -> tuple[Path, ...]:
        folder = self.context.folder
        embeddings = (folder.embeddings(shard.name),) if self.keep else ()
        return (*embeddings, folder.assignments(shard.name))

    @cached_property
    def _thread(self) -> WriterThread:
        return WriterThread()

    @override
    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if (thread := self.__dict__.pop("_thread", None)) is not None:
            thread.__exit__(kind, error, trace)

    @override
    def run(self, shard: Shard, advance: Advance) -> ShardSummary:
        return self.submit(shard, advance).result()

    @override
    def submit(self, shard: Shard, advance: Advance) -> Future[ShardSummary]:
        rows = self._rows(shard)
        known = None if self.subset is None else self.subset.keys(shard)
        kept, failures = (None, {}) if known is None else self._kept(shard, rows)
        new = np.arange(len(rows)) if kept is None else np.delete(np.arange(len(rows)), kept.positions)
        keys: list[str] = []
        read: list[int] = []  # the positions of the images that the encoder is given
        encoder, threads, folder = self.encoder.model, self.context.threads, self.context.folder

        def items() -> Iterator[Item]:
            if known is None:
                images = self.source.read(shard, rows.tolist())
            else:
                wanted = [known[at] for at in new.tolist()]
                images = read_known(self.source, shard, rows[new].tolist(), wanted, folder.path)
            seen: set[str] = set()
            for position, item in zip(new.tolist(), reading(images), strict=False):
                keys.append(item.key)
                if item.key in seen:
                    failures[position] = REPEATED
                    continue
                seen.add(item.key)
                read.append(position)
                yield item

        path = folder.embeddings(shard.name) if self.keep else None
        writer = EmbeddingWriter(path, len(rows), encoder.dim, self.centroids, self._thread, threads)
        if kept is not None:
            writer.keep(kept)

        def conclude() -> ShardSummary:
            assigned, names = self.centroids is not None, keys if known is None else known
            columns = [
                pa.array(rows, pa.int64()),
                pa.array(names, pa.string()),
                pa.array(writer.label, pa.int32()) if assigned else pa.nulls(len(rows), pa.int32()),
                pa.array(writer.similarity, from_pandas=True) if assigned else pa.nulls(len(rows), pa.float32()),
                *failure_columns(failures, len(rows)),
            ]
            self.write(folder.assignments(shard.name), shard, columns, EMBEDDING_SCHEMA)
            self.complete(shard, names)
            return ShardSummary().update(len(names), (kind for kind, _ in failures.values()))

        try:
            options = self.decode.settings()
            for block in embed_items(encoder, items(), batch_size=self.batch_size, threads=threads, **options):
                writer.add(np.array([read[i] for i in block.positions.tolist()], np.int64), block.embeddings)
                failed = [(read[i], kind, message) for i, kind, message in block.failures]
                require_read(self.source, shard, ((int(rows[at]), kind, message) for at, kind, message in failed))
                failures.update({at: (kind, message) for at, kind, message in failed})
                advance(len(block.positions) + len(block.failures))
            self.source.check_unchanged(shard)
            advance(len(rows) - len(new) + len(keys) - len(read))
            return writer.finish(conclude)
        except UnreadShardError as error:
            writer.abandon(error)
            unread: Future[ShardSummary] = Future()
            unread.set_result(ShardSummary(unread={shard.name: str(error)}))
            return unread
        except BaseException as error:
            writer.abandon(error)
            raise

    def _kept(self, shard: Shard, rows: NDArray[np.int64]) -> tuple[KeptRows | None, dict[int, tuple[str, str]]]:
        """Read what an earlier run made of some of these rows of the shard, and why some of them failed."""
        folder, outputs = self.context.folder, self.outputs(shard)
        whole = folder.is_whole(*outputs)
        before = None if whole else self._earlier_centroids(*outputs)
        now = self.context.config.get("centroids")
        assigned = whole or (before is not None and before == now)
        if not (assigned or (before is not None and self.keep)):
            return None, {}
        record = read_record(folder.record(outputs[-1]))
        if any(record.get(name) != value for name, value in super().depends_on(shard).items()):
            return None, {}
        table = RunReader(folder).assignments(shard.name) if whole else read_table(outputs[-1])
        _, here, there = np.intersect1d(rows, table["row"].to_numpy(), assume_unique=True, return_indices=True)
        table = table.take(pa.array(there))
        label = table["label"].fill_null(-1).to_numpy() if assigned else None
        similarity = table["similarity"].to_numpy() if assigned else None
        embeddings = np.load(folder.embeddings(shard.name))[there] if self.keep else None
        causes = zip(here.tolist(), table["kind"].to_pylist(), table["message"].to_pylist(), strict=True)
        failures = {at: (kind, message) for at, kind, message in causes if kind is not None}
        return KeptRows(here, label, similarity, embeddings), failures

    def _earlier_centroids(self, *outputs: Path) -> Any:
        """Return the centroids of files that are whole and differ from those wanted by these alone; None for others.

        :func:`embed_run` has made such, without centroids or with fitted ones.
        """
        try:
            record = read_record(self.context.folder.record(outputs[-1]))
            config = read_provenance(outputs[-1]).get("config")
            files = {path.relative_to(outputs[-1].parent).as_posix(): file_digest(path) for path in outputs}
        except (FileNotFoundError, FormatError):
            return None
        if not isinstance(config, dict) or record.get("basis") != digest(basis_of("embeddings", config)):
            return None
        apart = (basis_of("embeddings", {**one, "centroids": None}) for one in (config, self.context.config))
        if len({digest(one) for one in apart}) > 1 or any(
            record["files"].get(name) != one for name, one in files.items()
        ):
            return None
        centroids = config.get("centroids")
        return {"fitted": centroids} if isinstance(centroids, str) else centroids or {}

    @override
    def summarize(self, shard: Shard) -> ShardSummary:
        kinds = RunReader(self.context.folder).assignments(shard.name, ["kind"])["kind"]
        return ShardSummary().update(len(kinds), kinds.drop_null().to_pylist())


@keywords(EmbedOptions)
@leaving_out_lost
def embed_run(
    source: SourceLike,
    *,
    out: str | Path,
    centroids: str | Path | Centroids | None = None,
    keep_embeddings: bool | None = None,
    options: EmbedOptions,
    progress: bool | Progress = True,
) -> StageResult:
    """Embed every image of a collection, resumably; with ``centroids`` also assign each to the nearest of them.

    Parameters
    ----------
    source, out, progress
        See :func:`rsprune.prune`.
    centroids
        Fitted centroids, or their file.
    keep_embeddings
        Write the embeddings themselves. When None: unless ``centroids`` are given.

    Raises
    ------
    EmptyInputError
        None of the images could be read.
    EncoderMismatchError
        The centroids were fitted on embeddings of another encoder.
    ValueRangeError
        Some of the first images need a ``valid_range``.
    """
    images, folder = options.source.open(source), RunFolder(out)
    if options.source.on_damaged_shard == "skip":
        images = without_put_aside(images, folder)
    check_outside(out, images)
    check_bands(images, decode=options.decode)
    fitted = Centroids.load(centroids) if isinstance(centroids, (str, Path)) else centroids
    if fitted is not None:
        check_same_encoder(fitted, options.encoder.model)
    keep = fitted is None if keep_embeddings is None else keep_embeddings
    encoder = encoder_config(options.encoder, folder)
    runner, threads = options.execution.open_runner(), options.execution.threads
    with folder.lock(shared=runner.part is not None), show_progress(progress) as shown:
        decode = settle_range(options.decode, images, folder, shown, section="pixels", threads=threads)
        fingerprint = images.fingerprint()
        config = provenance_header() | {
            "source": source_config(images, fingerprint),
            "pixels": to_config(decode),
            "encoder": encoder,
            "centroids": None if fitted is None else digest_of(fitted.vectors),
            "keep_embeddings": keep,
        }
        context = RunContext.of(folder, config, images, threads, fingerprint)
        start_run(context, images)
        stage = EmbedStage(
            context,
            images,
            None,
            options.encoder,
            decode,
            encoder["batch_size"],
            centroids=fitted,
            keep=keep,
        )
        summary = runner.map_merge(stage, shown)
        reader = RunReader(folder)
        unread = write_quarantine(context, reader)
        metrics = {
            "images": summary.images,
            **unread,
            "dimensions": options.encoder.model.dim,
            "keys": reader.key_form,
        }
        folder.complete(folder.summary, [folder.quarantine], metrics | context.skipped)
        require_readable(summary, metrics, folder.quarantine)
    lines = [
        f"{summary.images:,} images, {unread['quarantined']:,} in quarantine",
        *(f"unread  {line}" for line in describe_causes(metrics, folder.quarantine)),
        *describe_passed_over(context.passed_over),
        *reader.keys_note(),
    ]
    if options.decode.valid_range == "auto" and isinstance(decode.valid_range, tuple):
        lines.append("valid range {:g} to {:g}".format(*decode.valid_range))
    return StageResult(folder.path, metrics, "\n".join([*lines, f"written to {folder.path / 'embeddings'}"]))
