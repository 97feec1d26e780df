"""The training loop, resumable to the bit.

A step is a function of the weights, the optimizer state and the number of the step: a training that resumes from a
checkpoint takes the same steps as one that was never stopped (on a CPU to the bit).
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Mapping
from contextlib import closing, nullcontext
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.parallel import DistributedDataParallel

from rsprune.errors import ArgumentError, DivergedError
from rsprune.runners import Progress
from rsprune.temporaries import remove_temporaries
from rsprune.training.checkpoint import (
    TrainingFolder,
    initial_weights,
    keep_checkpoint,
    load_state,
    resume_checkpoint,
    save_checkpoint,
)
from rsprune.training.config import OptimizerConfig, Precision, TrainConfig
from rsprune.training.distributed import DistributedContext
from rsprune.training.dit import DiT
from rsprune.training.gaussian_diffusion import GaussianDiffusion
from rsprune.training.latent_loader import Loader, load_ahead
from rsprune.training.metrics import LossLog

__all__ = ["TrainState", "autocast", "check_loss", "resolve_precision", "train"]

#: Steps between two transfers of the losses from the device.
FLUSH_EVERY = 50


def resolve_precision(precision: Precision, device: torch.device) -> Literal["float32", "bfloat16"]:
    """Return the precision that ``"auto"`` stands for on a device."""
    if precision != "auto":
        return precision
    return "bfloat16" if device.type == "cuda" and torch.cuda.is_bf16_supported() else "float32"


def autocast(device: torch.device, precision: str) -> torch.autocast:
    """Compute in ``precision`` where that is safe."""
    return torch.autocast(device.type, torch.bfloat16, enabled=precision == "bfloat16")


def check_loss(loss: float, step: int, how: str = "") -> None:
    """Raise a :class:`DivergedError` if the loss is NaN or infinite; ``how`` says from what to begin again."""
    if not math.isfinite(loss):
        message = f"the loss at step {step} is {loss}: begin again with a lower learning rate, in another folder{how}"
        raise DivergedError(message)


class TrainState:
    """The state of a training between two steps: weights, averaged weights (EMA), optimizer, number of steps."""

    def __init__(self, model: DiT, config: OptimizerConfig) -> None:
        self.model, self.decay, self.step = model, config.ema, 0
        self.ema = copy.deepcopy(model).eval().requires_grad_(False)
        fused = next(model.parameters()).device.type == "cuda"
        parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
        self.optimizer = torch.optim.AdamW(parameters, lr=config.lr, weight_decay=config.weight_decay, fused=fused)

    def update(self) -> None:
        """Take the optimizer step, then update the averaged weights."""
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        with torch.no_grad():
            torch._foreach_lerp_(list(self.ema.parameters()), list(self.model.parameters()), 1 - self.decay)
        self.step += 1

    def content(self) -> dict[str, Any]:
        """Return the content of a checkpoint, in the layout of the published ones."""
        return {
            "model": self.model.state_dict(),
            "ema": self.ema.state_dict(),
            "opt": self.optimizer.state_dict(),
            "args": None,
            "step": self.step,
        }

    def load_weights(self, model: Mapping[str, Tensor], ema: Mapping[str, Tensor], path: Path) -> None:
        """Take the weights of a checkpoint, the last and the averaged ones."""
        device = next(self.model.parameters()).device
        for module, state in ((self.model, model), (self.ema, ema)):
            load_state(module, {name: value.to(device) for name, value in state.items()}, path)
        self.ema.requires_grad_(False)
        # load_state has replaced the parameters.
        parameters = [parameter for parameter in self.model.parameters() if parameter.requires_grad]
        self.optimizer.param_groups[0]["params"] = parameters

    def restore(self, content: dict[str, Any], path: Path) -> None:
        """Restore the state of a checkpoint."""
        self.load_weights(content["model"], content["ema"], path)
        self.optimizer.load_state_dict(content["opt"])
        self.step = int(content["step"])


def train(
    model: DiT,
    loader: Loader,
    folder: TrainingFolder | None,
    recipe: dict[str, Any],
    optimizer: OptimizerConfig,
    config: TrainConfig,
    dist: DistributedContext,
    progress: Progress,
    draw_samples: Callable[[DiT, Path], None],
    init_from: Path | None = None,
) -> tuple[int, NDArray[np.float64]]:
    """Train a network, or resume from the last checkpoint in the folder.

    ``loader(step, positions)`` makes the samples at some positions of a step's batch; it is called in threads, ahead.
    ``recipe`` is everything that decides the weights, JSON-serializable, and is stored in each checkpoint;
    ``optimizer`` has a precision other than "auto". The main process of ``dist`` writes checkpoints, losses and samples
    to ``folder``, the latter by ``draw_samples(ema, path)``; with None nothing is read or written. The weights of a
    checkpoint ``init_from`` replace the initial ones of ``model``, unless the training resumes from its own.

    Returns
    -------
    taken : int
        Number of steps that this call has taken.
    losses : ndarray
        float64 (steps, 2), over all steps: mean squared error of the noise, and variational bound in bits per
        dimension.

    Raises
    ------
    ArgumentError
        The batch cannot be shared evenly among the processes, or does not fit in the device's memory.
    ConfigMismatchError
        The checkpoint in the folder is of another recipe.
    DivergedError
        A loss is NaN or infinite.
    """
    device, batch_size = dist.device, optimizer.batch
    share, remainder = divmod(batch_size, dist.world_size)
    if remainder:
        message = f"a batch of {batch_size} cannot be shared evenly among {dist.world_size} processes"
        raise ArgumentError(message)
    if device.type == "cuda":
        torch.set_float32_matmul_precision("high")  # TF32 where the network computes in float32

    # The state: new, or that of the last checkpoint.
    model = model.to(device).train()
    state = TrainState(model, optimizer)
    out = folder if dist.is_main else None
    log = LossLog(out, dist)
    if out is not None:
        remove_temporaries(out.path)
    if folder is not None and (content := resume_checkpoint(folder.last, recipe)) is not None:
        state.restore(content, folder.last)
        log.losses = content["losses"]
    elif init_from is not None:
        state.load_weights(*initial_weights(init_from), init_from)
    resumed_at = state.step
    if out is not None and resumed_at >= config.iterations and not out.checkpoint(resumed_at).exists():
        keep_checkpoint(out.last, out.checkpoint(resumed_at))  # fewer steps are asked for than were taken before

    # The data: this process's share of each batch, in micro-batches that threads make ahead.
    first, micro = dist.rank * share, min(config.micro_batch or share, share)
    micro_batches = [range(start, min(start + micro, first + share)) for start in range(first, first + share, micro)]
    places = ((step, positions) for step in range(resumed_at, config.iterations) for positions in micro_batches)

    # The network: compiled, and wrapped so that gradients are averaged over the processes.
    diffusion = GaussianDiffusion(device)
    network: Callable[..., Tensor] = torch.compile(model) if config.compile else model
    parallel: DistributedDataParallel | None = None
    if dist.world_size > 1:
        parallel = DistributedDataParallel(network, device_ids=[device] if device.type == "cuda" else None)

    progress.start("train", config.iterations * batch_size, resumed_at * batch_size)
    with closing(load_ahead(loader, places)) as batches, closing(log):
        while state.step < config.iterations:
            # Accumulate the gradients of the micro-batches; only the last one synchronizes them.
            loss = torch.zeros(2, device=device)
            for number in range(len(micro_batches)):
                batch = next(batches).to(device)
                synchronizes = number == len(micro_batches) - 1
                try:
                    with nullcontext() if parallel is None or synchronizes else parallel.no_sync():
                        noisy = diffusion.q_sample(batch.x, batch.t, batch.noise)
                        with autocast(device, optimizer.precision):
                            output = (parallel or network)(noisy, batch.t, batch.y, batch.cond)
                        losses = diffusion.training_losses(output, batch.x, noisy, batch.t, batch.noise)
                        # Averaged over the processes, this is the gradient of the mean over the whole batch.
                        objective: Any = losses.total.sum() * (dist.world_size / batch_size)
                        objective.backward()
                except torch.OutOfMemoryError as error:
                    message = (
                        f"{len(batch.t)} samples at once do not fit in the memory of {device}: "
                        f"try micro_batch={max(len(batch.t) // 2, 1)}, the result is the same but for rounding"
                    )
                    raise ArgumentError(message) from error
                loss += torch.stack([losses.mse.detach().sum(), losses.vb.detach().sum()])
            state.update()
            log.add(loss / batch_size)
            progress.advance(batch_size)

            # What is due after this step?
            step, last = state.step, state.step == config.iterations
            sample_due = last or step % config.sample_every == 0
            keep_due = last or step % config.keep_every == 0
            save_due = keep_due or step % config.checkpoint_every == 0
            if save_due or sample_due or step % FLUSH_EVERY == 0:
                option = "--init-from" if recipe["task"] == "train" else "--checkpoint"
                saved = folder is not None and folder.last.exists() and f"{option} {folder.last}"
                check_loss(log.flush(), step, f", from the weights of its last checkpoint: {saved}" if saved else "")
            if out is not None and sample_due:
                draw_samples(state.ema, out.samples(step))
            if out is not None and save_due:
                # last.pt is written last: a training that resumes from it finds everything else of its step.
                log.write()
                written = out.checkpoint(step) if keep_due else out.last
                save_checkpoint(
                    written, state.content() | {"recipe": recipe | {"iterations": step}, "losses": log.losses}
                )
                if keep_due:
                    keep_checkpoint(written, out.last)
            if save_due or sample_due:
                dist.barrier()
    progress.finish()
    return state.step - resumed_at, log.losses.numpy()
