"""Embeddings where they lie: arrays, tensors, ``.npy`` files, tables and shards, as one (N, D) matrix."""

from __future__ import annotations

import glob
import os
import re
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeGuard

import numpy as np
from numpy.typing import NDArray

from rsprune import _core
from rsprune._core import Rows
from rsprune.embedding_tables import TABLES, VectorColumn, is_table
from rsprune.errors import DtypeError, EmptyInputError, ShapeError
from rsprune.io import check_pointer, check_record
from rsprune.validation import as_array

if TYPE_CHECKING:
    import torch

__all__ = ["Embeddings", "as_rows", "device_block_rows", "embedding_files", "host_blocks", "is_tensor", "natural_key"]

# Bytes of a tensor on another device that are copied to the host at a time.
_DEVICE_BLOCK_BYTES = 64 << 20


@dataclass(frozen=True)
class Embeddings:
    """(N, D) rows where they are stored; made by :func:`as_rows`."""

    shape: tuple[int, int]  # (N, D)
    #: All rows in order: consecutive parts on the host are one Rows; between them stand tensors on other devices and
    #: columns of tables.
    parts: list[Rows | torch.Tensor | VectorColumn]

    def blocks(self) -> Iterator[Rows]:
        """Yield all rows in order, in as few pieces as memory allows: what is not on the host comes block by block."""
        for part in self.parts:
            yield from host_blocks(part)

    def on_host(self) -> Rows:
        """Return all rows at once, for small sets. Host memory is borrowed, rows on other devices are copied."""
        if len(self.parts) == 1 and isinstance(self.parts[0], Rows):
            return self.parts[0]
        arrays: list[Any] = []
        for part in self.parts:
            if isinstance(part, VectorColumn):
                arrays += part.arrays()
            else:
                arrays += [rows.read(0, rows.shape[0]) for rows in host_blocks(part)]
        return Rows(arrays)

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
        ``np.memmap``; the path of a ``.npy`` file, or of a Parquet or Arrow table with a column of vectors
        (``table#column`` where it has several); a folder of ``.npy`` shards or else of tables, which are read in
        natural order (``x_2.npy`` before ``x_10.npy``), or with such a folder ``img_emb`` in it; a pattern
        (``x_*.npy``) or a range (``x_{0..9}.npy``); a torch tensor of a floating dtype on any device; any object with
        ``__array__``; a list of rows; a list or tuple of these. Files are read block by block.

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
        No rows, or a folder without ``.npy`` files and tables.
    ArgumentError
        A table without a column of vectors, or with several.
    FormatError
        A file that is no ``.npy`` or table, is truncated, or is in Fortran order; or that is not as its run wrote it.
    OSError
        A file that cannot be opened.
    """
    if isinstance(embeds, Embeddings):
        return embeds
    parts: list[Rows | torch.Tensor | VectorColumn] = []
    host: list[Any] = []
    for part in _parts(embeds):
        if isinstance(part, Path) and isinstance(embeds, str | os.PathLike):  # lists are those of runs, checked by them
            check_record(part)
        if isinstance(part, np.ndarray | Path):
            host.append(part)
        else:
            if host:
                parts.append(Rows(host))
                host = []
            parts.append(part)
    if host or not parts:
        parts.append(Rows(host))
    shapes = [(int(part.shape[0]), int(part.shape[1])) for part in parts]
    if len({dim for _, dim in shapes}) > 1:
        message = f"parts of different dimensions: {shapes}; all must come from one encoder"
        raise ShapeError(message)
    return Embeddings((sum(n for n, _ in shapes), shapes[0][1]), parts)


def host_blocks(part: Rows | torch.Tensor | VectorColumn) -> Iterator[Rows]:
    """Yield the rows of one part as the core reads them; from elsewhere a bounded number is copied at a time."""
    if isinstance(part, Rows):
        yield part
        return
    if isinstance(part, VectorColumn):
        yield from (Rows([array]) for array in part.arrays())
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
        for file in embedding_files(embeds):
            if is_table(file):
                yield VectorColumn.open(file)
            else:
                check_pointer(file)
                yield Path(file)
    elif is_tensor(embeds):
        yield _tensor(embeds)
    elif isinstance(embeds, list | tuple) and embeds and _is_row(embeds[0]):
        yield _array(_stacked(embeds))
    elif isinstance(embeds, list | tuple) and embeds and isinstance(embeds[0], int | float | np.number):
        message = (
            f"embeddings as a {type(embeds).__name__} of numbers; expected rows: numpy.asarray(rows, numpy.float32)"
        )
        raise DtypeError(message)
    elif isinstance(embeds, list | tuple):
        for part in embeds:
            yield from _parts(part)
    elif hasattr(embeds, "__array__") and not isinstance(embeds, np.generic):
        yield _array(as_array("embeddings", embeds))
    else:
        message = (
            f"a {type(embeds).__name__} holds no embeddings; expected an (N, D) array or tensor of floating numbers, "
            "the path of a .npy file, a table or a folder of them, or a list of these"
        )
        raise DtypeError(message)


def _is_row(part: Any) -> bool:
    """Whether a part of a list is a row: numbers, or an array of one dimension."""
    if isinstance(part, list | tuple):
        return bool(part) and isinstance(part[0], int | float | np.number)
    return isinstance(part, np.ndarray) and part.ndim == 1


def _stacked(rows: Sequence[Any]) -> NDArray[Any]:
    """Make one array of a list of rows; Python's integers are numbers as its floats are."""
    lengths = [len(row) if _is_row(row) else -1 for row in rows]
    if len(set(lengths)) > 1:
        at = next(i for i, length in enumerate(lengths) if length != lengths[0])
        what = "no row of numbers" if lengths[at] < 0 else f"of {lengths[at]} numbers"
        message = f"row {at} of the embeddings is {what}; expected {lengths[0]} numbers as in row 0"
        raise ShapeError(message)
    try:
        return np.asarray(rows) if isinstance(rows[0], np.ndarray) else np.asarray(rows, np.float64)
    except (TypeError, ValueError) as error:
        message = f"embeddings as a {type(rows).__name__} of rows that hold more than numbers: {error}"
        raise DtypeError(message) from error


def embedding_files(spec: str | os.PathLike[str]) -> list[str]:
    """List the files that a path, a folder, a pattern or a range of them stands for, in natural order."""
    path = Path(spec)
    if path.is_dir():
        inner = path / "img_emb"
        folder = inner if inner.is_dir() else path
        there = [one for one in folder.iterdir() if not one.name.startswith(".")]
        for suffixes in ((".npy",), TABLES):
            if shards := [one for one in there if one.suffix.lower() in suffixes]:
                return sorted(map(os.fspath, shards), key=natural_key)
        message = f"no .npy files and no tables ({', '.join(TABLES)}) in the folder {folder}"
        raise EmptyInputError(message)
    text = os.fspath(spec)
    if not path.exists() and (glob.has_magic(text) or "{" in text):
        from rsprune.sources.container import find_files

        pattern, mark, column = text.partition("#")
        return sorted((one + mark + column for one in find_files(pattern)), key=natural_key)
    return [text]


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


def is_tensor(value: Any) -> TypeGuard[torch.Tensor]:
    """Whether a value is a tensor of torch, which is not imported for it."""
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
