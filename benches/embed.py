"""The embedding stage, from a tar of JPEGs to the run folder, beside the encoder's bare forward pass.

On the CPU, or where RSPRUNE_BENCH_DEVICE says. Git-RSCLIP has its real size and random weights: they are as quick.
"""

import io
import os
import shutil
import tarfile
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import torch
from safetensors.torch import save_file

from benches.entropy import pool_jpegs, tile_jpegs
from benches.harness import THREADS, Comparison
from rsprune.encoders import load_encoder, siglip
from rsprune.encoders.torch_encoder import TorchEncoder
from rsprune.runs.stages import embed_run

DEVICE = os.environ.get("RSPRUNE_BENCH_DEVICE", "cpu")

#: Dense bfloat16 products, in TFLOP/s, as NVIDIA states them.
PEAK = {"H100": 989, "H200": 989, "A100": 312}


def comparisons() -> Iterator[Comparison]:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        many = DEVICE != "cpu"
        yield compare(load_encoder("efficientnet-lite0", device=DEVICE), 20_000 if many else 768, folder)
        weights = folder / "model.safetensors"
        with torch.device("meta"):
            shapes = siglip.SHAPES["siglip-large-patch16-256"].build().state_dict()
        torch.manual_seed(0)
        save_file({key: 0.02 * torch.randn(value.shape) for key, value in shapes.items()}, weights)
        encoder = load_encoder("git-rsclip", weights=weights, device=DEVICE, precision="bfloat16")
        yield compare(encoder, 20_000 if many else 32, folder)


def compare(encoder: TorchEncoder, images: int, folder: Path) -> Comparison:
    files = pool_jpegs() or tile_jpegs(256, 1000)
    files = (files * (images // len(files) + 1))[:images]
    source = folder / f"{encoder.name}-{images}.tar"
    write_tar(source, files)
    out = folder / "out"
    batches = [
        encoder.preprocess(files[start : start + encoder.batch_size]) for start in range(0, images, encoder.batch_size)
    ]
    large = np.concatenate(batches[:8])

    def stage() -> np.ndarray:
        shutil.rmtree(out, ignore_errors=True)
        embed_run(source, out=out, encoder=encoder, progress=False)
        return np.load(out / "embeddings" / f"{source.stem}.npy")

    def forward() -> np.ndarray:
        with ThreadPoolExecutor(encoder.concurrency) as pool:
            return np.concatenate(list(pool.map(encoder.forward, batches)))

    def shared() -> np.ndarray:
        """PyTorch's own way: every layer of one large batch on all cores."""
        encoder.one_batch_per_core = False
        torch.set_num_threads(THREADS)
        try:
            return np.concatenate([encoder.forward(large) for _ in range(0, images, len(large))])
        finally:
            encoder.one_batch_per_core = True

    def verify(answers: Mapping[str, object]) -> str:
        rows, bare = (np.asarray(answers[name], np.float32) for name in ("rsprune", "forward"))
        assert np.abs(rows - bare).max() <= 1e-3, "the stage embeds something else than the bare pass"
        assert pq.read_metadata(out / "embeddings" / f"{source.stem}.parquet").num_rows == images
        return describe(encoder, stage, images)

    precision = encoder.provenance()["runtime"]["precision"]
    peers: dict[str, Callable[[], object]] = {"forward": forward}
    if DEVICE == "cpu":
        peers["forward, layers on all cores"] = shared
    return Comparison(
        f"embedding stage of {images:,} JPEGs, {encoder.name}, {precision}, {DEVICE}", 0.95, stage, peers, verify=verify
    )


def describe(encoder: TorchEncoder, stage: Callable[[], object], images: int) -> str:
    """Images a second, and on a GPU the share of its peak."""
    begun = time.perf_counter()
    stage()
    rate = images / (time.perf_counter() - begun)
    text = f"{rate:,.1f} images/s"
    if DEVICE != "cpu" and encoder.name == "git-rsclip":
        device = torch.cuda.get_device_name()
        rate *= flops(siglip.SHAPES["siglip-large-patch16-256"]) / 1e12
        peak = next((peak for name, peak in PEAK.items() if name in device), None)
        text += f", {rate:,.0f} TFLOP/s" + (f", {rate / peak:.0%} of the peak of {device}" if peak else "")
    return text


def flops(shape: siglip.SiglipShape) -> float:
    """Operations of an image: the products of weights and tokens, and of tokens and tokens."""
    tokens, width = (shape.image_size // shape.patch_size) ** 2, shape.hidden_size
    layer = tokens * (4 * width**2 + 2 * width * shape.intermediate_size) + 2 * tokens**2 * width
    return 2.0 * (shape.num_hidden_layers * layer + tokens * width * 3 * shape.patch_size**2)


def write_tar(path: Path, files: list[bytes]) -> None:
    with tarfile.open(path, "w") as tar:
        for i, file in enumerate(files):
            member = tarfile.TarInfo(f"{i:06d}.jpg")
            member.size = len(file)
            tar.addfile(member, io.BytesIO(file))
