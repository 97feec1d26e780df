"""Which image of one set belongs to which of another."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from rsprune.embeddings import natural_key
from rsprune.errors import ArgumentError
from rsprune.evaluation.images import BATCH, Images
from rsprune.runs.summary import key_form
from rsprune.sources.formats import IMAGE_EXTENSIONS

__all__ = ["pair_rows", "read_in_order"]


def pair_rows(made: Images, found: Images) -> tuple[list[str], NDArray[np.int64]]:
    """Pair each generated image with its real one.

    By their keys below the folder of all and without the ending, or without any folders, whatever their order; where
    one set is an array, its rows belong to the images of the other in natural order (``2.png`` before ``10.png``).
    Returns the names of the generated images, and the row of each one's real image, int64 (N,).

    Sets of different numbers or names, or images beside an array that are listed in another order than the natural one,
    are an :class:`ArgumentError`.
    """
    if len(made) != len(found):
        message = f"{len(made)} generated and {len(found)} real images; expected pairs"
        raise ArgumentError(message)
    ours, theirs = keys_of(made), keys_of(found)
    if ours is not None and theirs is not None:
        return ours, pair_keys(ours, theirs)
    rows = np.arange(len(made))
    if ours is None and theirs is None:
        return [f"image {row}" for row in rows.tolist()], rows
    known = ours or theirs or []
    order = np.array(sorted(rows.tolist(), key=lambda row: natural_key(known[row])), np.int64)
    if not (made if ours is not None else found).is_folder and (order != rows).any():
        first = int(np.flatnonzero(order != rows)[0])
        message = (
            f"an array has no names: its images belong to those of the other set in natural order, in which "
            f"{known[order[first]]!r} comes before {known[first]!r}. List them in this order, or give both with names"
        )
        raise ArgumentError(message)
    return known if theirs is None else [known[row] for row in order], np.argsort(order) if theirs is None else order


def keys_of(images: Images) -> list[str] | None:
    """Return the keys of images, if they have some: names, or where these repeat from shard to shard ``shard/name``."""
    if (shards := images.keys()) is None:
        return None
    repeat = key_form(shards.values()) == "shard/name"
    return [f"{shard}/{name}" if repeat else name for shard, names in shards.items() for name in names]


def pair_keys(ours: list[str], theirs: list[str]) -> NDArray[np.int64]:
    """Return for each of our keys the place of its like among theirs."""
    for name in (below_common_folder, lambda keys: [key.rpartition("/")[2] for key in map(without_ending, keys)]):
        mine, others = name(ours), name(theirs)
        if mine == others:
            return np.arange(len(mine))
        place = {one: row for row, one in enumerate(others)}
        if len(place) == len(others) and set(mine) == set(place):
            return np.array([place[one] for one in mine], np.int64)
    times = Counter(mine)
    alone = next(key for key, one in zip(ours, mine, strict=True) if times[one] > 1 or one not in place)
    message = f"the generated image {alone!r} has no real image of its name; expected the same names in both, each once"
    raise ArgumentError(message)


def below_common_folder(keys: list[str]) -> list[str]:
    """Return keys without their endings and without the folder that all of them lie in."""
    first, last = min(keys), max(keys)
    common = next((at for at, (a, b) in enumerate(zip(first, last, strict=False)) if a != b), len(first))
    start = first.rfind("/", 0, common) + 1
    return [without_ending(key[start:]) for key in keys]


def without_ending(key: str) -> str:
    """Return a key without the ending of an image file; a tar file's keys have none, but dots."""
    stem, ending = os.path.splitext(key)  # noqa: PTH122 (a key is no path)
    return stem if ending.lower() in IMAGE_EXTENSIONS else key


def read_in_order(images: Images, rows: NDArray[np.int64]) -> Iterator[NDArray[np.uint8]]:
    """Yield the images of some rows in any order; a few hundred at a time are in memory."""
    if (np.diff(rows) > 0).all():
        yield from images.read(rows)
        return
    for start in range(0, len(rows), BATCH):
        block = rows[start : start + BATCH]
        order = np.argsort(block)
        pictures = list(images.read(block[order]))
        yield from (pictures[place] for place in np.argsort(order).tolist())
