"""Embeddings in columns of Parquet and Arrow tables, by patterns and in folders: the same rows as those of an array."""

import subprocess
import sys

import numpy as np
import pyarrow as pa
import pyarrow.feather as feather
import pyarrow.parquet as pq
import pytest

import rsprune
from failures import raises
from rsprune import errors
from rsprune.embedding_tables import key_column
from rsprune.embeddings import as_rows, embedding_files

N, DIM = 50, 6
X = np.random.default_rng(0).normal(size=(N, DIM)).astype(np.float32)
KEYS = [f"a/{i}.jpg" for i in range(N)]


def vectors(rows, form="list"):
    """A column of these rows."""
    if form == "fixed":
        return pa.FixedSizeListArray.from_arrays(pa.array(rows.ravel()), rows.shape[1])
    if form == "tensor":
        return pa.FixedShapeTensorArray.from_numpy_ndarray(np.ascontiguousarray(rows))
    return pa.array(list(rows), pa.large_list(pa.from_numpy_dtype(rows.dtype)) if form == "large" else None)


def write(path, table, form=None):
    if path.suffix == ".parquet":
        pq.write_table(table, path, row_group_size=17)
    elif path.suffix == ".feather":
        feather.write_feather(table, path)
    else:
        with (pa.ipc.new_stream if form == "stream" else pa.ipc.new_file)(str(path), table.schema) as writer:
            writer.write_table(table, max_chunksize=17)
    return path


def values(rows):
    return rows.take(np.arange(rows.shape[0]))


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
@pytest.mark.parametrize("form", ["list", "large", "fixed", "tensor"])
@pytest.mark.parametrize("name", ["x.parquet", "x.arrow", "x.feather"])
def test_a_column_of_vectors_is_an_array(tmp_path, name, form, dtype):
    rows = X.astype(dtype)
    path = write(tmp_path / name, pa.table({"key": KEYS, "embedding": vectors(rows, form)}))
    read = as_rows(path)
    assert read.shape == (N, DIM)
    assert (values(read) == rows).all()
    assert rsprune.fit_centroids(path, 3).meta["digest"] == rsprune.fit_centroids(rows, 3).meta["digest"]
    centroids = rsprune.fit_centroids(rows, 3)
    chosen, expected = (rsprune.select(one, centroids, 10) for one in (path, rows))
    assert chosen.indices.tolist() == expected.indices.tolist()
    assert chosen.similarity.tobytes() == expected.similarity.tobytes()
    assert key_column(path) == "key"


def test_streams_of_arrow_are_read_as_files_are(tmp_path):
    path = write(tmp_path / "x.arrow", pa.table({"embedding": vectors(X)}), "stream")
    assert (values(as_rows(path)) == X).all()
    assert key_column(path) is None


def test_nulls_are_rows_without_direction(tmp_path):
    for form in ("list", "fixed"):
        column = pa.array([None, *X[1:].tolist()], pa.list_(pa.float32(), DIM) if form == "fixed" else None)
        path = write(tmp_path / f"{form}.parquet", pa.table({"embedding": column}))
        assert as_rows(path).valid().tolist() == [False] + [True] * (N - 1)
        selection = rsprune.select(path, X[1:4] / np.linalg.norm(X[1:4], axis=1, keepdims=True), 5)
        assert selection.invalid.tolist() == [0]
    halves = pa.array([[1.0, None], [2.0, 3.0]], pa.list_(pa.float32()))
    path = write(tmp_path / "halves.parquet", pa.table({"embedding": halves}))
    assert as_rows(path).valid().tolist() == [False, True]


def test_folders_patterns_and_ranges_are_read_in_natural_order(tmp_path):
    for i, part in enumerate(np.array_split(X, 12)):
        write(tmp_path / f"e_{i}.parquet", pa.table({"key": ["k"] * len(part), "v": vectors(part), "w": vectors(part)}))
        np.save(tmp_path / f"n_{i}.npy", part)
    names = [f"e_{i}.parquet#v" for i in range(12)]
    for spec in (f"{tmp_path}/e_*.parquet#v", f"{tmp_path}/e_{{0..11}}.parquet#v", [tmp_path / one for one in names]):
        assert (values(as_rows(spec)) == X).all()
    for spec in (tmp_path, f"{tmp_path}/n_*.npy", f"{tmp_path}/n_{{0..11}}.npy"):
        assert (values(as_rows(spec)) == X).all()
    assert embedding_files(tmp_path)[2].endswith("n_2.npy")
    for path in tmp_path.glob("*.npy"):
        path.unlink()
    with raises(errors.ArgumentError, "e_0.parquet", "v, w", "#v"):
        as_rows(tmp_path)
    with raises(FileNotFoundError, "none_*.npy"):
        as_rows(tmp_path / "none_*.npy")
    # Tables, an array and a file, in the order given.
    mixed = as_rows([X[:2], tmp_path / "e_0.parquet#v", X[2:4]])
    assert (values(mixed) == np.concatenate([X[:2], np.array_split(X, 12)[0], X[2:4]])).all()


def test_what_is_no_column_of_vectors_is_named(tmp_path):
    path = write(tmp_path / "x.parquet", pa.table({"key": KEYS, "n": pa.array([[1]] * N), "embedding": vectors(X)}))
    with raises(errors.ArgumentError, "x.parquet", "'key'", "embedding"):
        as_rows(f"{path}#key")
    write(path, pa.table({"key": KEYS, "n": pa.array([[1]] * N)}))
    with raises(errors.ArgumentError, "x.parquet", "key (string)"):
        as_rows(path)
    ragged = pa.array([*X[:20].tolist(), X[20, :3].tolist(), *X[21:].tolist()])
    write(path, pa.table({"embedding": ragged}))
    with raises(errors.ShapeError, "x.parquet", 20, 3, DIM):
        values(as_rows(path))
    write(path, pa.table({"embedding": pa.array([None, None], pa.list_(pa.float32()))}))
    with raises(errors.EmptyInputError, "x.parquet", "'embedding'"):
        as_rows(path)
    path.write_bytes(path.read_bytes()[:-9])
    with raises(errors.FormatError, "x.parquet"):
        as_rows(path)
    with raises(FileNotFoundError, "other.parquet"):
        as_rows(tmp_path / "other.parquet")


MEASURE = """
import resource, sys
import numpy as np
import pyarrow.parquet
import rsprune
def peak(): return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
rsprune.select(np.eye(256, dtype=np.float32), np.eye(256, dtype=np.float32)[:4], 4)
before = peak()
chosen = rsprune.select(sys.argv[1], np.eye(256, dtype=np.float32)[:4], 1000, threads=1)
assert len(chosen) == 1000 and chosen.total == 200_000
print(peak() - before)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="counts in KiB")
def test_a_table_is_never_held_whole(tmp_path):
    """200 MB of vectors."""
    path, rng = tmp_path / "x.parquet", np.random.default_rng(0)
    block = pa.table({"embedding": vectors(rng.normal(size=(20_000, 256)).astype(np.float32), "fixed")})
    with pq.ParquetWriter(path, block.schema, compression="none", use_dictionary=False) as writer:
        for _ in range(10):
            writer.write_table(block)
    out = subprocess.run([sys.executable, "-c", MEASURE, str(path)], capture_output=True, text=True, check=True)
    assert float(out.stdout) < 130
