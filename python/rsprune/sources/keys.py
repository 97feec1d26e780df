"""Images that are known by their keys: the one place where they are read again, and compared with what was known."""

from __future__ import annotations

import os
from bisect import bisect_left
from collections.abc import Iterator, Sequence
from itertools import chain, repeat, zip_longest

from rsprune.errors import KeyMismatchError
from rsprune.sources.base import Item, Shard, Source

__all__ = ["check_keys", "compare_keys", "read_known"]


def read_known(
    source: Source, shard: Shard, rows: Sequence[int], keys: Sequence[str], where: str | os.PathLike[str]
) -> Iterator[Item]:
    """Yield the images at ascending ``rows`` of a shard; each must have the key that ``where`` knows it by.

    Raises
    ------
    KeyMismatchError
        At the first that has another key, or is not there.
    """
    there = rows[: bisect_left(rows, source.count(shard))]
    items: Iterator[Item | None] = chain(source.read(shard, there), repeat(None))
    for row, key, item in zip(rows, keys, items, strict=False):
        compare_keys(shard.name, [row], [key], [None if item is None else item.key], where)
        assert item is not None
        yield item


def check_keys(
    source: Source, shard: Shard, rows: Sequence[int] | None, keys: Sequence[str], where: str | os.PathLike[str]
) -> None:
    """Compare the keys at some rows of a shard, or at all if None, with those that ``where`` knows.

    Nothing is compared if the source cannot tell its keys before it reads the images: :func:`read_known` does then.
    """
    if (found := source.read_keys(shard)) is None:
        return
    if rows is None:
        rows = range(max(len(found), len(keys)))
    compare_keys(shard.name, rows, keys, [found[row] if row < len(found) else None for row in rows], where)


def compare_keys(
    shard: str,
    rows: Sequence[int],
    expected: Sequence[str | None],
    found: Sequence[str | None],
    where: str | os.PathLike[str],
) -> None:
    """Raise a :class:`KeyMismatchError` that names the first row whose key is not the expected one."""
    for row, before, now in zip_longest(rows, expected, found):
        if before != now:
            was, has = ("no image" if key is None else f"the key {key!r}" for key in (before, now))
            message = (
                f"{os.fspath(where)} was made from other images: in row {row} of shard {shard} it expects {was}, and "
                f"there is {has}. Give the images in the order that they had, or begin anew in another folder"
            )
            raise KeyMismatchError(message)
