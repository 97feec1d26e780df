"""The images that Stage II chooses from: as shards come, those alone that the choice can still fall on."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rsprune import _core
from rsprune.errors import BudgetError
from rsprune.runs.config import ChoiceOptions
from rsprune.runs.reader import RunReader

__all__ = ["Candidates"]

#: Rows that are gathered before they are reduced, at least.
SLACK = 1 << 20


@dataclass
class Candidates:
    """The embedded images that a choice by quota and fill can fall on, in the order of their rows.

    An image that is not chosen from some shards is not chosen from more: the quota of its cluster stays, and what is
    left to the fill only falls. So memory holds little more than the budget, not all embedded images. It holds these,
    16 bytes each, for ``within="mid"`` and ``fill="zscore"``, whose ranks depend on all images of a cluster, and for
    strategies of other packages.

    Parameters
    ----------
    options
        How is chosen.
    budget
        How many.
    k
        The number of clusters.
    threads
        Number of threads.
    whole
        Hold all images: those that are kept from an earlier choice take places of the quotas, and groups have their
        own.
    excluded
        bool (M,): whether each image that was embedded is left out; None for none.
    """

    options: ChoiceOptions
    budget: int
    k: int
    threads: int | None = None
    whole: bool = False  # hold all images, whatever the rule
    excluded: NDArray[np.bool_] | None = None
    #: Of each image its label, its similarity, and its number in the whole collection.
    columns: list[NDArray[Any]] = field(init=False)
    pool: NDArray[np.int64] = field(init=False)  # (K,): the images that could be chosen of each cluster
    embedded: int = 0  # all images that came
    outside: int = 0  # those less similar than `min_similarity`
    invalid: list[int] = field(default_factory=list)  # the numbers of those that could not be embedded

    def __post_init__(self) -> None:
        self.columns = [np.empty(0, np.int32), np.empty(0, np.float32), np.empty(0, np.int64)]
        self.pool = np.zeros(self.k, np.int64)

    @classmethod
    def gather(
        cls,
        reader: RunReader,
        options: ChoiceOptions,
        budget: int,
        k: int,
        threads: int | None,
        *,
        whole: bool = False,
        excluded: NDArray[np.bool_] | None = None,
    ) -> Candidates:
        """Read the tables of all shards.

        Raises
        ------
        BudgetError
            They are fewer than the budget.
        """
        candidates = cls(options, budget, k, threads, whole, excluded)
        waiting = [candidates.columns]
        for shard in reader.shards:
            table = reader.assignments(shard, ["row", "label", "similarity"])
            numbers = reader.index.first(shard) + table["row"].to_numpy()
            labels, similarity = table["label"].fill_null(-1).to_numpy(), table["similarity"].to_numpy()
            waiting.append(candidates.possible(labels, similarity, numbers))
            if sum(len(numbers) for *_, numbers in waiting) > budget + k + max(SLACK, budget // 4):
                waiting = [candidates.reduce(waiting)]
        candidates.columns = candidates.reduce(waiting)
        candidates.check()
        return candidates

    def possible(
        self, labels: NDArray[np.int32], similarity: NDArray[np.float32], numbers: NDArray[np.int64]
    ) -> list[NDArray[Any]]:
        """Count the images of a shard, and return those that can be chosen."""
        self.embedded += len(numbers)
        self.invalid += numbers[labels < 0].tolist()
        valid = (labels >= 0) & ~np.isnan(similarity)
        if self.excluded is not None:
            valid &= ~self.excluded[self.embedded - len(numbers) : self.embedded]
        if (least := self.options.min_similarity) is not None:
            below = similarity < np.float32(least)
            self.outside += int(np.count_nonzero(below))
            valid &= ~below
        self.pool += np.bincount(labels[valid], minlength=self.k)
        return [labels[valid], similarity[valid], numbers[valid]]

    def reduce(self, parts: list[list[NDArray[Any]]]) -> list[NDArray[Any]]:
        """Join the images of several shards, and leave out those that cannot be chosen any more."""
        labels, similarity, numbers = (np.concatenate(columns) for columns in zip(*parts, strict=True))
        options = self.options
        ranked_by_all = options.within == "mid" or options.fill == "zscore" or options.strategy.strategy != "rsprune"
        if self.whole or ranked_by_all or len(numbers) <= self.budget + self.k:
            return [labels, similarity, numbers]
        kept = _core.select(
            labels,
            similarity,
            k=self.k,
            # One a cluster more than are chosen: how an even fill deals out its last rows depends on all clusters.
            budget=self.budget + self.k,
            fill=options.fill,
            within=options.within,
            seed=options.strategy.seed,
            exclude=np.empty(0, np.int64),
            preselected=np.empty(0, np.int64),
            strict=False,
            threads=self.threads,
            numbers=numbers,
        ).indices
        return [column[kept] for column in (labels, similarity, numbers)]

    def check(self) -> None:
        """Fail when there are fewer than the budget."""
        if (there := int(self.pool.sum())) < self.budget:
            least = self.options.min_similarity
            message = (
                f"a budget of {self.budget} images, but only {there} of the {self.embedded} that Stage I kept can be "
                f"chosen: {len(self.invalid)} could not be embedded"
                + ("" if least is None else f", {self.outside} are below min_similarity = {least}")
                + (
                    ""
                    if self.excluded is None
                    else f", {np.count_nonzero(self.excluded)} are left out by other options"
                )
                + "; lower the budget, or keep more in Stage I"
            )
            raise BudgetError(message)
