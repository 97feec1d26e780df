"""Every selection method against a literal reading of its definition, on data full of ties, duplicates and bad rows."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import oracles
import rsprune
from failures import raises
from oracles import dot, hash64, proportional, unit, water_level
from rsprune import strategies


class Pool:
    """Rows, some invalid, and centroids; the assignment by definition."""

    def __init__(self, rng, n, dim, k, lattice, bad):
        self.x = (rng.integers(-2, 3, (n, dim)) if lattice else rng.normal(size=(n, dim))).astype(np.float32)
        self.x[:2] = 1.0  # two valid rows at least, and duplicates
        for row in range(2, min(n, 2 + bad)):
            self.x[row] = [np.nan, 0.0, np.inf][row % 3]
        self.centroids = unit(rng.normal(size=(k, dim)))
        self.labels, self.similarity = oracles.assign(self.x, self.centroids)
        self.rows = [i for i in range(n) if self.labels[i] >= 0]
        self.members = [[i for i in self.rows if self.labels[i] == c] for c in range(k)]
        self.k, self.n, self.rng = k, n, rng

    def select(self, name, budget, **inputs):
        known = {one: inputs.pop(one) for one in ("entropy", "score", "labels", "reference") if one in inputs}
        known |= {"embeds": self.x, "centroids": self.centroids}
        return strategies.select_from(name, known, budget, **inputs)

    def units(self, rows):
        x = self.x[rows].astype(np.float64)
        return x / np.sqrt(dot(x, x))[:, None]

    def sim(self, i):
        return float(self.similarity[i]) + 0.0


@st.composite
def pools(draw):
    """A pool and a budget that it can meet."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    n, dim, k = draw(st.integers(4, 50)), draw(st.integers(2, 11)), draw(st.integers(1, 6))
    pool = Pool(rng, n, dim, k, draw(st.booleans()), draw(st.integers(0, 5)))
    return pool, draw(st.integers(1, len(pool.rows)))


POLES = np.array([[1.0, 0.0], [-1.0, 0.0]])


def flat(lists):
    return [i for one in lists for i in one]


# --- random, entropy, full --------------------------------------------------------------------------------------------


@given(pools(), st.integers(0, 2**40))
def test_random_takes_the_smallest_draws(case, seed):
    pool, budget = case
    expected = sorted(sorted(pool.rows, key=lambda i: (hash64(seed, i), i))[:budget])
    assert pool.select("random", budget, seed=seed).indices.tolist() == expected
    shares = water_level(budget, [0] * pool.k, [len(m) for m in pool.members])
    expected = [sorted(m, key=lambda i: hash64(seed, i))[:b] for m, b in zip(pool.members, shares, strict=True)]
    got = pool.select("random", budget, seed=seed, shares="even")
    assert got.indices.tolist() == sorted(flat(expected))
    assert got.cluster.tolist() == [pool.labels[i] for i in got.indices]


@given(st.lists(st.sampled_from([0.0, -0.0, 1.5, 3.0, math.nan]), min_size=1, max_size=30), st.data())
def test_entropy_is_a_rank_cut(bits, data):
    rows = [i for i, h in enumerate(bits) if not math.isnan(h)]
    if not rows:
        return
    budget = data.draw(st.integers(1, len(rows)))
    expected = sorted(sorted(rows, key=lambda i: (-bits[i] + 0.0, i))[:budget])
    got = strategies.select("entropy", None, budget, entropy=bits)
    assert got.indices.tolist() == expected
    assert got.invalid.tolist() == [i for i in range(len(bits)) if i not in rows]


@given(pools())
def test_full_is_every_valid_row(case):
    pool, _ = case
    assert strategies.select("full", pool.x).indices.tolist() == pool.rows


# --- rsprune ----------------------------------------------------------------------------------------------------------


@given(
    pools(), st.sampled_from(["global", "waterfill", "zscore"]), st.sampled_from(["nearest", "far", "mid", "random"])
)
@pytest.mark.filterwarnings("ignore::UserWarning")
def test_rsprune_is_select(case, fill, within):
    pool, budget = case
    within = "nearest" if fill == "zscore" else within
    expected = rsprune.select(pool.x, pool.centroids, budget, fill=fill, within=within)
    got = pool.select("rsprune", budget, fill=fill, within=within)
    for name in ("indices", "cluster", "similarity", "phase", "counts", "invalid"):
        assert getattr(got, name).tobytes() == getattr(expected, name).tobytes(), name
    bits = pool.rng.integers(0, 4, pool.n).astype(float)
    kept = sorted(pool.rows, key=lambda i: (-bits[i], i))[: max(budget, pool.n // 2)]
    others = [i for i in range(pool.n) if i not in kept]
    expected = rsprune.select(pool.x, pool.centroids, budget, fill=fill, within=within, exclude=others)
    got = pool.select("rsprune", budget, fill=fill, within=within, entropy=bits, entropy_keep=0.5)
    for name in ("indices", "cluster", "similarity", "phase", "counts", "invalid"):
        assert getattr(got, name).tobytes() == getattr(expected, name).tobytes(), name


def test_rsprune_fits_the_reference_where_there_are_no_centroids():
    rng = np.random.default_rng(0)
    x, reference = rng.normal(size=(300, 8)), rng.normal(size=(100, 8))
    got = strategies.select("rsprune", x, 0.2, reference={"a": reference[:60], "b": reference[60:]}, k=5, seed=3)
    expected = rsprune.select(x, rsprune.fit_centroids(reference, 5, seed=3), 0.2)
    assert got.indices.tolist() == expected.indices.tolist()


# --- moderate ---------------------------------------------------------------------------------------------------------


def moderate_oracle(pool, budget, labels, k, per_cluster):
    rows = [i for i in pool.rows if labels[i] >= 0]
    members = [[i for i in rows if labels[i] == c] for c in range(k)]
    distance = {}
    for group in members:
        if group:
            u = pool.units(group)
            gap = u - np.median(u, axis=0)
            distance.update(zip(group, np.sqrt(dot(gap, gap)).tolist(), strict=True))
    shares = proportional(budget, [len(m) for m in members]) if per_cluster else [budget]
    chosen = []
    for group, share in zip(members if per_cluster else [rows], shares, strict=True):
        ranked = sorted(group, key=lambda i: (distance[i], i))
        start = round((len(group) - share) / 2)
        chosen += ranked[start : start + share]
    return sorted(chosen)


@given(pools(), st.booleans(), st.booleans())
def test_moderate_is_a_window_of_distances_from_medians(case, per_cluster, classes):
    pool, budget = case
    labels, inputs = pool.labels, {}
    if classes:
        labels = pool.rng.integers(0, 3, pool.n)
        inputs["labels"] = labels
    expected = moderate_oracle(pool, budget, labels, 3 if classes else pool.k, per_cluster)
    assert (
        pool.select("moderate", budget, shares="proportional" if per_cluster else None, **inputs).indices.tolist()
        == expected
    )


def test_moderate_by_hand():
    # Unit vectors at 0, 10, 20, 30 and 80 degrees, one class: the median is at 20 or close to it.
    angles = np.radians([0, 10, 20, 30, 80])
    x = np.stack([np.cos(angles), np.sin(angles)], axis=1)
    # Distances rise as 20, 30 or 10, 10 or 30, 0, 80: from place round(5 * 0.3) = 2 on, one row.
    got = strategies.select("moderate", x, 1, labels=[0] * 5)
    assert got.indices.tolist() in ([1], [3])
    assert strategies.select("moderate", x, 3, labels=[0] * 5).indices.tolist() == [0, 1, 3]


# --- cluster_nearest --------------------------------------------------------------------------------------------------


def cluster_nearest_oracle(pool, budget, within, shares_by, topup, seed):
    sizes, n = [len(m) for m in pool.members], len(pool.rows)
    if budget is None:
        shares = [min((s for s in sizes if s), default=0) if s else 0 for s in sizes]
    elif shares_by == "even":
        shares = water_level(budget, [0] * pool.k, sizes)
    else:
        shares = [s * budget // n for s in sizes]
    key = {
        "nearest": lambda i: (-pool.sim(i), i),
        "far": lambda i: (pool.sim(i), i),
        "mid": lambda i: (pool.sim(i), i),
        "random": lambda i: (hash64(seed, i), i),
    }[within]
    chosen, rest = [], []
    for group, share in zip(pool.members, shares, strict=True):
        ranked, size, start = sorted(group, key=key), len(group), 0
        if within == "mid":
            start = (size - share) // 2 if shares_by == "even" else size * (n - budget) // (2 * n)
        chosen += ranked[start : start + share]
        rest += [
            ((abs(2 * place - (size - 1)) / size, i) if within == "mid" else key(i))
            for place, i in enumerate(ranked)
            if not start <= place < start + share
        ]
    if topup and budget is not None:
        chosen += [i for *_, i in sorted(rest)[: budget - len(chosen)]]
    return sorted(chosen)


@given(
    pools(),
    st.sampled_from(["nearest", "far", "mid", "random"]),
    st.sampled_from(["even", "proportional"]),
    st.booleans(),
    st.booleans(),
)
def test_cluster_nearest_keeps_a_fraction_of_each_cluster(case, within, shares, topup, own_rule):
    pool, budget = case
    budget = None if own_rule and shares == "even" else budget
    expected = cluster_nearest_oracle(pool, budget, within, shares, topup, 7)
    got = pool.select("cluster_nearest", budget, within=within, shares=shares, topup=topup, seed=7)
    assert got.indices.tolist() == expected
    if budget is not None and topup:
        assert len(got) == budget


def line(*similarities):
    """Rows in two dimensions of these cosines to (1, 0), each exact in a float32."""
    return np.array([[s, math.sqrt(1 - s * s)] for s in similarities])


def test_cluster_nearest_by_hand():
    x = np.concatenate([line(0.9, 0.8, 0.7, 0.6, 0.5), -line(0.9, 0.8)])
    centroids = POLES
    run = lambda **options: strategies.select("cluster_nearest", x, 3, centroids=centroids, **options)  # noqa: E731
    # floor(5 * 3/7) = 2 and floor(2 * 3/7) = 0; then the best of the rest, row 5.
    assert run(topup=False).indices.tolist() == [0, 1]
    got = run()
    assert got.indices.tolist() == [0, 1, 5]
    assert got.phase.tolist() == [0, 0, 1]
    assert run(within="far", topup=False).indices.tolist() == [3, 4]
    # Furthest first, from place floor(5 * 4/7 / 2) = 1 on.
    assert run(within="mid", topup=False).indices.tolist() == [2, 3]


# --- prototypes, a2mae_like -------------------------------------------------------------------------------------------


@given(pools(), st.sampled_from(["far", "nearest"]), st.sampled_from([0.0, 0.5, 1.0]))
def test_prototypes_keep_the_hardest(case, within, balance):
    pool, budget = case
    sign = 1 if within == "far" else -1
    key = lambda i: (sign * pool.sim(i), i)  # noqa: E731
    least = math.floor(balance * budget / pool.k + 1e-9)
    chosen = flat(sorted(m, key=key)[:least] for m in pool.members)
    rest = sorted((i for i in pool.rows if i not in chosen), key=key)
    expected = sorted(chosen + rest[: budget - len(chosen)])
    assert pool.select("prototypes", budget, within=within, balance=balance).indices.tolist() == expected


def test_prototypes_by_hand():
    x = np.concatenate([line(0.9, 0.2, 0.1), -line(0.9, 0.8)])
    run = lambda **options: strategies.select("prototypes", x, 2, centroids=POLES, **options)  # noqa: E731
    assert run().indices.tolist() == [1, 2]
    assert run(within="nearest").indices.tolist() == [0, 3]
    assert run(balance=1.0).indices.tolist() == [2, 4]


@given(pools())
def test_a2mae_like_shares_evenly_and_takes_the_furthest(case):
    pool, budget = case
    shares = water_level(budget, [0] * pool.k, [len(m) for m in pool.members])
    key = lambda i: (pool.sim(i), i)  # noqa: E731
    expected = [sorted(m, key=key)[:b] for m, b in zip(pool.members, shares, strict=True)]
    assert pool.select("a2mae_like", budget).indices.tolist() == sorted(flat(expected))


def test_a2mae_like_by_hand():
    x = np.concatenate([line(0.9, 0.2, 0.1), -line(0.9, 0.8, 0.7)])
    run = lambda **options: strategies.select("a2mae_like", x, 4, centroids=POLES, **options)  # noqa: E731
    assert run().indices.tolist() == [1, 2, 4, 5]
    # Mean priors 3 and 1: three rows of the first cluster, one of the second.
    assert run(prior=[3, 3, 3, 0, 1, 2]).indices.tolist() == [0, 1, 2, 5]
    with raises(rsprune.errors.ArgumentError, "prior"):
        run(prior=[1.0])
    with raises(rsprune.errors.ArgumentError, "prior", 0):
        run(prior=[1, 1, 1, 0, 0, 0])


# --- dbp --------------------------------------------------------------------------------------------------------------


def shares_by_projection(target, low, high, total):
    """The clipped shares, by looking for the shift among all its breakpoints."""
    bends = sorted({b - t for b, t in zip([*low, *high], [*target, *target], strict=True)})
    sums = [sum(min(max(t + s, a), b) for t, a, b in zip(target, low, high, strict=True)) for s in bends]
    shift = float(np.interp(total, sums, bends))
    return [min(max(t + shift, a), b) for t, a, b in zip(target, low, high, strict=True)]


@given(
    pools(),
    st.sampled_from([0.1, 0.5]),
    st.sampled_from([None, 0.0, 0.5]),
    st.sampled_from(["far", "nearest", "random"]),
)
def test_dbp_gives_more_to_wide_and_distant_clusters(case, tau, balance, within):
    pool, budget = case
    sizes = [len(m) for m in pool.members]
    lone = 1 if balance is None else math.floor(balance * budget / pool.k + 1e-9)
    low = [max(0, min(lone, s - 1)) for s in sizes]
    if sum(low) > budget:
        with raises(rsprune.errors.BudgetError, "balance"):
            pool.select("dbp", budget, temperature=tau, balance=balance)
        return
    c = pool.centroids
    complexity = np.full(pool.k, np.nan)
    for j, group in enumerate(pool.members):
        others = sorted(1 - float(dot(c[j], c[m])) for m in range(pool.k) if m != j)[:20]
        inter = sum(others) / len(others) if others else 0.0
        if group:
            complexity[j] = sum(1 - pool.sim(i) for i in group) / len(group) * inter
    complexity[np.isnan(complexity)] = np.nanmean(complexity)
    power = np.exp((complexity - complexity.max()) / tau)
    exact = shares_by_projection(power / power.sum() * budget, low, sizes, budget)
    got = pool.select("dbp", budget, temperature=tau, balance=balance, within=within)
    assert len(got) == budget
    counts = got.counts["quota"].tolist()
    # Whole numbers beside the exact shares, rounded up by largest fraction.
    assert all(math.floor(e - 1e-6) <= g <= math.ceil(e + 1e-6) for e, g in zip(exact, counts, strict=True))
    up = [e - math.floor(e) for e, g in zip(exact, counts, strict=True) if g > e + 1e-6]
    down = [e - math.floor(e) for e, g in zip(exact, counts, strict=True) if g < e - 1e-6]
    assert not up or not down or min(up) >= max(down) - 1e-6
    key = {
        "far": lambda i: (pool.sim(i), i),
        "nearest": lambda i: (-pool.sim(i), i),
        "random": lambda i: (hash64(0, i), i),
    }[within]
    expected = flat(sorted(m, key=key)[:b] for m, b in zip(pool.members, counts, strict=True))
    assert got.indices.tolist() == sorted(expected)


# --- ccs --------------------------------------------------------------------------------------------------------------


def ccs_oracle(rows, score, ease, budget, beta, strata, seed):
    dropped = sorted(rows, key=lambda i: (ease[i], i))[: math.floor(beta * len(rows) + 1e-9)]
    rows = [i for i in rows if i not in dropped]
    if len(rows) < budget:
        return None
    low, high = min(score[i] for i in rows), max(score[i] for i in rows)
    groups = [[] for _ in range(strata)]
    for i in rows:
        groups[min(strata - 1, math.floor((score[i] - low) / (high - low) * strata)) if high > low else 0].append(i)
    chosen, left = [], budget
    for done, group in enumerate(sorted(groups, key=len)):
        share = min(len(group), left // (strata - done))
        left -= share
        chosen += sorted(group, key=lambda i: (hash64(seed, i), i))[:share]
    return sorted(chosen)


@given(
    pools(),
    st.sampled_from([0.0, 0.2, 0.5]),
    st.sampled_from([1, 5, 50]),
    st.sampled_from(["score", "bits", "both", ""]),
)
def test_ccs_covers_all_levels_of_the_score(case, beta, strata, given_inputs):
    pool, budget = case
    score = (pool.rng.integers(-9, 9, pool.n) / 4).tolist()
    bits = (pool.rng.integers(0, 9, pool.n) / 4).tolist()
    inputs = {"score": {"score": score}, "bits": {"entropy": bits}, "both": {"score": score, "entropy": bits}, "": {}}
    inputs = inputs[given_inputs]
    sims = [pool.sim(i) for i in range(pool.n)]
    s = inputs.get("score") or inputs.get("entropy") or [1 - v for v in sims]
    h = inputs.get("entropy") or inputs.get("score") or sims
    expected = ccs_oracle(pool.rows, s, h, budget, beta, strata, 5)
    if expected is None:
        with raises(rsprune.errors.BudgetError, "beta"):
            pool.select("ccs", budget, beta=beta, strata=strata, seed=5, **inputs)
    else:
        got = pool.select("ccs", budget, beta=beta, strata=strata, seed=5, **inputs)
        assert got.indices.tolist() == expected
        assert len(got) == budget


def test_ccs_by_hand():
    # The two lowest go; the others fill strata [2, 4) of 2, [4, 6] of 4 rows. Budget 4: two each.
    score = [0, 1, 2, 3, 4, 5, 6, 6]
    got = strategies.select("ccs", None, 4, score=score, beta=0.25, strata=2)
    assert got.cluster.tolist() == [0, 0, 1, 1]
    assert got.indices[:2].tolist() == [2, 3]
    assert got.counts["pool"].tolist() == [2, 4]


# --- herding ----------------------------------------------------------------------------------------------------------


def herd(pool, group, count):
    x = pool.x[group].astype(np.float64)
    norm = np.sqrt(dot(x, x))
    u = x / norm[:, None]
    mean, total = np.zeros(x.shape[1]), np.zeros(x.shape[1])
    for row in u:
        mean += row
    mean /= len(u)
    chosen = []
    for t in range(count):
        scores = dot(x, (t + 1) * mean - total) / norm
        place = max((p for p in range(len(group)) if p not in chosen), key=lambda p: (scores[p], -p))
        chosen.append(place)
        total += u[place]
    return [group[p] for p in chosen]


@given(pools(), st.booleans())
def test_herding_follows_the_mean(case, per_cluster):
    pool, budget = case
    if per_cluster:
        shares = proportional(budget, [len(m) for m in pool.members])
        expected = flat(herd(pool, m, b) for m, b in zip(pool.members, shares, strict=True) if b)
    else:
        expected = herd(pool, pool.rows, budget)
    assert pool.select("herding", budget, shares="proportional" if per_cluster else None).indices.tolist() == sorted(
        expected
    )


def test_herding_by_hand():
    # Mean (1/2, 1/4, 0, 0) of (1, 0), (1, 0), (0, 1), (0, 0 with a third axis): first row 0, then row 2.
    x = np.array([[1, 0, 0], [1, 0, 0], [0, 1, 0], [0, 0, 1]], np.float32)
    assert strategies.select("herding", x, 1).indices.tolist() == [0]
    assert strategies.select("herding", x, 2).indices.tolist() == [0, 2]
    assert strategies.select("herding", x, 3).indices.tolist() == [0, 2, 3]


# --- vjepa2, datacomp -------------------------------------------------------------------------------------------------


@given(pools(), st.sampled_from(["random", "nearest"]), st.integers(1, 12))
def test_target_clusters_are_those_of_reference_images(case, within, references):
    pool, budget = case
    sets = {name: pool.rng.normal(size=(references, pool.x.shape[1])).astype(np.float32) for name in ("a", "b")}
    hits = {name: oracles.assign(rows, pool.centroids)[0].tolist() for name, rows in sets.items()}
    weight = {"a": 3.0, "b": 1.0}
    w = [sum(weight[d] * hits[d].count(c) / references for d in sets) for c in range(pool.k)]
    reach = [i for i in pool.rows if w[pool.labels[i]] > 0]
    got = pool.select("datacomp", None, reference=sets)
    assert got.indices.tolist() == reach
    inputs = {"reference": sets, "weights": weight, "within": within, "seed": 2}
    if len(reach) < budget:
        for name, options in (("vjepa2", inputs), ("datacomp", {"reference": sets})):
            with raises(rsprune.errors.BudgetError, "reference"):
                pool.select(name, budget, **options)
        return
    expected = sorted(sorted(reach, key=lambda i: (hash64(2, i), i))[:budget])
    assert pool.select("datacomp", budget, reference=sets, seed=2).indices.tolist() == expected
    got = pool.select("vjepa2", budget, **inputs)
    counts = got.counts["quota"].tolist()
    assert sum(counts) == budget
    # Shares at one level of water, to a row.
    caps = [len(m) for m in pool.members]
    unmet = [g / weight_c for g, weight_c, cap in zip(counts, w, caps, strict=True) if weight_c > 0 and g < cap]
    level = max(((g - 1) / weight_c for g, weight_c in zip(counts, w, strict=True) if g > 0), default=0)
    assert all(
        level * c <= u * c + 1 + 1e-9
        for u, c in zip(unmet, [v for v, g, cap in zip(w, counts, caps, strict=True) if v > 0 and g < cap], strict=True)
    )
    key = (lambda i: (hash64(2, i), i)) if within == "random" else (lambda i: (-pool.sim(i), i))
    expected = flat(sorted(m, key=key)[:b] for m, b in zip(pool.members, counts, strict=True))
    assert got.indices.tolist() == sorted(expected)


def test_vjepa2_by_hand():
    x = np.concatenate([line(0.9, 0.85, 0.8), -line(0.9, 0.85, 0.8), line(0.9, 0.85)[:, ::-1]])
    centroids = np.array([[1.0, 0.0], [-1.0, 0.0], [0.0, 1.0]])
    sets = {"a": [[1.0, 0.0], [1.0, 0.1], [1.0, -0.1], [-1.0, 0.0]], "b": [[-1.0, 0.1]]}
    sets = {name: np.array(rows) for name, rows in sets.items()}
    run = lambda budget, **options: strategies.select(  # noqa: E731
        "vjepa2", x, budget, centroids=centroids, reference=sets, within="nearest", **options
    ).indices.tolist()
    # Set a alone: weights 3/4, 1/4 and 0.
    assert run(4, weights={"a": 1, "b": 0}) == [0, 1, 2, 3]
    # Both alike: 3/4 and 5/4; of 5 rows 1.875 and 3.125, capped at 3.
    assert run(5) == [0, 1, 3, 4, 5]
    with raises(rsprune.errors.BudgetError, 6):
        run(7)
    with raises(rsprune.errors.ArgumentError):
        run(5, weights={"a": 1})


# --- hierarchical -----------------------------------------------------------------------------------------------------


def cut_oracle(total, sizes, draws):
    if sum(sizes) <= total:
        return list(sizes)
    c = max(c for c in range(total + 1) if sum(min(c, s) for s in sizes) <= total)
    shares = [min(c, s) for s in sizes]
    larger = sorted((j for j, s in enumerate(sizes) if s > c), key=lambda j: (draws[j], j))
    for j in larger[: total - sum(shares)]:
        shares[j] += 1
    return shares


@given(pools(), st.sampled_from(["random", "nearest"]), st.integers(0, 3), st.booleans())
def test_hierarchical_shares_down_the_tree(case, within, seed, resample):
    pool, budget = case
    distinct = len({tuple(row) for row in pool.units(pool.rows).round(5).tolist()})
    if distinct < 8:
        return
    options = {"n_init": 1, "max_iter": 50, "tol": 0.0, "seed": seed}
    levels = [4, 2]
    got = strategies.select(
        "hierarchical", pool.x, budget, levels=levels, within=within, seed=seed,
        sample_sizes=[3, 1] if resample else None, rounds=2,
    )  # fmt: skip
    first = rsprune.fit_centroids(pool.x, levels[0], **options)
    labels, similarity = oracles.assign(pool.x, first.vectors)
    for _ in range(2 if resample else 0):

        def near(c, labels=labels, s=similarity):
            return sorted((i for i in pool.rows if labels[i] == c), key=lambda i: (-s[i], i))[:3]

        subset = sorted(flat(near(c) for c in range(levels[0])))
        first = rsprune.fit_centroids(pool.x[subset], levels[0], **options)
        labels, similarity = oracles.assign(pool.x, first.vectors)
    top = rsprune.fit_centroids(first.vectors, levels[1], **options)
    parents, _ = oracles.assign(first.vectors, top.vectors)
    members = [[i for i in pool.rows if labels[i] == c] for c in range(levels[0])]
    stream = [hash64(seed, 2**63 + level) for level in (0, 1)]
    held = [sum(len(members[c]) for c in range(4) if parents[c] == p) for p in range(2)]
    top_shares = cut_oracle(budget, held, [hash64(stream[1], p) for p in range(2)])
    expected = []
    for p in range(2):
        children = [c for c in range(4) if parents[c] == p]
        shares = cut_oracle(
            top_shares[p], [len(members[c]) for c in children], [hash64(stream[0], c) for c in children]
        )
        for c, share in zip(children, shares, strict=True):
            key = (lambda i: (hash64(seed, i), i)) if within == "random" else (lambda i: (-similarity[i], i))
            expected += sorted(members[c], key=key)[:share]
    assert got.indices.tolist() == sorted(expected)


# --- tdds -------------------------------------------------------------------------------------------------------------


def tdds_oracle(logits, window, a):
    epochs, rows, _ = logits.shape
    scores = []
    for i in range(rows):
        p = [np.exp(z) / np.exp(z).sum() for z in logits[:, i].astype(np.float64)]
        moves = [
            sum(abs(q * (math.log(q + 1e-8) - math.log(r + 1e-8))) for r, q in zip(p[j], p[j + 1], strict=True))
            for j in range(epochs - 1)
        ]
        total = 0.0
        for k in range(epochs - window + 1):
            inside = moves[k : k + window - 1]
            mean = sum(inside) / len(inside)
            total += math.sqrt(sum((m - mean) ** 2 for m in inside)) * a * (1 - a) ** (epochs - window - k)
        scores.append(total)
    return scores


@given(st.integers(2, 7), st.integers(1, 5), st.integers(1, 4), st.integers(0, 99), st.data())
def test_tdds_is_its_formula(epochs, rows, classes, seed, data):
    logits = np.random.default_rng(seed).normal(size=(epochs, rows, classes)) * 3
    window = data.draw(st.integers(2, epochs))
    got = strategies.tdds(logits, window=window, decay=0.9)
    np.testing.assert_allclose(got, tdds_oracle(logits, window, 0.9), rtol=1e-9, atol=1e-12)


def test_tdds_reads_in_blocks_and_marks_what_is_no_number(monkeypatch):
    logits = np.random.default_rng(0).normal(size=(12, 40, 3)).astype(np.float32)
    logits[4, 7, 1] = np.nan
    whole = strategies.tdds(logits)
    assert np.flatnonzero(np.isnan(whole)).tolist() == [7]
    monkeypatch.setattr("rsprune.strategies.dynamics.BLOCK_BYTES", 1)
    assert strategies.tdds(logits).tobytes() == whole.tobytes()
    for wrong in ({"window": 13}, {"window": 1}, {"decay": 0}):
        with pytest.raises(rsprune.errors.ArgumentError):
            strategies.tdds(logits, **wrong)
    with pytest.raises(rsprune.errors.ShapeError):
        strategies.tdds(logits[0])
    with pytest.raises(rsprune.errors.DtypeError):
        strategies.tdds(np.zeros(logits.shape, int))
