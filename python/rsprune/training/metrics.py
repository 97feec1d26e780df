"""What a training shows of itself: losses as a table and a curve, and on TensorBoard where that is installed."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from rsprune.io import atomic_write, write_text

if TYPE_CHECKING:
    from rsprune.training.distributed import Processes
    from rsprune.training.trainer import TrainingFolder

__all__ = ["Records", "draw_curve"]

#: Steps that a point of the curve is the mean of, as a fraction of all: noise in time steps hides the trend.
SMOOTHED = 0.01


class Records:
    """The losses of a training, (mse, vb) a step.

    They stay on the device until they are looked at, so that no step waits for it.

    Parameters
    ----------
    folder : TrainingFolder
        Where to write.
    writes : bool
        Whether this process does.
    """

    def __init__(self, folder: TrainingFolder, writes: bool) -> None:
        self.folder = folder
        self.values = torch.empty(0, 2, dtype=torch.float64)
        self._fresh: list[Tensor] = []
        self._writes = writes
        self._board: Any = None

    def restore(self, values: Tensor) -> None:
        """Begin after the losses of a checkpoint."""
        self.values = values

    def add(self, loss: Tensor) -> None:
        """Take the losses of a step, (2,), of this process's samples."""
        self._fresh.append(loss)

    def settle(self, us: Processes) -> float:
        """Gather what was added, over all processes; returns the last step's loss."""
        if self._fresh:
            fresh = us.total(torch.stack(self._fresh)).double().cpu()
            if self._writes:
                self._show(fresh)
            self.values = torch.cat([self.values, fresh])
            self._fresh = []
        # After a loss that is no number, all are.
        return float(self.values[-1].sum())

    def draw(self) -> None:
        """Write the table and the curve."""
        rows = (f"{step},{mse!r},{vb!r}" for step, (mse, vb) in enumerate(self.values.tolist(), 1))
        write_text(self.folder.losses, "\n".join(["step,mse,vb", *rows]) + "\n")
        draw_curve(self.values.numpy(), self.folder.curve)

    def _show(self, fresh: Tensor) -> None:
        """Show new losses on TensorBoard."""
        if self._board is None:
            try:
                from torch.utils.tensorboard import SummaryWriter
            except ImportError:
                self._board = False
                return
            self._board = SummaryWriter(str(self.folder.tensorboard), purge_step=len(self.values) + 1)
        if self._board:
            for step, (mse, vb) in enumerate(fresh.tolist(), len(self.values) + 1):
                self._board.add_scalar("loss/mse", mse, step)
                self._board.add_scalar("loss/vb", vb, step)

    def close(self) -> None:
        """Let go of TensorBoard's file."""
        if self._board:
            self._board.close()


def draw_curve(losses: NDArray[np.float64], path: Path) -> None:
    """Draw the losses (steps, 2) as a PNG file; without matplotlib there is none."""
    try:
        from matplotlib.figure import Figure
    except ImportError:
        return
    window = max(1, int(SMOOTHED * len(losses)))
    whole = len(losses) // window * window
    means = losses[:whole].reshape(-1, window, 2).mean(axis=1)
    steps = np.arange(1, len(means) + 1) * window
    # The places are fixed: having them laid out takes longer than all of the drawing.
    figure = Figure(figsize=(7, 3.2), dpi=100)
    figure.subplots_adjust(left=0.09, right=0.98, bottom=0.15, top=0.9, wspace=0.25)
    for axes, values, name in zip(
        figure.subplots(1, 2), means.T, ("noise, mean squared error", "bound, bits/dim"), strict=True
    ):
        axes.plot(steps, values, linewidth=1, color="#2b6cb0")
        axes.set(xlabel="step", title=name, yscale="log" if (values > 0).all() else "linear")
        axes.grid(alpha=0.3)
    with atomic_write(path) as beside:
        figure.savefig(beside, format="png", metadata={"Software": None})
