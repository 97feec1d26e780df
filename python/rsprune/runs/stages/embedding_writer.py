"""Writing the embeddings of a shard: assigned and written by a thread, while the next ones are made."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from rsprune.assignment import assign
from rsprune.centroids import Centroids
from rsprune.concurrency import WriterThread
from rsprune.io import atomic_write

__all__ = ["EmbeddingWriter", "KeptRows"]

T = TypeVar("T")

#: Rows that are assigned and written at once: 8 MB in 1,024 dimensions, and enough to keep every core busy.
BLOCK = 4096


@dataclass(frozen=True)
class KeptRows:
    """Rows that an earlier run embedded, at ascending ``positions`` among those that are written.

    ``embeddings`` are None where they were not kept, but their clusters alone; ``label`` and ``similarity`` where they
    are those of other centroids.
    """

    positions: NDArray[np.int64]
    label: NDArray[np.int32] | None
    similarity: NDArray[np.float32] | None
    embeddings: NDArray[np.float16] | None

    @classmethod
    def none(cls, dim: int) -> KeptRows:
        """Return no rows."""
        empty = np.empty((0, dim), np.float16)
        return cls(np.empty(0, np.int64), np.empty(0, np.int32), np.empty(0, np.float32), empty)

    def between(self, start: int, end: int) -> KeptRows:
        """Return the rows at some positions."""
        at = slice(*np.searchsorted(self.positions, (start, end)).tolist())
        label = None if self.label is None else self.label[at]
        similarity = None if self.similarity is None else self.similarity[at]
        embeddings = None if self.embeddings is None else self.embeddings[at]
        return KeptRows(self.positions[at], label, similarity, embeddings)


class EmbeddingWriter:
    """Takes a shard's embeddings as they come, and writes them as float16, or their labels, or both.

    Parameters
    ----------
    path : Path, optional
        The ``.npy`` file, written beside its place and renamed. The rows are not kept if not given.
    rows, dim : int
        N and D.
    centroids : Centroids, optional
        Where given, :attr:`label` and :attr:`similarity` are computed from the float16 rows as stored.
    thread : WriterThread
        The thread that assigns and writes.
    threads : int, optional
        Threads that assign.

    Attributes
    ----------
    label, similarity : ndarray
        int32 and float32 (N,), once the future of :meth:`finish` is done: -1 and NaN for rows that never came.
    """

    def __init__(
        self,
        path: Path | None,
        rows: int,
        dim: int,
        centroids: Centroids | None,
        thread: WriterThread,
        threads: int | None,
    ) -> None:
        self.label = np.full(rows, -1, np.int32)
        self.similarity = np.full(rows, np.nan, np.float32)
        self._dim = dim
        self._centroids = centroids
        self._thread = thread
        self._threads = threads
        self._files = ExitStack()
        self._file = None
        if path is not None:
            self._file = self._files.enter_context(self._files.enter_context(atomic_write(path)).open("wb"))
            header = {"descr": "<f2", "fortran_order": False, "shape": (rows, dim)}
            np.lib.format.write_array_header_1_0(self._file, header)
        self._kept = KeptRows.none(dim)
        self._begin(0)

    def keep(self, kept: KeptRows) -> None:
        """Take rows that an earlier call has made; before those of :meth:`add`."""
        self._kept = kept
        self._begin(0)

    def add(self, positions: NDArray[np.int64], embeddings: NDArray[np.float32]) -> None:
        """Take the rows at ``positions``, ascending from call to call."""
        while len(positions):
            inside = np.searchsorted(positions, self._start + len(self._block))
            self._block[positions[:inside] - self._start] = embeddings[:inside]
            positions, embeddings = positions[inside:], embeddings[inside:]
            if len(positions):
                self._flush()

    def finish(self, then: Callable[[], T]) -> Future[T]:
        """Write the rest, put the file in its place, and do ``then``, all in the thread."""
        while len(self._block):
            self._flush()

        def end() -> T:
            self._files.close()
            return then()

        return self._thread.submit(end)

    def abandon(self, error: BaseException) -> None:
        """Leave no file behind."""
        self._thread.settle()
        self._files.__exit__(type(error), error, error.__traceback__)

    def _begin(self, start: int) -> None:
        self._start = start
        self._block = np.full((min(BLOCK, len(self.label) - start), self._dim), np.nan, np.float16)
        kept = self._kept.between(start, start + len(self._block))
        if kept.embeddings is not None:
            self._block[kept.positions - start] = kept.embeddings

    def _flush(self) -> None:
        start, block = self._start, self._block
        kept = self._kept.between(start, start + len(block))

        def write() -> None:
            if self._file is not None:
                self._file.write(block.data)
            if self._centroids is not None:
                assigned = assign(block, self._centroids, threads=self._threads)
                self.label[start : start + len(block)] = assigned.labels
                self.similarity[start : start + len(block)] = assigned.similarity
                if kept.label is not None and kept.similarity is not None:
                    self.label[kept.positions], self.similarity[kept.positions] = kept.label, kept.similarity

        self._thread.submit(write)
        self._begin(start + len(block))
