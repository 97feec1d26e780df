"""What a stage says of the shards it has done, in a form that merges."""

from __future__ import annotations

import tempfile
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from itertools import chain, pairwise
from typing import Any, Literal

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from rsprune import _core

__all__ = ["ENTROPY_BINS", "KeyForm", "ShardSummary", "describe_passed_over", "entropy_bin", "key_form"]

#: How an image is named outside its shard: by its name alone, or where names repeat by that of its shard before it.
KeyForm = Literal["name", "shard/name"]

#: Bins of the entropy histogram, from 0 to 8 bits: with 4,096 a bit, a bin of ten million images holds some thousands.
ENTROPY_BINS = 8 * 4096 + 1

#: Hashes of names that are sorted in memory, and where each range begins by which more of them are compared.
RUN = 1 << 21
RANGES = np.arange(64, dtype=np.uint64) << np.uint64(58)


@dataclass
class ShardSummary:
    """Mergeable counts of the images of some shards.

    Summaries of disjoint sets of shards merge into that of their union; the order of merging never shows.
    """

    images: int = 0  # that the stage worked on
    failures: Counter[str] = field(default_factory=Counter)  # by cause, the images that could not be read
    #: int64 (ENTROPY_BINS,): the images whose entropy is in each bin; see :func:`entropy_bin`.
    entropy: NDArray[np.int64] = field(default_factory=lambda: np.zeros(ENTROPY_BINS, np.int64))
    #: By shard, why it could not be read this time; nothing of it is counted.
    unread: dict[str, str] = field(default_factory=dict)
    #: By shard, how the worker processes died that were at it; nothing of it is counted.
    lost: dict[str, str] = field(default_factory=dict)

    def update(self, images: int, failures: Iterable[str], entropy: NDArray[np.float64] | None = None) -> ShardSummary:
        """Add the images of one shard: how many there are, why some failed, and their entropies."""
        self.images += images
        self.failures.update(failures)
        if entropy is not None:
            self.entropy += np.bincount(entropy_bin(entropy[~np.isnan(entropy)]), minlength=ENTROPY_BINS)
        return self

    def merge(self, other: ShardSummary) -> None:
        """Add the images of other shards."""
        self.images += other.images
        self.failures += other.failures
        self.entropy = self.entropy + other.entropy
        self.unread |= other.unread
        self.lost |= other.lost

    def finalize(self) -> dict[str, Any]:
        """Return the summary as JSON values: equal summaries give equal values."""
        bins = np.flatnonzero(self.entropy)
        return {
            "images": self.images,
            "failures": dict(sorted(self.failures.items())),
            "entropy": [bins.tolist(), self.entropy[bins].tolist()],
        }

    @property
    def failed(self) -> int:
        """The number of images that could not be read."""
        return sum(self.failures.values())

    def causes(self) -> str:
        """Name the causes of the failures, the most frequent first: ``12 truncated, 3 unknown format``."""
        ordered = sorted(self.failures.items(), key=lambda item: (-item[1], item[0]))
        return ", ".join(f"{count:,} {kind.replace('_', ' ')}" for kind, count in ordered)


def describe_passed_over(passed_over: Mapping[str, int]) -> list[str]:
    """Say in lines what of a collection was passed over: files by their extensions, and what else there is."""
    files = sorted((-count, kind) for kind, count in passed_over.items() if kind.startswith("."))
    lines = [f"{count:,} {kind} passed over" for kind, count in passed_over.items() if not kind.startswith(".")]
    if files:
        kinds = ", ".join(f"{'without extension' if kind == '.' else kind} {-count:,}" for count, kind in files)
        lines.append(f"{-sum(count for count, _ in files):,} files passed over: {kinds}")
    return lines


def entropy_bin(entropy: NDArray[np.float64]) -> NDArray[np.int64]:
    """Return the histogram bin of entropies in bits: a higher entropy never has a lower bin."""
    return np.clip(np.floor(entropy * 4096), 0, ENTROPY_BINS - 1).astype(np.int64)


def key_form(shards: Iterable[pa.ChunkedArray | list[str]]) -> KeyForm:
    """Return how the images are named whose names in each shard are given: ``"name"`` if no two shards share one.

    Memory: about a hundred MiB, however many images there are. Their hashes wait on the disk, in sorted runs, and are
    compared range by range.
    """
    with tempfile.TemporaryFile() as file:
        bounds: list[NDArray[np.int64]] = []  # where in the file each range of hashes of each run begins
        waiting, size, end = [np.empty(0, np.uint64)], 0, 0
        for names in chain(shards, [None]):
            if names is not None:
                hashes = np.sort(hash_names(names))
                waiting.append(hashes[np.append(True, hashes[1:] != hashes[:-1])[: len(hashes)]])
                size += len(waiting[-1])
                if size < RUN:
                    continue
            run = np.sort(np.concatenate(waiting))
            if repeats(run):
                return "shard/name"
            if names is None and not bounds:
                return "name"
            run.tofile(file)
            bounds.append(end + np.append(np.searchsorted(run, RANGES), len(run)))
            waiting, size, end = [np.empty(0, np.uint64)], 0, end + len(run)
        for start, stop in pairwise(np.transpose(bounds).tolist()):
            parts = []
            for first, last in zip(start, stop, strict=True):
                file.seek(8 * first)
                parts.append(np.fromfile(file, np.uint64, last - first))
            if repeats(np.sort(np.concatenate(parts))):
                return "shard/name"
    return "name"


def repeats(ascending: NDArray[np.uint64]) -> bool:
    """Tell whether an ascending array holds a value twice."""
    return bool((ascending[1:] == ascending[:-1]).any())


def hash_names(names: pa.ChunkedArray | list[str]) -> NDArray[np.uint64]:
    """Return a hash of 64 bits of each name, to be compared with others of this process alone."""
    chunks = [pa.array(names, pa.string())] if isinstance(names, list) else names.chunks
    hashes = [np.empty(0, np.uint64)]
    for chunk in chunks:
        _, ends, content = chunk.buffers()
        if len(chunk):
            offsets = np.frombuffer(ends, np.int32)[chunk.offset : chunk.offset + len(chunk) + 1]
            hashes.append(_core.hash_strings(np.frombuffer(content or b"", np.uint8), offsets))
    return np.concatenate(hashes)
