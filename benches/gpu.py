"""Assignment of rows on a GPU, against products of torch on the same GPU. Answers come back to the host.

Run by itself it says whether there is a GPU: `make bench-gpu` asks that first.
"""

import sys
from collections.abc import Iterator, Mapping

import numpy as np
import torch

import rsprune
from benches.embeddings import isotropic, unit
from benches.harness import Comparison

N, DIM, K = 1_000_000, 1024, 200


def device() -> torch.device:
    """The GPU, or the end."""
    if not torch.cuda.is_available():
        sys.exit(f"no GPU to compare on: torch {torch.__version__} finds no CUDA device")
    return torch.device("cuda")


def torch_assign(rows: torch.Tensor, centroids: torch.Tensor) -> tuple[np.ndarray, np.ndarray]:
    """What a user would write, in the dtype of the centroids."""
    best = (rows.to(centroids.dtype) @ centroids.T).max(dim=1)
    norms = torch.linalg.vector_norm(rows, dim=1, dtype=torch.float32)
    return best.indices.cpu().numpy(), (best.values / norms).cpu().numpy()


def with_tf32(rows: torch.Tensor, centroids: torch.Tensor) -> tuple[np.ndarray, np.ndarray]:
    """The same, and float32 factors may be cut to TF32."""
    torch.backends.cuda.matmul.allow_tf32 = True
    try:
        return torch_assign(rows, centroids)
    finally:
        torch.backends.cuda.matmul.allow_tf32 = False


def read(rows: torch.Tensor) -> float:
    """Read all rows once."""
    return rows.view(torch.int32).max().item()


def comparisons() -> Iterator[Comparison]:
    gpu = device()
    centroids = rsprune.Centroids(unit(isotropic(K, DIM)))
    vectors = torch.from_numpy(centroids.vectors).to(gpu)
    generator = torch.Generator(gpu).manual_seed(1)
    for dtype in (torch.float16, torch.float32):
        rows = torch.randn(N, DIM, generator=generator, device=gpu, dtype=dtype)

        def verify(answers: Mapping[str, object], rows: torch.Tensor = rows) -> str:
            expected, got = rsprune.assign(rows.cpu(), centroids), answers["rsprune"]
            if any(a.tobytes() != b.tobytes() for a, b in zip(got, expected, strict=True)):
                message = "the GPU has other bytes than the host"
                raise ValueError(message)
            labels = {name: answer[0] for name, answer in answers.items() if name.startswith("torch")}
            shares = ", ".join(f"{name} {np.mean(other != expected.labels):.2%}" for name, other in labels.items())
            return f"{torch.cuda.get_device_name()}; the bytes of the host; labels that differ: {shares}"

        peers = {
            "torch float32": lambda rows=rows: torch_assign(rows, vectors),
            "torch TF32": lambda rows=rows: with_tf32(rows, vectors),
            "torch bfloat16": lambda rows=rows: torch_assign(rows, vectors.bfloat16()),
        }
        yield Comparison(
            f"assign {N:,} x {DIM} {str(dtype).removeprefix('torch.')} rows on the GPU to K = {K}",
            None,
            lambda rows=rows: rsprune.assign(rows, centroids),
            peers,
            limits={"reading the rows": lambda rows=rows: read(rows)},
            verify=verify,
        )


if __name__ == "__main__":
    device()
