"""What a stage says of the shards it has done, in a form that merges."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

__all__ = ["ENTROPY_BINS", "KeyForm", "ShardSummary", "describe_passed_over", "entropy_bin", "hash_keys", "key_form"]

#: How an image is named outside its shard: by its name alone, or where names repeat by that of its shard before it.
KeyForm = Literal["name", "shard/name"]

#: Bins of the entropy histogram, from 0 to 8 bits: with 4,096 a bit, a bin of ten million images holds some thousands.
ENTROPY_BINS = 8 * 4096 + 1


@dataclass
class ShardSummary:
    """Mergeable counts of the images of some shards.

    Summaries of disjoint sets of shards merge into that of their union; the order of merging never shows.
    """

    images: int = 0  # that the stage worked on
    failures: Counter[str] = field(default_factory=Counter)  # by cause, the images that could not be read
    #: int64 (ENTROPY_BINS,): the images whose entropy is in each bin; see :func:`entropy_bin`.
    entropy: NDArray[np.int64] = field(default_factory=lambda: np.zeros(ENTROPY_BINS, np.int64))
    #: By shard, the uint64 hash of each image's key: 8 bytes an image.
    keys: dict[str, NDArray[np.uint64]] = field(default_factory=dict)
    #: By shard, why it could not be read this time; nothing of it is counted.
    unread: dict[str, str] = field(default_factory=dict)
    #: By shard, how the worker processes died that were at it; nothing of it is counted.
    lost: dict[str, str] = field(default_factory=dict)

    def update(
        self,
        shard: str,
        keys: Iterable[str],
        failures: Iterable[str | None],
        entropy: NDArray[np.float64] | None = None,
    ) -> ShardSummary:
        """Add the images of one shard: their keys, why each failed (None if it did not), and their entropies."""
        self.keys[shard] = hash_keys(keys)
        self.images += len(self.keys[shard])
        self.failures.update(kind for kind in failures if kind is not None)
        if entropy is not None:
            self.entropy += np.bincount(entropy_bin(entropy[~np.isnan(entropy)]), minlength=ENTROPY_BINS)
        return self

    def merge(self, other: ShardSummary) -> None:
        """Add the images of other shards."""
        self.images += other.images
        self.failures += other.failures
        self.entropy = self.entropy + other.entropy
        self.keys |= other.keys
        self.unread |= other.unread
        self.lost |= other.lost

    def finalize(self) -> dict[str, Any]:
        """Return the summary as JSON values: equal summaries give equal values."""
        digest = hashlib.blake2b(digest_size=16)
        for shard in sorted(self.keys):
            digest.update(f"{shard} {len(self.keys[shard])} ".encode())
            digest.update(self.keys[shard].astype("<u8").tobytes())
        bins = np.flatnonzero(self.entropy)
        return {
            "images": self.images,
            "failures": dict(sorted(self.failures.items())),
            "entropy": [bins.tolist(), self.entropy[bins].tolist()],
            "keys": digest.hexdigest(),
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


def key_form(shards: Iterable[Iterable[str]]) -> KeyForm:
    """Return how the images are named whose names in each shard are given: ``"name"`` if no two shards share one.

    Memory: 9 bytes an image.
    """
    digests = bytearray()  # grows in place
    for names in shards:
        digests += np.unique(hash_keys(names)).tobytes()
    hashes = np.frombuffer(digests, np.uint64)
    hashes.sort()
    return "shard/name" if (hashes[1:] == hashes[:-1]).any() else "name"


def hash_keys(keys: Iterable[str]) -> NDArray[np.uint64]:
    """Return the BLAKE2b-64 of each key: the same in every process, unlike `hash`."""
    digests = b"".join(hashlib.blake2b(key.encode(), digest_size=8).digest() for key in keys)
    return np.frombuffer(digests, "<u8").astype(np.uint64)
