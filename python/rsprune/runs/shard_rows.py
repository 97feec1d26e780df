"""The rows of a shard on their way to the disk: assigned and written in the background, while the next are embedded."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from rsprune.assignment import assign
from rsprune.centroids import Centroids
from rsprune.concurrency import WriterThread
from rsprune.io import atomic_write

__all__ = ["ShardRows"]

#: Rows that are assigned and written at once: 8 MB in 1,024 dimensions, and enough to keep every core busy.
BLOCK = 4096


class ShardRows:
    """Takes a shard's embeddings as they come, and writes them as float16, or their labels, or both.

    Parameters
    ----------
    path : Path, optional
        The ``.npy`` file, written beside its place and renamed. The rows are not kept if not given.
    rows, dim : int
        N and D.
    centroids : Centroids, optional
        Where given, :attr:`label` and :attr:`similarity` are computed from the float16 rows as stored.
    background : WriterThread
        Where the work is done.
    threads : int, optional
        Threads that assign.

    Attributes
    ----------
    label, similarity : ndarray
        int32 and float32 (N,), once :meth:`finish` has been waited for: -1 and NaN for rows that never came.
    """

    def __init__(
        self,
        path: Path | None,
        rows: int,
        dim: int,
        centroids: Centroids | None,
        background: WriterThread,
        threads: int | None,
    ) -> None:
        self.label = np.full(rows, -1, np.int32)
        self.similarity = np.full(rows, np.nan, np.float32)
        self._dim = dim
        self._centroids = centroids
        self._background = background
        self._threads = threads
        self._files = ExitStack()
        self._file = None
        if path is not None:
            self._file = self._files.enter_context(self._files.enter_context(atomic_write(path)).open("wb"))
            header = {"descr": "<f2", "fortran_order": False, "shape": (rows, dim)}
            np.lib.format.write_array_header_1_0(self._file, header)
        self._begin(0)

    def add(self, positions: NDArray[np.int64], embeddings: NDArray[np.float32]) -> None:
        """Take the rows at ``positions``, ascending from call to call."""
        while len(positions):
            inside = np.searchsorted(positions, self._start + len(self._block))
            self._block[positions[:inside] - self._start] = embeddings[:inside]
            positions, embeddings = positions[inside:], embeddings[inside:]
            if len(positions):
                self._flush()

    def finish(self, then: Callable[[], None]) -> None:
        """Write the rest, put the file in its place, and do ``then``, all in the background."""
        while len(self._block):
            self._flush()

        def end() -> None:
            self._files.close()
            then()

        self._background.submit(end)

    def abandon(self, error: BaseException) -> None:
        """Leave no file behind."""
        self._background.settle()
        self._files.__exit__(type(error), error, error.__traceback__)

    def _begin(self, start: int) -> None:
        self._start = start
        self._block = np.full((min(BLOCK, len(self.label) - start), self._dim), np.nan, np.float16)

    def _flush(self) -> None:
        start, block = self._start, self._block

        def write() -> None:
            if self._file is not None:
                self._file.write(block.data)
            if self._centroids is not None:
                found = assign(block, self._centroids, threads=self._threads)
                self.label[start : start + len(block)] = found.labels
                self.similarity[start : start + len(block)] = found.similarity

        self._background.submit(write)
        self._begin(start + len(block))
