"""The processes of a training: one, or those that `torchrun` started."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, distributed

from rsprune.errors import ArgumentError

__all__ = ["Processes", "processes"]

#: What `torchrun` says in the environment, and what holds without it.
LAUNCHED = (("RANK", "0"), ("WORLD_SIZE", "1"), ("LOCAL_RANK", "0"))


@dataclass(frozen=True)
class Processes:
    """One process among its fellows.

    Attributes
    ----------
    rank, world : int
        Its number, and how many there are.
    device : torch.device
        Where it computes.
    """

    rank: int
    world: int
    device: torch.device

    @property
    def first(self) -> bool:
        """Whether it is the one that writes."""
        return self.rank == 0

    def total(self, values: Tensor) -> Tensor:
        """The sum of ``values`` over all processes."""
        if self.world > 1:
            distributed.all_reduce(values)
        return values

    def wait(self) -> None:
        """Wait for the others."""
        if self.world > 1:
            distributed.barrier()


@contextmanager
def processes(device: str | None) -> Iterator[Processes]:
    """Join the processes that `torchrun` started, or be alone.

    Parameters
    ----------
    device : str, optional
        ``"cpu"``, ``"cuda"``, ``"cuda:1"``. The GPU of this process's number if not given, or the CPU where there is
        none.

    Raises
    ------
    ArgumentError
        If there is no such device.
    """
    rank, world, local = (int(os.environ.get(name, value)) for name, value in LAUNCHED)
    if device is None:
        device = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        place = torch.device(device)
        if place.type == "cuda" and world > 1:
            place = torch.device("cuda", local)
        torch.empty(1, device=place)
    except (RuntimeError, AssertionError) as error:
        message = f"cannot use the device {device!r}: {str(error).splitlines()[0]}"
        raise ArgumentError(message) from error
    if world == 1:
        yield Processes(0, 1, place)
        return
    if place.type == "cuda":
        torch.cuda.set_device(place)
    distributed.init_process_group("nccl" if place.type == "cuda" else "gloo")
    try:
        yield Processes(rank, world, place)
    finally:
        distributed.destroy_process_group()
