"""Selection against an oracle that sorts, written from the specification alone."""

import itertools
import json
import math

import numpy as np
import pytest
from hypothesis import given, settings

import oracles
import rsprune
from failures import raises, warns
from oracles import unit
from rsprune import errors
from rsprune.selection import FILL, PRESELECTED, QUOTA
from small_problems import FILLS, LABELS, SIMILARITY, problems, select_quietly

# --- properties -------------------------------------------------------------------------------------------------------


def check_against_oracle(problem):
    got = select_quietly(problem, strict=False, threads=1)
    assert list(zip(got.indices.tolist(), got.phase.tolist(), strict=True)) == oracles.select(**problem)
    assert got.cluster.tolist() == problem["labels"][got.indices].tolist()
    assert got.similarity.tobytes() == problem["similarity"][got.indices].tobytes()
    for name, code in [("quota", QUOTA), ("fill", FILL), ("preselected", PRESELECTED)]:
        expected = np.bincount(got.cluster[got.phase == code], minlength=problem["k"])
        assert got.counts[name].tolist() == expected.tolist()
    invalid = np.flatnonzero((problem["labels"] < 0) | np.isnan(problem["similarity"]))
    assert got.invalid.tolist() == invalid.tolist()
    for threads in (2, 7):
        again = select_quietly(problem, strict=False, threads=threads)
        for field in ("indices", "cluster", "similarity", "phase", "counts", "invalid"):
            assert getattr(again, field).tobytes() == getattr(got, field).tobytes()


@settings(max_examples=1000)
@given(problems())
def test_every_option_is_that_of_the_oracle(problem):
    check_against_oracle(problem)


@pytest.mark.slow
@settings(max_examples=50_000, derandomize=False)
@given(problems())
def test_every_option_is_that_of_the_oracle_deeply(problem):
    check_against_oracle(problem)


@given(problems())
def test_strict_selections_have_exactly_the_budget(problem):
    pool = len(problem["labels"]) - len(select_quietly(problem, strict=False).invalid)
    pool -= sum(problem["labels"][i] >= 0 and not np.isnan(problem["similarity"][i]) for i in problem["exclude"])
    if problem["budget"] > pool:
        with raises(errors.BudgetError, problem["budget"], pool):
            select_quietly(problem)
    else:
        got = select_quietly(problem)
        assert len(got) == problem["budget"] or problem["fill"] == "none"
        assert np.all(np.diff(got.indices) > 0)


@given(problems())
def test_rows_of_equal_standing_do_not_depend_on_what_lies_between_them(problem):
    """Invalid rows anywhere shift the numbers and nothing else."""
    if problem["within"] == "random":
        return
    n = len(problem["labels"])
    place = np.sort(np.random.default_rng(problem["seed"]).choice(2 * n, size=n, replace=False))
    labels = np.full(2 * n, -1, np.int32)
    similarity = np.full(2 * n, np.nan, np.float32)
    labels[place], similarity[place] = problem["labels"], problem["similarity"]
    moved = problem | {"labels": labels, "similarity": similarity}
    for name in ("exclude", "preselected"):
        moved[name] = place[problem[name]] if len(problem[name]) else []
    got, expected = select_quietly(moved, strict=False), select_quietly(problem, strict=False)
    assert got.indices.tolist() == place[expected.indices].tolist()
    assert got.phase.tolist() == expected.phase.tolist()


# --- worked by hand ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "indices", "phase"),
    [
        # q = 8 // 4 = 2: rows 0 1 | 5 6 | 7 8, and the deficit of the empty cluster 3 goes to 2 (0.8) and 3 (0.7).
        ({}, [0, 1, 2, 3, 5, 6, 7, 8], [0, 0, 1, 1, 0, 0, 0, 0]),
        # Level 3 with pools 5 2 3 0: one more for clusters 0 and 2.
        ({"fill": "waterfill"}, [0, 1, 2, 5, 6, 7, 8, 9], [0, 0, 1, 0, 0, 0, 0, 1]),
        # Remainder 2 3 4 and 9. z: 0.8 -> +0.49, 0.7 -> +0.08, 0.2 -> -1.96; 0.5 -> -1.41.
        ({"fill": "zscore"}, [0, 1, 2, 3, 5, 6, 7, 8], [0, 0, 1, 1, 0, 0, 0, 0]),
        ({"fill": "none"}, [0, 1, 5, 6, 7, 8], [0] * 6),
        # Farthest: 4 3 | 6 5 | 9 7, then 8 (0.6) and 1 (0.8, before 2).
        ({"within": "far"}, [1, 3, 4, 5, 6, 7, 8, 9], [1, 0, 0, 0, 0, 0, 1, 0]),
        # Middle ranks: 2 1 | 5 6 | 8 7; remainder: 3 at |6-4|/5, 9 at |4-2|/3, 0 and 4 at 4/5.
        ({"within": "mid"}, [1, 2, 3, 5, 6, 7, 8, 9], [0, 0, 1, 0, 0, 0, 0, 1]),
        ({"exclude": [0, 7]}, [1, 2, 3, 4, 5, 6, 8, 9], [0, 0, 1, 1, 0, 0, 0, 0]),
        # Row 4 takes one place of cluster 0's quota.
        ({"preselected": [4]}, [0, 1, 2, 4, 5, 6, 7, 8], [0, 1, 1, 2, 0, 0, 0, 0]),
    ],
)
def test_worked_example(options, indices, phase):
    got = rsprune.select_assigned(LABELS, SIMILARITY, 8, k=4, **options)
    assert got.indices.tolist() == indices
    assert got.phase.tolist() == phase
    assert got.invalid.tolist() == [10, 11]


def test_negative_zero_ties_with_zero():
    got = rsprune.select_assigned([0, 0, 0], np.array([-0.0, 0.0, -0.0], np.float32), 2, k=1)
    assert got.indices.tolist() == [0, 1]


def test_infinite_scores_are_the_first_and_the_last():
    scores = np.array([0.0, -np.inf, np.inf, 1.0], np.float32)
    assert rsprune.select_assigned([0] * 4, scores, 3, k=1).indices.tolist() == [0, 2, 3]
    assert len(rsprune.select_assigned([0] * 4, scores, 3, k=2, fill="zscore")) == 3


def test_random_is_independent_of_similarity_and_other_rows():
    labels = np.zeros(100, np.int32)
    draw = rsprune.select_assigned(labels, np.zeros(100, np.float32), 10, k=1, within="random", seed=3)
    other = rsprune.select_assigned(labels, np.arange(100, dtype=np.float32), 10, k=1, within="random", seed=3)
    assert draw.indices.tolist() == other.indices.tolist()
    seeds = {tuple(rsprune.select_assigned(labels, SAME, 10, k=1, within="random", seed=s)) for s in range(20)}
    assert len(seeds) == 20


SAME = np.zeros(100, np.float32)


# --- budgets ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("budget", "rows"),
    [
        *[(1, 1), (100, 100), (np.int16(7), 7), (np.uint64(7), 7)],
        *[
            (0.15, 15),
            (0.29, 29),
            (0.07, 7),
            (0.999, 99),
            (np.float32(0.5), 50),
            (np.float32(0.29), 29),
            (np.float16(0.29), 29),
            (np.float64(0.01), 1),
        ],
    ],
)
def test_budgets_are_rows_or_a_fraction_of_all_rows(budget, rows):
    got = rsprune.select_assigned(np.zeros(100, np.int32), SAME, budget, k=1)
    assert (len(got), got.budget) == (rows, rows)


def test_fractions_count_invalid_and_excluded_rows_too():
    labels = np.array([0] * 50 + [-1] * 50)
    assert len(rsprune.select_assigned(labels, SAME, 0.2, k=1, exclude=range(10))) == 20


@pytest.mark.parametrize(
    "budget",
    [
        0,
        -3,
        0.0,
        -0.5,
        -2.0,
        1.0,
        1.5,
        100.5,
        0.001,
        math.nan,
        math.inf,
        True,
        np.True_,
        "10",
        None,
        [10],
        np.array([3]),
        10**30,
    ],
)
def test_bad_budgets(budget):
    with raises(errors.BudgetError, "budget"):
        rsprune.select_assigned(np.zeros(100, np.int32), SAME, budget, k=1)


def test_budget_above_the_pool_says_what_is_missing():
    labels = np.array([0] * 95 + [-1] * 5)
    with raises(errors.BudgetError, 91, 90, 100, 5, "strict=False"):
        rsprune.select_assigned(labels, SAME, 91, k=1, exclude=[0, 1, 2, 3, 4])
    got = rsprune.select_assigned(labels, SAME, 91, k=1, exclude=[0, 1, 2, 3, 4], strict=False)
    assert got.indices.tolist() == list(range(5, 95))
    assert got.budget == 91


def test_budget_below_k_warns_and_names_the_way_out():
    labels, similarity = [0, 0, 1, 2, 2, 2], np.array([0.9, 0.8, 0.1, 0.2, 0.3, 0.4], np.float32)
    with warns(UserWarning, "budget", 2, 3, "waterfill") as record:
        got = rsprune.select_assigned(labels, similarity, 2, k=3)
    assert record[0].filename == __file__
    assert got.indices.tolist() == [0, 1]
    # One each for the largest clusters, without a warning.
    spread = rsprune.select_assigned(labels, similarity, 2, k=3, fill="waterfill")
    assert spread.indices.tolist() == [0, 5]


# --- bad input --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "error", "values"),
    [
        ({"labels": [0, 1, 5]}, errors.ArgumentError, (2, 5, 0, 1, "k")),
        ({"labels": [0, -2, 1]}, errors.ArgumentError, (1, -2)),
        ({"labels": np.array([0, 2**40, 1])}, errors.ArgumentError, (1, 2**40)),
        ({"labels": np.array([0, 2**63, 1], np.uint64)}, errors.ArgumentError, (1, 2**63)),
        ({"labels": [0.0, 1.0, 1.0]}, errors.DtypeError, ("labels", "float64")),
        ({"labels": [[0, 1, 1]]}, errors.ShapeError, ("labels", "(1, 3)")),
        ({"labels": [0, 1]}, errors.ShapeError, (2, "labels", 3)),
        ({"labels": [], "similarity": []}, errors.EmptyInputError, (0,)),
        ({"similarity": [1, 2, 3]}, errors.DtypeError, ("similarity", "int64")),
        ({"similarity": ["a", "b", "c"]}, errors.DtypeError, ("similarity", "<U1")),
        ({"similarity": [[0.1, 0.2, 0.3]]}, errors.ShapeError, ("similarity", "(1, 3)")),
        ({"k": 0}, errors.ArgumentError, ("k", 0)),
        ({"k": -1}, errors.ArgumentError, ("k", -1)),
        ({"k": 2.5}, errors.ArgumentError, ("k", 2.5)),
        ({"k": 2**40}, errors.ArgumentError, ("k", 2**40)),
        ({"fill": "local"}, errors.ArgumentError, ("fill", "'local'", "global", "waterfill", "zscore")),
        ({"within": "best"}, errors.ArgumentError, ("within", "'best'", "nearest", "far", "random", "mid")),
        ({"fill": "zscore", "within": "mid"}, errors.ArgumentError, ("zscore",)),
        ({"fill": "zscore", "within": "random"}, errors.ArgumentError, ("zscore",)),
        ({"exclude": [3]}, errors.ArgumentError, ("exclude", 3, 0, 2)),
        ({"exclude": [-1]}, errors.ArgumentError, ("exclude", -1)),
        ({"exclude": [0.5]}, errors.DtypeError, ("exclude", "float64")),
        ({"exclude": [[0]]}, errors.ShapeError, ("exclude",)),
        ({"exclude": [True]}, errors.ShapeError, ("exclude", 1, 3)),
        ({"preselected": [3]}, errors.ArgumentError, ("preselected", 3)),
        ({"preselected": [1, 1]}, errors.ArgumentError, (1, "preselected")),
        ({"preselected": [1], "exclude": [1]}, errors.ArgumentError, (1, "preselected")),
        ({"preselected": [0, 1, 2]}, errors.BudgetError, (3, "preselected", "budget", 2)),
        ({"preselected": [1], "labels": [0, -1, 1]}, errors.InvalidRowError, (1, "preselected")),
        ({"seed": -1}, errors.ArgumentError, ("seed", -1)),
        ({"threads": 0}, errors.ArgumentError, ("threads", 0)),
        ({"threads": True}, errors.ArgumentError, ("threads", "True")),
    ],
)
def test_bad_input(change, error, values):
    arguments = {"labels": [0, 1, 1], "similarity": [0.1, 0.2, 0.3], "budget": 2, "k": 2}
    with raises(error, *values):
        rsprune.select_assigned(**(arguments | change))


def test_masks_are_row_numbers_too():
    mask = np.zeros(100, bool)
    mask[[3, 5]] = True
    seen = np.zeros(100, bool)
    seen[99] = True
    got = rsprune.select_assigned(np.zeros(100, np.int32), SAME, 11, k=1, exclude=mask, preselected=seen)
    assert got.indices.tolist() == [0, 1, 2, 4, 6, 7, 8, 9, 10, 11, 99]


# --- select -----------------------------------------------------------------------------------------------------------


def test_select_is_assign_then_select_assigned():
    rng = np.random.default_rng(0)
    embeds = rng.normal(size=(300, 12)).astype(np.float16)
    embeds[7], embeds[70] = 0, np.nan
    centroids = rsprune.Centroids(unit(rng.normal(size=(9, 12))))
    for fill, within in itertools.product(FILLS, ["nearest", "far"]):
        options = {"fill": fill, "within": within, "exclude": [1, 2], "preselected": [3], "seed": 5}
        got = rsprune.select(embeds, centroids, 0.2, normalize=False, **options)
        labels, similarity = rsprune.assign(embeds, centroids, normalize=False)
        expected = rsprune.select_assigned(labels, similarity, 0.2, k=9, **options)
        assert got.indices.tobytes() == expected.indices.tobytes()
        assert got.phase.tobytes() == expected.phase.tobytes()
        assert got.invalid.tolist() == [7, 70]


def test_select_fails_on_what_it_was_given():
    centroids = unit(np.ones((2, 4)))
    with raises(errors.BudgetError, "budget", 0):
        rsprune.select(np.ones((10, 4), np.float32), centroids, 0)
    with raises(errors.InvalidRowError, 1, "NaN"):
        rsprune.select(np.array([[1, 1, 1, 1], [np.nan] * 4]), centroids, 1, on_invalid="raise")


# --- the Selection ----------------------------------------------------------------------------------------------------


@pytest.fixture
def selection():
    return rsprune.select_assigned(LABELS, SIMILARITY, 8, k=4, preselected=[4])


def test_a_selection_is_a_sequence_of_ints(selection):
    assert len(selection) == 8
    assert [type(i) for i in selection] == [int] * 8
    assert type(selection[0]) is int
    assert selection[-1] == 8
    assert selection[2:4].tolist() == [2, 4]
    assert np.asarray(selection) is selection.indices
    assert np.array(selection, dtype=np.int32).dtype == np.int32
    assert not np.shares_memory(np.array(selection), selection.indices)
    with pytest.raises(IndexError):
        selection[8]
    dtypes = [getattr(selection, name).dtype for name in ("indices", "cluster", "similarity", "phase", "invalid")]
    assert dtypes == [np.int64, np.int32, np.float32, np.uint8, np.int64]


def test_counts_add_up(selection):
    assert selection.counts["pool"].tolist() == [5, 2, 3, 0]
    assert selection.counts["quota"].tolist() == [1, 2, 2, 0]
    assert selection.counts["fill"].tolist() == [2, 0, 0, 0]
    assert selection.counts["preselected"].tolist() == [1, 0, 0, 0]
    assert (selection.budget, selection.k, selection.total) == (8, 4, 12)


def test_text_says_what_was_selected(selection):
    headline = "8 of 12 rows, k=4: 5 by quota, 2 by fill, 1 preselected, 2 invalid"
    assert repr(selection) == f"Selection({headline})"
    assert selection.summary().splitlines()[0] == headline
    assert "4, of which 1 empty" in selection.summary()
    empty = rsprune.select_assigned([0], [0.5], 1, k=2, fill="none")
    assert empty.summary().startswith("0 of 1 rows, k=2: 0 by quota, 0 by fill, budget 1")


def test_parquet_round_trip(selection, tmp_path):
    import pyarrow.parquet as pq

    path = tmp_path / "selection.parquet"
    path.write_text("an older file")
    selection.to_parquet(path)
    table = pq.read_table(path)
    assert table.column_names == ["row", "cluster", "similarity", "phase"]
    assert table["row"].to_numpy().tobytes() == selection.indices.tobytes()
    assert table["similarity"].to_numpy().tobytes() == selection.similarity.tobytes()
    about = json.loads(table.schema.metadata[b"rsprune"])
    assert about == {"rsprune": rsprune.__version__, "budget": 8, "k": 4, "total": 12, "invalid": 2}
    assert [p.name for p in tmp_path.iterdir()] == ["selection.parquet"]


def test_a_failed_write_leaves_the_old_file(selection, tmp_path):
    from rsprune.io import atomic_write

    path = tmp_path / "selection.parquet"
    selection.to_parquet(path)
    before = path.read_bytes()

    def fail_halfway():
        with atomic_write(path) as beside:
            beside.write_bytes(b"half")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fail_halfway()
    assert path.read_bytes() == before
    assert [p.name for p in tmp_path.iterdir()] == ["selection.parquet"]


def test_torch_subset(selection):
    data = pytest.importorskip("torch.utils.data")
    subset = data.Subset(list("abcdefghijkl"), selection)
    assert "".join(subset) == "abcefghi"
    assert next(iter(data.DataLoader(subset, batch_size=8))) == list("abcefghi")
