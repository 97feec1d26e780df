"""Apportionment against its definition in rational numbers."""

from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import oracles
from rsprune.apportion import apportion
from rsprune.errors import ArgumentError

integers = st.integers(0, 5)
floats = st.one_of(st.floats(0, 50), st.sampled_from([0.1, 0.3, 1 / 3, 1e-200, 1e200]))
fractions = st.one_of(st.fractions(0, 1), st.just(Fraction(1, 3**80)))


@given(st.data(), st.sampled_from([integers, floats, fractions]), st.booleans(), st.booleans())
def test_shares_are_those_of_the_exact_level(data, numbers, with_offsets, with_priority):
    count = data.draw(st.integers(1, 6))
    weights = [data.draw(numbers) for _ in range(count)]
    lower = [data.draw(st.integers(0, 6)) for _ in range(count)]
    upper = [low + data.draw(st.integers(0, 20)) for low in lower]
    # Parties of weight 0 never move: an offset would keep their sum from being whole.
    offsets = [data.draw(st.floats(-9, 9)) if with_offsets and w > 0 else 0.0 for w in weights]
    priority = [data.draw(st.integers(0, 2)) for _ in range(count)] if with_priority else upper
    most = sum(high if w > 0 else low for w, low, high in zip(weights, lower, upper, strict=True))
    total = data.draw(st.integers(sum(lower), most))
    got = apportion(
        total,
        weights,
        lower=lower,
        upper=upper,
        offsets=offsets if with_offsets else None,
        priority=priority if with_priority else None,
    )
    assert got.dtype == np.int64
    assert got.tolist() == oracles.apportion(total, weights, lower, upper, offsets, priority)


def test_apportionment_by_hand():
    assert apportion(10, upper=[2, 100, 3]).tolist() == [2, 5, 3]
    assert apportion(9, [1.0, 2.0], upper=[100, 100]).tolist() == [3, 6]
    assert apportion(9, lower=[5, 0, 0], upper=[100, 100, 100]).tolist() == [5, 2, 2]
    # In proportion to sizes: ties to the larger, then to the first.
    assert apportion(4, [5, 3, 2, 0], upper=[5, 3, 2, 0]).tolist() == [2, 1, 1, 0]
    assert apportion(3, [2, 2, 2], upper=[2, 2, 2]).tolist() == [1, 1, 1]
    assert apportion(0, [0, 0], upper=[0, 0]).tolist() == [0, 0]
    assert apportion(0, upper=[]).tolist() == []
    # As it is written, a tenth is exactly a third of three tenths.
    assert apportion(3, [Fraction(1, 10), Fraction(3, 10)], upper=[9, 9]).tolist() == [1, 2]


def test_a_projection_on_bounds_by_hand():
    def project(target, lower, upper, total):
        priority = np.zeros(len(target))
        return apportion(total, lower=lower, upper=upper, offsets=target, priority=priority).tolist()

    assert project([5, 3, 2], [0, 0, 0], [9, 9, 9], 10) == [5, 3, 2]
    # The first is full at 4: what it cannot take goes evenly to the others.
    assert project([8, 1, 1], [0, 0, 0], [4, 9, 9], 10) == [4, 3, 3]
    # The last keeps 3 at least: the others give evenly.
    assert project([6, 4, 0], [0, 0, 3], [9, 9, 9], 10) == [5, 2, 3]
    assert project([1.5, 1.5, 1.0], [0, 0, 0], [8, 9, 9], 4) == [2, 1, 1]


@pytest.mark.parametrize(
    ("total", "weights", "lower", "upper"),
    [(5, 1, 0, [2, 2]), (1, 1, 0, [-1, 2]), (1, -1, 0, [2]), (1, np.nan, 0, [2]), (1, 0, 0, [2]), (1, 1, 2, [1])],
)
def test_what_cannot_be_shared_out_is_an_error(total, weights, lower, upper):
    with pytest.raises(ArgumentError):
        apportion(total, weights, lower=lower, upper=upper)
