"""Small runs: images whose entropies and colours differ, and an encoder without weights."""

import io
import os
import signal
import tarfile
import time
from pathlib import Path

import numpy as np
from PIL import Image

from rsprune.encoders import Encoder
from rsprune.encoders.preprocess import Preprocessing
from rsprune.runs.prune import prune


class Colours(Encoder):
    """Embeds an image by the means and deviations of its bands: 6 dimensions, no weights."""

    name = "colours"
    dim = 6
    device = "cpu"
    batch_size = 8
    preprocessing = Preprocessing(size=8, mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0))

    def __init__(self, pause=0.0, version="1"):
        self.pause, self.version = pause, version

    def provenance(self):
        weights = {"file": "none", "sha256": self.version}
        return {
            "name": self.name,
            "dim": self.dim,
            "weights": weights,
            "preprocessing": self.preprocessing.provenance(),
        }

    def forward(self, pixels):
        time.sleep(self.pause)
        flat = pixels.reshape(len(pixels), 3, -1).astype(np.float64) / 255
        rows = np.concatenate([flat.mean(2) - 0.5, flat.std(2) + 0.01], axis=1)
        return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)


class DiesOfBright(Colours):
    """Ends its process, as the system does where memory runs out, at a :func:`bright_picture`."""

    def forward(self, pixels):
        if (pixels.reshape(len(pixels), -1).mean(1) > 220).any():
            os.kill(os.getpid(), signal.SIGKILL)
        return super().forward(pixels)


class Stops(Colours):
    """Is interrupted after so many batches: ``left[0]`` of them."""

    def __init__(self, left):
        super().__init__()
        self.left = left

    def forward(self, pixels):
        if not self.left[0]:
            raise KeyboardInterrupt
        self.left[0] -= 1
        return super().forward(pixels)


def bright_picture() -> bytes:
    """A JPEG of high entropy that is brighter than any of :func:`picture`."""
    file = io.BytesIO()
    pixels = np.random.default_rng(0).integers(192, 256, (24, 24, 1), np.uint8)
    Image.fromarray(pixels.repeat(3, 2)).save(file, "JPEG", quality=90)
    return file.getvalue()


def picture(seed: int) -> bytes:
    """A small JPEG whose entropy and colours depend on ``seed``."""
    rng = np.random.default_rng(seed)
    spread = rng.integers(1, 80)
    pixels = rng.integers(0, 175, 3) + rng.integers(0, spread, (24, 24, 1)) + rng.integers(0, 8, (24, 24, 3))
    file = io.BytesIO()
    Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(file, "JPEG", quality=90)
    return file.getvalue()


def write_tar(path: Path, members: dict[str, bytes]) -> None:
    """A tar file of these members, in this order."""
    with tarfile.open(path, "w") as tar:
        for name, data in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))


def small_prune(pool, reference, out, **options):
    """Prune with the encoder above: a quarter of the pool, taken from the half that Stage I keeps."""
    settings = {"keep": 0.25, "entropy_keep": 0.5, "k": 6, "encoder": Colours(), "progress": False}
    settings["keep_embeddings"] = True
    return prune(pool, reference=reference, out=out, **(settings | options))


def artefacts(folder: Path) -> dict[str, bytes]:
    """Every file of a run folder, by name."""
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.name != ".lock"
    }
