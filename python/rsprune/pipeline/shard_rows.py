"""The rows of a shard on their way to the disk: assigned and written in the background, while the next are embedded."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType

import numpy as np
from numpy.typing import NDArray

from rsprune.centroids import Centroids
from rsprune.files import replacing
from rsprune.selection import assign

__all__ = ["Background", "ShardRows"]

#: Rows that are assigned and written at once: 8 MB in 1,024 dimensions, and enough to keep every core busy.
BLOCK = 4096

#: Blocks that may wait for the disk before the encoder does.
DEPTH = 2


class Background:
    """A thread that does one thing after another; a context manager.

    An exception there comes up in the next :meth:`submit`, or when the context ends, and nothing is done after it.
    """

    def __init__(self) -> None:
        self._pool = ThreadPoolExecutor(1, "rsprune-write")
        self._pending: deque[Future[None]] = deque()
        self._broken = False

    def submit(self, work: Callable[[], None]) -> None:
        """Have something done after what was submitted before; waits when too much does."""
        while len(self._pending) >= DEPTH:
            self._pending.popleft().result()
        self._pending.append(self._pool.submit(self._do, work))

    def settle(self) -> None:
        """Wait until all is done or has failed."""
        wait(self._pending)

    def _do(self, work: Callable[[], None]) -> None:
        if not self._broken:
            try:
                work()
            except BaseException:
                self._broken = True
                raise

    def __enter__(self) -> Background:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._pool.shutdown()
        while self._pending and error is None:
            self._pending.popleft().result()


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
    background : Background
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
        background: Background,
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
            self._file = self._files.enter_context(self._files.enter_context(replacing(path)).open("wb"))
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
