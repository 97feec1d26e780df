"""The methods that compare rows with rows, each against an oracle written from its definition."""

import math

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

import rsprune
from failures import raises
from rsprune import _core
from rsprune.apportion import apportion
from rsprune.errors import ArgumentError, BudgetError, MissingInputError
from rsprune.strategies import get, select, select_from


def at_angles(*degrees: float) -> np.ndarray:
    """Unit vectors of the plane."""
    radians = np.deg2rad(degrees)
    return np.stack([np.cos(radians), np.sin(radians)], 1).astype(np.float32)


def dots(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """All dot products in eight lanes, padded with zeros, as the core defines them."""
    steps = -(-a.shape[1] // 8)
    wide = [np.zeros((len(m), steps * 8)) for m in (a, b)]
    for padded, m in zip(wide, (a, b), strict=True):
        padded[:, : m.shape[1]] = m
    products = (wide[0][:, None] * wide[1][None]).reshape(len(a), len(b), steps, 8)
    return tree(products.swapaxes(0, 2).swapaxes(1, 2))


def tree(terms: np.ndarray) -> np.ndarray:
    """The sum of (steps, ..., 8) terms: step after step, then lane with lane."""
    s = np.zeros(terms.shape[1:])
    for step in terms:
        s = s + step
    return ((s[..., 0] + s[..., 4]) + (s[..., 2] + s[..., 6])) + ((s[..., 1] + s[..., 5]) + (s[..., 3] + s[..., 7]))


def cosines(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """float32 similarities of all pairs, NaN for rows without a direction."""
    with np.errstate(invalid="ignore", divide="ignore"):
        norms = [np.sqrt(np.array([dots(row[None], row[None])[0, 0] for row in m])) for m in (a, b)]
        return (dots(a, b) / (norms[0][:, None] * norms[1][None])).astype(np.float32) + np.float32(0)


def neighbours(a: np.ndarray, b: np.ndarray, k: int, *, exclude_self: bool) -> list[list[int]]:
    lists = []
    for i, row in enumerate(cosines(a, b)):
        found = [
            j for j in np.lexsort((np.arange(len(b)), -row)) if not np.isnan(row[j]) and not (exclude_self and i == j)
        ]
        lists.append([int(j) for j in found[:k]])
    return lists


def components(n: int, edges: list[tuple[int, int]]) -> list[int]:
    lowest = list(range(n))
    for _ in range(n):
        for a, b in edges:
            lowest[a] = lowest[b] = min(lowest[a], lowest[b])
    return lowest


@st.composite
def pools(draw: st.DrawFn, most: int = 24) -> np.ndarray:
    """Rows with duplicates, near-duplicates, ties, and now and then one without a direction."""
    n, dim = draw(st.integers(2, most)), draw(st.integers(2, 11))
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    rows = rng.standard_normal((n, dim)) if draw(st.booleans()) else rng.integers(-2, 3, (n, dim))
    rows = rows.astype(np.float32)
    rows[~rows.any(1)] = 1
    for i in np.flatnonzero(rng.random(n) < 0.4):
        rows[i] = rows[rng.integers(n)] * rng.choice([1, 1, 2])
    rows[rng.random(n) < 0.3] += np.float32(0.01)
    rows[~rows.any(1)] = 1
    if n > 3 and draw(st.booleans()):
        rows[rng.integers(n)] = 0
    return rows


def valid_rows(rows: np.ndarray) -> list[int]:
    return [i for i in range(len(rows)) if rows[i].any()]


def some_centroids(rows: np.ndarray) -> np.ndarray:
    vectors = rows[valid_rows(rows)][:3] + np.float32(0.5) * (np.arange(rows.shape[1]) == 0)
    vectors[~vectors.any(1)] = 1
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


# --- SemDeDup ---------------------------------------------------------------------------------------------------------


def semdedup_oracle(rows: np.ndarray, centroids: np.ndarray, within: str, mode: str, eps: float, seed: int):
    labels, similarity = rsprune.assign(rows, centroids)
    pairs, threshold = cosines(rows, rows), np.float32(1 - eps)
    draws = _core.hash64(seed, 0, len(rows))
    nearest, kept = {}, []
    for cluster in range(len(centroids)):
        key = {"far": similarity, "nearest": -similarity, "random": draws}[within]
        order = sorted((i for i in range(len(rows)) if labels[i] == cluster), key=lambda i: (key[i], i))
        remain: list[int] = []
        for place, i in enumerate(order):
            nearest[i] = max([np.float32(0), *(pairs[i, j] for j in order[:place])])
            compared = order[:place] if mode == "first_seen" else remain
            if not any(pairs[i, j] > threshold for j in compared):
                remain.append(i)
        if mode == "components":
            edges = [(a, b) for a in order for b in order if pairs[a, b] > threshold]
            roots = components(len(rows), edges)
            remain = [i for place, i in enumerate(order) if roots[i] not in [roots[j] for j in order[:place]]]
        kept += remain
    return sorted(kept), nearest


@settings(max_examples=60, deadline=None)
@given(
    pools(),
    st.sampled_from(["far", "nearest", "random"]),
    st.sampled_from(["first_seen", "greedy", "components"]),
    st.floats(0, 1),
)
def test_semdedup_equals_its_oracle(rows, within, mode, eps):
    centroids = some_centroids(rows)
    expected, nearest = semdedup_oracle(rows, centroids, within, mode, eps, seed=7)
    chosen = select("semdedup", rows, centroids=centroids, eps=eps, within=within, mode=mode, seed=7)
    assert chosen.indices.tolist() == expected
    budget = (len(nearest) + 1) // 2
    chosen = select("semdedup", rows, budget, centroids=centroids, within=within, seed=7)
    assert chosen.indices.tolist() == sorted(sorted(nearest, key=lambda i: (nearest[i], i))[:budget])


def test_semdedup_of_three_directions():
    # Neighbours at 8 degrees have a cosine of 0.990, above 1 - 0.0125; 0 and 16 degrees one of 0.961.
    rows, options = at_angles(0, 8, 16), {"centroids": at_angles(0), "eps": 0.0125}
    assert select("semdedup", rows, **options).indices.tolist() == [2]
    assert select("semdedup", rows, **options, within="nearest").indices.tolist() == [0]
    assert select("semdedup", rows, **options, mode="greedy").indices.tolist() == [0, 2]
    assert select("semdedup", rows, **options, mode="components").indices.tolist() == [2]
    assert select("semdedup", rows, centroids=at_angles(0), eps=0.005).indices.tolist() == [0, 1, 2]
    # Row 0 and row 1 are as far from an earlier one up to rounding: the budget of 2 takes the farther, or the lower.
    assert 2 in select("semdedup", rows, 2, centroids=at_angles(0)).indices


def test_semdedup_says_what_excludes_what():
    rows = at_angles(0, 8, 16)
    for options in ({"eps": 0.1}, {"mode": "greedy"}):
        with raises(ArgumentError, "budget"):
            select("semdedup", rows, 2, k=1, **options)
    for options in ({"eps": 1.5}, {"eps": -0.1}, {"within": "soft"}, {"mode": "pairs"}):
        with raises(ArgumentError, next(iter(options))):
            select("semdedup", rows, k=1, **options)


# --- k-center ---------------------------------------------------------------------------------------------------------


def kcenter_oracle(pairs: np.ndarray, rows: list[int], first: int, budget: int, least: float) -> list[int]:
    chosen = [first]
    while len(chosen) < min(budget, len(rows)):
        nearest = {i: max(pairs[i, a] for a in chosen) for i in rows if i not in chosen}
        best = min(nearest, key=lambda i: (nearest[i], i))
        if least > 0 and math.sqrt(max(2 - 2 * float(nearest[best]), 0)) <= least:
            break
        chosen.append(best)
    return chosen


@settings(max_examples=60, deadline=None)
@given(pools(), st.integers(0, 23), st.integers(1, 24), st.floats(0, 1.5))
def test_kcenter_equals_its_oracle(rows, first, budget, least):
    valid = valid_rows(rows)
    first, budget = valid[first % len(valid)], min(budget, len(valid))
    pairs = cosines(rows, rows)
    chosen = select("kcenter", rows, budget, first=first)
    assert chosen.indices.tolist() == sorted(kcenter_oracle(pairs, valid, first, budget, 0))
    chosen = select("kcenter", rows, budget, first=first, min_distance=least)
    assert chosen.indices.tolist() == sorted(kcenter_oracle(pairs, valid, first, budget, least))


@settings(max_examples=30, deadline=None)
@given(pools(), st.integers(1, 24))
def test_kcenter_within_clusters_equals_its_oracle(rows, budget):
    valid = valid_rows(rows)
    budget = min(budget, len(valid))
    centroids, pairs = some_centroids(rows), cosines(rows, rows)
    labels = rsprune.assign(rows, centroids).labels
    draws = _core.hash64(3, 0, len(rows))
    members = [[i for i in valid if labels[i] == k] for k in range(len(centroids))]
    sizes = [len(one) for one in members]
    expected = []
    for one, count in zip(members, apportion(budget, sizes, upper=sizes), strict=True):
        if count:
            expected += kcenter_oracle(pairs, one, min(one, key=lambda i: draws[i]), int(count), 0)
    chosen = select("kcenter", rows, budget, centroids=centroids, shares="proportional", first="random", seed=3)
    assert chosen.indices.tolist() == sorted(expected)


def test_kcenter_of_five_directions():
    rows = at_angles(0, 12, 90, 180, 170)
    for budget, expected in ((1, [0]), (2, [0, 3]), (3, [0, 2, 3]), (4, [0, 1, 2, 3])):
        assert select("kcenter", rows, budget, first=0).indices.tolist() == expected
    # Their mean points to about 88 degrees.
    assert select("kcenter", rows, 1).indices.tolist() == [2]
    # 12 and 170 degrees are no farther than 0.21 from 0 and 180.
    assert select("kcenter", rows, first=0, min_distance=0.25).indices.tolist() == [0, 2, 3]


def test_kcenter_takes_equal_rows_last():
    rows = np.repeat(at_angles(0, 90), 4, 0)
    assert select("kcenter", rows, 2, first=1).indices.tolist() == [1, 4]
    assert len(select("kcenter", rows, 8, first=1)) == 8
    assert select("kcenter", rows, first=1, min_distance=0.1).indices.tolist() == [1, 4]


def test_kcenter_says_what_it_needs():
    rows = np.concatenate([at_angles(0, 90), np.zeros((1, 2), np.float32)])
    with raises(BudgetError, "min_distance"):
        select("kcenter", rows)
    for first in (2, 5, -1, "last", True):
        with raises(ArgumentError, "first"):
            select("kcenter", rows, 1, first=first)
    with raises(ArgumentError, "first"):
        select("kcenter", rows, 1, first=0, shares="proportional", k=1)
    with raises(ArgumentError, "min_distance"):
        select("kcenter", rows, 1, min_distance=3)


# --- facility location ------------------------------------------------------------------------------------------------


def facility_oracle(weights: np.ndarray, members: list[int], budget: int, lanes: int) -> list[int]:
    """Greedy; ``weights[i, j]`` is the similarity of j to i, -1 where j does not cover i."""
    cover, chosen = np.full(len(weights), -1.0), []
    while len(chosen) < budget:
        terms = np.maximum(weights[members] - cover[members, None], 0)
        steps = -(-len(members) // lanes)
        padded = np.zeros((steps * lanes, len(weights)))
        padded[: len(members)] = terms
        if lanes == 8:
            gains = tree(padded.reshape(steps, 8, -1).swapaxes(1, 2))
        else:
            gains = np.zeros(len(weights))
            for row in padded:
                gains = gains + row
        best = max((j for j in members if j not in chosen), key=lambda j: (gains[j], -j))
        chosen.append(best)
        cover = np.maximum(cover, weights[:, best])
    return chosen


@settings(max_examples=40, deadline=None)
@given(pools(), st.integers(1, 24), st.booleans())
def test_facility_location_within_clusters_equals_its_oracle(rows, budget, balanced):
    valid = valid_rows(rows)
    budget = min(budget, len(valid))
    centroids = some_centroids(rows)
    labels = rsprune.assign(rows, centroids).labels
    weights = np.nan_to_num(cosines(rows, rows).astype(np.float64))
    members = [[i for i in valid if labels[i] == k] for k in range(len(centroids))]
    sizes = [len(one) for one in members]
    counts = apportion(budget, 1 if balanced else sizes, upper=sizes)
    expected = [
        i for one, count in zip(members, counts, strict=True) for i in facility_oracle(weights, one, int(count), 8)
    ]
    chosen = select(
        "facility_location", rows, budget, centroids=centroids, shares="even" if balanced else "proportional"
    )
    assert chosen.indices.tolist() == sorted(expected)


@settings(max_examples=40, deadline=None)
@given(pools(), st.integers(1, 24), st.integers(1, 6))
def test_facility_location_on_a_graph_equals_its_oracle(rows, budget, k):
    valid = valid_rows(rows)
    budget, k = min(budget, len(valid)), min(k, len(valid) - 1)
    pairs, weights = cosines(rows, rows), np.full((len(rows), len(rows)), -1.0)
    for i, found in enumerate(neighbours(rows, rows, k + 1, exclude_self=False)):
        for j in found:
            weights[i, j] = pairs[i, j]
        weights[i, i] = 1.0 if i in valid else -1.0
    expected = facility_oracle(weights, valid, budget, 1)
    chosen = select("facility_location", rows, budget, n_neighbors=k)
    assert chosen.indices.tolist() == sorted(expected)


def test_facility_location_of_four_directions():
    # The sums of (1 + cos) / 2 are 3.49, 3.54, 3.58 and 2.61; then 90 degrees adds 0.41, the others next to nothing.
    rows = at_angles(0, 5, 10, 90)
    assert select("facility_location", rows, 1, centroids=at_angles(20)).indices.tolist() == [2]
    assert select("facility_location", rows, 2, centroids=at_angles(20)).indices.tolist() == [2, 3]
    # Each covers itself and its nearest: 5 degrees covers 0, 5 and 10 (nearest of 0 and 10), and 90 covers itself.
    assert select("facility_location", rows, 2, n_neighbors=1).indices.tolist() == [1, 3]


# --- D2 ---------------------------------------------------------------------------------------------------------------


def d2_oracle(rows, scores, k, gamma, forward, budget):
    valid, pairs = valid_rows(rows), cosines(rows, rows)
    edges: list[set[int]] = [set() for _ in rows]
    for i, found in enumerate(neighbours(rows, rows, k, exclude_self=True)):
        for j in found:
            edges[i].add(j)
            edges[j].add(i)
    distance = np.sqrt(np.maximum(2 - 2 * pairs.astype(np.float64), 0))
    u = {}
    for i in valid:
        messages = [math.exp(-distance[i, j]) * scores[j] for j in sorted(edges[i])]
        u[i] = scores[i] * math.prod(messages) if forward == "product" else scores[i] + sum(messages)
    chosen: list[int] = []
    while len(chosen) < budget:
        left = sorted((i for i in valid if i not in chosen), key=lambda i: (u[i], -i))
        best = left[-1]
        # Sums that differ in the last bits of an exponential alone are not the matter here.
        assume(len(left) == 1 or u[best] - u[left[-2]] > 1e-9 * abs(u[best]))
        chosen.append(best)
        for j in edges[best]:
            u[j] -= math.exp(-gamma * distance[best, j]) * u[best]
    return chosen


@settings(max_examples=50, deadline=None)
@given(
    pools(),
    st.integers(1, 24),
    st.integers(1, 5),
    st.sampled_from([0.1, 1.0]),
    st.sampled_from(["sum", "product"]),
    st.sampled_from(["weighted", "absolute"]),
    st.integers(0, 2**32),
)
def test_d2_equals_its_oracle(rows, budget, k, gamma, forward, reverse, seed):
    valid = valid_rows(rows)
    budget, k = min(budget, len(valid)), min(k, len(valid) - 1)
    scores = np.random.default_rng(seed).random(len(rows)) + 0.5
    faded = 0.0 if reverse == "absolute" else gamma
    expected = d2_oracle(rows, scores, k, faded, forward, budget)
    options = {"n_neighbors": k, "gamma": gamma, "forward": forward, "reverse": reverse}
    assert select("d2", rows, budget, score=scores, **options).indices.tolist() == sorted(expected)


def test_d2_of_three_directions():
    # Edges 0 - 10 and 10 - 90. u = 1.84, 2.12, 1.28; without what 10 degrees passes back, 0.06 and 0.69.
    rows = at_angles(0, 10, 90)
    assert select("d2", rows, 1, n_neighbors=1).indices.tolist() == [1]
    assert select("d2", rows, 2, n_neighbors=1).indices.tolist() == [1, 2]
    # A high score of the first: u = 9.84, 9.83, 1.28, then 10 degrees is left with less than 90.
    assert select("d2", rows, 2, n_neighbors=1, score=[9, 1, 1]).indices.tolist() == [0, 2]
    # Ranks of entropy, 1/3, 1 and 1/3... of equal ones the same.
    bits = [3.0, 5.0, 3.0]
    by_rank = select("d2", rows, 2, n_neighbors=1, entropy=bits).indices
    assert by_rank.tolist() == select("d2", rows, 2, n_neighbors=1, score=[2 / 3, 1, 2 / 3]).indices.tolist()


# --- DINOv2 -----------------------------------------------------------------------------------------------------------


@settings(max_examples=40, deadline=None)
@given(pools(), pools(8), st.integers(1, 5), st.floats(0, 0.5), st.floats(0, 0.5), st.booleans(), st.integers(0, 9))
def test_dinov2_equals_its_oracle(rows, others, k, eps, leak_eps, by_score, seed):
    dim = min(rows.shape[1], others.shape[1])
    rows, others = np.ascontiguousarray(rows[:, :dim]), np.ascontiguousarray(others[:, :dim])
    rows[~rows.any(1)] = others[~others.any(1)] = 1
    score = np.random.default_rng(seed).integers(0, 3, len(rows)).astype(float)

    def roots(values, eps):
        pairs = cosines(values, values)
        found = neighbours(values, values, min(k, len(values) - 1), exclude_self=True)
        return components(
            len(values), [(i, j) for i in range(len(values)) for j in found[i] if pairs[i, j] > np.float32(1 - eps)]
        )

    first = roots(rows, eps)
    best = (lambda i: (-score[i], i)) if by_score else (lambda i: i)
    pool = sorted(min((i for i in range(len(rows)) if first[i] == root), key=best) for root in set(first))
    second = roots(np.concatenate([rows[pool], others]), leak_eps)
    pool = [i for place, i in enumerate(pool) if second[place] not in second[len(pool) :]]
    if not pool:
        return
    options = {"eps": eps, "leak_eps": leak_eps, "held_out": ["tests"], "n_neighbors": k}
    inputs = {"reference": {"tests": others, "train": rows[:2]}, "score": score if by_score else None}
    assert select("dinov2", rows, mode="none", **inputs, **options).indices.tolist() == pool
    nearest = neighbours(rows[:2], rows[pool], 2, exclude_self=False)
    expected = sorted({pool[j] for found in nearest for j in found})
    assert select("dinov2", rows, **inputs, **options, n_retrieved=2).indices.tolist() == expected


@settings(max_examples=30, deadline=None)
@given(pools(), st.integers(1, 24), st.integers(1, 3), st.integers(1, 4), st.integers(0, 9))
def test_dinov2_by_cluster_equals_its_oracle(rows, budget, min_hits, per_cluster, seed):
    valid, centroids = valid_rows(rows), some_centroids(rows)
    sets = {"a": rows[valid[::2]], "b": rows[valid[:3]] + np.float32(0.25)}
    labels = rsprune.assign(rows, centroids).labels
    draws = _core.hash64(seed, 0, len(rows))
    of_set: dict[str, list[int]] = {"a": [], "b": []}
    for name, references in sets.items():
        hits = np.bincount(rsprune.assign(references, centroids).labels, minlength=len(centroids))
        for cluster in np.flatnonzero(hits >= min_hits):
            members = sorted((i for i in valid if labels[i] == cluster), key=lambda i: (draws[i], i))
            of_set[name] += members[:per_cluster]
    of_set["b"] = [i for i in of_set["b"] if i not in of_set["a"]]
    everything = sorted(of_set["a"] + of_set["b"])
    options = {"mode": "cluster", "min_hits": min_hits, "rows_per_cluster": per_cluster, "seed": seed}
    inputs = {"reference": sets, "centroids": centroids}
    assert select("dinov2", rows, **inputs, **options).indices.tolist() == everything
    if budget > len(everything):
        with raises(BudgetError, len(everything) if budget <= len(valid) else budget):
            select("dinov2", rows, budget, **inputs, **options)
        return
    counts = apportion(budget, upper=[len(of_set["a"]), len(of_set["b"])])
    expected = [
        i
        for one, count in zip(of_set.values(), counts, strict=True)
        for i in sorted(one, key=lambda i: (draws[i], i))[:count]
    ]
    assert select("dinov2", rows, budget, **inputs, **options).indices.tolist() == sorted(expected)


def test_dinov2_of_four_directions():
    rows, reference = at_angles(5, 40, 90, 92), at_angles(0)
    assert select("dinov2", rows, reference=reference, n_retrieved=1).indices.tolist() == [0]
    assert select("dinov2", rows, reference=reference, n_retrieved=2).indices.tolist() == [0, 1]
    # As many neighbours as the budget takes.
    assert select("dinov2", rows, 3, reference=reference).indices.tolist() == [0, 1, 2]
    # Only 90 and 92 degrees are as near as 0.99; of them the lower remains, or the one of the better score.
    alone = {"mode": "none", "eps": 0.01}
    assert select("dinov2", rows, **alone).indices.tolist() == [0, 1, 2]
    assert select("dinov2", rows, **alone, score=[0, 0, 1, 2]).indices.tolist() == [0, 1, 3]
    # An evaluation image at 91 degrees takes both away.
    leak = {"reference": at_angles(91), "held_out": "reference", "leak_eps": 0.01}
    assert select("dinov2", rows, mode="none", **leak).indices.tolist() == [0, 1]


def test_dinov2_says_what_it_lacks():
    rows = at_angles(5, 40, 90, 92)
    with raises(MissingInputError, "reference"):
        select("dinov2", rows, 2)
    with raises(ArgumentError, "held_out"):
        select("dinov2", rows, 2, reference=rows, held_out=["tests"])
    with raises(BudgetError, "n_retrieved"):
        select("dinov2", rows, 4, reference=at_angles(0), n_retrieved=2)
    for options in (
        {"mode": "both"},
        {"eps": 2.5},
        {"min_hits": 0},
        {"n_retrieved": 0},
        {"n_neighbors": 1.5},
        {"cap": 0},
    ):
        with raises(ArgumentError, next(iter(options))):
            select("dinov2", rows, 2, reference=at_angles(0), **options)


# --- all of them ------------------------------------------------------------------------------------------------------

CASES = [
    ("semdedup", {"k": 5}),
    ("semdedup", {"k": 5, "within": "random", "mode": "greedy", "eps": 0.05}),
    ("semdedup", {"k": 5, "mode": "components", "eps": 0.05}),
    ("kcenter", {}),
    ("kcenter", {"shares": "proportional", "k": 5}),
    ("facility_location", {"k": 5}),
    ("facility_location", {"n_neighbors": 8}),
    ("d2", {}),
    ("dinov2", {}),
    ("dinov2", {"mode": "cluster", "k": 8, "min_hits": 1}),
]


@pytest.mark.parametrize(("name", "options"), CASES)
def test_the_same_rows_with_any_threads_and_storage(name, options, tmp_path):
    rng = np.random.default_rng(5)
    rows = (rng.standard_normal((12, 24))[rng.integers(12, size=600)] + 0.1 * rng.standard_normal((600, 24))).astype(
        np.float16
    )
    budget = None if "eps" in options else 90
    select = lambda embeds, threads: select_from(  # noqa: E731
        name, {"embeds": embeds, "reference": rows[::7]}, budget, seed=11, threads=threads, **options
    )
    expected = select(rows, 1).indices
    assert budget is None or len(expected) == budget
    np.save(tmp_path / "rows.npy", rows)
    for embeds, threads in ((rows, 3), ([rows[:100], rows[100:].astype(np.float32)], 2), (tmp_path / "rows.npy", None)):
        assert np.array_equal(select(embeds, threads).indices, expected)


@pytest.mark.parametrize("name", ["semdedup", "kcenter", "facility_location", "d2", "dinov2"])
def test_rows_that_are_invalid_for_any_reason_are_left_out(name):
    rng = np.random.default_rng(6)
    rows, score = rng.standard_normal((40, 6)).astype(np.float32), rng.random(40)
    rows[3], rows[4], score[5] = 0, np.nan, np.nan
    reference = {"reference": rows[10:20]} if name == "dinov2" else {}
    options = {"k": 2} if name in ("semdedup", "facility_location") else {}
    labels = np.where(np.isnan(score), -1, 0)
    columns = get(name).usable({"score": score, "labels": labels, "entropy": score})
    chosen = select_from(name, {"embeds": rows, **reference, **columns}, 37 if columns else 38, **options)
    invalid = [3, 4, 5] if columns else [3, 4]
    assert chosen.indices.tolist() == [i for i in range(40) if i not in invalid]
    assert chosen.invalid.tolist() == invalid
