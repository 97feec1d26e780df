"""The door to all selection methods: what they share, what they refuse, and how they are found."""

import json
import subprocess
import sys
from importlib import import_module

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import rsprune
from failures import raises, warns
from oracles import unit
from rsprune import errors, strategies
from rsprune.strategies.grouping import top_rows

N, DIM, K = 400, 12, 6


@pytest.fixture(scope="module")
def pool():
    rng = np.random.default_rng(0)
    middles = rng.normal(size=(K, DIM))
    x = (middles[rng.integers(0, K, N)] + 0.5 * rng.normal(size=(N, DIM))).astype(np.float32)
    x[50:60] = x[40:50]
    x[7], x[8] = np.nan, 0.0
    bits = rng.integers(0, 40, N) / 5
    bits[9] = np.nan
    reference = (middles[:4].repeat(5, axis=0) + 0.3 * rng.normal(size=(20, DIM))).astype(np.float32)
    return {
        "embeds": x, "entropy": bits, "reference": reference, "centroids": unit(middles), "score": rng.normal(size=N)
    }  # fmt: skip


def run(name, pool, budget=0.1, **changes):
    method = strategies.get(name)
    known = pool | {one: changes.pop(one) for one in [*pool, "labels"] if one in changes}
    return strategies.select_from(name, known, None if method.budget == "none" else budget, **changes)


def same(a, b):
    return all(
        getattr(a, name).tobytes() == getattr(b, name).tobytes()
        for name in ("indices", "cluster", "similarity", "phase", "counts", "invalid")
    )


def test_dbp_says_what_its_clusters_keep_at_least(pool):
    with raises(errors.BudgetError, 6):
        run("dbp", pool, 3, balance=None)


def test_dbp_is_the_same_in_any_blocks(pool, monkeypatch):
    whole = run("dbp", pool, centroids=None, k=30)
    monkeypatch.setattr(import_module("rsprune.strategies.dbp"), "BLOCK", 7)
    assert same(whole, run("dbp", pool, centroids=None, k=30))


def test_options_may_need_inputs(pool):
    with raises(errors.MissingInputError, "entropy="):
        run("rsprune", pool, entropy=None, entropy_keep=0.3)
    with raises(errors.MissingInputError, "centroids="):
        run("rsprune", pool, centroids=None, reference=None)
    with raises(errors.MissingInputError, "budget="):
        run("cluster_nearest", pool, None)
    with raises(errors.MissingInputError, "embeds="):
        strategies.select("random", None, 3)


@pytest.mark.parametrize(
    ("name", "option"),
    [
        ("rsprune", {"entropy_keep": 0}),
        ("rsprune", {"fill": "half"}),
        ("cluster_nearest", {"within": "best"}),
        ("hierarchical", {"shares": "even"}),
        ("hierarchical", {"levels": [5, 5]}),
        ("hierarchical", {"levels": []}),
        ("hierarchical", {"levels": [5, 2], "sample_sizes": [2]}),
        ("hierarchical", {"rounds": 0}),
        ("vjepa2", {"weights": {"reference": -1}}),
        ("dbp", {"temperature": 0}),
        ("dbp", {"balance": 2}),
        ("prototypes", {"balance": -0.1}),
        ("ccs", {"beta": 1}),
        ("ccs", {"strata": 0}),
        ("random", {"shares": "even", "k": 1000}),
    ],
)
def test_options_out_of_range(name, option, pool):
    with raises(errors.ArgumentError, list(option)[-1]):
        run(name, pool, **option)


@pytest.mark.parametrize("budget", [0, -3, 1.5, 0.0, True, "half"])
def test_budgets_that_are_none(budget, pool):
    with raises(errors.BudgetError, "budget"):
        run("random", pool, budget)


def test_a_budget_beyond_the_valid_rows_is_an_error(pool):
    with raises(errors.BudgetError, 397, 400, 3):
        run("random", pool, 398)
    with raises(errors.BudgetError, "budget"):
        strategies.select("full", pool["embeds"], 10)


@pytest.mark.parametrize(
    ("inputs", "error", "values"),
    [
        ({"entropy": np.zeros(3)}, errors.ShapeError, ("entropy", 3)),
        ({"score": np.zeros((2, 2))}, errors.ShapeError, ("score",)),
        ({"score": ["a"] * N}, errors.DtypeError, ("score",)),
        ({"score": np.full(N, np.inf)}, errors.ArgumentError, ("score", 0)),
        ({"labels": np.zeros(N)}, errors.DtypeError, ("labels",)),
        ({"labels": np.full(N, -2)}, errors.ArgumentError, (0, -2)),
        ({"reference": np.zeros((2, 3))}, errors.ShapeError, ("reference",)),
        ({"reference": {}}, errors.EmptyInputError, ()),
        ({"seed": -1}, errors.ArgumentError, ("seed",)),
        ({"threads": 0}, errors.ArgumentError, ("threads",)),
    ],
)
def test_inputs_are_checked(inputs, error, values, pool):
    name = {"score": "d2", "reference": "vjepa2"}.get(next(iter(inputs)), "random")
    with raises(error, *values):
        run(name, pool, **inputs)


def test_clusters_are_those_of_fit_centroids_over_valid_rows(pool):
    got = run("cluster_nearest", pool, k=5, seed=3)
    fitted = rsprune.fit_centroids(pool["embeds"], 5, seed=3, n_init=1)
    assert same(got, run("cluster_nearest", pool, centroids=fitted))
    # Given centroids are used where k is not given.
    assert run("cluster_nearest", pool).k == K


def test_large_pools_are_fitted_on_a_random_sample(pool, monkeypatch):
    monkeypatch.setattr("rsprune.strategies.base.FIT_ROWS", 150)
    monkeypatch.setattr("rsprune.strategies.base.FIT_ROWS_PER_CLUSTER", 1)
    got = run("prototypes", pool, centroids=None, k=4, seed=1)
    draws = rsprune._core.hash64(1, 0, N)
    valid = [i for i in range(N) if i not in (7, 8)]
    rows = sorted(sorted(valid, key=lambda i: draws[i])[:150])
    fitted = rsprune.fit_centroids(pool["embeds"][rows], 4, seed=1, n_init=1)
    assert same(got, run("prototypes", pool, centroids=fitted))


def test_labels_are_groups_and_mark_invalid_rows(pool):
    labels = np.arange(N) % 3
    labels[20] = -1
    got = run("random", pool, 30, labels=labels, shares="even")
    assert got.invalid.tolist() == [7, 8, 9, 20]
    assert got.counts["quota"].tolist() == [10, 10, 10]
    assert np.isnan(got.similarity).all()


def test_herding_of_much_warns(pool, monkeypatch):
    monkeypatch.setattr(import_module("rsprune.strategies.herding"), "SLOW", 1e3)
    with warns(UserWarning, "shares=") as caught:
        strategies.select("herding", pool["embeds"], 0.1)
    assert caught[0].filename == __file__
    run("herding", pool, shares="proportional")


# --- helpers ----------------------------------------------------------------------------------------------------------


@given(st.lists(st.integers(-2, 2), min_size=1, max_size=20), st.integers(0, 20))
def test_top_rows_is_a_stable_sort(keys, count):
    rows = np.arange(len(keys))
    expected = sorted(sorted(rows.tolist(), key=lambda i: (keys[i], i))[:count])
    assert top_rows(np.array(keys), rows, count).tolist() == expected


def test_unknown_methods_and_needs():
    with raises(errors.ArgumentError, "magic", "rsprune", "full", "random"):
        strategies.get("magic")
    with raises(errors.ArgumentError, "'luck'"):
        strategies.strategy(needs=("luck",))


def test_importing_rsprune_imports_no_method():
    code = (
        "import sys, rsprune; before = [m for m in sys.modules if m.startswith('rsprune.strategies')];"
        "rsprune.strategies.names(); after = [m for m in sys.modules if m.startswith('rsprune.strategies.')];"
        "print(before, 'rsprune.strategies.dbp' in after)"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout.strip() == "[] False"


# --- the command line -------------------------------------------------------------------------------------------------


def test_strategies_are_listed(command):
    done = command("strategies")
    assert done.returncode == 0, done.stderr
    assert all(name in done.stdout for name in strategies.names())
    assert "needs embeds, reference, budget" in done.stdout
    assert "floor(n_l B / N)" in command("strategies", "cluster_nearest").stdout
    listed = json.loads(command("strategies", "--json").stdout)["strategies"]
    assert listed["ccs"]["options"] == {"beta": 0.2, "strata": 50, "k": None}
    assert command("strategies", "magic").returncode == 1


def test_select_by_any_strategy(command, pool, tmp_path):
    import pyarrow.parquet as pq

    np.save(tmp_path / "x.npy", pool["embeds"])
    np.save(tmp_path / "r.npy", pool["reference"])
    words = ["select", tmp_path / "x.npy", "--keep", "0.1", "-o", tmp_path / "s.parquet", "--seed", "4"]
    done = command(*words, "--strategy", "cluster_nearest", "-O", "k=5", "-O", "within=far", "-O", "topup=false")
    assert done.returncode == 0, done.stderr
    table = pq.read_table(tmp_path / "s.parquet")
    expected = strategies.select(
        "cluster_nearest", pool["embeds"], 0.1, k=5, within="far", topup=False, seed=4
    )  # fmt: skip
    assert table["row"].to_pylist() == expected.indices.tolist()
    about = json.loads(table.schema.metadata[b"rsprune"])
    assert about["strategy"] == "cluster_nearest"
    assert about["strategy_options"] == {"k": 5, "within": "far", "topup": False}
    done = command(*words, "--strategy", "vjepa2", "-r", tmp_path / "r.npy", "-O", "k=4")
    assert done.returncode == 0, done.stderr
    done = command(*words, "--strategy", "datacomp", "-r", tmp_path / "r.npy", "-O", "k=4", "--keep", "none", "--json")
    assert json.loads(done.stdout)["selected"] > 40
    done = command(*words)
    assert done.returncode == 1
    assert "needs centroids=" in done.stderr
    assert command(*words, "--strategy", "random", "-O", "k").returncode == 1
