"""Data-parallel training: the processes that `torchrun` started, or a single one."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, distributed

from rsprune.errors import ArgumentError

__all__ = ["DistributedContext", "join_processes"]


@dataclass(frozen=True)
class DistributedContext:
    """Rank and device of this process, and the number of processes."""

    rank: int
    world_size: int
    device: torch.device

    @property
    def is_main(self) -> bool:
        """Whether this is the process that writes files."""
        return self.rank == 0

    def all_reduce_sum(self, values: Tensor) -> Tensor:
        """Sum ``values`` over all processes, in place."""
        if self.world_size > 1:
            distributed.all_reduce(values)
        return values

    def barrier(self) -> None:
        """Wait for the other processes."""
        if self.world_size > 1:
            distributed.barrier()


@contextmanager
def join_processes(device: str | None) -> Iterator[DistributedContext]:
    """Join the processes that `torchrun` started; without it this process is the only one.

    By default the device is the GPU of this process's local rank, or the CPU if there is no GPU; one that is not there
    is an :class:`~rsprune.errors.ArgumentError`.
    """
    environment = (("RANK", 0), ("WORLD_SIZE", 1), ("LOCAL_RANK", 0))  # set by torchrun
    rank, world_size, local_rank = (int(os.environ.get(name, default)) for name, default in environment)
    if device is None:
        device = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        place = torch.device(device)
        if place.type == "cuda" and world_size > 1:
            place = torch.device("cuda", local_rank)
        torch.empty(1, device=place)
    except (RuntimeError, AssertionError) as error:
        message = f"cannot use the device {device!r}: {str(error).splitlines()[0]}"
        raise ArgumentError(message) from error
    if world_size == 1:
        yield DistributedContext(0, 1, place)
        return
    if place.type == "cuda":
        torch.cuda.set_device(place)
    distributed.init_process_group("nccl" if place.type == "cuda" else "gloo")
    try:
        yield DistributedContext(rank, world_size, place)
    finally:
        distributed.destroy_process_group()
