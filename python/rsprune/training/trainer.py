"""The training loop: gradients over a global batch, averaged weights, checkpoints, and going on after a kill.

A step is a function of the weights, the optimiser's state and the step's number: whoever goes on from a checkpoint
takes the same steps, on a CPU to the bit.
"""

from __future__ import annotations

import copy
import os
import shutil
from collections.abc import Callable, Generator
from contextlib import closing, nullcontext
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from rsprune.concurrency import prefetch_map
from rsprune.encoders.torch_encoder import one_core
from rsprune.errors import ArgumentError, ConfigMismatchError, DivergedError
from rsprune.io import atomic_write, config_diff, remove_temporaries
from rsprune.runners import Progress
from rsprune.training.checkpoint import load_state, read_checkpoint
from rsprune.training.distributed import Processes
from rsprune.training.dit import DiT
from rsprune.training.gaussian_diffusion import Diffusion
from rsprune.training.metrics import Records
from rsprune.validation import check_integer

__all__ = ["Batch", "Optimisation", "Precision", "Schedule", "TrainingFolder", "autocast", "precision_on", "train"]

#: What the network computes in; its weights are float32. "auto": bfloat16 on GPUs that have it.
Precision = Literal["auto", "float32", "bfloat16"]

#: Micro-batches that may be ready before they are needed, and threads that make them.
AHEAD, MAKERS = 4, 4


@dataclass(frozen=True)
class Batch:
    """Samples of a step: float32 (n, C, S, S) inputs and noise, int64 (n,) time steps, and what conditions them."""

    x: Tensor
    noise: Tensor
    t: Tensor
    y: Tensor | None = None
    cond: Tensor | None = None

    def to(self, device: torch.device) -> Batch:
        """The batch on a device."""

        def moved(value: Tensor) -> Tensor:
            return (value.pin_memory() if device.type == "cuda" else value).to(device, non_blocking=True)

        y, cond = (None if value is None else moved(value) for value in (self.y, self.cond))
        return Batch(moved(self.x), moved(self.noise), moved(self.t), y, cond)


@dataclass(frozen=True)
class Optimisation:
    """How weights are moved: the published recipe of DiT.

    Attributes
    ----------
    batch
        Samples of a step, over all processes.
    lr, weight_decay
        Of AdamW, constant.
    ema
        What the averaged weights keep of themselves at each step.
    precision
        What the network computes in. The loss, the weights and their average are float32.
    seed
        Of the weights at first, and of every draw.

    Raises
    ------
    ArgumentError
        If a value is none that it can have.
    """

    batch: int = 256
    lr: float = 1e-4
    weight_decay: float = 0.0
    ema: float = 0.9999
    precision: Literal["float32", "bfloat16"] = "float32"
    seed: int = 0

    def __post_init__(self) -> None:
        check_integer("batch", self.batch)
        check_integer("seed", self.seed, minimum=0)
        if not (self.lr > 0 and self.weight_decay >= 0 and 0 <= self.ema <= 1):
            message = (
                f"lr must be positive, weight_decay not negative and ema from 0 to 1, "
                f"got {self.lr}, {self.weight_decay} and {self.ema}"
            )
            raise ArgumentError(message)


@dataclass(frozen=True)
class Schedule:
    """How long, and what happens on the way. None of it shows in the weights, save ``iterations``.

    Attributes
    ----------
    iterations
        Steps in all.
    micro_batch
        Samples that go through the network at once on one device; a step's share of a process if not given.
    checkpoint_every, keep_every, sample_every
        Steps between two states that a killed training goes on from, two checkpoints that are kept, two sample grids.
    log_every
        Steps between two looks at the losses.
    compile
        Have PyTorch compile the network.
    """

    iterations: int
    micro_batch: int | None = None
    checkpoint_every: int = 2500
    keep_every: int = 50_000
    sample_every: int = 10_000
    log_every: int = 50
    compile: bool = False

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            if value is not None and field.name != "compile" and value < 1:
                message = f"{field.name} must be positive, got {value}"
                raise ArgumentError(message)


class TrainingFolder:
    """What lies where in the folder of a training."""

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self.last = self.path / "checkpoints" / "last.pt"
        self.losses = self.path / "losses.csv"
        self.curve = self.path / "losses.png"
        self.tensorboard = self.path / "tensorboard"

    def checkpoint(self, step: int) -> Path:
        """A checkpoint that is kept."""
        return self.path / "checkpoints" / f"{step:07d}.pt"

    def samples(self, step: int) -> Path:
        """A grid of samples."""
        return self.path / "samples" / f"{step:07d}.png"


def precision_on(device: torch.device, precision: Precision) -> Literal["float32", "bfloat16"]:
    """What ``"auto"`` means on a device."""
    if precision != "auto":
        return precision
    return "bfloat16" if device.type == "cuda" and torch.cuda.is_bf16_supported() else "float32"


def autocast(device: torch.device, precision: str) -> torch.autocast:
    """Compute in ``precision`` where that is safe."""
    return torch.autocast(device.type, torch.bfloat16, enabled=precision == "bfloat16")


def train(
    model: DiT,
    batches: Callable[[int, range], Batch],
    folder: TrainingFolder,
    recipe: dict[str, Any],
    optimisation: Optimisation,
    schedule: Schedule,
    us: Processes,
    observer: Progress,
    preview: Callable[[DiT, Path], None],
) -> tuple[int, NDArray[np.float64]]:
    """Train a network, or go on from the last checkpoint in the folder.

    Parameters
    ----------
    model : DiT
        With its weights at first.
    batches : callable
        The samples at the positions of a step's batch, ``batches(step, positions)``. Called in threads, ahead.
    folder : TrainingFolder
        Where checkpoints, losses and samples go.
    recipe : dict
        What decides the weights, as JSON takes it: it goes into each checkpoint.
    optimisation, schedule
        See there.
    us : Processes
        This process among its fellows. The first one writes.
    observer : Progress
        Told of each step in images.
    preview : callable
        Writes a picture of samples: ``preview(averaged, path)``.

    Returns
    -------
    taken : int
        Steps that were taken now.
    losses : ndarray
        float64 (steps, 2), of all steps: mean squared error of the noise, and the bound in bits per dimension.

    Raises
    ------
    ArgumentError
        If the batch cannot be shared among the processes, or does not fit in the device's memory.
    ConfigMismatchError
        If the folder's checkpoint is of another recipe.
    DivergedError
        If a loss is no number.
    """
    if optimisation.batch % us.world:
        message = f"a batch of {optimisation.batch} cannot be shared evenly among {us.world} processes"
        raise ArgumentError(message)
    if us.device.type == "cuda":
        torch.set_float32_matmul_precision("high")  # TF32 where the network computes in float32
    model = model.to(us.device).train()
    state = State(model, optimisation, us)
    records = Records(folder, us.first)
    if us.first:
        remove_temporaries(folder.path)
    if folder.last.exists():
        records.restore(state.load(folder.last, recipe))
    begun = step = state.step
    if us.first and step >= schedule.iterations and not folder.checkpoint(step).exists():
        link(folder.last, folder.checkpoint(step))  # fewer steps are asked for than were taken before
    stepping = Stepping(state, batches, optimisation, schedule, us)
    observer.start("train", schedule.iterations * optimisation.batch, step * optimisation.batch)
    with closing(stepping.losses(step, schedule.iterations)) as losses, closing(records):
        for loss in losses:
            step += 1
            records.add(loss)
            observer.advance(optimisation.batch)
            last = step == schedule.iterations
            keep, look = last or step % schedule.keep_every == 0, last or step % schedule.sample_every == 0
            save = keep or step % schedule.checkpoint_every == 0
            if save or look or step % schedule.log_every == 0:
                check(records.settle(us), step)
            if us.first and look:
                preview(state.averaged, folder.samples(step))
            if us.first and save:
                # last.pt comes last: who goes on from it finds everything else of its step.
                records.draw()
                state.step = step
                written = folder.checkpoint(step) if keep else folder.last
                state.save(written, recipe | {"iterations": step}, records.values)
                if keep:
                    link(written, folder.last)
            if save or look:
                us.wait()
    observer.finish()
    return step - begun, records.values.numpy()


def check(value: float, step: int) -> None:
    """Fail when the loss is no number."""
    if value != value or abs(value) == float("inf"):
        message = f"the loss at step {step} is {value}: lower the learning rate; the last checkpoint is from before"
        raise DivergedError(message)


def link(path: Path, name: Path) -> None:
    """Give a file another name too, which takes no room until one of them is given to another file."""
    with atomic_write(name) as beside:
        try:
            os.link(path, beside)
        except OSError:  # a file system that has no second names, as many network drives
            shutil.copyfile(path, beside)


class State:
    """What a training is, between two steps: weights, their average, the optimiser's moments, the step's number."""

    def __init__(self, model: DiT, optimisation: Optimisation, us: Processes) -> None:
        self.model = model
        self.averaged = copy.deepcopy(model).eval().requires_grad_(False)
        moved = [parameter for parameter in model.parameters() if parameter.requires_grad]
        self.optimizer = torch.optim.AdamW(
            moved, lr=optimisation.lr, weight_decay=optimisation.weight_decay, fused=us.device.type == "cuda"
        )
        self.keep = optimisation.ema
        self.step = 0

    def update(self) -> None:
        """Move the weights along their gradients, and their average after them."""
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        with torch.no_grad():
            torch._foreach_lerp_(list(self.averaged.parameters()), list(self.model.parameters()), 1 - self.keep)

    def save(self, path: Path, recipe: dict[str, Any], losses: Tensor) -> None:
        """Write a checkpoint, atomically."""
        content = {
            "model": self.model.state_dict(),
            "ema": self.averaged.state_dict(),
            "opt": self.optimizer.state_dict(),
            "args": None,
            "recipe": recipe,
            "step": self.step,
            "losses": losses,
        }
        with atomic_write(path) as beside:
            torch.save(content, beside)

    def load(self, path: Path, recipe: dict[str, Any]) -> Tensor:
        """Go on from a checkpoint of the same recipe.

        Returns
        -------
        Tensor
            Its losses.

        Raises
        ------
        ConfigMismatchError
            If it is of another recipe.
        """
        content = read_checkpoint(path)
        known = {name: value for name, value in content["recipe"].items() if name != "iterations"}
        if differences := list(config_diff(known, recipe)):
            lines = "\n".join(f"  {line}" for line in differences)
            message = f"{path} is a checkpoint of another recipe:\n{lines}\nGive the training another folder"
            raise ConfigMismatchError(message)
        device = next(self.model.parameters()).device
        for module, name in ((self.model, "model"), (self.averaged, "ema")):
            load_state(module, {key: value.to(device) for key, value in content[name].items()}, path)
        self.averaged.requires_grad_(False)
        moved = [parameter for parameter in self.model.parameters() if parameter.requires_grad]
        # The parameters are new objects now.
        self.optimizer.param_groups[0]["params"] = moved
        self.optimizer.load_state_dict(content["opt"])
        self.step = int(content["step"])
        losses: Tensor = content["losses"]
        return losses


class Stepping:
    """Takes steps, with the batches made ahead in threads."""

    def __init__(
        self,
        state: State,
        batches: Callable[[int, range], Batch],
        optimisation: Optimisation,
        schedule: Schedule,
        us: Processes,
    ) -> None:
        self.state, self.batches, self.us = state, batches, us
        self.precision, self.batch = optimisation.precision, optimisation.batch
        share = optimisation.batch // us.world
        self.positions = range(us.rank * share, (us.rank + 1) * share)
        self.micro = min(schedule.micro_batch or share, share)
        self.diffusion = Diffusion(us.device)
        self.network: Callable[..., Tensor] = torch.compile(state.model) if schedule.compile else state.model
        self.parallel: nn.parallel.DistributedDataParallel | None = None
        if us.world > 1:
            places = [us.device] if us.device.type == "cuda" else None
            self.parallel = nn.parallel.DistributedDataParallel(
                self.network,
                device_ids=places,
            )

    def parts(self) -> list[range]:
        """The positions of each micro-batch of this process."""
        first, end = self.positions.start, self.positions.stop
        return [range(start, min(start + self.micro, end)) for start in range(first, end, self.micro)]

    def losses(self, start: int, end: int) -> Generator[Tensor, None, None]:
        """Take the steps from ``start``, and yield after each the sums of its losses over this process's samples."""
        parts = self.parts()
        places = ((step, part) for step in range(start, end) for part in parts)
        ahead = prefetch_map(lambda _, place: self.make(*place[0]), places, 1, threads=MAKERS, depth=AHEAD)
        with closing(ahead):
            for _ in range(start, end):
                total = torch.zeros(2, device=self.us.device)
                for number, _ in enumerate(parts):
                    batch = next(ahead).to(self.us.device)
                    try:
                        total += self.backward(batch, synchronise=number == len(parts) - 1)
                    except torch.OutOfMemoryError as error:
                        message = (
                            f"{len(batch.t)} samples at once do not fit in the memory of {self.us.device}: "
                            f"try micro_batch={max(len(batch.t) // 2, 1)}, the result is the same but for rounding"
                        )
                        raise ArgumentError(message) from error
                self.state.update()
                yield total / self.batch

    def make(self, step: int, positions: range) -> Batch:
        """Make a batch in the calling thread alone.

        Threads that OpenMP kept for it would be more than there are cores: those of the network would then sleep
        between two layers.
        """
        with one_core():
            return self.batches(step, positions)

    def backward(self, batch: Batch, *, synchronise: bool) -> Tensor:
        """Add the gradients of some samples; returns the sums of their losses, (2,)."""
        wait = nullcontext() if synchronise or self.parallel is None else self.parallel.no_sync()
        with wait:
            noisy = self.diffusion.q_sample(batch.x, batch.t, batch.noise)
            with autocast(self.us.device, self.precision):
                output = (self.parallel or self.network)(noisy, batch.t, batch.y, batch.cond)
            losses = self.diffusion.losses(output, batch.x, noisy, batch.t, batch.noise)
            # Gradients of processes are averaged: each brings the share of one mean over the whole batch.
            share: Any = losses.total.sum() * (self.us.world / self.batch)
            share.backward()
        return torch.stack([losses.mse.detach().sum(), losses.vb.detach().sum()])
