"""Spherical K-means: time and objective at the same number of starts and iterations."""

from collections.abc import Iterator, Mapping

import faiss
import numpy as np
from sklearn.cluster import KMeans

import rsprune
from benches import embeddings
from benches.harness import THREADS, Comparison

K, ITERATIONS = 200, 25  # faiss's default; all of them stop before it when no label changes
STARTS = 8


def comparisons() -> Iterator[Comparison]:
    yield compare("55,605 x 1024 rows about 300 directions", embeddings.mixture(55_605, 1024, 300), 2)
    rows = np.concatenate(embeddings.of_images())
    yield compare(f"{len(rows):,} x {rows.shape[1]} embeddings of images", rows, None)


def compare(what: str, rows: np.ndarray, target: float | None) -> Comparison:
    rows = embeddings.unit(rows)
    dim = rows.shape[1]

    def ours(seed: int = 0) -> np.ndarray:
        return rsprune.fit_centroids(rows, K, seed=seed, n_init=1, max_iter=ITERATIONS, tol=0, threads=THREADS).vectors

    def faiss_kmeans(seed: int = 0) -> np.ndarray:
        all_rows = {"min_points_per_centroid": 1, "max_points_per_centroid": len(rows)}
        kmeans = faiss.Kmeans(dim, K, niter=ITERATIONS, nredo=1, spherical=True, seed=seed, **all_rows)
        kmeans.train(rows)
        return kmeans.centroids

    def scikit_learn() -> np.ndarray:
        kmeans = KMeans(K, n_init=1, max_iter=ITERATIONS, tol=0, random_state=0)
        return embeddings.unit(kmeans.fit(rows).cluster_centers_)

    def objective(vectors: np.ndarray) -> float:
        return float((rows @ vectors.T).max(1).sum(dtype=np.float64))

    def verify(answers: Mapping[str, object]) -> str:
        of_seed_0 = ", ".join(f"{name} {objective(vectors):,.0f}" for name, vectors in answers.items())
        # One start is luck: the two that are fast enough get more.
        means = [np.mean([objective(fit(seed)) for seed in range(STARTS)]) for fit in (ours, faiss_kmeans)]
        return f"sum of cosines: {of_seed_0}; mean of {STARTS} starts: rsprune {means[0]:,.0f}, faiss {means[1]:,.0f}"

    return Comparison(
        f"spherical K-means of {what}, K = {K}, one start, at most {ITERATIONS} iterations",
        target,
        ours,
        {
            "faiss": faiss_kmeans,
            "scikit-learn": scikit_learn,
        },
        verify=verify,
        warm_up=False,  # scikit-learn takes a quarter of a minute
    )
