"""Checks of arguments: each returns the value in the type that the code works with, or raises an ``ArgumentError``."""

from __future__ import annotations

import math
import sys
import warnings
from types import UnionType
from typing import Any, Literal, Union, get_args, get_origin

import numpy as np
from numpy.typing import NDArray

from rsprune.errors import ArgumentError, BudgetError, DtypeError, ShapeError

__all__ = [
    "as_array",
    "budget_rows",
    "check_annotated",
    "check_choice",
    "check_column",
    "check_finite_number",
    "check_integer",
    "check_number",
    "check_range",
    "check_row_numbers",
    "check_threads",
    "check_weights",
    "decimal",
    "fraction_of",
    "is_whole",
    "warn_caller",
]


def check_integer(name: str, value: Any, *, minimum: int = 1, maximum: int = 2**63 - 1) -> int:
    """Check an integer of any integer type, ``bool`` excepted, or a whole floating number, such as 1e6.

    Any other value is an :class:`ArgumentError`.
    """
    is_integer = isinstance(value, int | np.integer) and not isinstance(value, bool)
    if not (is_integer or is_whole(value)) or not minimum <= value <= maximum:
        bounds = f"of at least {minimum}" if maximum == 2**63 - 1 else f"from {minimum} to {maximum}"
        message = f"{name} is {value!r}; expected an integer {bounds}"
        raise ArgumentError(message)
    return int(value)


def is_whole(value: Any) -> bool:
    """Whether a floating number is a whole one."""
    return isinstance(value, float | np.floating) and math.isfinite(value) and value == math.floor(value)


def check_number(
    name: str,
    value: Any,
    *,
    minimum: float = -math.inf,
    maximum: float = math.inf,
    above: float | None = None,
    below: float | None = None,
) -> float:
    """Check a number of any real type, ``bool`` excepted, and return the one that it prints as: see :func:`decimal`.

    ``minimum`` and ``maximum`` are inclusive bounds; ``above`` and ``below`` are exclusive ones, which are checked as
    well. NaN, another type or a value out of bounds is an :class:`ArgumentError`.
    """
    is_number = isinstance(value, int | float | np.integer | np.floating) and not isinstance(value, bool)
    is_within = (
        is_number
        and minimum <= value <= maximum
        and (above is None or value > above)
        and (below is None or value < below)
    )
    if not is_within:
        lower = f"above {above:g}" if above is not None else "" if minimum == -math.inf else f"of at least {minimum:g}"
        upper = f"below {below:g}" if below is not None else "" if maximum == math.inf else f"of at most {maximum:g}"
        bounds = " and ".join(filter(None, (lower, upper)))
        if above is None and below is None and not math.isinf(minimum) and not math.isinf(maximum):
            bounds = f"from {minimum:g} to {maximum:g}"
        message = f"{name} is {value!r}; expected a number {bounds}".rstrip()
        raise ArgumentError(message)
    return decimal(value)


def check_finite_number(name: str, value: Any) -> float:
    """Check a number, neither infinite nor NaN; whole numbers stay what they are."""
    number = check_number(name, value, minimum=-sys.float_info.max, maximum=sys.float_info.max)
    return int(value) if isinstance(value, int | np.integer) else number


def check_range(name: str, value: Any) -> tuple[float, float]:
    """Check a pair of numbers, the lower one first.

    Raises
    ------
    ArgumentError
        Anything else.
    """
    try:
        lo, hi = value
    except (TypeError, ValueError):
        message = f"{name} is {value!r}; expected two numbers, (lo, hi)"
        raise ArgumentError(message) from None
    lo, hi = check_finite_number(name, lo), check_finite_number(name, hi)
    if lo >= hi:
        message = f"{name} is {(lo, hi)}; expected the lower and the upper end of a range"
        raise ArgumentError(message)
    return lo, hi


def decimal(value: float | np.floating[Any]) -> float:
    """Return the decimal number that a number prints as: 0.29 for ``numpy.float32(0.29)``, a little less otherwise."""
    return float(str(value)) if isinstance(value, np.floating) else float(value)


def check_choice(name: str, value: Any, choices: Any) -> Any:
    """Check one of the values of a ``Literal`` type; any other is an :class:`ArgumentError`."""
    allowed = get_args(choices)
    # A mutable value has no hash, and an array no single truth value: compare by type as well.
    if not any(type(value) is type(choice) and value == choice for choice in allowed):
        message = f"{name} is {value!r}; expected {_one_of(allowed)}"
        raise ArgumentError(message)
    return value


def check_annotated(name: str, value: Any, annotation: Any, *, from_zero: bool = False, **bounds: Any) -> Any:
    """Check a value against its annotation, as far as that is of words, numbers and None; other types pass.

    Integers start at 1, or at 0 where they do so (``from_zero``) and beside words, where they are the number of a row.
    Other ``bounds`` are those of :func:`check_integer` and :func:`check_number`, which also say what is raised.
    """
    kinds = get_args(annotation) if get_origin(annotation) in (Union, UnionType) else (annotation,)
    literal: Any = Literal
    words = literal[tuple(word for kind in kinds if get_origin(kind) is Literal for word in get_args(kind))]
    others = {kind for kind in kinds if get_origin(kind) is not Literal and kind is not type(None)}
    if value is None and type(None) in kinds:
        return None
    if not others or (isinstance(value, str) and get_args(words) and others <= {int, float}):
        return check_choice(name, value, words)
    if others == {bool}:
        return check_choice(name, value, Literal[True, False])
    if others == {int}:
        return check_integer(name, value, **{"minimum": 0 if from_zero or get_args(words) else 1} | bounds)
    if others <= {int, float}:
        number = check_number(name, value, **bounds)
        return number if isinstance(value, np.floating) else value
    return value


def check_threads(threads: int | None) -> int | None:
    """Check a number of threads; None stands for all cores."""
    return None if threads is None else check_integer("threads", threads)


def budget_rows(budget: Any, n: int) -> int:
    """Read a budget as a number of rows, at least one.

    A whole floating number counts as one, except 1.0, which may be a row or all of them.
    """
    if (isinstance(budget, int | np.integer) and not isinstance(budget, bool)) or (is_whole(budget) and budget > 1):
        rows = int(budget)
        if rows < 1:
            message = f"a budget of {rows} rows; expected at least 1, or a fraction between 0 and 1"
            raise BudgetError(message)
    elif isinstance(budget, float | np.floating):
        if not 0 < budget < 1:
            message = f"a budget of {budget}; expected a fraction between 0 and 1, or a whole number of rows"
            raise BudgetError(message)
        rows = fraction_of(budget, n)
        if rows < 1:
            message = f"a budget of {budget} of {n} rows is less than one row; raise it, or give a number of rows"
            raise BudgetError(message)
    else:
        shown = f"a {type(budget).__name__}" if hasattr(budget, "__array__") else repr(budget)
        message = f"a budget of {shown}; expected a whole number of rows, or a fraction between 0 and 1"
        if hasattr(budget, "__array__"):
            message += ": the order of the arguments is (embeds, centroids, budget)"
        raise BudgetError(message)
    # The core counts in machine words; any larger number asks for more rows than there can be.
    return min(rows, 2**63 - 1)


def as_array(name: str, values: Any) -> NDArray[Any]:
    """View values as an array.

    Masked ones are an :class:`ArgumentError`: NumPy drops the mask, and what lies under it would count.
    """
    parts = values if isinstance(values, list | tuple) else (values,)
    masked = sum(int(np.ma.getmaskarray(part).sum()) for part in parts if isinstance(part, np.ma.MaskedArray))
    if masked:
        message = f"{name} is masked, and {masked} masked values would count: fill them with .filled(), or drop them"
        raise ArgumentError(message)
    return np.asarray(values)


def check_column(
    name: str, values: Any, n: int | None = None, *, kinds: str = "fiu", expected: str = "numbers"
) -> NDArray[Any]:
    """Check an array of one value a row, of dtypes whose ``kind`` is among ``kinds``. An empty list has any dtype.

    Another shape than (rows,), or (n,), is a :class:`ShapeError`, another kind than the ``expected`` a
    :class:`DtypeError`, and a masked array an :class:`ArgumentError`.
    """
    array = as_array(name, values)
    if array.ndim != 1 or (n is not None and len(array) != n):
        message = f"{name} of shape {array.shape}; expected {'(rows,)' if n is None else f'({n},), a value a row'}"
        raise ShapeError(message)
    # NumPy has no bfloat16 of its own: that of ml_dtypes is of kind V.
    is_expected = array.dtype.kind in kinds or ("f" in kinds and array.dtype.name == "bfloat16")
    if not is_expected and array.size:
        hint = ": convert with .astype(numpy.float32)" if kinds == "f" and array.dtype.kind in "biu" else ""
        message = f"{name} of {array.dtype}; expected {expected}{hint}"
        raise DtypeError(message)
    return array


def check_row_numbers(name: str, rows: Any, n: int) -> NDArray[np.int64]:
    """Check a list of row numbers, or a boolean mask of ``n`` rows; None stands for none.

    Another shape is a :class:`ShapeError`, another dtype a :class:`DtypeError`.
    """
    array = check_column(name, () if rows is None else rows, kinds="biu", expected="row numbers, or a boolean mask")
    if array.dtype.kind == "b":
        if len(array) != n:
            message = f"{name} is a mask of {len(array)} values; expected one for each of {n} rows"
            raise ShapeError(message)
        return np.flatnonzero(array).astype(np.int64)
    return np.ascontiguousarray(array, dtype=np.int64)


def warn_caller(message: str) -> None:
    """Give a ``UserWarning`` that names the line of the caller outside this package, however deep the call is."""
    level, frame = 2, sys._getframe(1)
    while frame.f_back is not None and str(frame.f_globals.get("__name__")).partition(".")[0] == "rsprune":
        level, frame = level + 1, frame.f_back
    warnings.warn(message, UserWarning, stacklevel=level)


def fraction_of(fraction: float | np.floating[Any], count: int) -> int:
    """Return ``floor(fraction * count)``; a product that misses an integer by rounding alone counts as that integer.

    0.29 of 100 rows are 29, though 0.29 * 100 is 28.999999999999996 and ``numpy.float32(0.29)`` less than that.
    """
    return math.floor(decimal(fraction) * count + 1e-9)


def _one_of(values: tuple[Any, ...]) -> str:
    *others, last = map(repr, values)
    return f"{', '.join(others)} or {last}" if others else last


def check_weights(weights: Any, k: int) -> NDArray[np.uint64]:
    """Check the weights of ``k`` clusters."""
    given = np.asarray(weights)
    if given.shape != (k,):
        message = f"weights of shape {given.shape} for {k} clusters; expected ({k},)"
        raise ShapeError(message)
    if given.dtype.kind not in "iu":
        message = f"weights of {given.dtype}; expected integers"
        raise DtypeError(message)
    if (given < 0).any() or not given.any():
        message = f"weights from {given.min()} to {given.max()}; expected integers of at least 0, some of them above"
        raise ArgumentError(message)
    return given.astype(np.uint64)
