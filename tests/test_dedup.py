"""Near-duplicates that a selection leaves out, and rows that evaluation images resemble."""

import numpy as np

import rsprune
from failures import raises
from rsprune.errors import ArgumentError, BudgetError, ShapeError


def at_angles(*degrees: float) -> np.ndarray:
    """Unit vectors of the plane."""
    radians = np.deg2rad(degrees)
    return np.stack([np.cos(radians), np.sin(radians)], 1).astype(np.float32)


# Two clusters; in each, rows 2 degrees apart (a cosine of 0.9994) at growing distance from the centroid.
ROWS, CENTROIDS = at_angles(4, 2, 0, 94, 92, 90, 140), at_angles(0, 90)


def test_of_near_duplicates_the_nearest_to_the_centroid_stays():
    chosen = rsprune.select(ROWS, CENTROIDS, 5, dedup=0.001, fill="waterfill")
    # 0 stays, 2 is too near to it, 4 is not; likewise around 90.
    assert chosen.duplicates.tolist() == [1, 4]
    assert chosen.indices.tolist() == [0, 2, 3, 5, 6]
    assert "near-duplicates left out: 2" in chosen.summary()
    wider = rsprune.select(ROWS, CENTROIDS, 3, dedup=0.01)
    assert wider.duplicates.tolist() == [0, 1, 3, 4]
    assert wider.indices.tolist() == [2, 5, 6]


def test_without_dedup_nothing_is_left_out():
    chosen = rsprune.select(ROWS, CENTROIDS, 7)
    assert len(chosen) == 7
    assert chosen.duplicates.tolist() == []
    assert "duplicates" not in chosen.summary()


def test_preselected_rows_stay_and_come_first():
    chosen = rsprune.select(ROWS, CENTROIDS, 4, dedup=0.001, preselected=[1, 0])
    assert chosen.duplicates.tolist() == [2, 4]
    assert {0, 1} <= set(chosen)


def test_excluded_rows_remove_nothing():
    chosen = rsprune.select(ROWS, CENTROIDS, 4, dedup=0.001, exclude=[2])
    assert chosen.duplicates.tolist() == [0, 4]
    assert 1 in chosen.indices


def test_a_budget_that_duplicates_would_be_needed_for_fails():
    with raises(BudgetError, 5):
        rsprune.select(ROWS, CENTROIDS, 6, dedup=0.001)
    for eps in (-0.1, 1.1, True, "all"):
        with raises(ArgumentError, "dedup"):
            rsprune.select(ROWS, CENTROIDS, 2, dedup=eps)


def test_leaks_are_the_rows_near_any_evaluation_image():
    evaluation = at_angles(1, 141)
    assert rsprune.leaks(ROWS, evaluation, 0.0004).tolist() == [1, 2, 6]
    assert rsprune.leaks(ROWS, evaluation, 0.001).tolist() == [1, 2, 6]
    assert rsprune.leaks([ROWS[:3], ROWS[3:]], evaluation, 0.002, threads=2).tolist() == [0, 1, 2, 6]
    assert rsprune.leaks(np.zeros((2, 2), np.float32), evaluation, 2).tolist() == []
    kept = rsprune.select(ROWS, CENTROIDS, 4, exclude=rsprune.leaks(ROWS, evaluation, 0.001))
    assert kept.indices.tolist() == [0, 3, 4, 5]


def test_leaks_equal_the_definition():
    rng = np.random.default_rng(0)
    rows, evaluation = rng.standard_normal((500, 12)), rng.standard_normal((40, 12))
    units = [values / np.linalg.norm(values, axis=1, keepdims=True) for values in (rows, evaluation)]
    expected = np.flatnonzero((units[0] @ units[1].T).max(1) > 0.6)
    assert 0 < len(expected) < 400
    assert np.array_equal(rsprune.leaks(rows, evaluation, 0.4), expected)


def test_leaks_says_what_does_not_fit():
    with raises(ShapeError, 2):
        rsprune.leaks(ROWS, np.ones((3, 4)), 0.1)
    for eps in (-0.5, 2.5, True, "near"):
        with raises(ArgumentError, "eps", eps if isinstance(eps, float) else repr(eps)):
            rsprune.leaks(ROWS, ROWS, eps)
