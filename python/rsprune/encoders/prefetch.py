"""Work done ahead, in background threads, and handed over in order."""

from __future__ import annotations

import threading
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import islice
from queue import SimpleQueue
from typing import TypeVar

__all__ = ["prefetched"]

T = TypeVar("T")
R = TypeVar("R")


def prefetched(
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
