"""The runner of one machine: shards side by side, in processes of their own."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import pickle
import signal
import sys
import threading
from collections import Counter, deque
from collections.abc import Callable, Generator, Iterator, Sequence
from multiprocessing.connection import Connection, wait
from typing import Any, NoReturn, TypeVar

from typing_extensions import override

from rsprune.errors import WorkerError
from rsprune.interrupts import orderly_end
from rsprune.runners.base import Advance, Runner, Stage, Summary
from rsprune.runners.progress import NoProgress, Progress
from rsprune.sources import Shard
from rsprune.temporaries import remove_unfinished

__all__ = ["ProcessRunner", "map_in_processes", "portable", "run_shard"]

S = TypeVar("S", bound=Summary)
T = TypeVar("T")

Work = Callable[[Any, Any, Advance], Any]

#: How often a task is begun before the death of its worker is an error.
ATTEMPTS = 2
#: Seconds that workers have to remove their temporary files when they are told to end.
GRACE = 5.0


class ProcessRunner(Runner):
    """Runs stages in spawned processes, one a core unless told otherwise; each has its share of the threads."""

    @override
    def run(self, stage: Stage[S], shards: Sequence[Shard], progress: Progress) -> Iterator[S]:
        count = min(self.workers or os.cpu_count() or 1, len(shards))
        states = [stage.with_threads(max(1, (stage.threads or os.cpu_count() or 1) // count))] * count
        done = map_in_processes(run_shard, states, shards, progress, name=lambda one: one.name, give_up=stage.give_up)
        with contextlib.closing(done):
            for _, summary in done:
                yield summary


def run_shard(stage: Stage[S], shard: Shard, advance: Advance) -> S:
    """Run a stage on one shard."""
    with stage:
        return stage.run(shard, advance)


def end_the_work(task: Any, reason: str) -> NoReturn:
    """Raise a :class:`~rsprune.errors.WorkerError`: the work cannot do without a task."""
    message = f"{reason}; what other workers finished is kept"
    raise WorkerError(message)


class _Worker:
    """A process, and the task that it is at."""

    def __init__(self, work: Work, state: Any) -> None:
        spawn = multiprocessing.get_context("spawn")
        self.state = state
        self.task: int | None = None
        self.connection, theirs = spawn.Pipe()
        self.process = spawn.Process(target=_serve, args=(theirs, work, state), name="rsprune-worker", daemon=True)
        self.process.start()
        theirs.close()

    def death(self) -> str:
        """Wait for a process that has closed its connection, and say how it ended."""
        self.process.join()
        code = self.process.exitcode or 0
        with contextlib.suppress(ValueError):
            return signal.Signals(-code).name
        return f"exit code {code}"


def map_in_processes(
    work: Work,
    states: Sequence[Any],
    tasks: Sequence[T],
    progress: Progress | None = None,
    *,
    name: Callable[[T], str] = str,
    give_up: Callable[[T, str], Any] = end_the_work,
) -> Generator[tuple[T, Any], None, None]:
    """Do ``work(state, task, advance)`` for each task in spawned processes; yield task and result as they are done.

    ``work`` is a function that a new process can import; ``states`` hold for each process what it needs for all of its
    tasks. Tasks are begun in order. ``progress`` is told of images that are done, and of processes that died; ``name``
    names a task in messages. A task whose process died is begun anew in another process when no other task is waiting;
    after the second death ``give_up(task, reason)`` makes its result.

    Raises
    ------
    WorkerError
        A process died twice over one task, unless ``give_up`` can do without it.
    Exception
        Whatever ``work`` raises. The other processes are told to end.
    """
    progress = progress or NoProgress()
    waiting = deque(range(len(tasks)))
    attempts: Counter[int] = Counter()
    workers: list[_Worker] = []

    def give(worker: _Worker) -> None:
        worker.task = waiting.popleft() if waiting else None
        if worker.task is not None:
            attempts[worker.task] += 1
            with contextlib.suppress(OSError):  # it has died: this is noticed below
                worker.connection.send(tasks[worker.task])

    try:
        for state in states[: len(tasks)]:
            workers.append(_Worker(work, state))
            give(workers[-1])
        while busy := {worker.connection: worker for worker in workers if worker.task is not None}:
            for connection in wait(list(busy)):
                worker = busy[connection]  # type: ignore[index]
                task = worker.task
                assert task is not None
                try:
                    kind, value = worker.connection.recv()
                except (EOFError, OSError):
                    death = worker.death()
                    workers.remove(worker)
                    message = f"the worker process for {name(tasks[task])} died ({death})"
                    if attempts[task] < ATTEMPTS:
                        progress.note(f"{message}; another one tries again")
                        waiting.append(task)  # at the end, when others may need less memory
                    else:
                        yield tasks[task], give_up(tasks[task], f"{message}, {ATTEMPTS} times")
                    if waiting:
                        workers.append(_Worker(work, worker.state))
                        give(workers[-1])
                    continue
                if kind == "error":
                    raise value
                if kind == "advance":
                    progress.advance(value)
                else:
                    yield tasks[task], value
                    give(worker)
    finally:
        _end(workers)


def _end(workers: Sequence[_Worker]) -> None:
    """End processes: those at work by a signal that lets them remove their temporary files."""
    for worker in workers:
        worker.connection.close()
        if worker.task is not None:
            worker.process.terminate()
    for worker in workers:
        worker.process.join(GRACE)
        if worker.process.is_alive():
            worker.process.kill()
            worker.process.join()


def _serve(connection: Connection, work: Work, state: Any) -> None:
    """Do tasks as they come, until the process that gives them closes the connection or is gone."""
    threading.Thread(target=_leave_with_parent, daemon=True).start()
    with orderly_end(lambda _: sys.exit(143), grace=GRACE / 2), contextlib.suppress(EOFError, OSError):
        # A terminal sends it to all processes; the parent ends its workers.
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        while True:
            task = connection.recv()
            try:
                result = ("result", work(state, task, lambda images: connection.send(("advance", images))))
            except Exception as error:  # whatever it is, the parent raises it
                result = ("error", portable(error))
            connection.send(result)


def portable(error: Exception) -> Exception:
    """Return an exception that can be sent to another process."""
    try:
        pickle.loads(pickle.dumps(error))
    except Exception:  # an exception with arguments of its own kind, of whatever package
        return RuntimeError(f"{type(error).__name__}: {error}")
    return error


def _leave_with_parent() -> None:
    """End this process when its parent is gone: an orphan would hold the folder that it works on."""
    parent = multiprocessing.parent_process()
    assert parent is not None
    wait([parent.sentinel])
    remove_unfinished()
    os._exit(1)
