"""Encoders that are PyTorch modules."""

from __future__ import annotations

import platform
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import PIL
import torch
from numpy.typing import NDArray
from torch import nn

from rsprune.encoders.base import Encoder
from rsprune.encoders.preprocessing import Preprocessing
from rsprune.encoders.weights import weights_provenance
from rsprune.errors import EncoderError

__all__ = ["TorchEncoder", "torch_device"]


# PyTorch's own number, which a thread that was never told otherwise starts with.
THREADS = torch.get_num_threads()


@contextmanager
def one_core() -> Iterator[None]:
    """Keep PyTorch's work in the calling thread."""
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(THREADS)


def torch_device(device: str | None) -> torch.device:
    """The device asked for, or the first GPU, or the CPU.

    Raises
    ------
    EncoderError
        If there is no such device here.
    """
    if device is None:
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        torch.empty(1, device=device)
        return torch.device(device)
    except (RuntimeError, AssertionError) as error:
        message = f"cannot use the device {device!r}: {str(error).splitlines()[0]}"
        raise EncoderError(message) from error


class TorchEncoder(Encoder):
    """An encoder around a module that maps scaled pixels (n, 3, S, S) to features (n, D).

    The module runs in float32, without gradients, and with the channels last in memory, which is how images come and
    how convolutions are fastest.

    On the CPU a batch runs on one core, and as many batches at once as there are cores: layers as small as these gain
    less from sharing one batch, and stall whenever another process takes one of the cores. It also makes embeddings
    independent of the number of threads, to the bit.

    Parameters
    ----------
    name, architecture : str
        What it is known by here, and what its module is.
    model : torch.nn.Module
        With its weights, in evaluation mode.
    dim : int
        D.
    preprocessing : Preprocessing
        What its weights were trained with.
    weights : Path
        Where they came from.
    device : torch.device
        Where to run.
    batch_size : int
        How many images at once.
    versions : dict
        Versions of the libraries that define the module.
    """

    def __init__(
        self,
        name: str,
        architecture: str,
        model: nn.Module,
        *,
        dim: int,
        preprocessing: Preprocessing,
        weights: Path,
        device: torch.device,
        batch_size: int,
        versions: dict[str, str],
    ) -> None:
        self.name = name
        self.dim = dim
        self.preprocessing = preprocessing
        self.batch_size = batch_size
        self.device = str(device)
        self.parallel = device.type == "cpu"
        self._architecture = architecture
        self._weights = weights_provenance(weights)
        self._versions = versions
        self._model = model.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        self._mean = torch.tensor(preprocessing.mean, device=device).view(1, 3, 1, 1)
        self._std = torch.tensor(preprocessing.std, device=device).view(1, 3, 1, 1)

    def provenance(self) -> dict[str, Any]:
        """Say what made the embeddings: see :meth:`Encoder.provenance`."""
        return {
            "name": self.name,
            "architecture": self._architecture,
            "dim": self.dim,
            "weights": dict(self._weights),
            "preprocessing": self.preprocessing.provenance(),
            "runtime": {
                "torch": torch.__version__,
                "pillow": PIL.__version__,
                **self._versions,
                "device": torch.device(self.device).type,
                "machine": platform.machine(),
                "precision": "float32",
            },
        }

    def forward(self, pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Map one batch: see :meth:`Encoder.forward`."""
        with torch.inference_mode(), one_core() if self.parallel else nullcontext():
            batch = torch.from_numpy(pixels).to(self.device).float()
            features = self._model(batch.sub_(self._mean).div_(self._std))
            embeddings: NDArray[np.float32] = nn.functional.normalize(features, dim=1).cpu().numpy()
        return embeddings
