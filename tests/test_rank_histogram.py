"""Histograms of scores that merge: shards are selected from as the whole is, without holding all rows."""

import pickle

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from failures import raises
from rsprune._core import RankHistogram
from rsprune.errors import ArgumentError, ShapeError
from small_problems import select_quietly

K = 5


def rows_of(seed, n):
    """Labels and similarities with ties, invalid rows and scores beyond the range of the histogram."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(-1, K, n).astype(np.int32)
    similarity = rng.normal(0.4, 0.4, n).round(rng.integers(1, 6)).astype(np.float32)
    similarity[rng.random(n) < 0.05] = np.nan
    return labels, similarity


@given(st.integers(0, 2**32), st.integers(1, 300), st.integers(1, 250), st.sampled_from(["global", "none"]), st.data())
def test_shards_are_selected_from_as_the_whole(seed, n, budget, fill, data):
    labels, similarity = rows_of(seed, n)
    shards = np.array_split(np.arange(n), data.draw(st.integers(1, 6)))
    parts = []
    buckets = data.draw(st.sampled_from([1, 16, 200]))
    for shard in shards:
        part = RankHistogram(K, -1.0, 1.0, buckets=buckets)
        part.update(similarity[shard], labels[shard])
        parts.append(pickle.loads(pickle.dumps(part)))
    total = RankHistogram(K, -1.0, 1.0, buckets=buckets)
    for i in data.draw(st.permutations(range(len(parts)))):
        total.merge(parts[i])
    valid = (labels >= 0) & ~np.isnan(similarity)
    assert total.totals().tolist() == np.bincount(labels[valid], minlength=K).tolist()
    if not valid.any():
        return
    limits = total.selection_limits(budget)
    listed = np.concatenate([shard[(valid & (similarity >= limits[labels]))[shard]] for shard in shards])
    budget = min(budget, int(valid.sum()))
    whole = {"labels": labels, "similarity": similarity, "budget": budget, "k": K}
    candidates = {
        "labels": labels[listed],
        "similarity": similarity[listed],
        "budget": min(budget, len(listed)),
        "k": K,
    }
    expected, got = select_quietly(whole, fill=fill), select_quietly(candidates, fill=fill)
    if budget <= len(listed):
        np.testing.assert_array_equal(listed[got.indices], expected.indices)
        np.testing.assert_array_equal(got.phase, expected.phase)
    else:
        assert fill == "none"


@given(st.integers(0, 2**32), st.integers(1, 300), st.integers(0, 300))
def test_limits_of_entropies_hold_the_best_rows(seed, n, rank):
    entropy = np.random.default_rng(seed).uniform(0, 8, n).round(2)
    entropy[::7] = np.nan
    histogram = RankHistogram(1, 0.0, 8.0)
    histogram.update(entropy)
    limit = histogram.limits(np.array([rank]))[0]
    readable = np.sort(entropy[~np.isnan(entropy)])[::-1]
    listed = readable[readable >= limit]
    assert len(listed) >= min(rank, len(readable))
    # No more than the rest of one of 4,096 buckets beyond the best.
    if 0 < rank < len(readable):
        assert listed[-1] >= readable[rank - 1] - 8 / 4096 * 2


def test_histograms_of_another_kind_do_not_merge():
    histogram = RankHistogram(2, 0.0, 1.0, buckets=8)
    with raises(ShapeError):
        histogram.merge(RankHistogram(2, 0.0, 2.0, buckets=8))
    with raises(ArgumentError, 2):
        histogram.update(np.zeros(1), np.array([2], np.int32))
    with raises(ArgumentError):
        RankHistogram(0, 0.0, 1.0)
