"""Choose 1.5 million of 10 million rows from labels and similarities: group-by top-q, and the best of the rest."""

from collections.abc import Iterator, Mapping

import numpy as np
import pandas as pd
import polars as pl

import rsprune
from benches.harness import THREADS, Comparison

N, K, BUDGET = 10_000_000, 200, 1_500_000
QUOTA = BUDGET // K


def numpy_sort(labels: np.ndarray, similarity: np.ndarray) -> np.ndarray:
    order = np.lexsort((-similarity, labels))
    start = np.searchsorted(labels[order], np.arange(K))
    kept = np.arange(N) - start[labels[order]] < QUOTA
    rest = order[~kept]
    fill = rest[np.argsort(-similarity[rest], kind="stable")[: BUDGET - np.count_nonzero(kept)]]
    return np.sort(np.concatenate([order[kept], fill]))


def numpy_partition(labels: np.ndarray, similarity: np.ndarray) -> np.ndarray:
    """By hand: scores and row numbers packed into integers, so that partitions can stand in for sorts."""
    keys = ((~similarity.view(np.uint32)).astype(np.uint64) << 32) | np.arange(N, dtype=np.uint64)
    keys = keys[np.argsort(labels.astype(np.uint8), kind="stable")]
    kept, rest = [], []
    for cluster in np.split(keys, np.cumsum(np.bincount(labels, minlength=K))[:-1]):
        if len(cluster) > QUOTA:
            cluster.partition(QUOTA)
        kept.append(cluster[:QUOTA])
        rest.append(cluster[QUOTA:])
    rest = np.concatenate(rest)
    missing = BUDGET - sum(map(len, kept))
    rest.partition(missing)
    return np.sort(np.concatenate([*kept, rest[:missing]]) & 0xFFFFFFFF)


def pandas_cumcount(labels: np.ndarray, similarity: np.ndarray) -> np.ndarray:
    ranked = pd.DataFrame({"label": labels, "similarity": similarity})
    ranked = ranked.sort_values("similarity", ascending=False, kind="stable")
    kept = (ranked.groupby("label", sort=False).cumcount() < QUOTA).to_numpy()
    rows = ranked.index.to_numpy()
    return np.sort(np.concatenate([rows[kept], rows[~kept][: BUDGET - np.count_nonzero(kept)]]))


def polars_head(labels: np.ndarray, similarity: np.ndarray) -> np.ndarray:
    frame = pl.LazyFrame({"label": labels, "similarity": similarity}).with_row_index("row")
    ranked = frame.sort("similarity", descending=True, maintain_order=True).collect()
    quota = ranked.group_by("label", maintain_order=True).head(QUOTA)
    rest = ranked.join(quota, on="row", how="anti", maintain_order="left").head(BUDGET - len(quota))
    return pl.concat([quota["row"], rest["row"]]).sort().to_numpy()


def polars_bottom_k(labels: np.ndarray, similarity: np.ndarray) -> np.ndarray:
    """By hand, as :func:`numpy_partition`."""
    score = pl.col("similarity").reinterpret(dtype=pl.UInt32).cast(pl.UInt64) ^ 0xFFFFFFFF
    key = score * 2**32 + pl.col("row").cast(pl.UInt64)
    frame = pl.LazyFrame({"label": labels, "similarity": similarity}).with_row_index("row")
    keys = frame.select("label", key=key).collect()
    quota = keys.group_by("label").agg(pl.col("key").bottom_k(QUOTA))
    last = quota.lazy().select("label", last=pl.col("key").list.max())
    rest = keys.lazy().join(last, on="label").filter(pl.col("key") > pl.col("last")).select("key").collect()
    kept = quota["key"].explode()
    return (pl.concat([kept, rest["key"].bottom_k(BUDGET - len(kept))]) & 0xFFFFFFFF).sort().to_numpy()


def comparisons() -> Iterator[Comparison]:
    rng = np.random.default_rng(0)
    labels = rng.integers(0, K, N, np.int32)
    similarity = rng.random(N, np.float32)
    peers = {
        "NumPy lexsort": numpy_sort,
        "NumPy partition": numpy_partition,
        "pandas": pandas_cumcount,
        "polars head": polars_head,
        "polars bottom_k": polars_bottom_k,
    }

    def verify(answers: Mapping[str, object]) -> str:
        for name, rows in answers.items():
            if not np.array_equal(rows, answers["rsprune"]):
                message = f"{name} selects other rows"
                raise ValueError(message)
        return "the same rows"

    yield Comparison(
        f"choose {BUDGET:,} of {N:,} rows, K = {K}",
        5,
        lambda: rsprune.select_assigned(labels, similarity, BUDGET, k=K, threads=THREADS),
        {name: lambda select=select: select(labels, similarity) for name, select in peers.items()},
        verify=verify,
    )
