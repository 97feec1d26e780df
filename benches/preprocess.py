"""JPEGs and arrays to the square that an encoder takes, beside Pillow, and beside others that make other pixels."""

import io
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor

import cv2
import numpy as np
import torch
from PIL import Image
from torchvision.io import ImageReadMode, decode_jpeg
from torchvision.transforms import v2

from benches.entropy import over, tile_jpegs
from benches.harness import THREADS, Comparison
from rsprune.encoders.preprocess import Preprocessing

#: They make other pixels: torchvision's differ by a level or two, OpenCV's alias.
TORCHVISION, OPENCV = "torchvision (other bits)", "OpenCV (no antialiasing)"
#: Of the JPEGs, and how many.
SIDES = {600: 150, 256: 600}


def comparisons() -> Iterator[Comparison]:
    cv2.setNumThreads(1)  # the pool's threads are the parallelism
    with ThreadPoolExecutor(THREADS, initializer=torch.set_num_threads, initargs=(1,)) as pool:
        for side, count in SIDES.items():
            files = tile_jpegs(side, count)
            for size in (224, 256):
                yield of_files(files, side, size, pool)
            yield of_arrays([np.asarray(Image.open(io.BytesIO(file))) for file in files[: count // 2]], 224, pool)


def of_files(files: list[bytes], side: int, size: int, pool: ThreadPoolExecutor) -> Comparison:
    resize = v2.Resize((size, size), v2.InterpolationMode.BICUBIC, antialias=True)
    return Comparison(
        f"{len(files):,} JPEGs of {side} px decoded and resized to {size}, bicubic",
        2.0,
        ours(files, size),
        {"Pillow": over(pool, lambda file: pillow(Image.open(io.BytesIO(file)), size), files)},
        limits={
            TORCHVISION: over(pool, lambda file: resize(torchvision_pixels(file)), files),
            OPENCV: over(pool, lambda file: opencv(opencv_pixels(file), size), files),
        },
        verify=same_as_pillow,
    )


def of_arrays(images: list[np.ndarray], size: int, pool: ThreadPoolExecutor) -> Comparison:
    resize = v2.Resize((size, size), v2.InterpolationMode.BICUBIC, antialias=True)
    tensors = [torch.from_numpy(image.copy()).permute(2, 0, 1) for image in images]
    return Comparison(
        f"{len(images):,} arrays of {len(images[0])} px resized to {size}, bicubic",
        2.0,
        ours(images, size),
        {"Pillow": over(pool, lambda image: pillow(Image.fromarray(image), size), images)},
        limits={
            TORCHVISION: over(pool, resize, tensors),
            OPENCV: over(pool, lambda image: opencv(image, size), images),
        },
        verify=same_as_pillow,
    )


def ours(images: list[bytes] | list[np.ndarray], size: int) -> Callable[[], np.ndarray]:
    preprocessing = Preprocessing(size=size, mean=(0, 0, 0), std=(1, 1, 1))
    out = np.empty((len(images), size, size, 3), np.uint8)
    return lambda: preprocessing.apply(images, threads=THREADS, out=out)[0]


def same_as_pillow(answers: Mapping[str, object]) -> str:
    np.testing.assert_array_equal(answers["rsprune"], np.stack(answers["Pillow"]))
    return "the same bits as Pillow"


# --- what a user would write ------------------------------------------------------------------------------------------


def pillow(image: Image.Image, size: int) -> np.ndarray:
    return np.asarray(image.convert("RGB").resize((size, size), Image.Resampling.BICUBIC))


def torchvision_pixels(file: bytes) -> torch.Tensor:
    return decode_jpeg(torch.from_numpy(np.frombuffer(file, np.uint8).copy()), ImageReadMode.RGB)


def opencv_pixels(file: bytes) -> np.ndarray:
    return cv2.cvtColor(cv2.imdecode(np.frombuffer(file, np.uint8), cv2.IMREAD_COLOR), cv2.COLOR_BGR2RGB)


def opencv(image: np.ndarray, size: int) -> np.ndarray:
    return cv2.resize(image, (size, size), interpolation=cv2.INTER_CUBIC)
