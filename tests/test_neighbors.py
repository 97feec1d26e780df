"""Searches for similar rows: against NumPy, with any storage and number of threads, and what they refuse."""

import numpy as np
import pytest

from failures import raises
from rsprune import _core
from rsprune.errors import ArgumentError, ShapeError


def clustered(n: int, dim: int, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    rows = rng.standard_normal((30, dim))[rng.integers(30, size=n)] + 0.2 * rng.standard_normal((n, dim))
    return rows.astype(np.float32)


def rows_of(*parts: np.ndarray) -> _core.Rows:
    return _core.Rows(list(parts))


@pytest.mark.parametrize("dim", [1, 16, 257])
def test_neighbours_are_numpys(dim):
    base, queries = clustered(2500, dim), clustered(300, dim, seed=1)
    found, similarity = _core.knn(rows_of(queries), rows_of(base), k=7, exclude_self=False, threads=None)
    units = [rows / np.linalg.norm(rows, axis=1, keepdims=True) for rows in (queries.astype(float), base.astype(float))]
    cosines = (units[0] @ units[1].T).astype(np.float32)
    assert np.allclose(np.take_along_axis(cosines, found, 1), similarity, atol=3e-7)
    # None that was left out is nearer, but for the last bit.
    assert (np.sort(cosines, 1)[:, -7:][:, ::-1] <= similarity + 3e-7).all()
    order = [
        [(-s, i) for i, s in zip(*pair, strict=True)] for pair in zip(found.tolist(), similarity.tolist(), strict=True)
    ]
    assert all(row == sorted(row) for row in order)


def test_rows_find_no_neighbour_where_there_is_none():
    rows = np.array([[1, 0], [0, 0], [0, 2], [np.nan, 1]], np.float32)
    found, similarity = _core.knn(rows_of(rows), rows_of(rows), k=2, exclude_self=True, threads=1)
    assert found.tolist() == [[2, -1], [-1, -1], [0, -1], [-1, -1]]
    assert similarity[0, 0] == 0.0
    assert np.isnan(similarity[found < 0]).all()


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_every_search_gives_the_same_bytes(dtype, tmp_path):
    values = clustered(3000, 20).astype(dtype)
    path = tmp_path / "rows.npy"
    np.save(path, values)
    order = np.random.default_rng(2).permutation(3000).astype(np.int64)
    starts = np.array([0, 10, 10, 1800, 3000], np.int64)

    def everything(rows: _core.Rows, threads: int | None) -> list[bytes]:
        graph = _core.knn(rows, rows, k=9, exclude_self=True, threads=threads)
        budgets = np.array([3, 5, 40, 20], np.int64)
        results = [
            *graph,
            _core.max_similarity_to_earlier(rows, order, starts, threads=threads),
            _core.greedy_dedup(rows, order, starts, threshold=0.95, threads=threads),
            _core.similar_components(rows, order, starts, threshold=0.97, threads=threads),
            _core.graph_components(*graph, threshold=0.96),
            *_core.farthest_first(rows, order[:2], count=60, distance=0.0, threads=threads),
            *_core.facility_location(rows, order, starts, budgets, threads=threads),
        ]
        return [result.tobytes() for result in results]

    expected = everything(rows_of(values), 1)
    assert everything(rows_of(values), 3) == expected
    assert everything(rows_of(values[:7], values[7:]), None) == expected
    assert everything(rows_of(np.asfortranarray(values)), 2) == expected
    assert everything(_core.Rows([path]), 2) == expected


def test_float64_rows_of_any_length_have_neighbours():
    rows = np.array([[3e300, 4e300], [3e-310, 4e-310], [4.0, -3.0]])
    found, similarity = _core.knn(rows_of(rows), rows_of(rows), k=2, exclude_self=True, threads=1)
    assert found.tolist() == [[1, 2], [0, 2], [0, 1]]
    assert similarity[0].tolist() == pytest.approx([1, 0], abs=1e-7)


def test_what_cannot_be_searched_is_named():
    rows, wider = rows_of(np.ones((3, 2), np.float32)), rows_of(np.ones((3, 4), np.float32))
    numbers = np.arange(3)
    with raises(ShapeError, 2, 4):
        _core.knn(rows, wider, k=1, exclude_self=False, threads=1)
    with raises(ArgumentError, "k", 0):
        _core.knn(rows, rows, k=0, exclude_self=False, threads=1)
    with raises(ArgumentError, 3):
        _core.max_similarity_to_earlier(rows, numbers + 1, np.array([0, 3]), threads=1)
    with raises(ArgumentError, -1):
        _core.max_similarity_to_earlier(rows, numbers - 1, np.array([0, 3]), threads=1)
    with raises(ArgumentError, 3):
        _core.max_similarity_to_earlier(rows, numbers, np.array([0, 2]), threads=1)
    with raises(ArgumentError):
        _core.farthest_first(rows, np.array([1, 1]), count=2, distance=0.0, threads=1)
    with raises(ArgumentError):
        _core.facility_location(rows, numbers, np.array([0, 3]), np.array([1, 1]), threads=1)
    with raises(ShapeError, "[3, 1]"):
        _core.facility_location_on_graph(np.zeros((3, 1), np.int64), np.ones((2, 1), np.float32), budget=1)
