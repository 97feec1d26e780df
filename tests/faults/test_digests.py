"""Bits that flip in what was written: each is told with the file's name, or changes nothing that is read."""

import random

import numpy as np
import pyarrow as pa
import pytest
import torch

import rsprune
from failures import raises
from rsprune.errors import DamagedFileError, UnfinishedRunError, WeightsError
from rsprune.evaluation import EncoderExtractor, evaluate
from rsprune.evaluation.statistics import Statistics
from rsprune.io import read_table, write_record, write_table
from rsprune.training.autoencoder import load_autoencoder
from rsprune.training.checkpoint import read_checkpoint, save_checkpoint
from rsprune.training.latent_cache import LatentCache, cache_latents
from rsprune.training.transforms import ImageTransform
from small_runs import Colours, picture


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


def flipped(path, rng):
    """Flip one bit of a file."""
    data = bytearray(path.read_bytes())
    bit = rng.randrange(8 * len(data))
    data[bit // 8] ^= 1 << bit % 8
    path.write_bytes(data)


@pytest.mark.parametrize("count", [60, pytest.param(1500, marks=pytest.mark.slow)])
def test_damaged_embeddings_of_a_run_are_told_when_their_folder_is_read(count, tmp_path):
    np.save(tmp_path / "x.npy", np.random.default_rng(0).normal(size=(20, 6)).astype(np.float16))
    np.save(tmp_path / "other.npy", np.ones((20, 6), np.float16))
    (tmp_path / "other.json").write_text("[]")
    write_record(tmp_path / "x.json", {}, [tmp_path / "x.npy"])
    rsprune.fit_centroids(tmp_path, 3)
    good, rng = (tmp_path / "x.npy").read_bytes(), random.Random(4)
    for _ in range(count):
        flipped(tmp_path / "x.npy", rng)
        with raises(DamagedFileError, tmp_path / "x.npy"):
            rsprune.fit_centroids(tmp_path, 3)
        (tmp_path / "x.npy").write_bytes(good)


def contents(folder):
    return {path: path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file() and path.name != ".lock"}


@pytest.mark.parametrize("count", [4, pytest.param(60, marks=pytest.mark.slow)])
def test_a_damaged_latent_cache_is_told_and_made_anew_by_the_same_call(count, tmp_path):
    (tmp_path / "images").mkdir()
    for i in range(5):
        (tmp_path / "images" / f"{i}.jpg").write_bytes(picture(i))

    def make():
        model, out = load_autoencoder("identity"), tmp_path / "cache"
        return cache_latents(tmp_path / "images", model, ImageTransform(16), out=out, progress=False)

    make()
    whole, rng = contents(tmp_path / "cache"), random.Random(2)
    assert {path.suffix for path in whole} == {".npy", ".parquet", ".json"}
    for path in whole:
        for _ in range(count):
            flipped(path, rng)
            with pytest.raises((DamagedFileError, UnfinishedRunError)):
                LatentCache(tmp_path / "cache")
            make()
            assert contents(tmp_path / "cache") == whole


@pytest.mark.parametrize("count", [4, pytest.param(60, marks=pytest.mark.slow)])
def test_a_damaged_cache_of_features_is_made_anew(count, tmp_path):
    real, generated = np.random.default_rng(0).integers(0, 256, (2, 12, 8, 8, 3), np.uint8)

    def scores():
        return evaluate(generated, real, [EncoderExtractor(Colours())], cache=tmp_path, k=3)

    want, whole, rng = scores(), contents(tmp_path), random.Random(3)
    assert {path.suffix for path in whole} == {".npy", ".safetensors", ".json"}
    for path in whole:
        for _ in range(count):
            flipped(path, rng)
            assert scores() == want
            assert contents(tmp_path) == whole
