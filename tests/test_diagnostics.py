"""How many centroids, and which pruning ratio: against data whose answer is known, and the definitions."""

import itertools
import math
from xml.etree import ElementTree

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from failures import raises
from rsprune import errors
from rsprune.evaluation import redundancy, sweep
from rsprune.evaluation.diagnostics import same_partition
from rsprune.experiments import diagnose


def places(n_places, each, dim=24, noise=0.01, seed=0):
    """Rows around so many directions that are far apart."""
    rng = np.random.default_rng(seed)
    directions = np.linalg.qr(rng.normal(size=(dim, dim)))[0][:n_places]
    rows = np.repeat(directions, each, axis=0) + rng.normal(size=(n_places * each, dim)) * noise
    return rows[rng.permutation(len(rows))].astype(np.float32)


def test_a_sweep_finds_the_number_of_places():
    trials = sweep(places(8, 20), places(8, 50, seed=1), ks=(2, 8, 16), keep=0.2)
    few, right, many = trials
    assert few.reference_similarity < 0.9 < right.reference_similarity
    assert many.reference_similarity - right.reference_similarity < 0.01
    assert (few.k, right.k, many.k) == (2, 8, 16)
    assert right.reference_spread < few.reference_spread + 0.2


def test_trials_are_what_their_names_say():
    reference, pool = places(5, 30), places(4, 40, seed=0)
    (trial,) = sweep(reference, pool, ks=(5,), keep=0.25, seeds=(0,))
    # One of five directions has no row in the pool; the others have 40 each, of which the quota of 40 / 5 is taken.
    assert (trial.empty, trial.smallest, trial.median, trial.largest) == (0.2, 40, 40, 40)
    assert trial.fill_share == pytest.approx(8 / 40)
    assert (trial.fill_spread, trial.agreement, trial.overlap) == (0, None, None)
    assert trial.reference_similarity == pytest.approx(1, abs=0.01)


def test_a_sweep_of_nothing_is_refused():
    rows = places(3, 10)
    with raises(errors.ArgumentError):
        sweep(rows, rows, ks=())
    with raises(errors.ArgumentError, "holdout", 1):
        sweep(rows, rows, holdout=1)
    with raises(errors.ArgumentError, 25):
        sweep(rows, rows)


# --- adjusted Rand index ----------------------------------------------------------------------------------------------


@given(st.integers(2, 20), st.integers(1, 5), st.integers(1, 5), st.integers(0, 9999))
def test_agreement_is_counted_over_all_pairs(n, i, j, seed):
    rng = np.random.default_rng(seed)
    a, b = rng.integers(0, i, n).astype(np.int32), rng.integers(0, j, n).astype(np.int32)
    pairs = list(itertools.combinations(range(n), 2))
    together = sum(a[u] == a[v] and b[u] == b[v] for u, v in pairs)
    in_a, in_b = (sum(x[u] == x[v] for u, v in pairs) for x in (a, b))
    chance, most = in_a * in_b / len(pairs), (in_a + in_b) / 2
    expected = 1 if most == chance else (together - chance) / (most - chance)
    assert same_partition(a, b) == pytest.approx(expected)
    padded = (np.append(a, -1).astype(np.int32), np.append(b, 3).astype(np.int32))
    assert same_partition(*padded) == pytest.approx(expected)


def test_agreement_knows_no_names():
    labels = np.array([0, 0, 1, 1, 2], np.int32)
    assert same_partition(labels, (2 - labels).astype(np.int32)) == 1


# --- redundancy -------------------------------------------------------------------------------------------------------


def test_the_knee_of_copies_is_the_number_of_originals():
    rows = places(20, 1, noise=0)
    found = redundancy(np.repeat(rows, 5, axis=0))
    assert (found.keep, found.height) == (pytest.approx(0.2), pytest.approx(0.8, abs=0.01))
    assert found.novelty[19] == pytest.approx(math.sqrt(2), abs=1e-3)
    assert found.novelty[20:].max() < 1e-3
    share, curve = found.curve(10)
    assert (share[2], curve[2]) == (pytest.approx(0.2), pytest.approx(1, abs=0.01))
    assert (curve[0], curve[-1]) == (0, 1)
    assert (np.diff(curve) >= -1e-12).all()


@given(st.integers(3, 25), st.integers(2, 6), st.integers(0, 9999))
def test_novelty_is_the_distance_to_all_before(n, dim, seed):
    rows = np.random.default_rng(seed).normal(size=(n, dim)).astype(np.float32)
    found = redundancy(rows)
    unit = rows / np.linalg.norm(rows.astype(np.float64), axis=1, keepdims=True)
    distances = np.sqrt(np.clip(2 - 2 * unit @ unit.T, 0, None))
    assert sorted(found.rows.tolist()) == list(range(n))
    for place in range(1, n):
        before, rest = found.rows[:place], found.rows[place:]
        to_all = distances[np.ix_(rest, before)].min(axis=1)
        # Similarities below 0 count as 0: rows at right angles are as new as can be.
        assert found.novelty[place] == pytest.approx(min(to_all[0], math.sqrt(2)), abs=1e-3)
        assert to_all[0] == pytest.approx(to_all.max(), abs=1e-3)
    # The knee is where the curve is highest above the diagonal.
    share, curve = np.arange(n + 1) / n, np.concatenate([[0], np.cumsum(found.novelty)]) / found.novelty.sum()
    assert curve[round(found.keep * n)] - found.keep == pytest.approx((curve - share).max(), abs=1e-9)
    assert found.height == pytest.approx((curve - share).max(), abs=1e-9)


def test_invalid_rows_and_samples():
    rows = places(10, 30)
    broken = np.concatenate([rows, np.full((3, 24), np.nan, np.float32)])
    assert redundancy(broken).keep == redundancy(rows).keep
    some = redundancy(rows, sample=100, seed=3)
    assert len(some.novelty) == 100
    assert some.rows.tolist() == redundancy(rows, sample=100, seed=3, threads=1).rows.tolist()
    with raises(errors.ArgumentError, 1):
        redundancy(rows[:1])


# --- the command ------------------------------------------------------------------------------------------------------


def test_a_run_is_diagnosed(embedded_run, command, tmp_path):
    found = diagnose(embedded_run, out=tmp_path / "a", ks=(2, 4), keep=0.2, seeds=2)
    assert [trial.k for trial in found.trials] == [2, 4]
    assert (tmp_path / "a" / "sweep.csv").read_text().count("\n") == 3
    assert "knee" in (tmp_path / "a" / "sweep.txt").read_text()
    ElementTree.parse(tmp_path / "a" / "sweep.svg")
    words = ["centroids", embedded_run, "--sweep", "--ks", "2,4", "--seeds", "2", "--keep", "0.2", "-o", tmp_path / "b"]
    done = command(*words)
    assert done.returncode == 0, done.stderr
    assert "the knee is at keep" in done.stdout
    assert (tmp_path / "b" / "sweep.csv").read_bytes() == (tmp_path / "a" / "sweep.csv").read_bytes()
    assert command("centroids", embedded_run, embedded_run, "--sweep", "-o", tmp_path / "c").returncode == 2
