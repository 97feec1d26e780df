"""Selection problems, small and full of ties, empty clusters and invalid rows."""

import warnings

import numpy as np
from hypothesis import strategies as st

import rsprune

FILLS = ["global", "waterfill", "zscore", "none"]
WITHINS = ["nearest", "far", "random", "mid"]
# Few values: ties. -0.0 equals 0.0; NaN is invalid.
VALUES = np.array([-1.0, -0.5, -0.0, 0.0, 1e-40, 0.25, 0.5, 0.75, 1.0, np.nan], np.float32)

# Twelve rows whose selection can be worked out by hand.
LABELS = [0, 0, 0, 0, 0, 1, 1, 2, 2, 2, -1, 3]
SIMILARITY = np.array([0.9, 0.8, 0.8, 0.7, 0.2, 0.3, 0.1, 0.6, 0.6, 0.5, 0.99, np.nan], np.float32)


@st.composite
def problems(draw):
    k = draw(st.integers(1, 7))
    n = draw(st.integers(1, 60))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    # Uneven clusters, some of them empty.
    weights = rng.random(k + 1) ** draw(st.sampled_from([0, 1, 6]))
    labels = rng.choice(np.arange(-1, k), size=n, p=weights / weights.sum()).astype(np.int32)
    similarity = rng.choice(VALUES, size=n) if draw(st.booleans()) else rng.normal(size=n).astype(np.float32)
    shuffled = rng.permutation(n)
    exclude = shuffled[: draw(st.integers(0, n // 3))].tolist()
    valid = [i for i in range(n) if labels[i] >= 0 and not np.isnan(similarity[i]) and i not in exclude]
    preselected = rng.permutation(valid).tolist()[: draw(st.integers(0, max(0, len(valid) // 2)))]
    fill = draw(st.sampled_from(FILLS))
    within = draw(st.sampled_from(["nearest", "far"] if fill == "zscore" else WITHINS))
    kind = draw(st.sampled_from(["some", "all", "more"]))
    least = max(1, len(preselected))
    if kind == "more":
        budget = len(valid) + draw(st.integers(1, 9))
    elif kind == "all":
        budget = max(1, len(valid))
    else:
        budget = draw(st.integers(least, max(least, len(valid))))
    weights = draw(st.none() | st.lists(st.sampled_from([0, 1, 2, 3, 10, 2**62]), min_size=k, max_size=k).filter(any))
    return {
        "labels": labels,
        "similarity": similarity,
        "budget": budget,
        "k": k,
        "fill": fill,
        "within": within,
        "exclude": exclude,
        "preselected": preselected,
        "weights": weights,
        "seed": draw(st.integers(0, 2**63 - 1)),
    }


def select_quietly(problem, **options):
    """`select_assigned`, without its warning that a budget below k leaves no quota."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        return rsprune.select_assigned(**(problem | options))
