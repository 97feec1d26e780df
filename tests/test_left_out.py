"""Rows left out of a selection: by key, by resemblance to an evaluation set, beyond the maximum of their group."""

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

import rsprune
from failures import raises, warns
from oracles import unit
from rsprune.errors import ArgumentError, BudgetError, EmptyInputError
from small_problems import problems, select_quietly

RNG = np.random.default_rng(7)
ROWS = RNG.normal(size=(60, 5)).astype(np.float32)
CENTROIDS = unit(RNG.normal(size=(4, 5))).astype(np.float32)
KEYS = [f"a/{i:02d}.jpg" for i in range(60)]


def test_rows_are_excluded_by_key_number_mask_and_file(tmp_path):
    rows = [3, 10, 41]
    keys = [KEYS[row] for row in rows]
    (tmp_path / "keys.txt").write_text("# the test set\n" + "\r\n".join(keys) + "\n\n", newline="")
    pq.write_table(pa.table({"key": keys}), tmp_path / "keys.parquet")
    np.save(tmp_path / "rows.npy", np.array(rows))
    mask = np.isin(np.arange(60), rows)
    want = rsprune.select(ROWS, CENTROIDS, 50, exclude=rows)
    assert not set(rows) & set(want)
    forms = [keys, np.array(keys), mask, *(tmp_path / f"{name}" for name in ("keys.txt", "keys.parquet", "rows.npy"))]
    for exclude in forms:
        got = rsprune.select(ROWS, CENTROIDS, 50, exclude=exclude, keys=KEYS)
        assert (got.indices.tolist(), got.phase.tolist()) == (want.indices.tolist(), want.phase.tolist())
    assert rsprune.select(ROWS, CENTROIDS, 50, exclude=str(tmp_path / "keys.txt"), keys=KEYS).indices.tolist() == list(
        want
    )


def test_keys_that_are_not_there_are_told(tmp_path):
    with raises(ArgumentError, "exclude", "'a/03.jpg'", "keys="):
        rsprune.select(ROWS, CENTROIDS, 5, exclude=KEYS[3:4])
    with raises(ArgumentError, "exclude", 2, "'x'"):
        rsprune.select(ROWS, CENTROIDS, 5, exclude=["x", "y"], keys=KEYS)
    with warns(UserWarning, "exclude", 1, 3):
        got = rsprune.select(ROWS, CENTROIDS, 57, exclude=[KEYS[0], "x", KEYS[1]], keys=KEYS)
    assert not {0, 1} & set(got)
    (tmp_path / "none.txt").write_text("# nothing\n")
    with raises(EmptyInputError, tmp_path / "none.txt"):
        rsprune.select(ROWS, CENTROIDS, 5, exclude=tmp_path / "none.txt", keys=KEYS)


def test_leaks_are_left_out_before_near_duplicates():
    evaluation = ROWS[[5, 17]] + np.float32(0.01)
    leaked = rsprune.leaks(ROWS, evaluation, 0.1)
    assert {5, 17} <= set(leaked.tolist())
    got = rsprune.select(ROWS, CENTROIDS, 30, leaks=evaluation, leak_eps=0.1, dedup=0.05)
    want = rsprune.select(ROWS, CENTROIDS, 30, exclude=leaked, dedup=0.05)
    assert got.leaks.tolist() == leaked.tolist()
    assert got.duplicates.tolist() == want.duplicates.tolist()
    assert got.indices.tolist() == want.indices.tolist()
    assert f"too similar to the evaluation set: {len(leaked)}" in got.summary()
    with raises(BudgetError, len(leaked)):
        rsprune.select(ROWS, CENTROIDS, 60, leaks=evaluation, leak_eps=0.1)
    with raises(ArgumentError, "groups", "'city'", 60):
        rsprune.select(ROWS, CENTROIDS, 30, groups="city")
    for one in ({"leaks": evaluation}, {"leak_eps": 0.1}):
        with raises(ArgumentError, "leaks", "leak_eps"):
            rsprune.select(ROWS, CENTROIDS, 5, **one)


@given(problems(), st.integers(1, 3), st.integers(1, 4))
def test_no_group_has_more_than_its_maximum(problem, most, count):
    n = len(problem["labels"])
    groups = [f"scene {i % count}" for i in range(n)]
    held, never = set(problem["preselected"]), set(problem["exclude"])
    # By the words: of each group the preselected rows, and the most similar of the others up to the maximum.
    surplus = []
    for name in set(groups):
        rows = [i for i in range(n) if groups[i] == name and i not in never and problem["labels"][i] >= 0]
        rows = [i for i in rows if not np.isnan(problem["similarity"][i])]
        rows.sort(key=lambda i: (i not in held, -np.float32(problem["similarity"][i]), i))
        surplus += [i for i in rows[most:] if i not in held]
    got = select_quietly(problem, groups=groups, max_per_group=most, strict=False)
    assert got.surplus.tolist() == sorted(surplus)
    want = select_quietly(problem | {"exclude": [*problem["exclude"], *surplus]}, strict=False)
    assert (got.indices.tolist(), got.phase.tolist()) == (want.indices.tolist(), want.phase.tolist())
    assert got.counts.tolist() == want.counts.tolist()


def test_clusters_have_quotas_of_their_own():
    labels = np.repeat([0, 1, 2], 10)
    similarity = np.tile(np.linspace(0.9, 0.1, 10), 3).astype(np.float32)
    got = rsprune.select_assigned(labels, similarity, 12, k=3, quotas={"1": 7, 2: 0.25})
    assert got.counts["quota"].tolist() == [2, 7, 3]
    assert got.counts["fill"].tolist() == [0, 0, 0]
    assert got.counts["pool"].tolist() == [10, 10, 10]
    assert got.indices.tolist() == [0, 1, *range(10, 17), *range(20, 23)]
    assert got.cluster.tolist() == [0] * 2 + [1] * 7 + [2] * 3
    far = rsprune.select_assigned(labels, similarity, 12, k=3, quotas={1: 7, 2: 3}, within="far", preselected=[0])
    assert far.indices.tolist() == [0, 9, *range(13, 20), *range(27, 30)]
    assert far.counts["preselected"].tolist() == [1, 0, 0]
    with raises(BudgetError, 11, 1, 10):
        rsprune.select_assigned(labels, similarity, 12, k=3, quotas={1: 11})
    with raises(ArgumentError, "quotas", 3):
        rsprune.select_assigned(labels, similarity, 12, k=3, quotas={3: 1})
    with raises(ArgumentError, "quotas", "'even'", "groups"):
        rsprune.select_assigned(labels, similarity, 12, k=3, quotas="even")
    with raises(ArgumentError, "max_per_group", 2, "groups"):
        rsprune.select_assigned(labels, similarity, 12, k=3, max_per_group=2)
    for wrong in (0, -1, 1.5, "all"):
        with raises(ArgumentError, "max_per_group"):
            rsprune.select_assigned(labels, similarity, 12, k=3, groups=labels, max_per_group=wrong)


@pytest.mark.parametrize("within", ["random", "mid", "far"])
def test_a_cluster_with_a_quota_is_selected_from_as_if_alone(within):
    labels, similarity = RNG.integers(0, 3, 90), RNG.normal(size=90).astype(np.float32)
    got = rsprune.select_assigned(labels, similarity, 30, k=3, quotas={0: 5, 1: 10, 2: 15}, within=within, seed=4)
    for cluster, rows in ((0, 5), (1, 10), (2, 15)):
        alone = np.where(labels == cluster, 0, -1)
        want = rsprune.select_assigned(alone, similarity, rows, k=1, within=within, seed=4)
        assert got.indices[got.cluster == cluster].tolist() == want.indices.tolist()
