"""What holds for every registered strategy, one of another package among them."""

import sys
import warnings

import numpy as np
import pytest

import rsprune
from failures import raises
from oracles import unit
from rsprune import errors, strategies

N, DIM, K = 400, 12, 6

# A strategy as another package writes it; with `faulty` it breaks its promises.
PLUGIN = '''
import numpy as np

from rsprune.strategies import Picked, strategy
from rsprune.strategies.grouping import top_rows


@strategy(needs=("score",), uses=("labels",))
def lowest(pool, *, faulty=False):
    """The rows of lowest score."""
    rows = top_rows(pool.require("score"), pool.candidates, pool.budget)
    return Picked(np.concatenate([rows, rows]) if faulty else rows)


not_a_strategy = 3
'''
PLUGIN_POINTS = {"rsprune.strategies": {"lowest": "lowest", "odd": "not_a_strategy", "random": "lowest"}}


@pytest.fixture(params=[*strategies.names(), "lowest"])
def method(request, plugin_package):
    if request.param == "lowest":
        plugin_package("lowest_plugin", PLUGIN, PLUGIN_POINTS)
    return strategies.get(request.param)


@pytest.fixture(scope="module")
def known():
    """Everything that may be known of a pool. Each of its columns marks a row of its own as invalid."""
    rng = np.random.default_rng(0)
    middles = rng.normal(size=(K, DIM))
    x = (middles[rng.integers(0, K, N)] + 0.5 * rng.normal(size=(N, DIM))).astype(np.float32)
    x[50:60] = x[40:50]
    x[7], x[8] = np.nan, 0.0
    entropy = rng.integers(0, 40, N) / 5
    score = rng.normal(size=N).astype(np.float32).astype(np.float64)
    labels = rng.integers(0, 3, N)
    entropy[9], score[10], labels[11] = np.nan, np.nan, -1
    reference = (middles.repeat(5, axis=0) + 0.3 * rng.normal(size=(5 * K, DIM))).astype(np.float32)
    return {
        "embeds": x,
        "entropy": entropy,
        "score": score,
        "labels": labels,
        "reference": reference,
        "centroids": rsprune.calibrate(unit(middles), reference, rng.integers(0, 40, len(reference)) / 5),
    }


def run(method, known, budget=40, **changes):
    known = known | {name: changes.pop(name) for name in [*known, "assignment"] if name in changes}
    return strategies.select_from(method.name, known, None if method.budget == "none" else budget, **changes)


def same(a, b):
    fields = ("indices", "cluster", "similarity", "phase", "counts", "invalid")
    return all(getattr(a, name).tobytes() == getattr(b, name).tobytes() for name in fields)


def test_the_budget_is_met_and_invalid_rows_are_left_out(method, known):
    got = run(method, known)
    invalid = {"embeds": {7, 8}, "entropy": {9}, "score": {10}, "labels": {11}}
    used = method.usable(known)
    assert set(got.invalid) == set().union(*(rows for name, rows in invalid.items() if name in used))
    assert not set(got.indices) & set(got.invalid)
    assert (np.diff(got.indices) > 0).all()
    assert method.budget == "none" or len(got) == got.budget == 40
    assert got.total == N
    assert sum(got.counts[phase].sum() for phase in ("quota", "fill")) == len(got)
    assert (got.counts["pool"] >= got.counts["quota"] + got.counts["fill"]).all()
    assert "nan" not in got.summary()


@pytest.mark.filterwarnings("ignore:a budget of 1 rows")
def test_one_row_and_all_rows(method, known):
    if method.budget == "none":
        return
    options = {"beta": 0.0} if method.name == "ccs" else {}  # it drops the hardest rows
    valid = N - len(run(method, known).invalid)
    for budget in (1, valid):
        assert len(run(method, known, budget, **options)) == budget
    with raises(errors.BudgetError, valid + 1):
        run(method, known, valid + 1, **options)


@pytest.mark.parametrize("fitted", [False, True])
def test_same_bytes_at_any_thread_count_and_in_any_blocks(method, known, fitted, tmp_path):
    x = known["embeds"]
    for i, part in enumerate(np.split(x, [3, 150, 151])):
        np.save(tmp_path / f"{i}.npy", part)
    # Without centroids most methods fit clusters on the pool; rsprune fits as many as there is reference for.
    needed = "centroids" in method.needs
    if fitted and needed and "k" not in method.options:
        fitted = False  # it fits none
    changes = {"centroids": None} | ({"k": 9} if needed else {}) if fitted else {}
    one = run(method, known, threads=1, **changes)
    assert same(one, run(method, known, threads=3, **changes))
    for embeds in (tmp_path, np.asfortranarray(x), [x[:33], x[33:]]):
        assert same(one, run(method, known, **changes | {"embeds": embeds}))


def test_the_seed_matters_only_where_randomness_is_documented(method, known):
    got = run(method, known, seed=0)
    if "random" not in method.run.__doc__:
        assert same(got, run(method, known, seed=1))
    assert same(got, run(method, known, seed=0))


def test_missing_inputs_are_named(method, known):
    for need in method.needs:
        changes = {need: None} | ({"reference": None} if need == "centroids" else {})
        with raises(errors.MissingInputError, method.name, f"{need}="):
            run(method, known, **changes)
    with raises(errors.MissingInputError, method.name):
        strategies.select(method.name, budget=None if method.budget == "none" else 3)
    if method.budget == "required":
        with raises(errors.BudgetError, method.name):
            run(method, known, None)
    if method.budget == "none":
        with raises(errors.BudgetError, method.name):
            strategies.select(method.name, **method.usable(known), budget=3)


def test_inputs_that_it_does_not_use_are_refused(method, known):
    used = method.usable(known) | {"budget": None if method.budget == "none" else 40}
    for name in known.keys() - used.keys():
        with raises(errors.ArgumentError, method.name, f"{name}="):
            strategies.select(method.name, **used, **{name: known[name]})
    if not method.quotas:
        with raises(errors.ArgumentError, method.name, "assignment="):
            assignment = np.zeros(N, np.int32), np.zeros(N, np.float32)
            strategies.select(method.name, **used, assignment=assignment)


# Inputs that the options of a call leave unused, though the method can use them.
UNUSED = [
    ("rsprune", {"centroids", "entropy", "reference"}, {}, {"entropy", "reference"}),
    ("rsprune", {"centroids", "entropy", "score"}, {"entropy_keep": 0.5}, set()),
    ("random", {"centroids", "labels"}, {}, {"centroids", "labels"}),
    ("random", {"labels", "centroids"}, {"shares": "even"}, {"centroids"}),
    ("cluster_nearest", {"centroids"}, {"k": 3}, {"centroids"}),
    ("kcenter", {"centroids", "labels"}, {"k": 3}, {"centroids", "labels"}),
    ("full", {"score", "labels"}, {}, {"score", "labels"}),
]


@pytest.mark.parametrize(("name", "given", "options", "unused"), UNUSED)
def test_inputs_that_make_no_difference_are_named(name, given, options, unused, known):
    rows = [row for row in range(N) if not 7 <= row <= 11]  # all of them valid
    inputs = {one: known[one] if one in ("centroids", "reference") else known[one][rows] for one in given | {"embeds"}}
    budget = None if name == "full" else 40
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        got = strategies.select(name, budget=budget, **inputs, **options)
    assert sorted(str(one.message).partition("=")[0] for one in caught) == sorted(unused)
    assert {one.filename for one in caught} <= {__file__}
    kept = {one: value for one, value in inputs.items() if one not in unused}
    assert strategies.select(name, budget=budget, **kept, **options).indices.tolist() == got.indices.tolist()


def test_an_input_that_marks_rows_as_invalid_makes_a_difference(known):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        got = strategies.select("random", known["embeds"], 395, entropy=known["entropy"])
    assert 9 not in got.indices


# Options that are impossible whatever the rows are: a run is to know it before it reads an image.
IMPOSSIBLE = [
    ("rsprune", {"fill": "half"}),
    ("rsprune", {"entropy_keep": 1.5}),
    ("rsprune", {"k": 0}),
    ("rsprune", {"dedup": -0.1}),
    ("random", {"shares": "odd"}),
    ("random", {"k": 2.5}),
    ("moderate", {"shares": 3}),
    ("cluster_nearest", {"within": "best"}),
    ("cluster_nearest", {"topup": "yes"}),
    ("hierarchical", {"levels": [0]}),
    ("hierarchical", {"levels": [5, 9]}),
    ("hierarchical", {"sample_sizes": [0]}),
    ("hierarchical", {"rounds": 0}),
    ("vjepa2", {"within": None}),
    ("dbp", {"temperature": -1.0}),
    ("dbp", {"balance": 2}),
    ("prototypes", {"balance": -0.5}),
    ("ccs", {"beta": 1.0}),
    ("ccs", {"strata": 0}),
    ("dinov2", {"mode": "all"}),
    ("dinov2", {"leak_eps": 3}),
    ("dinov2", {"min_hits": "many"}),
    ("semdedup", {"eps": -1.0}),
    ("semdedup", {"mode": "last"}),
    ("d2", {"n_neighbors": "x"}),
    ("d2", {"gamma": -1}),
    ("kcenter", {"first": "last"}),
    ("kcenter", {"first": -1}),
    ("kcenter", {"min_distance": 3}),
    ("facility_location", {"n_neighbors": True}),
    ("herding", {"shares": "odd"}),
    ("a2mae_like", {"within": "best"}),
]


@pytest.mark.parametrize(("name", "options"), IMPOSSIBLE)
def test_impossible_options_are_told_without_a_row(name, options):
    with raises(errors.ArgumentError, *options):
        strategies.get(name).check(options)


def test_the_defaults_of_every_option_are_possible(method):
    method.check(method.options)


def test_unknown_options_are_refused_by_name(method, known):
    with raises(errors.ArgumentError, "colour"):
        run(method, known, colour="red")
    for word in ("which", "keep", "balanced", "per_cluster", "neighbours"):
        assert word not in method.options


def test_options_of_one_name_take_the_same_words(method, known):
    accepted = {"within": ("nearest", "far", "mid", "random"), "shares": ("even", "proportional")}
    for name, words in accepted.items():
        if name in method.options:
            for word in words:
                assert len(run(method, known, **{name: word})) == 40
            with raises(errors.ArgumentError, name, "best"):
                run(method, known, **{name: "best"})


def test_members_of_other_packages_are_found_and_checked(plugin_package, command):
    plugin_package("lowest_plugin", PLUGIN, PLUGIN_POINTS)
    assert {"lowest", "odd"} <= set(strategies.names()[len(strategies.BUILT_IN) :])
    assert strategies.names().count("random") == 1
    assert strategies.select("lowest", None, 2, score=[3.0, 1.0, np.nan, 0.5]).indices.tolist() == [1, 3]
    assert strategies.get("random").run.__module__ == "rsprune.strategies.random"
    with raises(errors.ArgumentError, "odd"):
        strategies.get("odd")
    with raises(errors.ArgumentError, "lowest"):
        strategies.select("lowest", None, 2, score=[3.0, 1.0], faulty=True)
    done = command("strategies", "lowest")
    assert "The rows of lowest score." in done.stdout
    assert "needs score, budget; uses labels" in done.stdout
    assert "options: faulty=false" in done.stdout
    assert "lowest_plugin" in sys.modules
