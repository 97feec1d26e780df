"""The compiled core. Its users are the modules of rsprune; everybody else calls those."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

__all__ = ["VERSION", "cpu_features", "decode_images", "entropy_arrays", "entropy_images"]

VERSION: str

def cpu_features() -> dict[str, bool]: ...

# Images are paths (str), encoded images (bytes), and contiguous arrays (H, W) or (H, W, C). One that fails leaves NaN
# or None in its place and its (number, kind, message) in the second list, for `rsprune.errors.failure`.
def decode_images(
    items: Sequence[str | bytes | NDArray[np.uint8] | NDArray[np.uint16]],
    /,
    *,
    bands: Sequence[int] | None = None,
    valid_range: tuple[int, int] | None = None,
    max_pixels: int | None = None,
    threads: int | None = None,
) -> tuple[list[NDArray[np.uint8] | None], list[tuple[int, str, str]]]: ...
def entropy_arrays(
    array: NDArray[np.uint8] | NDArray[np.uint16],
    /,
    *,
    gray: str,
    bands: Sequence[int] | None = None,
    nodata: int | None = None,
    valid_range: tuple[int, int] | None = None,
    threads: int | None = None,
) -> NDArray[np.float64]: ...
def entropy_images(
    items: Sequence[str | bytes | NDArray[np.uint8] | NDArray[np.uint16]],
    /,
    *,
    gray: str,
    bands: Sequence[int] | None = None,
    nodata: int | None = None,
    valid_range: tuple[int, int] | None = None,
    max_pixels: int | None = None,
    threads: int | None = None,
) -> tuple[NDArray[np.float64], list[tuple[int, str, str]]]: ...
