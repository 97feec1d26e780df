"""The work on shards: Stage I's entropies, the embeddings, the reference centroids.

Each function skips the shards that are done, and writes a shard's table last, so that its existence says so.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator
from typing import TypeVar

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from rsprune import _core
from rsprune.centroids import Centroids
from rsprune.concurrency import WriterThread
from rsprune.encoders import Encoder
from rsprune.encoders.loader import embed_items
from rsprune.io import write_table
from rsprune.runners import run_shards
from rsprune.runs.options import Pixels, Work
from rsprune.runs.schema import EMBEDDING_SCHEMA, ENTROPY_SCHEMA
from rsprune.runs.shard_rows import ShardRows
from rsprune.sources import Item, Shard, Source

__all__ = ["embed_shards", "entropy_shards"]

T = TypeVar("T")

# Images decoded in one call of the core: enough to keep every core busy, few enough that their bytes fit in memory
# (1,024 images of 256 px are about 20 MB encoded) and that progress moves every fraction of a second.
BATCH = 1024


def entropy_shards(work: Work, source: Source, pixels: Pixels) -> None:
    """Write ``entropy/<shard>.parquet`` for every shard of ``source``: Stage I's work.

    An image that cannot be read has a null entropy and says why; it ends nothing.
    """
    folder, observer, threads = work.folder, work.observer, work.threads

    def one(shard: Shard) -> None:
        keys: list[str] = []
        entropies: list[NDArray[np.float64]] = [np.empty(0)]
        failures: dict[int, tuple[str, str]] = {}
        for items in batched(source.read(shard), BATCH):
            images = [item.data for item in items]
            values, failed = _core.entropy_images(images, threads=threads, **pixels.config())
            failures |= {len(keys) + i: (kind, message) for i, kind, message in failed}
            keys += [item.key for item in items]
            entropies.append(values)
            observer.advance(len(items))
        columns = [
            pa.array(keys, pa.string()),
            pa.array(np.concatenate(entropies), pa.float64(), from_pandas=True),  # NaN becomes null
            *failure_columns(failures, len(keys)),
        ]
        table = pa.Table.from_arrays(columns, schema=ENTROPY_SCHEMA)
        write_table(folder.entropy(shard.name), table, {**work.provenance, "shard": shard.name})

    done = sum(source.count(shard) for shard in source.shards if folder.entropy(shard.name).exists())
    observer.start("entropy", source.total(), done)
    run_shards(source.shards, lambda shard: folder.entropy(shard.name), one)
    observer.finish()


def embed_shards(
    work: Work,
    source: Source,
    rows: dict[str, NDArray[np.int64]],
    encoder: Encoder,
    centroids: Centroids | None,
    pixels: Pixels,
    batch_size: int | None,
    *,
    keep: bool = True,
    stage: str = "embed",
) -> None:
    """Write ``embeddings/<shard>.parquet``, and ``.npy`` (float16 unit rows), for every shard of ``source``.

    Parameters
    ----------
    rows
        For each shard's name the positions within it that are embedded, ascending.
    centroids
        Where given, the table names the nearest centroid of each row and their similarity, computed from the float16
        row as stored.
    keep
        Whether the embeddings themselves are written.

    Notes
    -----
    An image that cannot be read has a row of NaN, label -1, and a table row that says why. While the encoder works, a
    thread of its own assigns and writes the rows that came before.
    """
    folder, observer, threads = work.folder, work.observer, work.threads

    def one(shard: Shard) -> None:
        chosen = rows[shard.name]
        keys: list[str] = []
        failures: dict[int, tuple[str, str]] = {}

        def items() -> Iterator[Item]:
            for item in source.read(shard, chosen.tolist()):
                keys.append(item.key)
                yield item

        path = folder.embeddings(shard.name) if keep else None
        written = ShardRows(path, len(chosen), encoder.dim, centroids, background, threads)

        def conclude() -> None:
            table = pa.Table.from_arrays(
                [
                    pa.array(chosen, pa.int64()),
                    pa.array(keys, pa.string()),
                    pa.array(written.label, pa.int32()) if centroids else pa.nulls(len(chosen), pa.int32()),
                    pa.array(written.similarity, from_pandas=True)
                    if centroids
                    else pa.nulls(len(chosen), pa.float32()),
                    *failure_columns(failures, len(chosen)),
                ],
                schema=EMBEDDING_SCHEMA,
            )
            write_table(folder.assignments(shard.name), table, {**work.provenance, "shard": shard.name})

        try:
            for block in embed_items(encoder, items(), batch_size=batch_size, threads=threads, **pixels.decoding()):
                written.add(block.positions, block.embeddings)
                failures.update({i: (kind, message) for i, kind, message in block.failures})
                observer.advance(len(block.positions) + len(block.failures))
            written.finish(conclude)
        except BaseException as error:
            written.abandon(error)
            raise

    done = sum(len(chosen) for shard, chosen in rows.items() if folder.assignments(shard).exists())
    observer.start(stage, sum(map(len, rows.values())), done)
    with WriterThread() as background:
        run_shards(source.shards, lambda shard: folder.assignments(shard.name), one)
    observer.finish()


def failure_columns(failures: dict[int, tuple[str, str]], rows: int) -> tuple[pa.Array, pa.Array]:
    """The columns ``kind`` and ``message`` of a shard's table: null where nothing failed."""
    causes = [failures.get(i, (None, None)) for i in range(rows)]
    return pa.array([kind for kind, _ in causes], pa.string()), pa.array([why for _, why in causes], pa.string())


def batched(items: Iterable[T], size: int) -> Iterator[list[T]]:
    """Cut an iterable into lists of ``size``."""
    iterator = iter(items)
    while batch := list(itertools.islice(iterator, size)):
        yield batch
