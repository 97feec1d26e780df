"""Trials side by side, each in a process and on a device of its own."""

from __future__ import annotations

import multiprocessing
import os
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from contextlib import ExitStack
from dataclasses import replace
from multiprocessing.connection import wait
from typing import Any

import torch

from rsprune.experiments.tables_and_figures import Arm
from rsprune.experiments.trial import TrialRunner

__all__ = ["run_trials"]

Trial = tuple[Arm, int]


def run_trials(
    runner: TrialRunner, left: Sequence[Trial], places: Sequence[str], workers: int | None
) -> Iterator[tuple[Arm, int, dict[str, Any]]]:
    """Carry out trials, and yield each with its figures when it is done."""
    on_cpu = torch.device(places[0]).type == "cpu"
    count = workers or ((os.cpu_count() or 1) // runner.threads if on_cpu else len(places))
    if min(count, len(left)) <= 1:
        threads = torch.get_num_threads()
        try:
            for arm, seed in left:
                yield arm, seed, runner.run(arm, seed)
        finally:
            torch.set_num_threads(threads)
        return
    # Processes of their own: a trial's many small operations would wait for each other's interpreter. They get a copy
    # of the runner that has opened nothing yet.
    spawn = multiprocessing.get_context("spawn")
    numbers = spawn.Queue()
    for number in range(count):
        numbers.put(places[number % len(places)])
    with ExitStack() as stack:
        executor = ProcessPoolExecutor(count, spawn, initializer=take_place, initargs=(replace(runner), numbers))
        stack.callback(executor.shutdown, wait=True, cancel_futures=True)
        waiting = {executor.submit(run_here, arm, seed): (arm, seed) for arm, seed in left}
        for future in as_completed(waiting):
            yield *waiting[future], future.result()


_here: list[TrialRunner] = []


def take_place(runner: TrialRunner, places: Any) -> None:
    """Make this process one that carries out trials, as long as the one that started it lives."""
    _here.append(replace(runner, device=places.get()))
    threading.Thread(target=leave_with_parent, daemon=True).start()


def leave_with_parent() -> None:
    """End this process when its parent is gone: an orphan would hold the folder of its trial."""
    parent = multiprocessing.parent_process()
    assert parent is not None
    wait([parent.sentinel])
    os._exit(1)


def run_here(arm: Arm, seed: int) -> dict[str, Any]:
    """Carry out a trial in this process."""
    return _here[0].run(arm, seed)
