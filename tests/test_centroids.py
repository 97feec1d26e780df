"""Spherical K-means against a literal Lloyd, and the file that holds its result."""

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import rsprune
from failures import raises, warns
from rsprune import errors


def unit(x):
    return x / np.linalg.norm(x, axis=1, keepdims=True)


def planted(k=12, dim=32, each=50, spread=0.15, seed=0):
    rng = np.random.default_rng(seed)
    centres = unit(rng.normal(size=(k, dim)))
    labels = np.repeat(np.arange(k), each)
    return centres, (centres[labels] + spread * rng.normal(size=(k * each, dim)) / dim**0.5).astype(np.float32), labels


def lloyd(x, starts, max_iter, tol):
    """Textbook spherical Lloyd in float64; no cluster of the test data runs empty."""
    x = unit(x.astype(np.float64))
    centroids, history, labels = x[starts], [], None
    while True:
        cosines = x @ centroids.T
        new = cosines.argmax(axis=1)
        history.append(cosines.max(axis=1).sum())
        settled = labels is not None and np.array_equal(new, labels)
        slow = len(history) > 1 and history[-1] - history[-2] < tol * abs(history[-2])
        if settled or slow or len(history) == max_iter:
            return centroids, history
        labels = new
        centroids = unit(np.stack([x[labels == k].sum(axis=0) for k in range(len(centroids))]))


@pytest.mark.parametrize(("max_iter", "tol"), [(100, 1e-4), (100, 0.0), (3, 0.0), (1, 0.0)])
def test_a_run_is_that_of_a_literal_lloyd(max_iter, tol):
    rng = np.random.default_rng(1)
    x = rng.normal(size=(400, 24)).astype(np.float32)
    got = rsprune.fit_centroids(x, 8, n_init=1, max_iter=max_iter, tol=tol)
    centroids, history = lloyd(x, got.meta["starts"], max_iter, tol)
    # The core holds unit rows and centroids in float32.
    assert len(got.meta["history"]) == pytest.approx(len(history), abs=1)
    shorter = min(len(history), got.meta["iterations"])
    np.testing.assert_allclose(got.meta["history"][:shorter], history[:shorter], rtol=1e-6)
    np.testing.assert_allclose(got.vectors, centroids, atol=1e-5)


@given(st.integers(2, 60), st.integers(2, 12), st.integers(1, 8), st.integers(0, 2**32))
def test_the_objective_never_falls_and_is_that_of_the_centroids(n, dim, k, seed):
    x = np.random.default_rng(seed).normal(size=(n, dim)).astype(np.float32)
    if k > n:
        with raises(errors.ArgumentError, "k", k, n):
            rsprune.fit_centroids(x, k)
        return
    got = rsprune.fit_centroids(x, k, seed=seed, tol=0.0)
    assert np.all(np.diff(got.meta["history"]) >= 0)
    assert got.meta["objective"] == got.meta["history"][-1]
    assert got.meta["objective"] == pytest.approx(
        (unit(x.astype(np.float64)) @ got.vectors.T).max(axis=1).sum(), rel=1e-6
    )
    assert np.linalg.norm(got.vectors, axis=1) == pytest.approx(1, abs=1e-6)


def test_planted_clusters_are_found():
    centres, x, labels = planted()
    got = rsprune.fit_centroids(x, 12)
    nearest = (centres @ got.vectors.T).argmax(axis=1)
    assert sorted(nearest) == list(range(12))
    assert np.all((centres * got.vectors[nearest]).sum(axis=1) > 0.99)
    assert rsprune.assign(x, got).labels.tolist() == nearest[labels].tolist()


def test_more_starts_are_no_worse():
    x = np.random.default_rng(3).normal(size=(300, 8)).astype(np.float32)
    objectives = [rsprune.fit_centroids(x, 20, n_init=n).meta["objective"] for n in (1, 2, 4, 8)]
    assert objectives == sorted(objectives)
    assert objectives[0] < objectives[-1]


def test_same_bytes_at_any_thread_count_dtype_and_layout():
    x = np.random.default_rng(0).normal(size=(900, 19)).astype(np.float16)
    expected = rsprune.fit_centroids(x, 11, threads=1)
    for form in (x.astype(np.float32), x.astype(np.float64), np.asfortranarray(x), [x[:100], x[100:]]):
        for threads in (1, 2, 7):
            got = rsprune.fit_centroids(form, 11, threads=threads)
            assert got.vectors.tobytes() == expected.vectors.tobytes()
            assert dict(got.meta) == dict(expected.meta)
    other = rsprune.fit_centroids(x, 11, seed=1)
    assert other.meta["starts"] != expected.meta["starts"]


def test_the_length_of_rows_does_not_matter():
    x = np.random.default_rng(0).normal(size=(300, 6))
    scaled = x * 2.0 ** np.random.default_rng(1).integers(-300, 300, (300, 1))
    assert rsprune.fit_centroids(x, 5).vectors.tobytes() == rsprune.fit_centroids(scaled, 5).vectors.tobytes()


def test_the_digest_is_the_blake3_hash_of_the_rows():
    x = np.eye(3, dtype=np.float16)
    digest = "blake3:3b84216c586125efe8fcf51f3abae70614151d24b56350f8b4fd0fca169d9bce"
    assert rsprune.fit_centroids(x, 2).meta["digest"] == digest
    assert rsprune.fit_centroids(x.astype(np.float64), 2).meta["digest"] == digest
    assert rsprune.fit_centroids(x + np.finfo(np.float64).eps, 2).meta["digest"] != digest


def test_meta_names_what_was_done():
    x = np.random.default_rng(0).normal(size=(50, 6)).astype(np.float32)
    x[[3, 4]] = np.nan
    got = rsprune.fit_centroids(x, 5, seed=9, encoder={"name": "git-rsclip", "sha256": "ab"})
    meta = got.meta
    assert (meta["k"], meta["dim"], meta["seed"], meta["rows"], meta["invalid"]) == (5, 6, 9, 50, 2)
    assert meta["rsprune"] == rsprune.__version__
    assert meta["encoder"] == {"name": "git-rsclip", "sha256": "ab"}
    assert meta["iterations"] == len(meta["history"])
    assert not {3, 4} & set(meta["starts"])
    assert repr(got) == "Centroids(k=5, dim=6, encoder={'name': 'git-rsclip', 'sha256': 'ab'})"
    assert np.asarray(got) is got.vectors
    assert np.array(got, dtype=np.float64).dtype == np.float64
    assert (got.k, got.dim) == (5, 6)


@pytest.mark.parametrize(
    ("change", "error", "values"),
    [
        ({"k": 0}, errors.ArgumentError, ("k", 0)),
        ({"k": 1.5}, errors.ArgumentError, ("k", 1.5)),
        ({"k": 7}, errors.ArgumentError, ("k", 7, 6, 0)),
        ({"k": 4}, errors.ArgumentError, ("k", 4, 3, 6)),
        ({"n_init": 0}, errors.ArgumentError, ("n_init", 0)),
        ({"max_iter": 0}, errors.ArgumentError, ("max_iter", 0)),
        ({"tol": -1.0}, errors.ArgumentError, ("tol", -1.0)),
        ({"tol": float("nan")}, errors.ArgumentError, ("tol", "nan")),
        ({"tol": "small"}, errors.ArgumentError, ("tol", "'small'")),
        ({"seed": -1}, errors.ArgumentError, ("seed", -1)),
        ({"seed": 0.5}, errors.ArgumentError, ("seed", 0.5)),
        ({"on_invalid": None}, errors.ArgumentError, ("on_invalid",)),
        ({"ref_embeds": np.eye(3, dtype=int)}, errors.DtypeError, ("int64",)),
        ({"ref_embeds": np.zeros((0, 3))}, errors.EmptyInputError, (0,)),
        ({"ref_embeds": np.zeros((4, 3))}, errors.EmptyInputError, (4,)),
        ({"ref_embeds": np.diag([1, 1, 0.0]), "on_invalid": "raise"}, errors.InvalidRowError, (2,)),
    ],
)
def test_bad_input(change, error, values):
    arguments = {"ref_embeds": np.array([[1, 0], [2, 0], [0, 1], [0, 3], [-1, 0], [1, 0.0]]), "k": 2}
    with raises(error, *values):
        rsprune.fit_centroids(**(arguments | change))


# --- the file ---------------------------------------------------------------------------------------------------------


@pytest.fixture
def centroids():
    return rsprune.fit_centroids(np.random.default_rng(0).normal(size=(50, 6)), 5, encoder="git-rsclip")


def test_files_round_trip_and_are_the_same_bytes_again(centroids, tmp_path):
    path = tmp_path / "c.safetensors"
    centroids.save(path)
    loaded = rsprune.Centroids.load(str(path))
    assert loaded.vectors.tobytes() == centroids.vectors.tobytes()
    assert dict(loaded.meta) == dict(centroids.meta)
    before = path.read_bytes()
    loaded.save(path)
    assert path.read_bytes() == before
    assert [p.name for p in tmp_path.iterdir()] == ["c.safetensors"]


def test_a_folder_stands_for_the_centroids_in_it(centroids, tmp_path):
    with raises(FileNotFoundError, "centroids.safetensors"):
        rsprune.Centroids.load(tmp_path)
    centroids.save(tmp_path / "centroids.safetensors")
    assert rsprune.Centroids.load(tmp_path).vectors.tobytes() == centroids.vectors.tobytes()


def test_files_are_plain_safetensors(centroids, tmp_path):
    from safetensors import safe_open

    centroids.save(tmp_path / "c.safetensors")
    with safe_open(tmp_path / "c.safetensors", framework="np") as file:
        assert file.get_tensor("centroids").tobytes() == centroids.vectors.tobytes()
        assert json.loads(file.metadata()["rsprune"])["encoder"] == "git-rsclip"


def test_garbage_is_a_format_error(centroids, tmp_path):
    from safetensors.numpy import save

    path = tmp_path / "c.safetensors"
    centroids.save(path)
    good = path.read_bytes()
    meta = {"rsprune": "{}"}
    x = centroids.vectors
    cases = [
        b"",
        b"garbage" * 9,
        good[:-1],
        good[:30],
        save({"other": x}, metadata=meta),
        save({"centroids": x}),
        save({"centroids": x}, metadata={"rsprune": "{"}),
        save({"centroids": x}, metadata={"rsprune": "[]"}),
        save({"centroids": x.astype(np.float64)}, metadata=meta),
        save({"centroids": x[0]}, metadata=meta),
        save({"centroids": x[:0]}, metadata=meta),
        save({"centroids": x * 2}, metadata=meta),
        save({"centroids": x * np.float32(np.nan)}, metadata=meta),
    ]
    for content in cases:
        path.write_bytes(content)
        with raises(errors.FormatError, "c.safetensors"):
            rsprune.Centroids.load(path)
    with pytest.raises(FileNotFoundError):
        rsprune.Centroids.load(tmp_path / "none.safetensors")


def test_meta_that_is_no_json_is_refused(centroids, tmp_path):
    with raises(errors.ArgumentError):
        rsprune.Centroids(centroids.vectors, {"encoder": object()}).save(tmp_path / "c.safetensors")
    assert not list(tmp_path.iterdir())


def test_vectors_of_an_npy_file_are_centroids(tmp_path):
    vectors = np.array([[3.0, 4.0], [0.0, 1.0]])
    np.save(tmp_path / "c.npy", vectors)
    with warns(UserWarning, 1, 2) as caught:
        loaded = rsprune.Centroids.load(tmp_path / "c.npy")
    assert caught[0].filename == __file__
    assert loaded.vectors.tolist() == [[np.float32(0.6), np.float32(0.8)], [0.0, 1.0]]
    assert loaded.meta == {}
    loaded.save(tmp_path / "c.safetensors")
    rows = np.array([[1.0, 0.0], [0.0, 1.0], [1.0, 1.0]])
    expected = rsprune.assign(rows, loaded)
    assert rsprune.assign(rows, tmp_path / "c.safetensors").labels.tolist() == expected.labels.tolist() == [0, 1, 0]


def test_swapped_arguments_are_an_error():
    rng = np.random.default_rng(0)
    embeds, centroids = rng.normal(size=(50, 4)), rsprune.Centroids(np.eye(4))
    for swapped in (centroids, np.asarray(centroids)):
        with raises(errors.ArgumentError):
            rsprune.assign(swapped, embeds)
        with raises(errors.ArgumentError):
            rsprune.select(swapped, embeds, 2)
    # More centroids than rows are fine where they are of unit length, and so are centroids of centroids.
    many = embeds / np.linalg.norm(embeds, axis=1, keepdims=True)
    assert len(rsprune.assign(np.eye(4), many).labels) == 4
    assert len(rsprune.assign(centroids, rsprune.Centroids(many)).labels) == 4
