"""Distances between sets of features: against SciPy, torch-fidelity and the formulas written out."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from failures import raises
from rsprune import errors
from rsprune.evaluation import (
    Statistics,
    frechet_distance,
    gaussian,
    kernel_distance,
    mmd,
    polynomial,
    prdc,
    vendi_score,
)


def normal(seed, n, dim, shift=0.0):
    rng = np.random.default_rng(seed)
    return rng.normal(size=(n, dim)) @ rng.normal(size=(dim, dim)) / math.sqrt(dim) + shift


# --- Frechet ----------------------------------------------------------------------------------------------------------


def by_scipy(a, b):
    from scipy.linalg import sqrtm

    s, t = np.cov(a, rowvar=False), np.cov(b, rowvar=False)
    step = a.mean(0) - b.mean(0)
    return step @ step + np.trace(s) + np.trace(t) - 2 * np.trace(sqrtm(s @ t)).real


@pytest.mark.parametrize(("n", "m", "dim", "shift"), [(500, 700, 64, 0.0), (400, 2100, 192, 3.0), (3000, 2500, 8, 0.5)])
def test_frechet_is_scipys(n, m, dim, shift):
    a, b = normal(1, n, dim), normal(2, m, dim, shift)
    assert frechet_distance(a, b) == pytest.approx(by_scipy(a, b), rel=1e-9)


@pytest.mark.parametrize("few", [(40, 300), (300, 40), (30, 50)])
def test_frechet_of_fewer_rows_than_dimensions(few):
    n, m = few
    a, b = normal(3, n, 96), normal(4, m, 96, 0.2)
    # The definition by the nuclear norm, which needs no root of a singular matrix.
    x, y = (a - a.mean(0)) / math.sqrt(n - 1), (b - b.mean(0)) / math.sqrt(m - 1)
    step = a.mean(0) - b.mean(0)
    expected = step @ step + (x**2).sum() + (y**2).sum() - 2 * np.linalg.svd(x @ y.T, compute_uv=False).sum()
    assert frechet_distance(a, b) == pytest.approx(expected, rel=1e-9)
    assert frechet_distance(a, a) == pytest.approx(0, abs=1e-11)


def test_frechet_is_torch_fidelitys():
    import torch
    from torch_fidelity.metric_fid import KEY_METRIC_FID, fid_features_to_statistics, fid_statistics_to_metric

    a, b = normal(5, 900, 128), normal(6, 800, 128, 0.1)
    theirs = [fid_features_to_statistics(torch.from_numpy(x)) for x in (a, b)]
    theirs = fid_statistics_to_metric(*theirs, verbose=False)[KEY_METRIC_FID]
    assert frechet_distance(a, b) == pytest.approx(theirs, rel=1e-4)


def test_frechet_of_normal_distributions_that_are_known():
    # Means one apart, standard deviations 1 and 3 along one axis: 1 + (3 - 1)^2.
    a = Statistics(100, np.array([0.0, 0.0]), np.diag([1.0, 4.0]))
    b = Statistics(100, np.array([1.0, 0.0]), np.diag([9.0, 4.0]))
    assert frechet_distance(a, b) == pytest.approx(5, abs=1e-12)
    assert frechet_distance(b, a) == pytest.approx(5, abs=1e-12)


def test_frechet_of_other_dimensions_is_refused():
    with raises(errors.ShapeError, 8, 9):
        frechet_distance(normal(0, 20, 8), normal(0, 20, 9))


# --- statistics -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_statistics_are_those_of_numpy_however_the_rows_lie(dtype, tmp_path):
    x = (normal(7, 2500, 12) + 100).astype(dtype)
    exact = Statistics.of(x)
    np.testing.assert_allclose(exact.mean, x.astype(np.float64).mean(0), rtol=1e-13)
    np.testing.assert_allclose(exact.covariance, np.cov(x.astype(np.float64), rowvar=False), rtol=1e-10, atol=1e-12)
    np.save(tmp_path / "x.npy", x)
    for given_as in (str(tmp_path / "x.npy"), [x[:7], x[7:1300], x[1300:]], np.asfortranarray(x)):
        other = Statistics.of(given_as)
        assert other.mean.tobytes() == exact.mean.tobytes()
        assert other.covariance.tobytes() == exact.covariance.tobytes()


def test_statistics_are_kept_with_where_they_come_from(tmp_path):
    made = Statistics.of(normal(8, 50, 6), {"extractor": "inception", "seed": 3})
    made.save(tmp_path / "real.safetensors")
    back = Statistics.load(tmp_path / "real.safetensors")
    assert (back.n, back.meta) == (50, {"extractor": "inception", "seed": 3})
    assert back.covariance.tobytes() == made.covariance.tobytes()
    assert repr(back) == "Statistics(n=50, dim=6)"
    (tmp_path / "other").write_bytes(b"no statistics")
    with raises(errors.FormatError, "statistics"):
        Statistics.load(tmp_path / "other")
    with pytest.raises(FileNotFoundError):
        Statistics.load(tmp_path / "nowhere")
    with raises(errors.ArgumentError):
        Statistics.of(normal(8, 50, 6), {"extractor": object()}).save(tmp_path / "x")


def test_statistics_of_too_little_or_of_nothing_finite_are_refused():
    with raises(errors.EmptyInputError, 2):
        Statistics.of(np.ones((1, 3)))
    x = normal(9, 1500, 3)
    x[1200, 1] = np.nan
    with raises(errors.InvalidRowError, 1200):
        Statistics.of([x[:1100], x[1100:]])
    with pytest.raises(errors.ShapeError):
        Statistics(5, np.zeros(3), np.zeros((2, 2)))


# --- MMD --------------------------------------------------------------------------------------------------------------


@given(st.integers(2, 30), st.integers(2, 30), st.integers(1, 9), st.booleans(), st.booleans(), st.integers(0, 999))
def test_mmd_is_the_sum_over_all_pairs(n, m, dim, unbiased, is_gaussian, seed):
    rng = np.random.default_rng(seed)
    x, y = rng.normal(size=(n, dim)), rng.normal(size=(m, dim)) + 0.3

    def k(u, v):
        return math.exp(-((u - v) ** 2).sum() / (2 * 1.7**2)) if is_gaussian else (u @ v / dim + 1) ** 3

    xx = sum(k(u, v) for i, u in enumerate(x) for j, v in enumerate(x) if not unbiased or i != j)
    yy = sum(k(u, v) for i, u in enumerate(y) for j, v in enumerate(y) if not unbiased or i != j)
    xy = sum(k(u, v) for u in x for v in y)
    expected = xx / (n * (n - unbiased)) + yy / (m * (m - unbiased)) - 2 * xy / (n * m)
    scale = max(abs(xx), abs(yy), abs(xy), 1)
    got = mmd(x, y, gaussian(1.7) if is_gaussian else polynomial(dim), unbiased=unbiased)
    assert got == pytest.approx(expected, abs=1e-12 * scale)


def test_kernel_distance_is_torch_fidelitys():
    from torch_fidelity.metric_kid import kernel_poly, mmd2

    x, y = normal(10, 300, 40), normal(11, 300, 40, 0.2)
    theirs = mmd2(*(kernel_poly(*pair) for pair in ((x, x), (x, y), (y, y))), unit_diagonal=False)
    assert kernel_distance(x, y, subsets=1, subset_size=300).mean == pytest.approx(theirs, rel=1e-9)


def test_kernel_distance_draws_by_seed_alone():
    x, y = normal(12, 400, 10), normal(13, 300, 10, 0.1)
    once = kernel_distance(x, y, subsets=20, subset_size=100, seed=4)
    assert once == kernel_distance(x, y, subsets=20, subset_size=100, seed=4)
    assert once.mean != kernel_distance(x, y, subsets=20, subset_size=100, seed=5).mean
    assert abs(once.mean - mmd(x, y)) < 3 * once.spread / math.sqrt(20)
    # Of two samples of one distribution: around 0, and not 0 by drawing the same rows.
    same = kernel_distance(x, x, subsets=20, subset_size=100)
    assert same.spread > 0


def test_kernel_distance_of_subsets_that_cannot_be_drawn():
    x = normal(14, 50, 4)
    with raises(errors.ArgumentError, 50):
        kernel_distance(x, x)
    with raises(errors.ArgumentError, "subsets", 0):
        kernel_distance(x, x, subsets=0, subset_size=10)
    with raises(errors.ArgumentError, "bandwidth", 0):
        gaussian(0)
    with raises(errors.ArgumentError, 2):
        mmd(x[:1], x)


# --- precision, recall, density, coverage -----------------------------------------------------------------------------


@given(st.integers(3, 25), st.integers(3, 25), st.integers(1, 5), st.integers(1, 2), st.integers(0, 999))
def test_prdc_is_the_definition(n, m, dim, k, seed):
    rng = np.random.default_rng(seed)
    x, y = rng.integers(-4, 5, (n, dim)).astype(float), rng.integers(-3, 7, (m, dim)).astype(float)

    def radius(rows, i):
        return sorted(((rows[i] - rows[j]) ** 2).sum() for j in range(len(rows)) if j != i)[k - 1]

    inside = [[((u - v) ** 2).sum() <= radius(x, i) for v in y] for i, u in enumerate(x)]
    inside_generated = [[((u - v) ** 2).sum() <= radius(y, j) for j, v in enumerate(y)] for u in x]
    got = prdc(x, y, k=k)
    assert got.precision == pytest.approx(np.any(inside, axis=0).mean())
    assert got.recall == pytest.approx(np.any(inside_generated, axis=1).mean())
    assert got.density == pytest.approx(np.sum(inside) / (k * m))
    assert got.coverage == pytest.approx(np.any(inside, axis=1).mean())


def test_prdc_needs_more_rows_than_neighbours():
    with raises(errors.ArgumentError, 5, "generated"):
        prdc(normal(0, 9, 2), normal(1, 5, 2), k=5)


# --- Vendi ------------------------------------------------------------------------------------------------------------


@given(st.integers(1, 30), st.integers(1, 12), st.integers(0, 999))
def test_vendi_is_the_entropy_of_the_cosines(n, dim, seed):
    x = np.random.default_rng(seed).normal(size=(n, dim))
    unit = x / np.linalg.norm(x, axis=1, keepdims=True)
    eigenvalues = np.linalg.eigvalsh(unit @ unit.T / n)
    expected = math.exp(-sum(value * math.log(value) for value in eigenvalues if value > 1e-15))
    assert vendi_score(x) == pytest.approx(expected, rel=1e-9)


def test_vendi_and_frechet_of_few_rows_decompose_the_smaller_side(monkeypatch):
    sides = []
    for name in ("eigvalsh", "eigh"):
        plain = getattr(np.linalg, name)
        monkeypatch.setattr(np.linalg, name, lambda a, plain=plain: (sides.append(len(a)), plain(a))[1])
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(30, 500)), rng.normal(size=(40, 500))
    vendi_score(x)
    frechet_distance(x, y)
    assert sides == [31]


def test_vendi_counts_directions():
    assert vendi_score(np.eye(7)) == pytest.approx(7)
    assert vendi_score(np.repeat(np.eye(3), 50, axis=0) * 5) == pytest.approx(3)
    with raises(errors.InvalidRowError, 2):
        vendi_score(np.array([[1.0, 0], [0, 1], [0, 0]]))
