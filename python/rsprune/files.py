"""Writing files so that nobody ever sees half of one."""

from __future__ import annotations

import os
import uuid
import zipfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rsprune.errors import ShapeError

__all__ = ["TEMPORARY", "replacing", "sweep", "write_npy", "write_npz"]

#: How the names of unfinished files end; they begin with a dot. A killed process leaves them.
TEMPORARY = ".writing"


@contextmanager
def replacing(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Give a path to write to, beside ``path``; rename it to ``path`` at the end, or remove it after an error.

    Whoever reads ``path`` meanwhile, or after the process was killed, finds the old file or the new one.
    """
    target = Path(path)
    target.parent.mkdir(parents=True, exist_ok=True)
    beside = target.with_name(f".{target.name}.{uuid.uuid4().hex}{TEMPORARY}")
    try:
        yield beside
        # Onto the disk before the name points to it: after a power cut the name must not lead to an empty file.
        with beside.open("rb+") as file:
            os.fsync(file.fileno())
        beside.replace(target)
    finally:
        beside.unlink(missing_ok=True)


def sweep(folder: str | os.PathLike[str]) -> None:
    """Remove the unfinished files that killed processes left anywhere in a folder, which no process works on."""
    for left_over in Path(folder).rglob(f".*{TEMPORARY}"):
        left_over.unlink(missing_ok=True)


def write_npy(path: str | os.PathLike[str], array: NDArray[Any]) -> None:
    """Write an array as a ``.npy`` file."""
    with replacing(path) as beside, beside.open("wb") as file:
        np.save(file, array)


def write_npz(path: str | os.PathLike[str], images: Iterable[NDArray[np.uint8]], count: int) -> None:
    """Write ``count`` images, one by one, as ``arr_0`` of an ``.npz`` file: uint8 (count, H, W, C), without a time.

    Raises
    ------
    ShapeError
        Images of different sizes.
    """
    shape: tuple[int, ...] | None = None
    with (
        replacing(path) as beside,
        zipfile.ZipFile(beside, "w", zipfile.ZIP_STORED) as archive,
        archive.open(zipfile.ZipInfo("arr_0.npy"), "w", force_zip64=True) as file,
    ):
        for image in images:
            if shape is None:
                shape = image.shape
                header = {"descr": "|u1", "fortran_order": False, "shape": (count, *shape)}
                np.lib.format.write_array_header_1_0(file, header)
            if image.shape != shape:
                message = f"images of shapes {shape} and {image.shape}; an .npz file holds one array of equal images"
                raise ShapeError(message)
            file.write(np.ascontiguousarray(image).data)
