"""Options of a selection: a least similarity, another score, groups with quotas; against oracles from their words."""

import json
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import oracles
import rsprune
from failures import raises, warns
from oracles import proportional, unit, water_level
from rsprune import errors, selection
from small_problems import LABELS, SIMILARITY, problems, select_quietly


def found(got):
    return list(zip(got.indices.tolist(), got.phase.tolist(), strict=True))


# --- min_similarity ---------------------------------------------------------------------------------------------------


@given(problems(), st.sampled_from([-1.0, -0.5, 0.0, 0.1, 0.25, 0.5, 0.7, 1.0]))
def test_rows_below_the_least_similarity_are_as_excluded(problem, least):
    outside = [i for i, s in enumerate(problem["similarity"]) if s < np.float32(least)]
    problem["preselected"] = [i for i in problem["preselected"] if i not in outside]
    got = select_quietly(problem, min_similarity=least, strict=False)
    assert found(got) == oracles.select(**(problem | {"exclude": problem["exclude"] + outside}))
    assert got.outside.tolist() == outside
    assert not (got.similarity < least).any() or least == 0.7  # which float32 rounds down


def test_the_threshold_is_rounded_as_the_similarities_are():
    similarity = np.array([0.7, 0.7, 0.6999], np.float32)
    assert float(similarity[0]) < 0.7
    got = rsprune.select_assigned([0, 0, 0], similarity, 2, k=1, min_similarity=0.7)
    assert (got.indices.tolist(), got.outside.tolist()) == ([0, 1], [2])


def test_a_budget_above_the_domain_says_so():
    with raises(errors.BudgetError, 8, 7, 12, 3, "min_similarity", 0.4):
        rsprune.select_assigned(LABELS, SIMILARITY, 8, k=4, min_similarity=0.4)
    got = rsprune.select_assigned(LABELS, SIMILARITY, 8, k=4, min_similarity=0.4, strict=False)
    assert got.indices.tolist() == [0, 1, 2, 3, 7, 8, 9]
    assert got.budget == 8
    assert "out of the domain: 3" in got.summary()


def test_a_preselected_row_out_of_the_domain_is_an_error():
    with raises(errors.ArgumentError, 6, "preselected", "similarity", "0.1000"):
        rsprune.select_assigned(LABELS, SIMILARITY, 4, k=4, min_similarity=0.2, preselected=[6])


@pytest.mark.parametrize("value", [math.nan, "0.3", True])
def test_a_least_similarity_that_is_no_number(value):
    with raises(errors.ArgumentError, "min_similarity"):
        rsprune.select_assigned(LABELS, SIMILARITY, 4, k=4, min_similarity=value)


# --- score ------------------------------------------------------------------------------------------------------------


@settings(max_examples=300)
@given(problems(), st.sampled_from([np.float16, np.float32, np.float64]), st.integers(0, 2**32))
def test_scores_rank_instead_of_similarities(problem, dtype, seed):
    rng = np.random.default_rng(seed)
    n = len(problem["labels"])
    # Float64 that float32 cannot tell apart, ties, both zeros, invalid ones.
    values = np.array([1.0, 1 + 2**-40, 1 - 2**-40, 1e300, -1e300, np.inf, 0.0, -0.0, 1e-300, 0.5, np.nan])
    score = rng.choice(values, size=n).astype(dtype) if dtype == np.float64 else rng.normal(size=n).astype(dtype)
    if dtype == np.float64 and problem["fill"] == "zscore":
        with np.errstate(over="ignore"):
            score = score.astype(np.float32).astype(np.float64)
    valid = ~np.isnan(problem["similarity"]) & ~np.isnan(score)
    problem["preselected"] = [i for i in problem["preselected"] if valid[i]]
    got = select_quietly(problem, score=score, strict=False)
    with np.errstate(all="ignore"):
        assert found(got) == oracles.select(**(problem | {"similarity": np.where(valid, score, np.nan)}))
    assert got.similarity.tobytes() == problem["similarity"][got.indices].tobytes()
    assert got.invalid.tolist() == np.flatnonzero((problem["labels"] < 0) | ~valid).tolist()


def test_the_last_bit_of_a_score_counts():
    score = np.full(6, 1.0)
    score[[4, 1]] = [np.nextafter(1, 2), np.nextafter(1, 0)]
    got = rsprune.select_assigned([0] * 6, np.linspace(0, 1, 6), 4, k=1, score=score)
    assert got.indices.tolist() == [0, 2, 3, 4]
    assert got.similarity.tolist() == np.linspace(0, 1, 6).astype(np.float32)[[0, 2, 3, 4]].tolist()


def test_scores_that_cannot_keep_their_order_are_refused(monkeypatch):
    score = 1 + np.arange(5) * 1e-12
    with raises(errors.ArgumentError, "zscore"):
        rsprune.select_assigned([0] * 5, SIMILARITY[:5], 2, k=1, score=score, fill="zscore")
    monkeypatch.setattr(selection, "MAX_EXACT", 2)
    with raises(errors.ArgumentError, 5, 4):
        rsprune.select_assigned([0] * 5, SIMILARITY[:5], 2, k=1, score=score)


@pytest.mark.parametrize(
    ("score", "error", "values"),
    [
        ([1, 2, 3], errors.ShapeError, ("score", "(3,)", "(12,)")),
        (list(range(12)), errors.DtypeError, ("score", "int64")),
        (["a"] * 12, errors.DtypeError, ("score", "<U1")),
    ],
)
def test_scores_that_are_none(score, error, values):
    with raises(error, *values):
        rsprune.select_assigned(LABELS, SIMILARITY, 4, k=4, score=score)


def test_of_near_duplicates_the_best_score_in_the_domain_stays():
    rng = np.random.default_rng(3)
    base = unit(rng.normal(size=(20, 8)))
    embeds = np.repeat(base, 3, axis=0)
    centroids = rsprune.Centroids(base[:4])
    score = rng.normal(size=60)
    score[::7] = np.nan
    got = rsprune.select(embeds, centroids, 12, score=score, dedup=0.001, strict=False)
    triples = np.where(np.isnan(score), -np.inf, score).reshape(20, 3)
    best = {3 * i + int(row.argmax()) for i, row in enumerate(triples)}
    assert set(got) <= best
    # A duplicate that is out of the domain or invalid takes nobody's place.
    assert len(got) == 12
    similarity = rsprune.assign(embeds, centroids).similarity
    got = rsprune.select(embeds, centroids, 60, dedup=0.001, min_similarity=0.5, strict=False)
    assert len(got) == np.count_nonzero(similarity[::3] >= 0.5)
    assert got.outside.tolist() == np.flatnonzero(similarity < 0.5).tolist()


# --- groups -----------------------------------------------------------------------------------------------------------


@settings(max_examples=300)
@given(problems(), st.integers(1, 5), st.sampled_from([None, "even"]), st.integers(0, 2**32))
def test_every_group_is_selected_from_as_if_alone(problem, count, quotas, seed):
    n, k = len(problem["labels"]), problem["k"]
    of = np.random.default_rng(seed).integers(0, count, n)
    names = np.array(["e", "d", "c", "b", "a"])[of]
    if quotas is None:
        problem["preselected"] = []
    valid = (problem["labels"] >= 0) & ~np.isnan(problem["similarity"])
    valid[problem["exclude"]] = False
    there = sorted(set(names))
    pools = [int(np.count_nonzero(valid & (names == name))) for name in there]
    held = [sum(names[i] == name for i in problem["preselected"]) for name in there]
    target = min(problem["budget"], sum(pools))
    shares = water_level(target, held, pools) if quotas == "even" else proportional(target, pools)
    expected = []
    for name, share in zip(there, shares, strict=True):
        if share:
            alone = problem | {
                "labels": np.where(names == name, problem["labels"], -1),
                "budget": share,
                "preselected": [i for i in problem["preselected"] if names[i] == name],
            }
            expected += oracles.select(**alone)
    got = select_quietly(problem, groups=names, quotas=quotas, strict=False)
    assert found(got) == sorted(expected)
    assert [tuple(group[:2]) for group in got.groups.values()] == list(zip(pools, shares, strict=True))
    assert [g.selected for g in got.groups.values()] == [np.count_nonzero(names[got.indices] == g) for g in there]
    assert list(got.groups) == there
    if problem["fill"] != "none":
        assert len(got) == target
    for name, code in [("quota", 0), ("fill", 1), ("preselected", 2)]:
        assert got.counts[name].tolist() == np.bincount(got.cluster[got.phase == code], minlength=k).tolist()
    assert got.counts["pool"].tolist() == np.bincount(problem["labels"][valid], minlength=k).tolist()
    assert got.invalid.tolist() == np.flatnonzero((problem["labels"] < 0) | np.isnan(problem["similarity"])).tolist()


# 8 rows of 10 m, 3 of 1 m and 1 of 0.5 m, all of one cluster, best first.
METRES = [10.0] * 8 + [1.0] * 3 + [0.5]


@pytest.mark.parametrize(
    ("budget", "quotas", "shares"),
    [
        # Names ascend: 0.5, 1, 10. In proportion: 0.5, 1.5, 4; the tie of halves goes to the larger group.
        (6, None, [0, 2, 4]),
        (6, "even", [1, 2, 3]),
        (9, "even", [1, 3, 5]),
        (6, {10.0: 4, 1.0: 1, 0.5: 1}, [1, 1, 4]),
        (6, {10.0: 0.5}, [1, 2, 3]),
        (6, {0.5: 0, 10.0: 0.5}, [0, 3, 3]),
        # 2.4 and 0.6 are 3 in all, 2 and 1 by largest remainder; 1 m gets what is left.
        (6, {10.0: 0.4, 0.5: 0.1}, [1, 3, 2]),
        # As written: three tenths of 10 are three.
        (10, {10.0: 0.7, 1.0: 0.3}, [0, 3, 7]),
        (3, {10.0: 1 / 3, 1.0: 1 / 3, 0.5: 1 / 3}, [1, 1, 1]),
    ],
)
def test_quotas_worked_by_hand(budget, quotas, shares):
    similarity = np.linspace(1, 0, 12)
    got = rsprune.select_assigned([0] * 12, similarity, budget, k=1, groups=METRES, quotas=quotas)
    assert [group.selected for group in got.groups.values()] == shares
    assert list(got.groups) == [0.5, 1.0, 10.0]
    half, one, ten = shares
    assert got.indices.tolist() == [*range(ten), *range(8, 8 + one), *range(11, 11 + half)]


def test_preselected_rows_raise_their_groups_share():
    got = rsprune.select_assigned([0] * 12, np.linspace(1, 0, 12), 4, k=1, groups=METRES, preselected=[8, 9, 10])
    assert [group.budget for group in got.groups.values()] == [0, 3, 1]
    assert got.indices.tolist() == [0, 8, 9, 10]


@pytest.mark.parametrize(
    ("quotas", "options", "error", "values"),
    [
        ({10.0: 3, 1.0: 2, 0.5: 0}, {}, errors.BudgetError, ("quotas", 5, "budget", 6)),
        ({10.0: 7}, {}, errors.BudgetError, ("quotas", 7, "budget", 6)),
        ({1.0: 5}, {}, errors.BudgetError, (5, 1.0, 3)),
        ({10.0: 0}, {}, errors.BudgetError, (6, "groups", 4)),
        ({1.0: 1}, {"preselected": [8, 9]}, errors.BudgetError, (1, 2, "preselected")),
        ({1.0: 3, 0.5: 1, 10.0: 2}, {"preselected": [0, 1, 2]}, errors.BudgetError, (3, "preselected")),
        ({10.0: 6}, {"preselected": [8]}, errors.BudgetError, (0, 1, "preselected")),
        ({2.0: 1}, {}, errors.ArgumentError, (2.0, 0.5, 1.0, 10.0)),
        ({1.0: -1}, {}, errors.ArgumentError, (-1,)),
        ({1.0: 1.5}, {}, errors.ArgumentError, (1.5,)),
        ({1.0: True}, {}, errors.ArgumentError, ("True",)),
        ("odd", {}, errors.ArgumentError, ("quotas", "'odd'")),
        ("even", {"groups": None}, errors.ArgumentError, ("quotas", "groups")),
        (None, {"groups": METRES[1:]}, errors.ShapeError, ("groups", "(11,)")),
        (None, {"groups": np.array([math.nan, *METRES[1:]])}, errors.ArgumentError, (0, "NaN")),
        (None, {"groups": [*METRES[1:], math.nan]}, errors.ArgumentError, (11, "nan")),
        (None, {"groups": np.array([*METRES[1:], math.nan], object)}, errors.ArgumentError, (11, "nan")),
        (None, {"groups": [*"abcabcabcab", math.nan]}, errors.ArgumentError, (11, "nan")),
        (None, {"groups": np.array(["a", None] * 6, object)}, errors.ArgumentError, (1, "None")),
        (None, {"groups": ["a", 1] * 6}, errors.DtypeError, ()),
        (None, {"groups": np.array(["a", b"a"] * 6, object)}, errors.DtypeError, ()),
        (None, {"groups": [2**60, 2**60 + 1, 0.5] * 4}, errors.DtypeError, ()),
        (None, {"groups": [2**70, 1] * 6}, errors.DtypeError, ()),
        (None, {"groups": [1j] * 12}, errors.DtypeError, ("groups", "complex128")),
    ],
)
def test_quotas_that_cannot_be(quotas, options, error, values):
    arguments = {"k": 1, "groups": METRES, "quotas": quotas} | options
    with raises(error, *values):
        rsprune.select_assigned([0] * 12, np.linspace(1, 0, 12), 6, **arguments)


def test_without_strict_a_short_group_gives_all():
    got = rsprune.select_assigned(
        [0] * 12, np.linspace(1, 0, 12), 6, k=1, groups=METRES, quotas={1.0: 5, 10.0: 1}, strict=False
    )
    assert got.indices.tolist() == [0, 8, 9, 10]
    nothing = rsprune.select_assigned([-1] * 12, np.linspace(1, 0, 12), 6, k=1, groups=METRES, strict=False)
    assert len(nothing) == 0


def test_a_group_without_quota_warns():
    with warns(UserWarning, "budget", 1, 2, "'b'") as record:
        rsprune.select_assigned([0, 1] * 4, np.linspace(1, 0, 8), 4, k=2, groups=list("aaaaaabb"))
    assert record[0].filename == __file__


def test_text_and_metadata_name_groups_and_domain(tmp_path):
    import pyarrow.parquet as pq

    got = rsprune.select_assigned(
        [0] * 12, np.linspace(1, 0, 12), 6, k=1, groups=METRES, quotas="even", min_similarity=0.05
    )
    assert "selected a group: 0.5 0 of 0, 1.0 3 of 3, 10.0 3 of 8" in got.summary()
    got.to_parquet(tmp_path / "s.parquet")
    about = json.loads(pq.read_schema(tmp_path / "s.parquet").metadata[b"rsprune"])
    assert about["outside"] == 1
    assert about["groups"]["1.0"] == {"pool": 3, "budget": 3, "selected": 3}


def test_select_takes_all_of_them_together():
    rng = np.random.default_rng(0)
    embeds = rng.normal(size=(200, 6)).astype(np.float32)
    centroids = rsprune.Centroids(unit(rng.normal(size=(4, 6))))
    options = {"score": rng.normal(size=200), "groups": rng.choice(["a", "b"], 200), "quotas": {"a": 0.25}}
    options |= {"min_similarity": 0.2}
    got = rsprune.select(embeds, centroids, 40, **options)
    labels, similarity = rsprune.assign(embeds, centroids)
    expected = rsprune.select_assigned(labels, similarity, 40, k=4, **options)
    assert got.indices.tobytes() == expected.indices.tobytes()
    assert got.groups == expected.groups
    assert got.groups["a"].selected == 10
    assert got.similarity.min() >= 0.2
