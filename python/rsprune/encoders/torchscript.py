"""TorchScript archives, as ``torch.jit.save`` writes them: their tensors by name, without running the code in them."""

from __future__ import annotations

import math
import pickle
import zipfile
from collections import OrderedDict
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["is_torchscript", "read_torchscript"]

#: A file that every such archive holds, and no other of PyTorch's.
CONSTANTS = "/constants.pkl"

#: PyTorch's dtypes by the names of its old classes of storage.
DTYPES = {
    "DoubleStorage": "float64",
    "FloatStorage": "float32",
    "HalfStorage": "float16",
    "BFloat16Storage": "bfloat16",
    "LongStorage": "int64",
    "IntStorage": "int32",
    "ShortStorage": "int16",
    "CharStorage": "int8",
    "ByteStorage": "uint8",
    "BoolStorage": "bool",
}


class Attributes:
    """Stands for an object of any class: it holds what was stored of it."""

    def __init__(self, *_: Any) -> None:
        pass


def is_torchscript(path: Path) -> bool:
    """Return whether a file is such an archive."""
    if not zipfile.is_zipfile(path):
        return False
    with zipfile.ZipFile(path) as archive:
        return any(name.endswith(CONSTANTS) for name in archive.namelist())


def read_torchscript(path: Path) -> dict[str, Tensor]:
    """Read the parameters and buffers of a scripted or traced module.

    An archive that holds what no module needs is a ``pickle.UnpicklingError``.
    """
    import torch

    with zipfile.ZipFile(path) as archive:
        root = next(name for name in archive.namelist() if name.endswith(CONSTANTS)).removesuffix(CONSTANTS)

        class Unpickler(pickle.Unpickler):
            """Makes nothing but tensors, lists and :class:`Attributes`."""

            def find_class(self, module: str, name: str) -> Any:
                if module.startswith("__torch__"):
                    return Attributes
                if (module, name) == ("torch._utils", "_rebuild_tensor_v2"):
                    return tensor
                if (module, name) == ("collections", "OrderedDict"):
                    return OrderedDict
                if module == "torch" and name in DTYPES:
                    return getattr(torch, DTYPES[name])
                if module == "torch.jit._pickle":
                    return lambda *parts: parts[0] if parts else None
                message = f"{module}.{name} is no part of a module"
                raise pickle.UnpicklingError(message)

            def persistent_load(self, pid: Any) -> Tensor:
                _, dtype, key, *_ = pid
                data = bytearray(archive.read(f"{root}/data/{key}"))
                return torch.frombuffer(data, dtype=dtype) if data else torch.empty(0, dtype=dtype)

        def tensor(storage: Tensor, offset: int, shape: tuple[int, ...], strides: tuple[int, ...], *_: Any) -> Tensor:
            return storage.as_strided(shape, strides, offset) if math.prod(shape) else storage.new_empty(shape)

        with archive.open(f"{root}/data.pkl") as file:
            return dict(_tensors(Unpickler(file).load(), ""))


def _tensors(module: Any, prefix: str) -> Iterator[tuple[str, Tensor]]:
    import torch

    for name, value in vars(module).items():
        if isinstance(value, torch.Tensor):
            yield prefix + name, value
        elif isinstance(value, Attributes):
            yield from _tensors(value, f"{prefix}{name}.")
