"""The quality of subsets, against the definitions written out over all pairs."""

import math
from dataclasses import asdict

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from failures import raises
from rsprune import errors
from rsprune.centroids import Centroids
from rsprune.evaluation import SubsetEvaluator, frechet_distance, gaussian, mmd, vendi_score


def unit(x):
    x = np.asarray(x, np.float64)
    return x / np.linalg.norm(x, axis=1, keepdims=True)


def scene(seed, n, dim, duplicated=0):
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(n, dim)) + rng.normal(size=(4, dim))[rng.integers(0, 4, n)] * 2
    if duplicated:
        x[-duplicated:] = x[:duplicated] * 3
    return x.astype(np.float32), unit(rng.normal(size=(5, dim))).astype(np.float32)


def evenness(counts):
    shares = np.asarray(counts) / np.sum(counts)
    return -sum(p * math.log(p) for p in shares if p) / math.log(len(shares))


@settings(max_examples=40)
@given(st.integers(12, 40), st.integers(2, 9), st.integers(0, 5), st.integers(1, 3), st.integers(0, 9999))
def test_quality_is_its_definitions(n, dim, duplicated, k, seed):
    x, centroids = scene(seed, n, dim, duplicated)
    rng = np.random.default_rng(seed)
    target, labels = rng.normal(size=(11, dim)).astype(np.float32), rng.integers(-1, 3, n)
    rows = np.sort(rng.choice(n, 8, replace=False))
    got = SubsetEvaluator(x, centroids, target=target, labels=labels, k=k, eps=0.1)(rows)
    u, t = unit(x), unit(target)
    s = u[rows]
    distances = np.sqrt(np.clip(2 - 2 * u @ u.T, 0, None))
    bandwidth = math.sqrt(np.median((2 - 2 * u @ u.T)[np.triu_indices(n, 1)]))
    clusters = (u @ centroids.T.astype(np.float64)).argmax(axis=1)
    similar = [
        any(s[j] @ s[i] > 0.9 and clusters[rows[i]] == clusters[rows[j]] for i in range(j)) for j in range(len(rows))
    ]
    classes = np.bincount(labels[rows][labels[rows] >= 0], minlength=labels.max() + 1)
    classes = classes[np.bincount(labels[labels >= 0]) > 0]
    within = np.sort(distances[np.ix_(rows, rows)], axis=1)[:, k]
    expected = {
        "rows": 8,
        "mmd": mmd(s, u, gaussian(bandwidth), unbiased=False),
        "frechet": frechet_distance(s, u),
        "mean_nn_distance": distances[:, rows].min(axis=1).mean(),
        "covering_radius": distances[:, rows].min(axis=1).max(),
        "knn_radius": within.mean(),
        "vendi": vendi_score(s),
        "balance": evenness(np.bincount(clusters[rows], minlength=5)),
        "duplicates": np.mean(similar),
        "target_mmd": mmd(s, t, gaussian(bandwidth), unbiased=False),
        "target_frechet": frechet_distance(s, t),
        "class_coverage": (classes > 0).mean(),
    }
    if len(classes) > 1 and classes.sum():
        expected["class_balance"] = evenness(classes)
    # Similarities are float32: distances of near duplicates are good to the root of that.
    for name, value in expected.items():
        assert getattr(got, name) == pytest.approx(value, rel=1e-6, abs=5e-4), name
    for whole, (coverage, density) in (
        (u, (got.coverage, got.density)),
        (t, (got.target_coverage, got.target_density)),
    ):
        # Balls are compared as float32 cosines.
        cosines = (whole @ whole.T).astype(np.float32)
        np.fill_diagonal(cosines, 2)
        inside = (whole @ s.T).astype(np.float32) >= np.sort(cosines, axis=1)[:, -k - 1, None]
        assert coverage == pytest.approx(inside.any(axis=1).mean())
        assert density == pytest.approx(inside.sum() / (8 * k))


def test_the_whole_pool_stands_for_itself():
    x, centroids = scene(1, 300, 16)
    whole = SubsetEvaluator(x, centroids)(np.arange(300))
    assert (whole.mmd, whole.mean_nn_distance, whole.covering_radius) == (
        pytest.approx(0, abs=1e-15),
        pytest.approx(0, abs=1e-3),
        0,
    )
    assert whole.frechet == pytest.approx(0, abs=1e-12)
    assert (whole.coverage, whole.target_mmd, whole.class_balance) == (1, None, None)


def test_a_worse_subset_has_worse_figures():
    x, centroids = scene(2, 600, 16)
    measure = SubsetEvaluator(x, centroids)
    rng = np.random.default_rng(0)
    spread = measure(rng.choice(600, 60, replace=False))
    heap = measure(np.argsort(-(unit(x) @ unit(x)[0]))[:60])
    assert heap.mmd > spread.mmd
    assert heap.frechet > spread.frechet
    assert heap.coverage < spread.coverage
    assert heap.vendi < spread.vendi
    assert heap.mean_nn_distance > spread.mean_nn_distance
    assert heap.knn_radius < spread.knn_radius


def test_duplicates_are_counted_once_each():
    x, centroids = scene(3, 100, 24)
    twice = np.concatenate([x, x[:30] * 2])
    assert SubsetEvaluator(twice, centroids)(np.arange(130)).duplicates == pytest.approx(30 / 130)
    assert SubsetEvaluator(x, centroids)(np.arange(100)).duplicates == 0


def test_figures_do_not_depend_on_threads_or_files(tmp_path):
    x, centroids = scene(4, 400, 12)
    rows = np.arange(0, 400, 5)
    expected = asdict(SubsetEvaluator(x, centroids, threads=1)(rows))
    np.save(tmp_path / "a.npy", x[:150])
    np.save(tmp_path / "b.npy", x[150:])
    assert asdict(SubsetEvaluator(tmp_path, centroids, threads=3)(rows[::-1])) == expected


def test_a_large_pool_is_sampled_by_row_number():
    x, centroids = scene(5, 3000, 8)
    exact, sampled = SubsetEvaluator(x, centroids), SubsetEvaluator(x, centroids, sample=1000, seed=7)
    assert sampled.is_sampled
    assert not exact.is_sampled
    rows = np.arange(0, 3000, 4)
    full, some = exact(rows), sampled(rows)
    # What is linear is of all rows, what is quadratic of the sample.
    assert (full.frechet, full.vendi, full.balance, full.duplicates) == (
        some.frechet,
        some.vendi,
        some.balance,
        some.duplicates,
    )
    assert some.coverage == pytest.approx(full.coverage, abs=0.1)
    assert sampled(np.arange(3000)).mmd == pytest.approx(0, abs=1e-15)


def test_invalid_rows_are_left_out_of_the_pool_and_refused_in_a_subset():
    x, centroids = scene(6, 80, 6)
    rows = np.arange(10, 50)
    broken = x.copy()
    broken[[2, 60]] = [[np.nan] * 6, [0] * 6]
    without = np.delete(x, [2, 60], axis=0)
    got = asdict(SubsetEvaluator(broken, centroids)(rows))
    assert got == pytest.approx(asdict(SubsetEvaluator(without, centroids)(rows - 1)), nan_ok=False)
    with raises(errors.InvalidRowError, 60):
        SubsetEvaluator(broken, centroids)(np.array([3, 4, 5, 6, 7, 60, 61]))


@pytest.mark.parametrize(
    ("options", "rows", "error", "values"),
    [
        ({}, [1, 2, 2, 3, 4, 5, 6], errors.ArgumentError, ()),
        ({}, [1, 2, 3, 4, 5, 6, 80], errors.ArgumentError, (0, 79)),
        ({}, [0.5, 1.0], errors.ArgumentError, ()),
        ({}, [3], errors.EmptyInputError, (2,)),
        ({}, [3, 4, 5], errors.ArgumentError, ("k", 5)),
        ({"k": 80}, [3, 4], errors.ArgumentError, (80,)),
        ({"eps": 2}, [3, 4], errors.ArgumentError, ("eps", 2)),
        ({"labels": [0, 1]}, [3, 4], errors.ShapeError, ("labels",)),
        ({"target": np.ones((9, 3))}, [3, 4], errors.ShapeError, ("target", 3)),
    ],
)
def test_what_cannot_be_measured_is_refused(options, rows, error, values):
    x, centroids = scene(7, 80, 6)
    with raises(error, *values):
        SubsetEvaluator(x, Centroids(centroids), **options)(rows)
