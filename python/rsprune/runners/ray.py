"""The runner of a Ray cluster: shards side by side, on any of its nodes.

Each shard is a task; a stage that keeps a model is done by a pool of actors, each of which loads it once. Nodes read
their shards and write their files themselves: what goes through Ray is the stage, once, and a summary a shard.
"""

from __future__ import annotations

import os
import signal
import threading
import time
import warnings
from collections import Counter, deque
from collections.abc import Iterator, Sequence
from contextlib import suppress
from functools import lru_cache, partial
from pathlib import Path
from typing import Any, ClassVar, TypeVar

from typing_extensions import override

from rsprune.errors import ArgumentError, WorkerError, first_line, needed_by
from rsprune.interrupts import SIGNALS
from rsprune.runners.base import Runner, Stage, Summary
from rsprune.runners.processes import GRACE, portable, run_shard
from rsprune.runners.progress import Progress
from rsprune.sources import Shard
from rsprune.temporaries import remove_unfinished

__all__ = ["RayRunner"]

S = TypeVar("S", bound=Summary)

#: How often Ray begins a shard again whose worker or node died: as often as it does by itself.
RETRIES = 3
#: Shards that Ray is given at a time: so many that its autoscaler sees what is to be done.
AHEAD = 1_000
#: Seconds between two looks at which nodes are there, and at the images that workers have counted.
PERIOD = 1.0


class RayRunner(Runner):
    """Runs stages on the Ray cluster at :attr:`address`, ``workers`` shards at a time.

    Without an address it is the cluster that ``RAY_ADDRESS`` names, or that runs on this machine; where there is none,
    one of this machine alone is begun, and ends with this process.
    """

    has_address: ClassVar[bool] = True

    @override
    def run(self, stage: Stage[S], shards: Sequence[Shard], progress: Progress) -> Iterator[S]:
        ray = _connect(self.address)
        resources, room = _resources(ray, stage, len(shards))
        if not _has_node_for(ray, resources):
            progress.note(f"no node of the Ray cluster has {resources['num_cpus']} CPUs; waiting for one")
        stage = stage.with_threads(resources["num_cpus"])
        count = min(self.workers or room, len(shards))
        watch = _Watch(ray, stage, progress)
        kind = _Task if stage.device is None else _Actor
        context = ([ray.put(stage)], Path.cwd(), watch.meter)
        workers = [kind(ray, resources, context) for _ in range(count)]
        waiting = deque(shards)
        # A worker is given a shard when it is there: the node for it may never come.
        starting = {worker.ready: worker for worker in workers if worker.ready is not None}
        pending: dict[Any, tuple[_Task, Shard]] = {}
        attempts: Counter[Shard] = Counter()

        def give(worker: _Task) -> None:
            if waiting:
                shard = waiting.popleft()
                attempts[shard] += 1
                pending[worker.begin(shard)] = worker, shard
            else:
                worker.release()  # its room is for another one that waits for some

        def replace(worker: _Task) -> None:
            worker.release()
            workers.append(kind(ray, resources, context))
            if workers[-1].ready is None:
                give(workers[-1])
            else:
                starting[workers[-1].ready] = workers[-1]

        failed = 0
        try:
            for worker in workers:
                if worker.ready is None:
                    give(worker)
            while pending or waiting:
                ready, _ = ray.wait([*starting, *pending], timeout=PERIOD)
                for one in ready:
                    if one in starting:
                        worker = starting.pop(one)
                        try:
                            ray.get(one)
                        except ray.exceptions.RayActorError:  # its node died, or none can begin it
                            failed += 1
                            if failed > RETRIES * count:
                                raise
                            replace(worker)
                        else:
                            give(worker)
                        continue
                    worker, shard = pending.pop(one)
                    try:
                        summary = ray.get(one)
                    except ray.exceptions.RayTaskError:
                        raise
                    except ray.exceptions.RayError as error:
                        died = f"the Ray worker for {shard.name} died ({first_line(error)})"
                        if attempts[shard] < worker.attempts:
                            progress.note(f"{died}; another one tries again")
                            waiting.append(shard)
                        else:
                            yield stage.give_up(shard, f"{died}, {RETRIES + 1} times")
                        replace(worker)
                    else:
                        watch.finish(shard)
                        yield summary
                        give(worker)
                watch.look([shard for _, shard in pending.values()])
        except ray.exceptions.RayError as error:
            cause = error.cause if isinstance(error, ray.exceptions.RayTaskError) else error
            if not isinstance(cause, ray.exceptions.RayError):
                raise cause from None
            message = f"the Ray cluster cannot do the stage {stage.name!r}: {first_line(cause)}"
            raise WorkerError(message) from error
        finally:
            if not ray.is_initialized():  # the node of this process died
                pending, workers = {}, []
            ending = [worker.cancel(one) for one, (worker, _) in pending.items()]
            if ending:
                ray.wait(ending, num_returns=len(ending), timeout=GRACE)
            for worker in workers:
                worker.release()
            watch.end()


def _connect(address: str | None) -> Any:
    """Return the package ``ray``, connected to a cluster.

    Raises
    ------
    ArgumentError
        There is no cluster at the address.
    MissingDependencyError
        Ray is not installed.
    """
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    with needed_by("the runner 'ray'", "ray"):
        import ray
    if not ray.is_initialized():
        handlers = {number: signal.getsignal(number) for number in SIGNALS}
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", FutureWarning)  # of what later versions will do with GPUs
                ray.init(address, include_dashboard=False, log_to_driver=False, logging_level="error")
        except (ConnectionError, ValueError, RuntimeError) as error:
            message = f"no Ray cluster answers at the address {address!r}: {first_line(error)}"
            raise ArgumentError(message) from error
        if threading.current_thread() is threading.main_thread():
            for number, handler in handlers.items():  # Ray puts its own there
                signal.signal(number, handler)
    return ray


def _resources(ray: Any, stage: Stage[Any], shards: int) -> tuple[dict[str, int], int]:
    """Return what a worker takes of its node, and how many shards Ray is given at a time."""
    nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    gpus = stage.device not in (None, "cpu") and any(node.get("GPU", 0) >= 1 for node in nodes)
    nodes = [node for node in nodes if node.get("GPU" if gpus else "CPU", 0) >= 1]
    cores = [int(node.get("CPU", 0)) for node in nodes]
    if gpus:
        devices = [int(node["GPU"]) for node in nodes]
        threads = stage.threads or max(1, min(core // count for core, count in zip(cores, devices, strict=True)))
        return {"num_cpus": threads, "num_gpus": 1}, sum(devices)
    # All cores where there are few shards, but no more than a node has.
    threads = stage.threads or max(1, min([*cores, sum(cores) // shards]))
    room = max(1, sum(core // threads for core in cores))
    return {"num_cpus": threads}, AHEAD if stage.device is None else room


def _has_node_for(ray: Any, resources: dict[str, int]) -> bool:
    """Tell whether there is a node of so many CPUs, be they free or not."""
    return any(node["Resources"].get("CPU", 0) >= resources["num_cpus"] for node in ray.nodes() if node["Alive"])


class _Task:
    """Has shards done by any workers of the cluster, each by a task of its own."""

    ready: Any = None
    attempts = 1  # Ray makes others

    def __init__(self, ray: Any, resources: dict[str, int], context: tuple[Any, ...]) -> None:
        self.ray = ray
        self.begin = partial(ray.remote(max_retries=RETRIES, **resources)(_run).remote, *context)

    def cancel(self, task: Any) -> Any:
        """Tell the worker that is at a task to end it, and return what can be waited for."""
        self.ray.cancel(task)
        return task

    def release(self) -> None:
        """Give back what the worker holds."""


class _Actor(_Task):
    """Has shards done by one worker, one after another: it keeps what the stage has loaded.

    Attributes
    ----------
    ready
        What can be waited for: that there is a node for the worker, and it has begun.
    attempts
        How often a shard is begun, by one actor or another. Left to itself, Ray would begin it again on the same one,
        and have done so too often before it finds that the node is gone.
    """

    attempts = RETRIES + 1

    def __init__(self, ray: Any, resources: dict[str, int], context: tuple[Any, ...]) -> None:
        self.ray = ray
        # The second thread is for the call that ends it.
        made = ray.remote(max_concurrency=2, **resources)(_StageActor)
        self.actor = made.remote(*context)
        self.ready = self.actor.__ray_ready__.remote()
        self.begin = self.actor.run.remote

    @override
    def cancel(self, task: Any) -> Any:
        return self.actor.stop.remote()

    @override
    def release(self) -> None:
        self.ray.kill(self.actor)


class _Watch:
    """Tells of the progress of workers, and of nodes that have gone."""

    def __init__(self, ray: Any, stage: Stage[Any], progress: Progress) -> None:
        from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

        here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=True)
        self.meter = ray.remote(num_cpus=0, max_restarts=-1, scheduling_strategy=here)(_Meter).remote()
        self.ray, self.stage, self.progress = ray, stage, progress
        self.counted: Counter[str] = Counter()
        self.asked = self.meter.take.remote()
        self.nodes = self._alive()
        self.looked = time.monotonic()

    def _alive(self) -> dict[str, str]:
        return {node["NodeID"]: node["NodeName"] for node in self.ray.nodes() if node["Alive"]}

    def end(self) -> None:
        """End the counting."""
        if self.ray.is_initialized():
            self.ray.kill(self.meter)

    def finish(self, shard: Shard) -> None:
        """Count the images of a shard that were not counted while it was worked on."""
        self.progress.advance(self.stage.count(shard) - self.counted.pop(shard.name, 0))

    def look(self, pending: Sequence[Shard]) -> None:
        """Look, unless that was done just now; ``pending`` are the shards that are worked on."""
        if time.monotonic() - self.looked < PERIOD:
            return
        self.looked = time.monotonic()
        nodes = self._alive()
        for gone in self.nodes.keys() - nodes.keys():
            self.progress.note(f"the Ray node {self.nodes[gone]} is gone; what it was at is done on others")
        self.nodes = nodes
        if self.ray.wait([self.asked], timeout=0)[0]:
            with suppress(self.ray.exceptions.RayError):  # it has been begun anew, on another node
                new = self.ray.get(self.asked)
                for shard in pending:
                    # A shard that is done again is not counted again.
                    images = min(new[shard.name], self.stage.count(shard) - self.counted[shard.name])
                    self.counted[shard.name] += images
                    self.progress.advance(images)
            self.asked = self.meter.take.remote()


# --- what runs in the workers of the cluster --------------------------------------------------------------------------


@lru_cache(maxsize=1)
def _fetch(stage: Any) -> Stage[Any]:
    """Fetch a stage from Ray, once for all of its shards that come here."""
    import ray

    fetched: Stage[Any] = ray.get(stage)
    return fetched


def _run(stage: list[Any], cwd: Path, meter: Any, shard: Shard) -> Any:
    """Run a stage on one shard, with paths that are relative to where the command was given."""
    try:
        os.chdir(cwd)
        return run_shard(_fetch(stage[0]), shard, partial(meter.add.remote, shard.name))
    except Exception as error:
        raise portable(error) from None


class _StageActor:
    """Keeps a stage, with the model that it loads."""

    def __init__(self, stage: list[Any], cwd: Path, meter: Any) -> None:
        self.context = stage, cwd, meter

    def run(self, shard: Shard) -> Any:
        """Run the stage on one shard."""
        return _run(*self.context, shard)

    def stop(self) -> None:
        """End this process, whatever it is at."""
        remove_unfinished()
        os._exit(0)


class _Meter:
    """Counts the images of each shard that workers have done since it was last asked."""

    def __init__(self) -> None:
        self.images: Counter[str] = Counter()

    def add(self, shard: str, images: int) -> None:
        """Count images."""
        self.images[shard] += images

    def take(self) -> Counter[str]:
        """Return what was counted, and begin anew."""
        images, self.images = self.images, Counter()
        return images
