"""What the package computes, written from the specifications alone: plain, slow, and sharing nothing with it."""

import math
from fractions import Fraction

import numpy as np

QUOTA, FILL, PRESELECTED = 0, 1, 2  # the phases of a selection

# --- arithmetic -------------------------------------------------------------------------------------------------------


def unit(x):
    """Rows of length 1, float32."""
    x = np.asarray(x, np.float64)
    return (x / np.linalg.norm(x, axis=1, keepdims=True)).astype(np.float32)


def dot(x, y):
    """The definition: eight lanes of float64, added as a tree. ``x`` (..., D), ``y`` (..., D)."""
    products = x.astype(np.float64) * y.astype(np.float64)
    products = np.concatenate([products, np.zeros((*products.shape[:-1], -products.shape[-1] % 8))], axis=-1)
    s = np.zeros((*products.shape[:-1], 8))
    for step in range(0, products.shape[-1], 8):
        s = s + products[..., step : step + 8]
    s = np.moveaxis(s, -1, 0)
    return ((s[0] + s[4]) + (s[2] + s[6])) + ((s[1] + s[5]) + (s[3] + s[7]))


def hash64(seed, row):
    """SplitMix64 addressed by position, with a mixed seed: what rust/core/src/runtime/rng.rs documents."""
    mask, golden = 2**64 - 1, 0x9E3779B97F4A7C15

    def mix(z):
        z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & mask
        z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & mask
        return z ^ (z >> 31)

    return mix((mix(seed ^ golden) + (row + 1) * golden) & mask)


def sum_in_order(values):
    """The sum from left to right; that of Python 3.12 and newer compensates its rounding."""
    total = 0.0
    for value in values:
        total += value
    return total


# --- assignment -------------------------------------------------------------------------------------------------------


def assign(x, centroids, normalize=True):
    """Labels and similarities; -1 and NaN for rows without a direction."""
    with np.errstate(all="ignore"):
        dots = dot(x[:, None, :], centroids[None])
        labels = dots.argmax(axis=1).astype(np.int32)
        best = dots[np.arange(len(x)), labels]
        norm = np.sqrt(dot(x, x))
        similarity = (best / norm if normalize else best).astype(np.float32)
    invalid = ~np.isfinite(norm) | (norm == 0)
    labels[invalid], similarity[invalid] = -1, np.nan
    return labels, similarity


# --- shares of a budget -----------------------------------------------------------------------------------------------


def water_level(total, least, most):
    """Shares by handing out one unit at a time to whoever holds least; see the tie rule in the specification."""
    given_out = list(least)
    for _ in range(total - sum(least)):
        open_ones = [k for k in range(len(most)) if given_out[k] < most[k]]
        best = min(open_ones, key=lambda k: (given_out[k], -most[k], k))
        given_out[best] += 1
    return given_out


def proportional(total, sizes):
    """Largest remainders of shares in proportion to sizes: ties to the larger, then to the first."""
    exact = [total * size for size in sizes]
    n = max(1, sum(sizes))
    given_out = [share // n for share in exact]
    order = sorted(range(len(sizes)), key=lambda c: (-(exact[c] % n), -sizes[c], c))
    for c in order[: total - sum(given_out)]:
        given_out[c] += 1
    return given_out


def apportion(total, weights, lower, upper, offsets, priority):
    """Shares of a total: every level at which a share meets a bound, and the one between the two that enclose it."""
    weights, offsets = [Fraction(w) for w in weights], [Fraction(o) for o in offsets]
    parties = list(zip(weights, lower, upper, offsets, strict=True))

    def shares_at(level):
        return [min(max(o + level * w, Fraction(low)), Fraction(high)) for w, low, high, o in parties]

    bends = sorted({(bound - o) / w for w, low, high, o in parties if w > 0 for bound in (low, high)})
    if bends:
        end = next(i for i, level in enumerate(bends) if sum(shares_at(level)) >= total)
        level = bends[end]
        if sum(shares_at(level)) > total:
            before, after = sum(shares_at(bends[end - 1])), sum(shares_at(level))
            level = bends[end - 1] + (total - before) * (level - bends[end - 1]) / (after - before)
    else:
        level = Fraction(0)
    exact = shares_at(level)
    assert sum(exact) == total
    shares = [math.floor(share) for share in exact]
    order = sorted(range(len(exact)), key=lambda i: (shares[i] - exact[i], -priority[i], i))
    for i in order[: total - sum(shares)]:
        shares[i] += 1
    return shares


# --- selection --------------------------------------------------------------------------------------------------------


def select(labels, similarity, budget, k, fill, within, exclude, preselected, seed, weights=None):
    """(row, phase) of every selected row, ascending."""
    s = [float(v) + 0.0 for v in similarity]
    excluded = set(exclude)
    pool = [[] for _ in range(k)]
    for i, label in enumerate(labels):
        if label >= 0 and not math.isnan(s[i]) and i not in excluded:
            pool[label].append(i)

    key = {}
    for members in pool:
        ranked = sorted(members, key=lambda i: (-s[i], i))
        for rank, i in enumerate(ranked):
            n = len(members)
            key[i] = {
                "nearest": (-s[i], i),
                "far": (s[i], i),
                "random": (hash64(seed, i), i),
                "mid": (abs(2 * rank - (n - 1)) / n, rank, i),
            }[within]

    before = set(preselected)
    n = [len(members) for members in pool]
    p = [sum(i in before for i in members) for members in pool]
    target = min(budget, sum(n))
    alone = [budget // k] * k if weights is None else [budget * weight // sum(weights) for weight in weights]
    quota = [max(min(alone[c], n[c]), p[c]) for c in range(k)]
    if sum(quota) > target:
        quota = water_level(target, p, quota)
    if fill != "waterfill":
        held = quota
    elif weights is None:
        held = water_level(target, p, n)
    else:  # clusters of weight 0 have what the others leave
        within_reach = sum(n[c] if weights[c] else p[c] for c in range(k))
        held = apportion(min(target, within_reach), weights, p, n, [0] * k, n)
        held = water_level(target, held, n)

    phase = dict.fromkeys(before, PRESELECTED)
    remainder = []
    for c in range(k):
        ranked = sorted((i for i in pool[c] if i not in before), key=key.get)
        for position, i in enumerate(ranked):
            if position < min(quota[c], held[c]) - p[c]:
                phase[i] = QUOTA
            elif position < held[c] - p[c]:
                phase[i] = FILL
            else:
                remainder.append(i)

    if fill in ("global", "zscore"):
        if fill == "zscore":
            moments = []
            for members in pool:
                values = [s[i] for i in members]
                mean = sum_in_order(values) / len(values) if values else 0.0
                squares = sum_in_order([(v - mean) * (v - mean) for v in values])
                moments.append((mean, math.sqrt(squares / len(values)) if values else 0.0))

            def z(i):
                mean, deviation = moments[labels[i]]
                return (s[i] - mean) / deviation if deviation > 0 else 0.0

            remainder.sort(key=lambda i: (z(i) if within == "far" else -z(i), i))
        else:
            remainder.sort(key=key.get)
        for i in remainder[: target - len(phase)]:
            phase[i] = FILL
    return sorted(phase.items())
