"""How assignment scales with rows, centroids, dimensions and threads."""

from collections.abc import Iterator

import rsprune
from benches import embeddings
from benches.assign import compare
from benches.harness import THREADS, Comparison, use_threads


def comparisons() -> Iterator[Comparison]:
    pool, reference = embeddings.of_images()
    rows = embeddings.repeated(pool, 200_000)
    dim = rows.shape[1]
    centroids = {k: rsprune.fit_centroids(reference, k, n_init=1) for k in (50, 200, 1000)}
    for n in (12_500, 50_000, 200_000):
        yield compare(f"N: {n:,} x {dim} embeddings of images", rows[:n], centroids[200], None)
    for k in (50, 1000):
        yield compare(f"K: 50,000 x {dim} embeddings of images", rows[:50_000], centroids[k], None)
    if THREADS > 1:
        use_threads(1)
        yield compare(f"threads: 50,000 x {dim} embeddings of images", rows[:50_000], centroids[200], None, threads=1)
        use_threads(THREADS)
    del rows
    for dim in (256, 768, 1024, 2048):
        centroids = rsprune.Centroids(embeddings.unit(embeddings.isotropic(200, dim, seed=1)))
        yield compare(f"D: 50,000 x {dim} isotropic rows", embeddings.isotropic(50_000, dim), centroids, None)
