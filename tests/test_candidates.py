"""The candidates of a choice: what is chosen from those that are left is what is chosen from all images at once."""

import numpy as np
import pyarrow as pa
import pytest

from failures import raises
from rsprune import Centroids, select_assigned, strategies
from rsprune.errors import BudgetError
from rsprune.runs.config import ChoiceOptions, StrategyOptions
from rsprune.runs.reader import RunIndex
from rsprune.runs.stages import candidates as module
from rsprune.runs.stages.candidates import Candidates
from rsprune.selection import Origin

K = 7
CENTROIDS = Centroids(np.eye(K, dtype=np.float32))


class Tables:
    """Stage II's tables of shards, drawn by a seed: shards of different sizes, empty ones, ties, invalid images."""

    def __init__(self, seed, shards=9):
        draw = np.random.default_rng(seed)
        sizes = draw.integers(0, 300, shards)
        self.shards = tuple(f"s{i}" for i in range(shards))
        self.index = RunIndex(self.shards, np.cumsum([0, *sizes]))
        total = int(sizes.sum())
        # What Stage I dropped has no row here, and looks invalid where all rows are chosen from.
        self.labels = np.where(draw.random(total) < 0.4, draw.integers(-1, K, total) % (K + 1) - 1, -1).astype(np.int32)
        self.embedded = (self.labels >= 0) | (draw.random(total) < 0.05)
        similarity = (draw.integers(-60, 100, total) / 100).astype(np.float32)
        self.similarity = np.where(self.labels < 0, np.float32(np.nan), similarity)

    def assignments(self, shard, columns):
        assert columns == ["row", "label", "similarity"]
        mine = slice(self.index.first(shard), self.index.first(shard) + self.index.count(shard))
        row = np.flatnonzero(self.embedded[mine])
        arrays = [pa.array(row), pa.array(self.labels[mine][row]), pa.array(self.similarity[mine][row])]
        return pa.table([pa.chunked_array([one]) for one in arrays], columns)


@pytest.mark.filterwarnings("ignore:a budget of")
@pytest.mark.parametrize("fill", ["global", "waterfill", "none", "zscore"])
@pytest.mark.parametrize("within", ["nearest", "far", "random", "mid"])
@pytest.mark.parametrize("least", [None, 0.1])
def test_what_is_chosen_from_the_candidates_is_what_is_chosen_from_all(monkeypatch, fill, within, least):
    if fill == "zscore" and within in ("random", "mid"):
        return
    monkeypatch.setattr(module, "SLACK", 5)
    for seed in range(8):
        tables = Tables(seed)
        pool = np.count_nonzero(tables.similarity >= np.float32(-1 if least is None else least))
        for budget in (1, 6, 50, int(pool) // 2, int(pool)):
            rules = {"fill": fill, "within": within, "min_similarity": least}
            options = ChoiceOptions(strategy=StrategyOptions(seed=seed), **rules)
            expected = select_assigned(tables.labels, tables.similarity, budget, k=K, seed=seed, **rules)
            found = Candidates.gather(tables, options, budget, K, 1)
            labels, similarity, numbers = found.columns
            known = {"assignment": (labels, similarity), "centroids": CENTROIDS}
            origin = Origin(numbers, found.pool)
            chosen = strategies.select_from("rsprune", known, budget, origin=origin, seed=seed, **rules)
            np.testing.assert_array_equal(numbers[chosen.indices], expected.indices)
            for name in ("cluster", "similarity", "phase"):
                np.testing.assert_array_equal(getattr(chosen, name), getattr(expected, name))
            assert chosen.counts.tolist() == expected.counts.tolist()
            assert found.invalid == np.flatnonzero(tables.embedded & (tables.labels < 0)).tolist()
            assert (found.outside, found.embedded) == (len(expected.outside), np.count_nonzero(tables.embedded))
            if within != "mid" and fill != "zscore":
                assert len(numbers) <= budget + K


def test_a_budget_that_cannot_be_met_says_what_is_missing():
    tables = Tables(0)
    pool = int(np.count_nonzero(tables.labels >= 0))
    with raises(BudgetError, pool + 1, pool, np.count_nonzero(tables.embedded), "could not be embedded"):
        Candidates.gather(tables, ChoiceOptions(), pool + 1, K, 1)
    with raises(BudgetError, "min_similarity", 0.5):
        Candidates.gather(tables, ChoiceOptions(min_similarity=0.5), pool, K, 1)
