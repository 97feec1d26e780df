"""Assignment against the definition in plain NumPy: bit for bit, whatever the dtype, layout, threads and blocks."""

import os
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import oracles
import rsprune
from failures import raises, warns
from oracles import unit
from rsprune import errors


def assert_same(got, expected):
    assert got[0].tolist() == expected[0].tolist()
    assert got[1].tobytes() == expected[1].tobytes()


@st.composite
def matrices(draw):
    n, dim, k = draw(st.integers(1, 40)), draw(st.integers(1, 70)), draw(st.integers(1, 20))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    if draw(st.booleans()):
        # Few values, and each centroid twice: ties.
        x = rng.integers(-2, 3, (n, dim)).astype(np.float32)
        centroids = unit(rng.integers(0, 2, (k, dim)) + np.eye(k, dim) * 2 + 1)
        centroids = np.concatenate([centroids, centroids[::-1]])
    else:
        x = rng.normal(size=(n, dim)).astype(np.float32) * np.float32(10) ** rng.integers(-3, 4, (n, 1))
        centroids = unit(rng.normal(size=(k, dim)))
    for row in rng.integers(0, n, draw(st.integers(0, 3))):
        x[row] = rng.choice([0, np.nan, np.inf, -np.inf])
    return x.astype(draw(st.sampled_from([np.float16, np.float32, np.float64]))), centroids


@given(matrices(), st.booleans(), st.integers(1, 7), st.integers(1, 50), st.data())
def test_assign_is_the_definition(problem, normalize, threads, block_rows, data):
    x, centroids = problem
    expected = oracles.assign(x, centroids, normalize)
    options = {"normalize": normalize, "threads": threads, "_block_rows": block_rows}
    assert_same(rsprune.assign(x, centroids, **options), expected)
    # Shards cut anywhere, each in a layout of its own.
    cuts = sorted(data.draw(st.lists(st.integers(0, len(x)), max_size=3)))
    shards = [np.asfortranarray(part) if i % 2 else part for i, part in enumerate(np.split(x, cuts))]
    assert_same(rsprune.assign(shards, centroids, **options), expected)


@given(matrices())
def test_float64_rows_are_multiplied_and_then_added(problem):
    x, centroids = problem
    x = x.astype(np.float64) * (1 + np.random.default_rng(0).random(x.shape))
    assert_same(rsprune.assign(x, centroids), oracles.assign(x, centroids))


def test_files_give_the_bits_of_arrays(tmp_path):
    rng = np.random.default_rng(0)
    x, centroids = rng.normal(size=(1000, 33)).astype(np.float16), unit(rng.normal(size=(9, 33)))
    expected = oracles.assign(x, centroids)
    np.save(tmp_path / "s_2.npy", x[:300])
    np.save(tmp_path / "s_10.npy", x[300:])
    assert_same(rsprune.assign(tmp_path, centroids, threads=2), expected)
    assert_same(
        rsprune.assign(np.load(tmp_path / "s_10.npy", mmap_mode="r"), centroids), oracles.assign(x[300:], centroids)
    )


def test_ties_go_to_the_lowest_centroid():
    centroids = np.array([[0, 1], [1, 0], [0, 1], [1, 0]], np.float32)
    got = rsprune.assign(np.array([[1.0, 1.0], [2.0, 0.0], [0.0, 3.0], [-1.0, -1.0]]), centroids)
    assert got.labels.tolist() == [0, 1, 0, 0]
    assert got.similarity.tolist() == np.float32([0.5**0.5, 1, 1, -(0.5**0.5)]).tolist()


def test_neighbours_one_ulp_apart_are_told_apart():
    centroids = np.array([[0.6, 0.8], [0.6, 0.8]], np.float32)
    centroids[1, 0] = np.nextafter(centroids[1, 0], np.float32(1))
    assert rsprune.assign(np.array([[1, 1], [-1, 1]], np.float32), centroids).labels.tolist() == [1, 0]


def test_without_normalisation_long_rows_are_more_similar():
    got = rsprune.assign(np.array([[3.0, 4.0]]), np.array([[0.6, 0.8]], np.float32), normalize=False)
    assert got.similarity[0] == pytest.approx(5, rel=1e-7)


@pytest.mark.parametrize("scale", [1e300, 1e-300, 5e-324])
def test_float64_rows_beyond_the_range_of_their_squares(scale):
    x = np.array([[3, 4], [-4, 3]], np.float64) * scale
    got = rsprune.assign(x, np.eye(2, dtype=np.float32))
    assert got.labels.tolist() == [1, 1]
    assert got.similarity.tolist() == np.float32([0.8, 0.6]).tolist()
    plain = rsprune.assign(x, np.eye(2, dtype=np.float32), normalize=False)
    with np.errstate(over="ignore"):
        assert plain.similarity.tolist() == np.float64([4 * scale, 3 * scale]).astype(np.float32).tolist()


def test_every_kernel_gives_the_same_bytes(tmp_path):
    rng = np.random.default_rng(0)
    np.save(tmp_path / "x.npy", rng.normal(size=(500, 67)).astype(np.float32))
    np.save(tmp_path / "wide.npy", rng.normal(size=(500, 67)))
    np.save(tmp_path / "c.npy", unit(rng.normal(size=(29, 67))))
    code = """if True:
        import sys, hashlib, rsprune
        x, wide, c = (sys.argv[1] + name for name in ("/x.npy", "/wide.npy", "/c.npy"))
        arrays = [*rsprune.assign(x, c), *rsprune.assign(wide, c), rsprune.fit_centroids(x, 7).vectors]
        print(rsprune.cpu_features()["level"], hashlib.sha256(b"".join(a.tobytes() for a in arrays)).hexdigest())
    """
    features = {name for name, present in rsprune.cpu_features().items() if present is True}
    avx2 = {"avx2", "bmi1", "bmi2", "f16c", "fma"}
    avx512 = avx2 | {"avx512f", "avx512bw", "avx512vl"}
    levels = {"": set(), "scalar": set(), "neon": {"neon"}, "avx2": avx2, "avxvnni": avx2 | {"avxvnni"}}
    levels |= {"avx512": avx512, "avx512vnni": avx512 | {"avx512vnni"}}
    levels |= {"avx512icl": levels["avx512vnni"] | {"avx512vbmi", "avx512vpopcntdq", "gfni"}}
    digests = {}
    for level in [level for level, needs in levels.items() if needs <= features]:
        env = os.environ | {"RSPRUNE_CPU": level}
        command = [sys.executable, "-c", code, str(tmp_path)]
        output = subprocess.run(command, capture_output=True, text=True, check=True, env=env).stdout
        ran, digests[level] = output.split()
        assert ran == (level or rsprune.cpu_features()["level"])
    assert len(set(digests.values())) == 1, digests
    env = os.environ | {"RSPRUNE_CPU": "abacus"}
    failed = subprocess.run([sys.executable, "-c", code, str(tmp_path)], capture_output=True, text=True, env=env)
    expected = "expected one of " + ", ".join(name for name in levels if name)
    assert f'ArgumentError: RSPRUNE_CPU is "abacus"; {expected}' in failed.stderr


# --- centroids and bad input ------------------------------------------------------------------------------------------


def test_centroids_that_are_not_unit_are_normalised_with_a_warning():
    centroids = np.array([[2, 0], [0, 1]], np.float32)
    with warns(UserWarning, 1, 2, "centroids") as record:
        got = rsprune.assign(np.eye(2), centroids)
    assert record[0].filename == __file__
    assert got.similarity.tolist() == [1, 1]
    with warns(UserWarning, 1, 2) as record:
        rsprune.select(np.eye(2), centroids, 2)
    assert record[0].filename == __file__
    with warns(UserWarning, 1, 2) as record:
        assert rsprune.Centroids(centroids).vectors.tolist() == [[1, 0], [0, 1]]
    assert record[0].filename == __file__


def test_rounding_is_no_reason_to_normalise():
    centroids = unit(np.random.default_rng(0).normal(size=(5, 9))).astype(np.float16)
    assert rsprune.assign(centroids, centroids).labels.tolist() == [0, 1, 2, 3, 4]


@pytest.mark.parametrize(
    ("change", "error", "values"),
    [
        (
            {"centroids": np.eye(3)},
            errors.ShapeError,
            ("embeddings", 2, "centroids", 3, "encoder"),
        ),
        ({"centroids": np.array([[1, 0], [0, 0.0]])}, errors.InvalidRowError, (1,)),
        ({"centroids": np.array([[np.nan, 0]])}, errors.InvalidRowError, (0, "NaN")),
        ({"centroids": np.eye(2, dtype=int)}, errors.DtypeError, ("int64",)),
        ({"centroids": np.zeros((0, 2))}, errors.EmptyInputError, (0,)),
        ({"centroids": np.ones(2)}, errors.ShapeError, ("(2,)",)),
        ({"embeds": np.array([[1, 0], [0, 0.0]])}, errors.InvalidRowError, (1,)),
        ({"embeds": np.array([[1, 0], [np.inf, 0]])}, errors.InvalidRowError, (1, "NaN")),
        ({"on_invalid": "ignore"}, errors.ArgumentError, ("on_invalid", "'ignore'")),
        ({"threads": -1}, errors.ArgumentError, ("threads", -1)),
    ],
)
def test_bad_input(change, error, values):
    arguments = {"embeds": np.eye(2), "centroids": np.eye(2), "on_invalid": "raise"}
    with raises(error, *values):
        rsprune.assign(**(arguments | change))


def test_the_first_invalid_row_is_named_at_any_thread_count():
    x = np.ones((5000, 3), np.float32)
    x[[777, 778, 4000]] = np.nan
    for threads in (1, 2, 7):
        with raises(errors.InvalidRowError, 777, "NaN"):
            rsprune.assign(x, np.eye(3), on_invalid="raise", threads=threads, _block_rows=16)
    got = rsprune.assign(x, np.eye(3))
    assert np.flatnonzero(got.labels < 0).tolist() == [777, 778, 4000]
    assert np.flatnonzero(np.isnan(got.similarity)).tolist() == [777, 778, 4000]
    assert (got.labels.dtype, got.similarity.dtype) == (np.int32, np.float32)
