"""The rows that assignment and K-means are compared on."""

import hashlib
import os
import sys
from pathlib import Path

import numpy as np

from rsprune.encoders import load_encoder
from rsprune.encoders.loader import embed_items
from rsprune.io import atomic_write
from rsprune.sources import Source, open_source

CACHE = Path(__file__).parent / ".cache"
ENCODER = "efficientnet-lite0"


def of_images() -> tuple[np.ndarray, np.ndarray]:
    """EfficientNet-Lite0 embeddings of real images: float32 (N, 1280) of a pool, (M, 1280) of reference images.

    The tars of $RSPRUNE_DATA, or NASA's Blue Marble in tiles. Embedded once, then kept in `benches/.cache/`.
    """
    folder = os.environ.get("RSPRUNE_DATA")
    if folder:
        pool, reference = open_source(f"{folder}/pool-*.tar"), open_source(f"{folder}/reference_aid_128.tar")
    else:
        from rsprune.cli.demo import cut_tiles

        pool, reference = map(open_source, cut_tiles(CACHE / "tiles"))
    return _embedded(pool), _embedded(reference)


def repeated(rows: np.ndarray, n: int, jitter: float = 0.01) -> np.ndarray:
    """`n` rows: `rows` again and again, each moved by a gaussian step of about `jitter` times its length."""
    rng = np.random.default_rng(1)
    dim = rows.shape[1]
    out = np.empty((n, dim), np.float32)
    for start in range(0, n, len(rows)):
        block = rows[: n - start]
        scale = jitter / np.sqrt(dim) * np.linalg.norm(block, axis=1, keepdims=True)
        np.add(block, scale * rng.standard_normal(block.shape, np.float32), out=out[start : start + len(block)])
    return out


def isotropic(n: int, dim: int, seed: int = 0) -> np.ndarray:
    """`n` gaussian rows without structure: the hardest case for a filter."""
    return np.random.default_rng(seed).standard_normal((n, dim), np.float32)


def directions(count: int, dim: int) -> np.ndarray:
    """Unit vectors: the first `count` of those that :func:`mixture` gathers about."""
    return unit(isotropic(count, dim, seed=2))


def mixture(n: int, dim: int, count: int, seed: int = 0) -> np.ndarray:
    """`n` rows about `count` directions, on average at a cosine of 0.7."""
    rng = np.random.default_rng(seed)
    rows = rng.standard_normal((n, dim), np.float32)
    rows *= dim**-0.5
    rows += directions(count, dim)[rng.integers(0, count, n)]
    return rows


def unit(rows: np.ndarray) -> np.ndarray:
    """The rows, each of length 1."""
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def _embedded(source: Source) -> np.ndarray:
    sizes = [(shard.name, source.count(shard), source.size(shard)) for shard in source.shards]
    path = CACHE / f"embeddings-{hashlib.sha256(repr((ENCODER, sizes)).encode()).hexdigest()[:16]}.npy"
    if not path.exists():
        print(f"embedding {source.total():,} images with {ENCODER}, once", file=sys.stderr)
        items = (item for shard in source.shards for item in source.read(shard))
        rows = np.concatenate([batch.embeddings for batch in embed_items(load_encoder(ENCODER, device="cpu"), items)])
        with atomic_write(path) as beside, beside.open("wb") as file:
            np.save(file, rows)
    return np.load(path)
