"""Bits that flip in what was written: each is told with the file's name, or changes nothing that is read."""

import random

import numpy as np
import pyarrow as pa
import pytest
import torch

import rsprune
from rsprune.errors import DamagedFileError, WeightsError
from rsprune.evaluation.statistics import Statistics
from rsprune.io import read_table, write_table
from rsprune.training.checkpoint import read_checkpoint, save_checkpoint


def table(path):
    rng = np.random.default_rng(0)
    entropy = [None if i % 50 == 0 else 8 * x for i, x in enumerate(rng.random(3000))]
    write_table(path, pa.table({"key": [f"{i:05d}.jpg" for i in range(3000)], "entropy": entropy}), {"rsprune": "x"})
    return read_table


def manifest(path):
    embeds = np.random.default_rng(0).normal(size=(300, 8)).astype(np.float32)
    rsprune.select(embeds, rsprune.fit_centroids(embeds, 5), budget=100).to_parquet(path)
    return read_table


def centroids(path):
    vectors = np.eye(8, 48, dtype=np.float32)
    rsprune.Centroids(vectors, {"encoder": "an encoder", "digest": "0123"}).save(path)
    return lambda path: (lambda one: (one.vectors.tolist(), dict(one.meta)))(rsprune.Centroids.load(path))


def statistics(path):
    Statistics.of(np.random.default_rng(0).normal(size=(50, 8)), {"images": 50}).save(path)
    return lambda path: (lambda one: (one.n, one.mean.tolist(), one.covariance.tolist(), dict(one.meta)))(
        Statistics.load(path)
    )


def checkpoint(path):
    weights = {f"layer{i}": torch.arange(64.0) + i for i in range(4)}
    save_checkpoint(path, {"model": weights, "ema": weights, "step": 7, "recipe": {"name": "small"}})

    def read(path):
        content = read_checkpoint(path)
        return {
            key: {name: one.tolist() for name, one in value.items()} if key in ("model", "ema") else value
            for key, value in content.items()
        }

    return read


def flips(path, read, count):
    """Flip single bits; the number of those that were told. The others must not change what is read."""
    data, want, told = path.read_bytes(), read(path), 0
    # What tells of a Parquet file's pages stands behind them without a checksum: the record of a run has one of it all.
    footer = 8 + int.from_bytes(data[-8:-4], "little") if path.suffix == ".parquet" else 0
    for bit in random.Random(1).sample(range(8 * (len(data) - footer)), count):
        damaged = bytearray(data)
        damaged[bit // 8] ^= 1 << bit % 8
        path.write_bytes(damaged)
        try:
            got, message = read(path), None
        except (DamagedFileError, WeightsError) as error:  # without its first bytes a file is no checkpoint at all
            got, message = want, str(error)
            told += 1
        assert got == want, f"bit {bit} of {len(data)} bytes"
        assert message is None or str(path) in message
    path.write_bytes(data)
    return told


@pytest.mark.parametrize(
    ("make", "name"),
    [
        (table, "x.parquet"),
        (manifest, "x.parquet"),
        (centroids, "x.safetensors"),
        (statistics, "x.safetensors"),
        (checkpoint, "x.pt"),
    ],
)
@pytest.mark.parametrize("count", [100, pytest.param(1500, marks=pytest.mark.slow)])
def test_a_flipped_bit_is_told_or_changes_nothing(make, name, count, tmp_path):
    assert flips(tmp_path / name, make(tmp_path / name), count) > 0.6 * count
