"""The losses of a training: as a table, as a curve, and on TensorBoard where that is installed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from rsprune.charts import Line, lines
from rsprune.io import write_text
from rsprune.training.checkpoint import TrainingFolder
from rsprune.training.distributed import DistributedContext

__all__ = ["LossLog", "plot_losses"]

#: Fraction of the steps that one point of the curve averages: the random time steps hide the trend of single losses.
SMOOTHING = 0.01


class LossLog:
    """The losses of every step: mean squared error of the noise, and variational bound.

    Losses stay on the device until they are flushed, so that no step waits for them. A process without a ``folder``
    writes nothing.
    """

    def __init__(self, folder: TrainingFolder | None, dist: DistributedContext) -> None:
        self.folder, self.dist = folder, dist
        self.losses = torch.empty(0, 2, dtype=torch.float64)
        self._pending: list[Tensor] = []
        self._tensorboard: Any = None

    def add(self, loss: Tensor) -> None:
        """Add the losses of a step, (2,), over this process's samples."""
        self._pending.append(loss)

    def flush(self) -> float:
        """Sum what was added over all processes; returns the loss of the last step."""
        if self._pending:
            new = self.dist.all_reduce_sum(torch.stack(self._pending)).double().cpu()
            self._log_to_tensorboard(new)
            self.losses = torch.cat([self.losses, new])
            self._pending = []
        return float(self.losses[-1].sum())

    def write(self) -> None:
        """Write the table and the curve."""
        if self.folder is not None:
            rows = (f"{step},{mse!r},{vb!r}" for step, (mse, vb) in enumerate(self.losses.tolist(), 1))
            write_text(self.folder.losses, "\n".join(["step,mse,vb", *rows]) + "\n")
            plot_losses(self.losses.numpy(), self.folder.curve)

    def _log_to_tensorboard(self, new: Tensor) -> None:
        first = len(self.losses) + 1
        if self._tensorboard is None and self.folder is not None:
            try:
                from torch.utils.tensorboard import SummaryWriter
            except ImportError:
                self._tensorboard = False
            else:
                self._tensorboard = SummaryWriter(str(self.folder.tensorboard), purge_step=first)
        if self._tensorboard:
            for step, (mse, vb) in enumerate(new.tolist(), first):
                self._tensorboard.add_scalar("loss/mse", mse, step)
                self._tensorboard.add_scalar("loss/vb", vb, step)

    def close(self) -> None:
        """Close TensorBoard's file."""
        if self._tensorboard:
            self._tensorboard.close()


def plot_losses(losses: NDArray[np.float64], path: Path) -> None:
    """Plot losses (steps, 2) as an SVG file; logarithms, where all of them are positive."""
    window = max(1, int(SMOOTHING * len(losses)))
    count = len(losses) // window
    means = losses[: count * window].reshape(count, window, 2).mean(axis=1)
    steps = (np.arange(1, count + 1) * window).tolist()
    plots = []
    for values, head in zip(means.T, ("noise, mean squared error", "bound, bits/dim"), strict=True):
        positive = bool((values > 0).all())
        y = (np.log10(values) if positive else values).tolist()
        plots.append(Line(f"{head} (log10)" if positive else head, "step", steps, y))
    write_text(path, lines("Losses", plots))
