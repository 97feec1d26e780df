"""Errors and warnings by their class and the values that they name; how they are worded is golden/messages.txt's."""

import re
from contextlib import contextmanager

import pytest

__all__ = ["names", "raises", "warns"]


def names(message, value):
    """Whether a message names a value: a word or a number as a whole, anything else literally."""
    text = str(value)
    before = r"(?<![\w.])" if text.startswith("-") else r"(?<![\w.-])" if re.match(r"\w", text) else ""
    after = r"(?!\w|\.\d)" if re.search(r"\w$", text) else ""
    return re.search(before + re.escape(text) + after, message) is not None


@contextmanager
def raises(error, *values):
    """Expect an error of this class whose message names each of the values: numbers, names, paths, options."""
    with pytest.raises(error) as caught:
        yield caught
    check(str(caught.value), values)


@contextmanager
def warns(category, *values):
    """Expect a warning of this class whose message names each of the values."""
    with pytest.warns(category) as record:
        yield record
    messages = [str(one.message) for one in record]
    assert any(all(names(message, value) for value in values) for message in messages), (values, messages)


def check(message, values):
    """Assert that the message names each of the values."""
    for value in values:
        assert names(message, value), f"{value!r} is not named: {message}"
