"""Checks of arguments."""

import warnings

import numpy as np
import pytest

from failures import raises, warns
from rsprune import errors
from rsprune.validation import (
    budget_rows,
    check_choice,
    check_column,
    check_integer,
    check_number,
    check_row_numbers,
    check_threads,
    fraction_of,
    warn_caller,
)


def test_numbers_within_bounds_come_back_as_floats():
    assert check_number("x", np.float32(0.5), minimum=0, maximum=1) == 0.5
    assert check_number("x", 1, above=0, maximum=1) == 1.0
    assert check_number("x", np.int64(-3)) == -3.0


@pytest.mark.parametrize(
    ("value", "bounds"),
    [
        (0, {"above": 0}),
        (1.0, {"minimum": 0, "below": 1}),
        (-0.1, {"minimum": 0}),
        (2, {"minimum": 0, "maximum": 1}),
        (float("inf"), {"below": float("inf")}),
        (float("nan"), {}),
        (True, {}),
        ("1", {}),
        (None, {}),
    ],
)
def test_numbers_out_of_bounds_are_refused_by_name_and_value(value, bounds):
    with raises(errors.ArgumentError, "x", repr(value)):
        check_number("x", value, **bounds)


@pytest.mark.parametrize("kind", [float, np.float64, np.float32, np.float16, np.longdouble])
def test_a_fraction_is_the_decimal_number_that_it_prints_as(kind):
    for percent in range(1, 100):
        fraction = kind(f"0.{percent:02d}")
        assert check_number("x", fraction) == percent / 100
        for count in (100, 1000, 10_500_000):
            assert fraction_of(fraction, count) == budget_rows(fraction, count) == percent * count // 100


def test_options_hold_the_decimal_number_of_a_numpy_scalar():
    from rsprune.runs.config import PruneOptions

    assert PruneOptions(entropy_keep=np.float32(0.29)).stage_one() == {"keep": 0.29}
    assert PruneOptions(tau=np.float16(5.3)).stage_one() == {"tau": 5.3}


def test_integers_choices_and_threads():
    assert check_integer("k", np.uint8(3)) == 3
    assert check_threads(None) is None
    for value in (1.0, 1e6, np.float32(3)):
        assert check_integer("k", value) == value
        assert type(check_integer("k", value)) is int
    for value in (0, 0.0, 1.5, np.nan, np.inf, 1e300, True):
        with raises(errors.ArgumentError, "threads", value):
            check_threads(value)
    from typing import Literal

    assert check_choice("word", "a", Literal["a", "b"]) == "a"
    for value in ("c", None, ["a"], np.array(["a"])):
        with raises(errors.ArgumentError, "word"):
            check_choice("word", value, Literal["a", "b"])


def test_columns():
    assert check_column("c", []).shape == (0,)
    assert check_column("c", [1, 2], 2, kinds="iu").tolist() == [1, 2]
    with raises(errors.ShapeError, "c", "(2, 2)"):
        check_column("c", np.zeros((2, 2)))
    with raises(errors.ShapeError, "c", "(3,)"):
        check_column("c", np.zeros(2), 3)
    with raises(errors.DtypeError, "c", "int64"):
        check_column("c", np.arange(3), kinds="f")


def test_row_numbers_are_numbers_or_a_mask():
    assert check_row_numbers("rows", None, 3).tolist() == []
    assert check_row_numbers("rows", [2, 0], 3).tolist() == [2, 0]
    assert check_row_numbers("rows", [False, True, True], 3).tolist() == [1, 2]
    with raises(errors.ShapeError, "rows", 2, 3):
        check_row_numbers("rows", [True, False], 3)
    with raises(errors.DtypeError, "rows"):
        check_row_numbers("rows", [0.5], 3)


def test_warnings_name_the_line_of_the_caller():
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        warn_caller("look here")
    assert (caught[0].filename, caught[0].category) == (__file__, UserWarning)


def test_a_whole_floating_number_is_a_count_where_no_fraction_can_be_meant():
    assert [budget_rows(budget, 10**7) for budget in (1e6, np.float32(2), 3.0)] == [10**6, 2, 3]
    for budget in (1.0, 0.0, -2.0, 100.5, np.inf):
        with raises(errors.BudgetError, "budget"):
            budget_rows(budget, 1000)


def test_swapped_arguments_are_noticed():
    import rsprune

    x = np.random.default_rng(0).normal(size=(50, 4)).astype(np.float32)
    x /= np.linalg.norm(x, axis=1, keepdims=True)
    centroids = rsprune.Centroids(x[:5])
    with raises(errors.BudgetError, "Centroids", "(embeds, centroids, budget)"):
        rsprune.select(x, 10, centroids)
    with raises(errors.ArgumentError, "ndarray", "random"):
        rsprune.strategies.select(x, "random", 10)
    with raises(errors.ArgumentError, "(embeds, centroids)"):
        rsprune.select(centroids, x, 3)
    with warns(UserWarning, 50, 5, "(embeds, centroids)"):  # unit rows: it may be meant
        rsprune.select(x[:5], x, 3)
    with raises(errors.DtypeError, "labels", "float64"):
        rsprune.select_assigned([0.5, 0.2], [0, 1], 1, k=2)
    assert rsprune.select(x.tolist(), centroids.vectors.tolist(), 10.0).indices.tolist() == (
        rsprune.select(x, centroids, 10).indices.tolist()
    )
