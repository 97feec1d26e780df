"""Someone with embeddings: no images, no encoder, and no library to run one."""

import subprocess
import sys

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import oracles
import readme
import rsprune

ROWS, DIMENSIONS = 3_000, 16
KEYS = [f"{row % 7}/{row:05d}" for row in range(ROWS)]

# What an environment without the extras lacks: whatever imports one of these fails.
LACKING = ("torch", "torchvision", "timm", "open_clip", "huggingface_hub", "transformers", "rasterio", "ray")
PROGRAM = f"import sys; sys.modules.update(dict.fromkeys({LACKING})); from rsprune.cli import main; main()"


def run(words):
    return subprocess.run([sys.executable, "-c", PROGRAM, *words], capture_output=True, text=True, check=False)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """`reference.npy`, and `embeds.parquet` with keys; the commands of the README have run."""
    folder = tmp_path_factory.mktemp("embeddings")
    rng = np.random.default_rng(0)
    np.save(folder / "reference.npy", rng.normal(size=(600, DIMENSIONS)).astype(np.float32))
    rows = rng.normal(size=(ROWS, DIMENSIONS)).astype(np.float16)
    np.save(folder / "embeds.npy", rows)
    table = {"key": KEYS, "embedding": pa.FixedSizeListArray.from_arrays(pa.array(rows.ravel()), DIMENSIONS)}
    pq.write_table(pa.table(table), folder / "embeds.parquet", row_group_size=700)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        for words in readme.commands("Embeddings that you have"):
            done = run(words)
            assert done.returncode == 0, done.stderr
    return folder


def test_the_rows_are_those_of_the_method(folder):
    table = pq.read_table(folder / "chosen.parquet")
    centroids = rsprune.Centroids.load(folder / "centroids").vectors
    assert centroids.shape == (200, DIMENSIONS)
    labels, similarity = oracles.assign(np.load(folder / "embeds.npy"), centroids)
    chosen = oracles.select(labels, similarity, 450, 200, "global", "nearest", [], [], 0)
    rows, phases = (list(column) for column in zip(*chosen, strict=True))
    assert table["row"].to_pylist() == rows
    assert table["key"].to_pylist() == [KEYS[row] for row in rows]
    assert table["phase"].to_pylist() == phases
    assert table["cluster"].to_numpy().tolist() == labels[rows].tolist()
    assert table["similarity"].to_numpy().tobytes() == similarity[rows].tobytes()


def test_python_gives_the_same(folder):
    chosen = rsprune.select(
        folder / "embeds.npy", rsprune.fit_centroids(np.load(folder / "reference.npy"), k=200), 0.15
    )
    assert chosen.indices.tolist() == pq.read_table(folder / "chosen.parquet")["row"].to_pylist()
