"""The nearest of K centroids and the cosine to it: what NumPy, faiss and torch do in float32, rsprune exactly."""

import os
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor

import faiss
import numpy as np
import torch

import rsprune
from benches import embeddings
from benches.harness import THREADS, Comparison

N, K = 200_000, 200
# Scores of so many rows stay in the cache; from float16 NumPy and torch are faster so than with all rows at once.
BLOCK = 16_384


def comparisons() -> Iterator[Comparison]:
    on_images, on_noise = targets()
    pool, reference = embeddings.of_images()
    centroids = rsprune.fit_centroids(reference, K)
    rows = embeddings.repeated(pool, N)
    yield compare(f"assign {N:,} x {rows.shape[1]} float32 embeddings of images", rows, centroids, on_images)
    rows = rows.astype(np.float16)
    yield compare(f"the same from float16, {rows.shape[1]} dimensions", rows, centroids, on_images)
    rows = embeddings.isotropic(N, 1024)
    centroids = rsprune.Centroids(embeddings.unit(embeddings.isotropic(K, 1024, seed=1)))
    yield compare(f"assign {N:,} x 1024 isotropic float32 rows", rows, centroids, on_noise)
    yield compare("the same from float16", rows.astype(np.float16), centroids, on_noise)


def targets() -> tuple[float, float]:
    """On embeddings of images and on isotropic rows, by what this CPU offers, or may use of it."""
    if os.environ.get("RSPRUNE_CPU") != "avx2":
        has = rsprune.cpu_features()
        if has.get("avx512vnni"):
            return 5, 3
        if has.get("avx512bf16") or has.get("avxvnni"):
            return 3, 3 if has.get("avx512bf16") else 1.3
    return 1.5, 1.3


def compare(
    work: str, rows: np.ndarray, centroids: rsprune.Centroids, target: float | None, threads: int = THREADS
) -> Comparison:
    """The comparison on these rows, with the least that has to be done: to read them and to multiply."""
    vectors = centroids.vectors
    index = faiss.IndexFlatIP(centroids.dim)
    index.add(vectors)
    tensor, columns = torch.from_numpy(rows), torch.from_numpy(vectors).T

    def numpy_assign() -> tuple[np.ndarray, np.ndarray]:
        labels, similarity = np.empty(len(rows), np.int64), np.empty(len(rows), np.float32)
        for start in range(0, len(rows), BLOCK):
            block = rows[start : start + BLOCK].astype(np.float32, copy=False)
            scores = block @ vectors.T
            best = scores.argmax(1)
            labels[start : start + BLOCK] = best
            norms = np.sqrt(np.vecdot(block, block))
            similarity[start : start + BLOCK] = scores[np.arange(len(best)), best] / norms
        return labels, similarity

    def faiss_assign() -> tuple[np.ndarray, np.ndarray]:
        floats = rows if rows.dtype == np.float32 else tensor.float().numpy()  # torch converts with all threads
        scores, labels = index.search(floats, 1)
        norms = np.empty(len(rows), np.float32)
        faiss.fvec_norms_L2(faiss.swig_ptr(norms), faiss.swig_ptr(floats), floats.shape[1], len(floats))
        return labels[:, 0], scores[:, 0] / norms

    def torch_assign() -> tuple[np.ndarray, np.ndarray]:
        parts = []
        for block in tensor.split(BLOCK):
            floats = block.float()
            scores, labels = (floats @ columns).max(1)
            parts.append((labels, scores / torch.linalg.vector_norm(floats, dim=1)))
        return tuple(torch.cat(part).numpy() for part in zip(*parts, strict=True))

    return Comparison(
        f"{work}, K = {centroids.k}" + ("" if threads == THREADS else f", {threads} thread"),
        target,
        lambda: rsprune.assign(rows, centroids, threads=threads),
        {"NumPy": numpy_assign, "faiss": faiss_assign, "torch": torch_assign},
        limits=limits(rows, vectors, threads),
        verify=verify,
    )


def limits(rows: np.ndarray, vectors: np.ndarray, threads: int) -> dict[str, object]:
    """What bounds every implementation: the memory, and the arithmetic of the narrowest products there are."""
    words = rows.reshape(-1).view(np.uint64)
    chunks = np.array_split(words, max(1, words.nbytes >> 20))

    def read() -> None:
        with ThreadPoolExecutor(threads) as pool:
            list(pool.map(np.add.reduce, chunks))

    bounds = {"reading the rows": read}
    if os.environ.get("RSPRUNE_CPU") != "avx2" and rsprune.cpu_features().get("avx512vnni"):
        # An int8 instruction multiplies four times as many numbers as a float32 one of the same width.
        quarter = rows[: len(rows) // 4].astype(np.float32)
        bounds["the products in int8, four times as fast as NumPy's float32"] = lambda: quarter @ vectors.T
    return bounds


def verify(answers: Mapping[str, object]) -> str:
    """Peers round in float32: of near-ties they may take the other side."""
    labels, similarity = answers["rsprune"]
    agree = []
    for name in ("NumPy", "faiss", "torch"):
        theirs, cosines = answers[name]
        agree.append(np.mean(labels == theirs))
        if agree[-1] < 0.999 or np.abs(cosines - similarity).max() > 1e-4:
            message = f"{name} assigns otherwise: {agree[-1]:.4%} of the labels agree"
            raise ValueError(message)
    return f"{min(agree):.3%} of the labels agree"
