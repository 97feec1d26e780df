"""Embeddings where they lie: arrays, tensors, ``.npy`` files and shards, as one (N, D) matrix."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from rsprune import _core
from rsprune._core import Rows
from rsprune.errors import DtypeError, EmptyInputError, ShapeError
from rsprune.io import check_pointer, check_record
from rsprune.validation import as_array

if TYPE_CHECKING:
    import torch

__all__ = ["Embeddings", "as_rows", "device_block_rows", "host_blocks", "natural_key"]

# Bytes of a tensor on another device that are copied to the host at a time.
_DEVICE_BLOCK_BYTES = 64 << 20


@dataclass(frozen=True)
class Embeddings:
    """(N, D) rows where they are stored; made by :func:`as_rows`."""

    shape: tuple[int, int]  # (N, D)
    #: All rows in order: consecutive parts on the host are one Rows; between them stand tensors on other devices.
    parts: list[Rows | torch.Tensor]

    def blocks(self) -> Iterator[Rows]:
        """Yield all rows in order, in as few pieces as memory allows: tensors on other devices come block by block."""
        for part in self.parts:
            yield from host_blocks(part)

    def on_host(self) -> Rows:
        """Return all rows at once, for small sets. Host memory is borrowed, rows on other devices are copied."""
        if len(self.parts) == 1 and isinstance(self.parts[0], Rows):
            return self.parts[0]
        return Rows([rows.read(0, rows.shape[0]) for rows in self.blocks()])

    def take(self, rows: NDArray[np.int64]) -> NDArray[np.floating[Any]]:
        """Copy the rows of these ascending numbers, as float32, or as float64 where they are that."""
        parts, start = [], 0
        for block in self.blocks():
            stop = start + block.shape[0]
            first, last = np.searchsorted(rows, [start, stop])
            if last > first:
                parts.append(_core.take_rows(block, rows[first:last] - start))
            start = stop
        return np.concatenate(parts)

    def valid(self, threads: int | None = None) -> NDArray[np.bool_]:
        """Find the rows that have a direction, bool (N,): neither NaN nor infinite nor all zero. Reads all rows."""
        return np.concatenate([_core.valid(block, threads=threads) for block in self.blocks()])


def as_rows(embeds: Any) -> Embeddings:
    """See anything that holds (N, D) embeddings as rows, without copying it.

    Parameters
    ----------
    embeds
        Any of: an array of float16, float32 or float64, or of the bfloat16 of ``ml_dtypes``, with any strides; an
        ``np.memmap``; the path of a ``.npy`` file; a folder of ``.npy`` shards, which are read in natural order
        (``x_2.npy`` before ``x_10.npy``), or with such a folder ``img_emb`` in it; a torch tensor of a floating dtype
        on any device; any object with ``__array__``; a list or tuple of these. Files are read block by block.

    Returns
    -------
    Embeddings
        The rows of all parts, in order.

    Raises
    ------
    DtypeError
        Numbers of another kind, such as integers.
    ShapeError
        Not two dimensions, or parts of different D.
    EmptyInputError
        No rows, or a folder without ``.npy`` files.
    FormatError
        A file that is no ``.npy``, is truncated, or is in Fortran order; or that is not as its run wrote it.
    OSError
        A file that cannot be opened.
    """
    if isinstance(embeds, Embeddings):
        return embeds
    parts: list[Rows | torch.Tensor] = []
    host: list[Any] = []
    for part in _parts(embeds):
        if isinstance(part, Path) and isinstance(embeds, str | os.PathLike):  # lists are those of runs, checked by them
            check_record(part)
        if _is_tensor(part):
            if host:
                parts.append(Rows(host))
                host = []
            parts.append(part)
        else:
            host.append(part)
    if host or not parts:
        parts.append(Rows(host))
    shapes = [(int(part.shape[0]), int(part.shape[1])) for part in parts]
    if len({dim for _, dim in shapes}) > 1:
        message = f"parts of different dimensions: {shapes}; all must come from one encoder"
        raise ShapeError(message)
    return Embeddings((sum(n for n, _ in shapes), shapes[0][1]), parts)


def host_blocks(part: Rows | torch.Tensor) -> Iterator[Rows]:
    """Yield the rows of one part as the core reads them; from another device a bounded number is copied at a time."""
    if isinstance(part, Rows):
        yield part
        return
    step = device_block_rows(part)
    for start in range(0, part.shape[0], step):
        yield Rows([_host_tensor(part[start : start + step].cpu())])


def device_block_rows(tensor: torch.Tensor) -> int:
    """Return how many rows of a tensor on another device are copied to the host at a time."""
    return max(1, _DEVICE_BLOCK_BYTES // (tensor.shape[1] * tensor.element_size()))


def _parts(embeds: Any) -> Iterator[Any]:
    """Take ``embeds`` apart: arrays that the core reads, paths of files, and tensors on other devices."""
    if isinstance(embeds, str | os.PathLike):
        path = Path(embeds)
        for file in _shards(path) if path.is_dir() else [path]:
            check_pointer(file)
            yield file
    elif _is_tensor(embeds):
        yield _tensor(embeds)
    elif isinstance(embeds, list | tuple) and embeds and _is_listed(embeds[0]):
        kind = ShapeError if isinstance(embeds[0], np.ndarray) else DtypeError
        message = (
            f"embeddings as a {type(embeds).__name__} of rows or numbers; pass one array (rows, dimensions), such as "
            "numpy.asarray(rows, numpy.float32)"
        )
        raise kind(message)
    elif isinstance(embeds, list | tuple):
        for part in embeds:
            yield from _parts(part)
    elif hasattr(embeds, "__array__") and not isinstance(embeds, np.generic):
        yield _array(as_array("embeddings", embeds))
    else:
        message = (
            f"a {type(embeds).__name__} holds no embeddings; expected an (N, D) array or tensor of floating numbers, "
            "the path of a .npy file or of a folder of them, or a list of these"
        )
        raise DtypeError(message)


def _is_listed(part: Any) -> bool:
    """Whether a part of a list is a number, or a row: a list of numbers, or an array of one dimension."""
    if isinstance(part, list | tuple):
        return bool(part) and isinstance(part[0], int | float | np.number)
    return isinstance(part, int | float | np.number) or (isinstance(part, np.ndarray) and part.ndim == 1)


def _shards(folder: Path) -> list[Path]:
    """List the ``.npy`` files of a folder in natural order."""
    inner = folder / "img_emb"
    if inner.is_dir():
        folder = inner
    shards = [path for path in folder.iterdir() if path.suffix == ".npy" and not path.name.startswith(".")]
    if not shards:
        message = f"no .npy files in the folder {folder}"
        raise EmptyInputError(message)
    return sorted(shards, key=lambda path: natural_key(path.name))


def natural_key(name: str) -> tuple[list[tuple[int, str]], str]:
    """Order names with their digits as numbers; the name itself decides between ``1`` and ``01``."""
    pieces = re.split(r"(\d+)", name)
    return [(int(piece), "") if piece.isdecimal() else (-1, piece) for piece in pieces], name


def _array(array: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """Check an array for the core: the bits of bfloat16 travel as uint16."""
    if array.ndim != 2:
        message = f"embeddings of shape {array.shape}; expected (rows, dimensions)"
        raise ShapeError(message)
    # NumPy reads the bfloat16 of a .npy file back as two bytes of nothing in particular.
    if array.dtype.name == "bfloat16" or array.dtype == np.dtype("V2"):
        return array.view(np.uint16)
    if array.dtype.kind != "f":
        message = f"embeddings of {array.dtype}; expected floating numbers: convert with .astype(numpy.float32)"
        raise DtypeError(message)
    if not array.dtype.isnative:
        message = f"embeddings of {array.dtype.str}, another byte order: convert with .astype({array.dtype.name!r})"
        raise DtypeError(message)
    return array


def _is_tensor(value: Any) -> bool:
    # Whoever has a tensor has imported torch: rsprune never does so here.
    torch = sys.modules.get("torch")
    return torch is not None and isinstance(value, torch.Tensor)


def _tensor(tensor: torch.Tensor) -> Any:
    """View a tensor on the host as an array; leave one on another device as it is."""
    if tensor.ndim != 2:
        message = f"embeddings of shape {tuple(tensor.shape)}; expected (rows, dimensions)"
        raise ShapeError(message)
    if str(tensor.dtype) not in ("torch.float16", "torch.bfloat16", "torch.float32", "torch.float64"):
        message = f"embeddings of {tensor.dtype}; expected floating numbers of 16 bits or more: convert with .float()"
        raise DtypeError(message)
    if tensor.layout != sys.modules["torch"].strided:
        message = f"embeddings as a tensor of layout {tensor.layout}: convert with .to_dense()"
        raise DtypeError(message)
    tensor = tensor.detach()
    if 0 in tensor.shape:
        # Nothing is there to leave elsewhere, and the core has an error for it.
        tensor = tensor.new_empty(tensor.shape, device="cpu")
    return _host_tensor(tensor) if tensor.device.type == "cpu" else tensor


def _host_tensor(tensor: torch.Tensor) -> np.ndarray[Any, Any]:
    if str(tensor.dtype) == "torch.bfloat16":
        # NumPy knows no bfloat16.
        bits: np.ndarray[Any, Any] = tensor.view(sys.modules["torch"].int16).numpy()
        return bits.view(np.uint16)
    array: np.ndarray[Any, Any] = tensor.numpy()
    return array
