"""Stage I: the entropy of an image's gray levels."""

from __future__ import annotations

import itertools
import operator
import os
import sys
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Literal, TypedDict

import numpy as np
from numpy.typing import NDArray

from rsprune import _core
from rsprune.decoding import entropy_images, score_images
from rsprune.errors import (
    ArgumentError,
    ImageError,
    ShapeError,
    failure,
)
from rsprune.pixels import is_pillow, pillow_samples, samples
from rsprune.sources import FilePart
from rsprune.sources.batches import batched
from rsprune.validation import as_array, check_finite_number, check_range

__all__ = ["SCORES", "Gray", "entropy", "image_scores", "mean_band_scores", "top_entropies"]

Gray = Literal["bt601", "luma", "mean"]
#: What one decoding tells of an image, in the order of the columns.
SCORES = ("entropy", "image_width", "image_height", "gray_mean", "gray_std", "sharpness", "jpeg_quality")

_Item = str | bytes | FilePart | NDArray[Any]

# Images handed to the core at a time, at most: enough to keep every core busy.
_CHUNK = 4096


class _Options(TypedDict):
    gray: str
    bands: list[int] | None
    nodata: float | None
    valid_range: tuple[float, float] | None
    threads: int | None


def entropy(
    images: Iterable[Any],
    *,
    gray: Gray = "bt601",
    bands: Iterable[int] | None = None,
    nodata: float | None = None,
    valid_range: tuple[float, float] | None = None,
    on_error: Literal["raise", "nan"] = "raise",
    max_pixels: int | None = None,
    max_bytes: int | None = None,
    threads: int | None = None,
) -> NDArray[np.float64]:
    """Return the entropy of each image's gray levels, in bits.

    ``H = -sum_k p_k log2 p_k`` over the histogram of the 256 gray levels of all pixels: Stage I of RS-Prune
    (arXiv 2512.23239, eq. 1).

    Parameters
    ----------
    images
        One of

        - an iterable of paths, encoded images (``bytes``, recognized by their content), arrays or tensors (H, W) or
          (H, W, C), Pillow images, or any mixture of these;
        - an array or tensor (N, H, W) or (N, H, W, C), which is read in place.

        Samples are uint8, uint16, int16 or floating point. JPEG, PNG, TIFF, WebP and JPEG 2000 of 9 to 16 bits are read
        by rsprune, other JPEG 2000, GIF, BMP, AVIF, PPM and rare kinds of TIFF by Pillow, one at a time.

        The alpha channel of a PNG, a WebP, a gray-and-alpha TIFF or a Pillow image is dropped without blending.
        Otherwise every band of a TIFF or an array is a band: a fourth one is never taken for alpha. From a TIFF file
        the image at full resolution is read, not its thumbnails, overviews or masks; single-band pages of one size
        are the bands of one image, and any other set of pages is an error.
    gray
        How the bands of a pixel become one level. ``"bt601"``: ``(19595 R + 38470 G + 7471 B + 32768) >> 16``, bit
        for bit Pillow's ``convert("L")``; a single band is taken as it is. ``"mean"``: the mean of any number of
        bands, rounded half up. ``"luma"``: the Y plane that a JPEG stores, without decoding its colors, which is much
        faster and differs slightly from ``"bt601"``; all other images, and any image with ``bands``, are read as
        ``"bt601"``.
    bands
        The bands to use, counted from 0. By default the only one, or the first three of three or four. Images of two
        bands, or of more than four, need a choice.
    nodata
        Pixels whose selected bands all hold this stored value, or NaN, are left out (with ``"luma"``, pixels whose Y
        holds it).
    valid_range
        The lowest and highest value ``(lo, hi)`` that samples of more than 8 bits can take. A whole number v becomes
        the level ``floor((v - lo) * 256 / (hi - lo + 1))``, one of floating point
        ``floor((v - lo) * 256 / (hi - lo))``, clipped to 0 and 255. Samples of 8 bits are levels already, and the range
        does not apply to them; an array of uint8 that holds all images is refused with it. Without a range, images of
        int16 and floating point raise :class:`~rsprune.errors.ValueRangeError`, and those of uint16 span 0 to 65535:
        the level is the high byte. This is assumed only for images that show it, in which at least 1 % of the samples
        lie in 32769 to 49151; any other raises the error as well, because 8- to 15-bit data in 16 bits would otherwise
        lose most of its entropy. Pass ``(0, 65535)`` for dark images that do use 16 bits.
    on_error
        What to do with an image that cannot be read or decoded, lacks the bands, needs a range or is all nodata:
        ``"raise"`` the error of the first one, or put ``"nan"`` in its place.
    max_pixels
        The largest image to decode, in pixels, according to its header; 178,956,970 by default, as in Pillow. Images of
        more than four bands may have proportionally fewer.
    max_bytes
        The largest encoded image to read, in bytes; 1,000,000,000 by default.
    threads
        The number of threads; all cores by default. The result does not depend on it.

    Returns
    -------
    numpy.ndarray
        float64 (N,), each in [0, 8]. An empty input gives an empty array.

    Raises
    ------
    ImageError
        With ``on_error="raise"``: the subclass for what is wrong with the image, which the message names.
    OSError
        With ``on_error="raise"``: its subclass for a file that cannot be read.
    ArgumentError, DtypeError, ShapeError
        Options, arrays or items that cannot be used, whatever ``on_error`` is.

    Examples
    --------
    >>> import numpy as np
    >>> two_levels = np.array([[[0, 255], [255, 0]]], dtype=np.uint8)
    >>> float(entropy(two_levels)[0])
    1.0
    """
    options = _options(gray, bands, nodata, valid_range, threads)
    limits = _limits(max_pixels, max_bytes)
    images, raises = _collection(images, "entropy"), _raises(on_error)
    if isinstance(images, np.ndarray):
        return _of_stack(images, options, raises=raises)
    return _of_items(images, options, limits, entropy_images, np.empty(0), raises=raises)


def image_scores(
    images: Iterable[Any],
    *,
    gray: Gray = "bt601",
    bands: Iterable[int] | None = None,
    nodata: float | None = None,
    valid_range: tuple[float, float] | None = None,
    on_error: Literal["raise", "nan"] = "raise",
    max_pixels: int | None = None,
    max_bytes: int | None = None,
    threads: int | None = None,
) -> NDArray[np.void]:
    """Return the entropy of each image together with what the same decoding tells of its quality.

    Parameters
    ----------
    images, gray, bands, nodata, valid_range, on_error, max_pixels, max_bytes, threads
        See :func:`entropy`.

    Returns
    -------
    numpy.ndarray
        Structured (N,), with a float64 field for each of

        - ``entropy``: that of :func:`entropy`, bit for bit;
        - ``image_width``, ``image_height``: the size, in pixels;
        - ``gray_mean``, ``gray_std``: mean and standard deviation of the gray levels;
        - ``sharpness``: the variance of their Laplacian, the sum of the four neighbors of a level less four times
          itself, over the levels that have all four. It is low where an image is blurred, or shows nothing. With
          ``nodata``, and among NaN, levels of which one of the five is that of nodata are left out. NaN where no level
          is left;
        - ``jpeg_quality``: the quality that a JPEG was saved with, 1 to 100, told from its luminance quantization
          table: that of libjpeg, and the nearest for writers with tables of their own. NaN for others.

        All are NaN for an image that could not be read.

    Examples
    --------
    >>> import numpy as np
    >>> scores = image_scores([np.array([[0, 0, 0], [0, 255, 0], [0, 0, 0], [0, 0, 0]], np.uint8)])
    >>> float(scores["gray_mean"][0]), float(scores["sharpness"][0])
    (21.25, 406406.25)
    """
    options = _options(gray, bands, nodata, valid_range, threads)
    limits = _limits(max_pixels, max_bytes)
    images, raises = _collection(images, "image_scores"), _raises(on_error)
    if isinstance(images, np.ndarray):
        _check_stack(images, options)
    found = _of_items(images, options, limits, score_images, np.empty((0, len(SCORES))), raises=raises)
    return found.view([(name, np.float64) for name in SCORES])[:, 0]


def _options(
    gray: str,
    bands: Iterable[int] | None,
    nodata: float | None,
    valid_range: tuple[float, float] | None,
    threads: int | None,
) -> _Options:
    return _Options(
        gray=gray,
        bands=_bands(bands),
        nodata=None if nodata is None or nodata != nodata else check_finite_number("nodata", nodata),  # NaN always is
        valid_range=None if valid_range is None else check_range("valid_range", valid_range),
        threads=None if threads is None else _integer("threads", threads, 1, 65535),
    )


def _limits(max_pixels: int | None, max_bytes: int | None) -> dict[str, int | None]:
    given = {"max_pixels": max_pixels, "max_bytes": max_bytes}
    return {name: None if value is None else _integer(name, value, 1, 2**63 - 1) for name, value in given.items()}


def _raises(on_error: str) -> bool:
    if on_error not in ("raise", "nan"):
        msg = f'on_error={on_error!r} is unknown: it is "raise" or "nan"'
        raise ArgumentError(msg)
    return on_error == "raise"


def _collection(images: Iterable[Any], function: str) -> Iterable[Any]:
    """Return the array that holds all images, or the images one by one."""
    if isinstance(images, (str, bytes, bytearray, memoryview, os.PathLike)) or not isinstance(images, Iterable):
        msg = f"images is a single {type(images).__name__}; pass a list: {function}([image])"
        raise ArgumentError(msg)
    if not hasattr(images, "__array__"):
        return images
    array = as_array("images", images)
    return array if array.dtype.kind not in "OU" else iter(array.ravel().tolist())


def mean_band_scores(
    images: Sequence[Any], entropy_bands: Sequence[int] | Literal["all"], **options: Any
) -> tuple[NDArray[np.float64], list[tuple[int, str, str]]]:
    """Measure each band by itself, and return the means of an image's bands.

    Parameters
    ----------
    images
        As the core takes them.
    entropy_bands
        The bands, counted from 0; ``"all"`` stands for as many as an image has.
    **options
        Of the core.

    Returns
    -------
    scores : ndarray
        float64 (n, 7), the :data:`SCORES`; NaN for images that failed.
    failures : list of (int, str, str)
        Number, kind and message of each.
    """
    total, measured = np.zeros((len(images), len(SCORES))), np.zeros((len(images), 1), np.int64)
    failures: dict[int, tuple[int, str, str]] = {}
    left = list(range(len(images)))
    for band in itertools.count() if entropy_bands == "all" else entropy_bands:
        if not left:
            break
        values, failed = score_images([images[i] for i in left], **{**options, "bands": [int(band)]})
        ended = {left[i]: (left[i], kind, message) for i, kind, message in failed}
        at = [i for i in left if i not in ended]
        total[at] += values[[i not in ended for i in left]]
        measured[at] += 1
        past_the_last = {i for i, (_, kind, _) in ended.items() if entropy_bands == "all" and band and kind == "bands"}
        failures |= {i: failure for i, failure in ended.items() if i not in past_the_last}
        left = at
    total[list(failures)] = np.nan
    return total / np.maximum(measured, 1), [failures[i] for i in sorted(failures)]


def _of_items(
    images: Iterable[Any],
    options: _Options,
    limits: dict[str, int | None],
    measure: Callable[..., tuple[NDArray[np.float64], list[tuple[int, str, str]]]],
    nothing: NDArray[np.float64],
    *,
    raises: bool,
) -> NDArray[np.float64]:
    done = [nothing]
    start = 0
    for items in batched((_item(image, f"images[{i}]", options) for i, image in enumerate(images)), _CHUNK):
        # A Pillow image that could not be read stands as an empty file: the core counts it among the failures.
        encoded = [b"" if isinstance(item, ImageError) else item for item in items]
        values, failures = measure(encoded, **limits, **options)
        if failures and raises:
            i, kind, message = failures[0]
            item = items[i]
            if isinstance(item, ImageError):
                raise item
            raise _failed(kind, message, item if isinstance(item, str) else f"images[{start + i}]", options)
        done.append(values)
        start += len(items)
        del items, encoded
    return np.concatenate(done)


def _check_stack(array: NDArray[Any], options: _Options) -> None:
    if array.ndim not in (3, 4):
        msg = (
            f"images has shape {array.shape}; a stack of images is (N, H, W) or (N, H, W, C): one image is image[None]"
        )
        raise ShapeError(msg)
    first = samples(array[:0], "images")
    _check_extent(array.shape[1:], "images", options)
    _check_dtype(first, options)


def _of_stack(array: NDArray[Any], options: _Options, *, raises: bool) -> NDArray[np.float64]:
    _check_stack(array, options)
    done = [np.empty(0)]
    for start in range(0, len(array), _CHUNK):
        entropies, failures = _core.entropy_arrays(samples(array[start : start + _CHUNK], "images"), **options)
        if failures and raises:
            i, kind, message = failures[0]
            raise _failed(kind, message, f"images[{start + i}]", options)
        done.append(entropies)
    return np.concatenate(done)


def _failed(kind: str, message: str, name: str, options: _Options) -> Exception:
    """Return the exception for a failure that the core reports."""
    if kind == "no_valid_pixels":
        message = f"{message} ({options['nodata'] if options['nodata'] is not None else 'NaN'})"
    return failure(kind, message, name)


def _item(image: Any, name: str, options: _Options) -> _Item | ImageError:
    """Return the image as the core reads it, or why a Pillow image cannot be read."""
    if isinstance(image, (str, bytes, FilePart)):
        return image
    if isinstance(image, os.PathLike):
        return os.fsdecode(image)
    if isinstance(image, (bytearray, memoryview)):
        return bytes(image)
    if is_pillow(image):
        try:
            # Pillow's gray of YCbCr is its first band.
            image = pillow_samples(image, name, luma=options["bands"] is None and options["gray"] != "mean")
        except ImageError as error:
            return error
    elif isinstance(image, np.ndarray) or _is_tensor(image):
        image = samples(image, name)
    else:
        msg = f"{name} is a {type(image).__name__}; expected a path, bytes, an array or a Pillow image"
        raise ArgumentError(msg)
    if image.ndim not in (2, 3):
        msg = f"{name} has shape {image.shape}; an image is (H, W) or (H, W, C)"
        raise ShapeError(msg)
    _check_extent(image.shape, name, options)
    return np.ascontiguousarray(image)


def _is_tensor(image: Any) -> bool:
    """Return whether it is a PyTorch tensor, without importing PyTorch."""
    torch = sys.modules.get("torch")
    return torch is not None and isinstance(image, torch.Tensor)


def _check_dtype(array: NDArray[Any], options: _Options) -> None:
    """Refuse options that mean nothing to any image of an array."""
    nodata, valid_range = options["nodata"], options["valid_range"]
    if valid_range is not None and array.dtype == np.uint8:
        msg = (
            f"valid_range={valid_range} is for more than 8 bits, but images is an array of {array.dtype}: leave it out"
        )
        raise ArgumentError(msg)
    if array.dtype.kind == "f":
        return
    ends = np.iinfo(array.dtype)
    if nodata is not None and not (ends.min <= nodata <= ends.max and nodata == int(nodata)):
        msg = f"nodata={nodata} does not occur in images, an array of {array.dtype}"
        raise ArgumentError(msg)
    if valid_range is not None and not all(ends.min <= end <= ends.max for end in valid_range):
        msg = f"valid_range={valid_range} is no range of {array.dtype}, of which images is an array"
        raise ArgumentError(msg)


def _check_extent(shape: tuple[int, ...], name: str, options: _Options) -> None:
    if 0 in shape:
        msg = f"{name}: an image of shape {shape} has no pixels"
        raise ShapeError(msg)
    # Arrays from PyTorch come with channels first. No image has so few rows and so many bands.
    if options["bands"] is None and len(shape) == 3 and shape[0] <= 4 < shape[2]:
        msg = f"{name}: an image of shape {shape} seems to be (C, H, W), not (H, W, C); use np.moveaxis(images, -3, -1)"
        raise ShapeError(msg)


def _bands(bands: Iterable[int] | None) -> list[int] | None:
    if bands is None:
        return None
    if isinstance(bands, str) or not isinstance(bands, Iterable):
        msg = f"bands={bands!r} is not a sequence of band numbers, such as (0, 1, 2)"
        raise ArgumentError(msg)
    return [_integer("bands", band, 0, 65535) for band in bands]


def _integer(name: str, value: Any, lowest: int, highest: int) -> int:
    try:
        number = operator.index(value)
    except TypeError:
        number = None
    if number is None or not lowest <= number <= highest:
        msg = f"{name}={value!r} is not a whole number from {lowest} to {highest}"
        raise ArgumentError(msg)
    return number


def top_entropies(entropies: NDArray[np.float64], count: int) -> NDArray[np.bool_]:
    """Stage I's cut: the ``count`` highest entropies, ties going to the earlier image.

    Parameters
    ----------
    entropies
        float64 (N,), bits; NaN where an image was not read, which is never kept.
    count
        How many are kept; at most the number of entropies that are not NaN.

    Returns
    -------
    numpy.ndarray
        bool (N,).
    """
    readable = np.flatnonzero(~np.isnan(entropies))
    if not 0 <= count <= len(readable):
        msg = f"cannot keep {count} of {len(readable)} images that were read"
        raise ArgumentError(msg)
    kept = np.zeros(len(entropies), np.bool_)
    if count:
        values = entropies[readable]
        last = np.partition(values, len(values) - count)[len(values) - count]
        kept[readable[values > last]] = True
        ties = readable[values == last]
        kept[ties[: count - np.count_nonzero(kept)]] = True
    return kept
