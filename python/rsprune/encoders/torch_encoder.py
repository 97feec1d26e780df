"""Encoders that are PyTorch modules: on one core a batch, or on GPUs."""

from __future__ import annotations

import copy
import os
import platform
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from queue import SimpleQueue
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from rsprune import _core
from rsprune.concurrency import single_threaded
from rsprune.encoders.base import DeviceOptions, Encoder, Precision
from rsprune.encoders.preprocess import Preprocessing
from rsprune.errors import EncoderError, WeightsError

__all__ = ["TorchEncoder", "torch_devices"]

#: Images at once on a CPU core. Four images' largest activations are below what the C library maps anew, and the
#: kernel zeroes, at every layer: 77 images/s with EfficientNet-Lite0 on two cores, against 62 with 8 or 16.
CPU_BATCH = 4

#: Images at once on a GPU that has the memory; larger batches gain nothing on a network of a vision transformer's size.
GPU_BATCH = 256

#: Batches under way on each GPU: one is copied while the other is computed.
GPU_CONCURRENCY = 2

#: The share of a GPU's free memory that a batch may take: the rest is for what else the process puts there.
GPU_SHARE = 0.6


def torch_devices(device: str | None) -> list[torch.device]:
    """Return the devices asked for, or every GPU, or the CPU; fail if one of them is not here."""
    if device is None:
        count = torch.cuda.device_count()
        return [torch.device("cuda", i) for i in range(count)] or [torch.device("cpu")]
    devices = []
    for name in device.split(","):
        try:
            devices.append(torch.empty(1, device=name.strip()).device)
        except (RuntimeError, AssertionError) as error:
            message = f"cannot use the device {name.strip()!r}: {str(error).splitlines()[0]}"
            raise EncoderError(message) from error
    return devices


def torch_dtype(precision: Precision, device: torch.device) -> torch.dtype:
    """Return the type to compute with: what was asked for, or bfloat16 where the device has instructions for it."""
    if precision != "auto":
        dtype: torch.dtype = getattr(torch, precision)
        return dtype
    if device.type == "cuda":
        return torch.bfloat16 if torch.cuda.is_bf16_supported(including_emulation=False) else torch.float16
    has = _core.cpu_features() if device.type == "cpu" else {}
    return torch.bfloat16 if has.get("avx512bf16") else torch.float32  # every CPU with AMX has it, too


class TorchEncoder(Encoder):
    """An encoder around a module that maps scaled pixels (n, 3, S, S) to features (n, D).

    The module runs without gradients, and with the channels last in memory, which is how images come and how
    convolutions are fastest. Pixels go to the device as bytes and are scaled there; features are normalised in float32.

    On the CPU a batch runs on one core, and as many batches at once as there are cores: layers gain less from sharing
    one batch, and stall whenever another process takes one of the cores. It also makes embeddings independent of the
    number of threads, to the bit. On GPUs each has a copy of the module, and two batches under way.

    When a device runs out of memory the batch is computed in halves, and so are those that follow.

    The ``model``, called ``architecture``, has its weights in float32 and is in evaluation mode; ``dim`` is D, where it
    is known before the first image; ``weights`` are :func:`~rsprune.encoders.checkpoints.weights_provenance`, and
    ``versions`` those of the libraries that define the module. ``half`` lets ``precision="auto"`` mean bfloat16.
    """

    def __init__(
        self,
        name: str,
        architecture: str,
        model: nn.Module,
        *,
        dim: int | None = None,
        preprocessing: Preprocessing,
        weights: dict[str, str],
        options: DeviceOptions,
        versions: dict[str, str],
        half: bool = True,
    ) -> None:
        devices = torch_devices(options.device)
        self.name = name
        self.preprocessing = preprocessing
        self.device = ",".join(map(str, devices))
        self.one_batch_per_core = devices[0].type == "cpu"
        self._architecture = architecture
        self._weights = weights
        self._versions = versions
        precision: Precision = "float32" if options.precision == "auto" and not half else options.precision
        self._dtype = torch_dtype(precision, devices[0])
        self._compiled = options.compile
        self._max_batch: int | None = None
        self._replicas: SimpleQueue[_Replica] = SimpleQueue()
        for device in devices:
            # The last one may have the module itself.
            module = model if device is devices[-1] else copy.deepcopy(model)
            module = module.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
            if self._dtype != torch.float32:
                cast_matmul_weights(module, self._dtype)
            run = torch.compile(module) if options.compile else module
            for _ in range(concurrency_on(device)):
                self._replicas.put(_Replica(run, device, self._dtype, preprocessing))
        self.dim = self._try_out(_Replica(module, device, self._dtype, preprocessing), dim)
        self.concurrency = self._replicas.qsize()
        self.batch_size = CPU_BATCH if self.one_batch_per_core else self._fitting_batch(devices)

    def provenance(self) -> dict[str, Any]:
        """Describe the module, its weights and what runs it."""
        return {
            "name": self.name,
            "architecture": self._architecture,
            "dim": self.dim,
            "weights": dict(self._weights),
            "preprocessing": self.preprocessing.provenance(),
            "runtime": {
                "rsprune": _core.VERSION,
                "torch": torch.__version__,
                **self._versions,
                "device": torch.device(self.device.split(",")[0]).type,
                "machine": platform.machine(),
                "precision": str(self._dtype).removeprefix("torch."),
                **({"compiled": True} if self._compiled else {}),
            },
        }

    def forward(self, pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Map one batch of pixels to unit rows, in parts where a device lacks the memory.

        An :class:`EncoderError` is raised if it has none for a single image.
        """
        replica = self._replicas.get()
        try:
            with torch.inference_mode(), single_threaded() if self.one_batch_per_core else nullcontext():
                return np.concatenate(list(self._in_parts(replica, pixels)))
        finally:
            self._replicas.put(replica)

    def _try_out(self, replica: _Replica, dim: int | None) -> int:
        """Embed noise, before any image: what cannot work shows here. Return D."""
        pixels = np.random.default_rng(0).integers(0, 256, (1, 3, self.size, self.size), np.uint8)
        file = self._weights["file"]
        try:
            with torch.inference_mode():
                rows = replica(pixels)
        except Exception as error:  # of any layer, for any reason
            message = f"{self.name} ({file}) cannot embed images of {self.size} px: {str(error).splitlines()[0]}"
            raise EncoderError(message) from error
        if rows.ndim != 2 or rows.shape[1] != (dim or rows.shape[1]):
            message = f"{self.name} ({file}) gives embeddings of shape {rows.shape[1:]}, expected ({dim or 'D'},)"
            raise EncoderError(message)
        if not np.isfinite(rows).all():
            why = "the weights are damaged" if self._dtype == torch.float32 else "try precision float32"
            message = f"{self.name} gives NaN or infinity in {self._dtype} with the weights of {file}: {why}"
            raise WeightsError(message)
        return int(rows.shape[1])

    def _in_parts(self, replica: _Replica, pixels: NDArray[np.uint8]) -> Iterator[NDArray[np.float32]]:
        """Compute a batch in as few parts as memory has room for."""
        start = 0
        while start < len(pixels):
            part = pixels[start : start + (self._max_batch or len(pixels))]
            try:
                yield replica(part)
                start += len(part)
            except (torch.OutOfMemoryError, RuntimeError) as error:
                if not out_of_memory(error):
                    raise
                if len(part) == 1:
                    message = f"{self.name} has no memory for a single image on {replica.device}: {error}"
                    raise EncoderError(message) from error
                # Another thread may have come to a lower number meanwhile.
                self._max_batch = min(self._max_batch or len(part), len(part) // 2)
                if replica.device.type == "cuda":
                    torch.cuda.empty_cache()

    def _fitting_batch(self, devices: list[torch.device]) -> int:
        """Return the batch size that fits in the memory of every GPU."""
        if devices[0].type != "cuda":
            return GPU_BATCH

        def measure(images: int) -> int:
            pixels = np.zeros((images, 3, self.size, self.size), np.uint8)
            torch.cuda.reset_peak_memory_stats(devices[0])
            before = torch.cuda.memory_allocated(devices[0])
            self.forward(pixels)
            return torch.cuda.max_memory_allocated(devices[0]) - before

        free = min(torch.cuda.mem_get_info(device)[0] for device in devices)
        return fitting_batch(measure, free // GPU_CONCURRENCY)


class _Replica:
    """Room for one batch on a device: the module there, what scales pixels, and on a GPU a stream of its own.

    With two streams one batch is copied while another is computed.
    """

    def __init__(
        self,
        module: Callable[[torch.Tensor], torch.Tensor],
        device: torch.device,
        dtype: torch.dtype,
        scale: Preprocessing,
    ) -> None:
        self.device = device
        self._module = module
        self._dtype = dtype
        self._mean = torch.tensor(scale.mean, device=device).view(1, 3, 1, 1)
        self._std = torch.tensor(scale.std, device=device).view(1, 3, 1, 1)
        self._stream = torch.cuda.Stream(device) if device.type == "cuda" else None  # type: ignore[no-untyped-call]

    def __call__(self, pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
        lower = torch.autocast(self.device.type, self._dtype, enabled=self._dtype != torch.float32)
        with torch.cuda.stream(self._stream), lower:  # no stream where there is none
            batch = torch.from_numpy(pixels)
            if self._stream is not None:
                batch = batch.pin_memory()
            batch = batch.to(self.device, non_blocking=True).float().sub_(self._mean).div_(self._std)
            features = self._module(batch)
            embeddings: NDArray[np.float32] = nn.functional.normalize(features.float(), dim=1).cpu().numpy()
        return embeddings


def cast_matmul_weights(module: nn.Module, dtype: torch.dtype) -> None:
    """Keep the weights of products in 16 bits, which autocast would round anew in every batch.

    All else stays in float32: norms, and with them the sums that run through all layers of a transformer, which would
    lose a little at each. Those begin at the patches' convolution.
    """
    for part in module.modules():
        if isinstance(part, (nn.Linear, nn.Conv2d, nn.MultiheadAttention)):
            part.to(dtype)
        if isinstance(part, nn.Conv2d) and part.kernel_size == part.stride != (1, 1):
            part.register_forward_hook(lambda _part, _inputs, output: output.float())


def concurrency_on(device: torch.device) -> int:
    """Return how many batches a device works on at once: on the CPU one a core."""
    return (os.cpu_count() or 1) if device.type == "cpu" else GPU_CONCURRENCY if device.type == "cuda" else 1


def out_of_memory(error: Exception) -> bool:
    """Return whether a device, or the host's allocator, had no room."""
    return isinstance(error, torch.OutOfMemoryError) or "can't allocate memory" in str(error)


def fitting_batch(measure: Callable[[int], int], free: int) -> int:
    """Return the largest batch, halved from :data:`GPU_BATCH`, that leaves room.

    ``measure`` gives the bytes that a batch of so many images takes at its peak: a fixed part, and a part for each
    image. ``free`` is how many there are.
    """
    few, more = measure(8), measure(16)
    per_image = max((more - few) / 8, 1)
    fixed = max(few - 8 * per_image, 0)
    size = GPU_BATCH
    while size > 1 and fixed + size * per_image > GPU_SHARE * free:
        size //= 2
    return size
