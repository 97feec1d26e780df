"""The methods that compare rows with rows: SemDeDup, k-center, facility location, on a million rows.

Peers that a million rows are too many for get fewer, and so does rsprune beside them; the full size follows by itself.
"""

from collections.abc import Iterator, Mapping
from pathlib import Path

import apricot
import faiss
import numpy as np

from benches import embeddings
from benches.harness import THREADS, Comparison
from rsprune.strategies import select

N, DIM, K = 1_000_000, 256, 1_000
EPS = 0.05
CENTERS = 10_000
KEPT = 100_000

# What the peers get, where a million rows are too many for them.
FEW, FEW_CENTERS = 200_000, 1_000
FEWER, FEWER_K, FEWER_KEPT = 5_000, 5, 500


def comparisons() -> Iterator[Comparison]:
    rows, centroids = pool(N), embeddings.directions(K, DIM)
    yield semdedup(rows, centroids)
    yield kcenter(rows[:FEW], FEW_CENTERS)
    yield alone("kcenter", {"first": 0}, CENTERS, rows)
    yield facility_location(rows[:FEWER], centroids[:FEWER_K])
    yield alone("facility_location", {"k": K}, KEPT, rows)


def pool(n: int) -> np.ndarray:
    """Rows about K directions, on average at a cosine of 0.7; a tenth are near-duplicates of another."""
    rows = embeddings.mixture(n, DIM, K)
    rows[5::10] = rows[::10]
    rows[5::10] += 0.1 * DIM**-0.5 * embeddings.isotropic(len(rows[5::10]), DIM, seed=3)
    return embeddings.unit(rows)


def semdedup(rows: np.ndarray, centroids: np.ndarray) -> Comparison:
    memory = ""

    def ours() -> np.ndarray:
        nonlocal memory
        peak = Peak()
        peak.reset()
        kept = select("semdedup", rows, centroids=centroids, eps=EPS, threads=THREADS).indices
        memory = str(peak)
        return kept

    def faiss_and_numpy() -> np.ndarray:
        index = faiss.IndexFlatIP(DIM)
        index.add(centroids)
        similarity, labels = (found[:, 0] for found in index.search(rows, 1))
        order = np.lexsort((similarity, labels))
        kept = []
        for members in np.split(order, np.cumsum(np.bincount(labels, minlength=K))[:-1]):
            pairs = np.triu(rows[members] @ rows[members].T, 1)
            kept.append(members[pairs.max(0, initial=0) <= 1 - EPS])
        return np.sort(np.concatenate(kept))

    def verify(answers: Mapping[str, object]) -> str:
        kept, other = answers.values()
        apart = len(np.setxor1d(kept, other))
        assert apart < 1e-4 * len(rows)
        return f"keeps {len(kept):,}; {apart} differ by float32's rounding; {memory}"

    return Comparison(
        f"SemDeDup of {len(rows):,} x {DIM} rows in {K:,} given clusters, eps = {EPS}, with the assignment",
        None,
        ours,
        {"faiss and NumPy, float32": faiss_and_numpy},
        verify=verify,
        warm_up=False,
    )


def kcenter(rows: np.ndarray, budget: int) -> Comparison:
    def ours() -> np.ndarray:
        return select("kcenter", rows, budget, first=0, threads=THREADS).indices

    def by_numpy() -> np.ndarray:
        nearest, chosen = rows @ rows[0], [0]
        while len(chosen) < budget:
            chosen.append(int(nearest.argmin()))
            np.maximum(nearest, rows @ rows[chosen[-1]], out=nearest)
        return np.sort(chosen)

    def radius(chosen: np.ndarray) -> float:
        nearest = min((rows[i : i + 10_000] @ rows[chosen].T).max(1).min() for i in range(0, len(rows), 10_000))
        return float(np.sqrt(2 - 2 * nearest))

    def verify(answers: Mapping[str, object]) -> str:
        ours, other = answers.values()
        assert abs(radius(ours) - radius(other)) < 1e-3
        # scikit-learn's pairwise_distances takes several times as long a step.
        return f"{len(np.intersect1d(ours, other))} of {budget} rows are NumPy's"

    return Comparison(
        f"k-center greedy, {budget:,} of {len(rows):,} x {DIM} rows",
        None,
        ours,
        {"NumPy": by_numpy},
        verify=verify,
        warm_up=False,
    )


def facility_location(rows: np.ndarray, centroids: np.ndarray) -> Comparison:
    def ours() -> np.ndarray:
        return select("facility_location", rows, FEWER_KEPT, labels=labels, threads=THREADS).indices

    labels = (rows @ centroids.T).argmax(1)
    sizes = np.bincount(labels)

    def of_apricot() -> np.ndarray:
        chosen = []
        counts = np.bincount(labels[ours()])
        for label, count in enumerate(counts):
            members = np.flatnonzero(labels == label)
            pairs = (1 + rows[members] @ rows[members].T) / 2
            fitted = apricot.FacilityLocationSelection(int(count), metric="precomputed", optimizer="lazy").fit(pairs)
            chosen.append(members[fitted.ranking])
        return np.sort(np.concatenate(chosen))

    def covered(chosen: np.ndarray) -> float:
        groups = [(rows[labels == label], rows[chosen[labels[chosen] == label]]) for label in range(len(sizes))]
        return float(sum(((1 + members @ some.T) / 2).max(1).sum() for members, some in groups))

    def verify(answers: Mapping[str, object]) -> str:
        ours, other = answers.values()
        assert abs(covered(ours) / covered(other) - 1) < 1e-5
        return f"{len(np.intersect1d(ours, other))} of {FEWER_KEPT} rows are apricot's, the objective is equal to 1e-5"

    return Comparison(
        f"facility location, {FEWER_KEPT:,} of {len(rows):,} x {DIM} rows in {len(sizes)} clusters",
        None,
        ours,
        {"apricot, lazy": of_apricot},
        verify=verify,
    )


def alone(name: str, options: Mapping[str, object], budget: int, rows: np.ndarray) -> Comparison:
    """Rows that no peer can do in reasonable time."""
    memory = Peak()

    def ours() -> np.ndarray:
        memory.reset()
        return select(name, rows, budget, threads=THREADS, **options).indices

    def verify(answers: Mapping[str, object]) -> str:
        assert len(answers["rsprune"]) == budget
        return str(memory)

    what = ", ".join(f"{option} = {value}" for option, value in options.items())
    return Comparison(
        f"{name}, {budget:,} of {len(rows):,} x {DIM} rows, {what}", None, ours, {}, verify=verify, warm_up=False
    )


class Peak:
    """The most memory that the process has held since the last reset, with the rows and the libraries."""

    def reset(self) -> None:
        Path("/proc/self/clear_refs").write_text("5")

    def __str__(self) -> str:
        status = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
        return f"{int(status['VmHWM'].split()[0]) * 1024 / 1e9:.1f} GB of memory at most, 1 GB of it the rows"
