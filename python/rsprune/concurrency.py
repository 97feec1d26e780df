"""Background threads: work done ahead of its use, and work handed over to be done in order."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import contextmanager
from itertools import islice
from queue import SimpleQueue
from types import TracebackType
from typing import Any, TypeVar

__all__ = ["WriterThread", "prefetch_map", "single_threaded"]

T = TypeVar("T")
R = TypeVar("R")

#: Tasks that may wait for a :class:`WriterThread` before `submit` waits, too.
WRITER_DEPTH = 2


def prefetch_map(
    work: Callable[[int, list[T]], R], items: Iterable[T], size: int, *, threads: int, depth: int
) -> Generator[R, None, None]:
    """Yield ``work(start, batch)`` for each batch of ``size`` items, in order; ``start`` counts the items before it.

    One thread reads ``items``, ``threads`` work, and at most ``depth`` batches are in the making or wait. An exception
    of either comes up in its place. When the iterator is closed, the threads have ended.
    """
    pending: SimpleQueue[Future[R] | None] = SimpleQueue()
    slots = threading.Semaphore(depth)
    closed = threading.Event()
    pool = ThreadPoolExecutor(threads, "rsprune-work")

    def read() -> None:
        start = 0
        try:
            iterator = iter(items)
            while True:
                slots.acquire()
                if closed.is_set() or not (batch := list(islice(iterator, size))):
                    break
                pending.put(pool.submit(work, start, batch))
                start += len(batch)
            if hasattr(items, "close"):  # a generator holds a file open
                items.close()
        except BaseException as error:  # whatever it is, the consumer is to see it
            failed: Future[R] = Future()
            failed.set_exception(error)
            pending.put(failed)
        pending.put(None)

    # Never joined at exit: a consumer that was left half-way through would keep the process alive.
    reader = threading.Thread(target=read, name="rsprune-read", daemon=True)
    reader.start()
    try:
        while (future := pending.get()) is not None:
            result = future.result()
            slots.release()
            yield result
    finally:
        closed.set()
        slots.release()
        reader.join()
        pool.shutdown(cancel_futures=True)


class WriterThread:
    """A thread that does one thing after another; a context manager.

    An exception there comes up in the next :meth:`submit`, in the futures of all that was submitted after it, and when
    the context ends; nothing is done after it.
    """

    def __init__(self) -> None:
        self._pool = ThreadPoolExecutor(1, "rsprune-write")
        self._pending: deque[Future[Any]] = deque()
        self._error: BaseException | None = None

    def submit(self, work: Callable[[], R]) -> Future[R]:
        """Have something done after what was submitted before; waits when too much does."""
        while len(self._pending) >= WRITER_DEPTH:
            self._pending.popleft().result()
        future = self._pool.submit(self._do, work)
        self._pending.append(future)
        return future

    def settle(self) -> None:
        """Wait until all is done or has failed."""
        wait(self._pending)

    def _do(self, work: Callable[[], R]) -> R:
        if self._error is not None:
            raise self._error
        try:
            return work()
        except BaseException as error:
            self._error = error
            raise

    def __enter__(self) -> WriterThread:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._pool.shutdown()
        while self._pending and error is None:
            self._pending.popleft().result()


# How many threads PyTorch uses where nobody said otherwise. A new thread may start with what another one has set last.
_torch_threads: int | None = None
_torch_threads_lock = threading.Lock()


@contextmanager
def single_threaded() -> Iterator[None]:
    """Keep PyTorch's work in the calling thread; other threads are not affected."""
    import torch

    global _torch_threads
    with _torch_threads_lock:
        if _torch_threads is None:
            _torch_threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(_torch_threads)
