"""Checks of arguments: each returns the value in the type that the code works with, or raises an ``ArgumentError``."""

from __future__ import annotations

import math
from typing import Any, get_args

import numpy as np

from rsprune.errors import ArgumentError

__all__ = [
    "check_choice",
    "check_integer",
    "check_number",
    "check_threads",
    "fraction_of",
]


def check_integer(name: str, value: Any, *, minimum: int = 1, maximum: int = 2**63 - 1) -> int:
    """Check an integer of any integer type, ``bool`` excepted.

    Raises
    ------
    ArgumentError
        Another type, or a value outside ``minimum`` to ``maximum``.
    """
    is_integer = isinstance(value, int | np.integer) and not isinstance(value, bool)
    if not is_integer or not minimum <= value <= maximum:
        bounds = f"of at least {minimum}" if maximum == 2**63 - 1 else f"from {minimum} to {maximum}"
        message = f"{name} is {value!r}; expected an integer {bounds}"
        raise ArgumentError(message)
    return int(value)


def check_number(name: str, value: Any, *, minimum: float = -math.inf, maximum: float = math.inf) -> float:
    """Check a number of any real type, ``bool`` excepted. NaN is refused.

    Raises
    ------
    ArgumentError
        Another type, or a value outside ``minimum`` to ``maximum``.
    """
    is_number = isinstance(value, int | float | np.integer | np.floating) and not isinstance(value, bool)
    if not is_number or not minimum <= value <= maximum:
        if math.isinf(minimum) and math.isinf(maximum):
            expected = "a number"
        elif math.isinf(maximum):
            expected = f"a number of at least {minimum:g}"
        elif math.isinf(minimum):
            expected = f"a number of at most {maximum:g}"
        else:
            expected = f"a number from {minimum:g} to {maximum:g}"
        message = f"{name} is {value!r}; expected {expected}"
        raise ArgumentError(message)
    return float(value)


def check_choice(name: str, value: Any, choices: Any) -> Any:
    """Check one of the values of a ``Literal`` type.

    Raises
    ------
    ArgumentError
        Any other value.
    """
    allowed = get_args(choices)
    # A mutable value has no hash, and an array no single truth value: compare by type as well.
    if not any(type(value) is type(choice) and value == choice for choice in allowed):
        message = f"{name} is {value!r}; expected {_one_of(allowed)}"
        raise ArgumentError(message)
    return value


def check_threads(threads: int | None) -> int | None:
    """Check a number of threads; None stands for all cores."""
    return None if threads is None else check_integer("threads", threads)


def fraction_of(fraction: float, count: int) -> int:
    """Return ``floor(fraction * count)``; a product that misses an integer by rounding alone counts as that integer."""
    return math.floor(fraction * count + 1e-9)


def _one_of(values: tuple[Any, ...]) -> str:
    *others, last = map(repr, values)
    return f"{', '.join(others)} or {last}" if others else last
