"""Spherical K-means: time and objective at the same number of starts and iterations."""

from collections.abc import Iterator, Mapping

import faiss
import numpy as np
from sklearn.cluster import KMeans

import rsprune
from benches import embeddings
from benches.harness import THREADS, Comparison

K, ITERATIONS = 200, 25  # faiss's default, which it always runs to the end


def comparisons() -> Iterator[Comparison]:
    yield compare("55,605 x 1024 rows about 300 directions", embeddings.mixture(55_605, 1024, 300), 2)
    rows = np.concatenate(embeddings.of_images())
    yield compare(f"{len(rows):,} x {rows.shape[1]} embeddings of images", rows, None)


def compare(what: str, rows: np.ndarray, target: float | None) -> Comparison:
    rows = embeddings.unit(rows)
    dim = rows.shape[1]

    def ours() -> np.ndarray:
        return rsprune.fit_centroids(rows, K, n_init=1, max_iter=ITERATIONS, tol=0, threads=THREADS).vectors

    def faiss_kmeans() -> np.ndarray:
        all_rows = {"min_points_per_centroid": 1, "max_points_per_centroid": len(rows)}
        kmeans = faiss.Kmeans(dim, K, niter=ITERATIONS, nredo=1, spherical=True, seed=0, **all_rows)
        kmeans.train(rows)
        return kmeans.centroids

    def scikit_learn(algorithm: str) -> np.ndarray:
        kmeans = KMeans(K, n_init=1, max_iter=ITERATIONS, tol=0, random_state=0, algorithm=algorithm)
        return embeddings.unit(kmeans.fit(rows).cluster_centers_)

    def verify(answers: Mapping[str, object]) -> str:
        objectives = {name: (rows @ vectors.T).max(1).sum(dtype=np.float64) for name, vectors in answers.items()}
        return "sum of cosines: " + ", ".join(f"{name} {value:,.1f}" for name, value in objectives.items())

    return Comparison(
        f"spherical K-means of {what}, K = {K}, one start, at most {ITERATIONS} iterations",
        target,
        ours,
        {
            "faiss": faiss_kmeans,
            "scikit-learn lloyd": lambda: scikit_learn("lloyd"),
            "scikit-learn elkan": lambda: scikit_learn("elkan"),
        },
        verify=verify,
        warm_up=False,  # half a minute each
    )
