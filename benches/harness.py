"""Contenders in turns, in one process, with the same threads: medians, and the ratio to the fastest peer."""

import os
import statistics
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import threadpoolctl

#: As many as rsprune takes by itself.
THREADS = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1

HEADER = "| work | seconds: median (least to most) | speed | target | besides |\n| --- | --- | --- | --- | --- |"

# OpenBLAS and OpenMP workers wait for more work in a loop: some tens of milliseconds at the next contender's expense.
_SETTLE_SECONDS = 0.1


@dataclass(frozen=True)
class Comparison:
    """The same work, done by rsprune and by what a user would write instead.

    Attributes
    ----------
    work
        What is done, as it stands in the table.
    target
        Ratio to the fastest peer that rsprune is to reach; None where there is none.
    ours, peers
        What is timed; peers by name.
    limits
        The least that any implementation has to do, such as reading the rows once. Timed in the same turns; the table
        says which part of its time ours takes.
    verify
        Is given what all contenders (ours is "rsprune") returned in their first round, raises where they disagree, and
        returns what the table says besides.
    before
        Runs before every contender, untimed.
    warm_up
        Whether the first round is left out.
    """

    work: str
    target: float | None
    ours: Callable[[], object]
    peers: Mapping[str, Callable[[], object]]
    limits: Mapping[str, Callable[[], object]] = field(default_factory=dict)
    verify: Callable[[Mapping[str, object]], str] | None = None
    before: Callable[[], None] | None = None
    warm_up: bool = True


@dataclass(frozen=True)
class Result:
    """Seconds of every round, by contender."""

    comparison: Comparison
    seconds: Mapping[str, list[float]]
    remark: str

    def median(self, name: str) -> float:
        return statistics.median(self.seconds[name])

    @property
    def fastest(self) -> str:
        """The peer with the lowest median."""
        return min(self.comparison.peers, key=self.median)

    @property
    def ratio(self) -> float:
        """How many times as fast as the fastest peer."""
        return self.median(self.fastest) / self.median("rsprune")

    def row(self) -> str:
        """The result as a row of the Markdown table."""
        target = self.comparison.target
        reached = "" if target is None else f"{target:g}x: {'met' if self.ratio >= target else 'NOT MET'}"
        shown = ("rsprune", *self.comparison.peers)
        times = [f"{name} {self.median(name):.3g} ({_spread(self.seconds[name])})" for name in shown]
        of_limits = [f"{self.median(n) / self.median('rsprune'):.0%} of {n}" for n in self.comparison.limits]
        besides = "; ".join(filter(None, [*of_limits, self.remark]))
        speed = f"**{self.ratio:.2f}x** of {self.fastest}" if self.comparison.peers else ""
        return f"| {self.comparison.work} | {', '.join(times)} | {speed} | {reached} | {besides} |"


def _spread(seconds: list[float]) -> str:
    return f"{min(seconds):.3g} to {max(seconds):.3g}"


def run(comparison: Comparison, rounds: int = 5) -> Result:
    """Time all contenders, one after the other, again and again."""
    contenders = {"rsprune": comparison.ours, **comparison.peers, **comparison.limits}
    seconds: dict[str, list[float]] = {name: [] for name in contenders}
    remark = ""
    for turn in range(rounds + comparison.warm_up):
        answers = {}
        for name, contender in contenders.items():
            if comparison.before:
                comparison.before()
            time.sleep(_SETTLE_SECONDS)
            begun = time.perf_counter()
            answers[name] = contender()
            seconds[name].append(time.perf_counter() - begun)
        if turn == 0 and comparison.verify:
            remark = comparison.verify(answers)
    return Result(comparison, {name: times[comparison.warm_up :] for name, times in seconds.items()}, remark)


def use_threads(threads: int) -> None:
    """Let every peer that is imported by now work with so many threads."""
    threadpoolctl.threadpool_limits(threads)  # every BLAS and OpenMP
    for name, function in [("torch", "set_num_threads"), ("cv2", "setNumThreads"), ("faiss", "omp_set_num_threads")]:
        if name in sys.modules:
            getattr(sys.modules[name], function)(threads)


def libraries() -> str:
    """Which BLAS, and compiled for which CPU, the peers run."""
    pools = {
        f"{pool['internal_api']} {pool['version']} {pool.get('architecture', '')}".strip()
        for pool in threadpoolctl.threadpool_info()
        if pool["user_api"] == "blas"
    }
    if "torch" in sys.modules:
        pools.add(f"torch {sys.modules['torch'].backends.cpu.get_cpu_capability()}")
    if "faiss" in sys.modules:
        pools.add(f"faiss {sys.modules['faiss'].get_compile_options().strip()}")
    return ", ".join(sorted(pools))
