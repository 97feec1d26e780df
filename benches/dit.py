"""Training steps of a diffusion transformer from a latent cache, beside a plain PyTorch loop whose batches are ready.

On the CPU, or where RSPRUNE_BENCH_DEVICE says. The plain loop takes the same network, loss, optimiser, average and
precision through the same samples, which lie on the device: it loads, decodes and draws nothing. The latents are
normal, in the shape and the type of a published autoencoder's: they are as quick.
"""

import copy
import os
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import numpy as np
import pyarrow as pa
import torch
from numpy.typing import NDArray

from benches.embed import PEAK
from benches.harness import Comparison
from rsprune.io import write_json, write_table
from rsprune.runners import NoProgress
from rsprune.training.autoencoder import Identity
from rsprune.training.config import OptimizerConfig, TrainConfig
from rsprune.training.distributed import DistributedContext
from rsprune.training.dit import DiT
from rsprune.training.gaussian_diffusion import GaussianDiffusion
from rsprune.training.latent_cache import LATENT_SCHEMA, LatentCache
from rsprune.training.latent_loader import Batch, LatentLoader, load_ahead
from rsprune.training.pretrain import build_network
from rsprune.training.trainer import autocast, resolve_precision, train

DEVICE = torch.device(os.environ.get("RSPRUNE_BENCH_DEVICE", "cpu"))

#: Network, samples of a step, samples at once, steps of a round.
WORK = {
    "cpu": [("192x6x6/4", 32, 32, 4), ("DiT-S/2", 2, 2, 2)],
    "cuda": [("DiT-S/2", 256, 256, 300), ("DiT-XL/2", 256, 32, 20)],
}

#: Of the published autoencoder at 256 pixels.
LATENTS, SIDE = 4, 32


def comparisons() -> Iterator[Comparison]:
    with tempfile.TemporaryDirectory() as name:
        cache = write_cache(Path(name), 2048)
        for model, batch, micro_batch, steps in WORK[DEVICE.type]:
            yield compare(cache, model, batch, TrainConfig(steps, micro_batch))


def write_cache(folder: Path, images: int) -> LatentCache:
    """A latent cache: means and log variances of images and of their mirror images."""
    moments = np.random.default_rng(0).standard_normal((images, 2, 2 * LATENTS, SIDE, SIDE), np.float32)
    moments[:, :, LATENTS:] -= 6
    config = {
        "autoencoder": Identity(LATENTS).provenance() | {"latents": LATENTS, "factor": 8},
        "size": 8 * SIDE,
        "mirror": True,
    }
    rows = [{"row": i, "key": str(i), "label": None, "kind": None, "message": None} for i in range(images)]
    (folder / "latents").mkdir()
    np.save(folder / "latents" / "0.npy", moments.astype(np.float16))
    write_table(folder / "latents" / "0.parquet", pa.Table.from_pylist(rows, schema=LATENT_SCHEMA), {})
    write_json(folder / "config.json", config)
    write_json(folder / "summary.json", LatentCache.scan(folder))
    return LatentCache(folder)


def compare(cache: LatentCache, model: str, batch: int, config: TrainConfig) -> Comparison:
    steps = config.iterations
    optimizer = OptimizerConfig(batch, precision=resolve_precision("auto", DEVICE))
    network = build_network(model, 0, input_size=SIDE, in_channels=LATENTS, num_classes=None)
    loader = LatentLoader(cache, Identity(LATENTS), network, optimizer, mirror=True)
    dist = DistributedContext(0, 1, DEVICE)
    micro = config.micro_batch or batch
    parts = [range(start, min(start + micro, batch)) for start in range(0, batch, micro)]
    plain = PlainLoop(network, [[loader(step, part).to(DEVICE) for part in parts] for step in range(steps)], optimizer)

    def ours() -> NDArray[np.float64]:
        return train(copy.deepcopy(network), loader, None, {}, optimizer, config, dist, NoProgress(), lambda *_: None)[
            1
        ]

    def verify(answers: Mapping[str, object]) -> str:
        a, b = (answers[name] for name in ("rsprune", "plain loop"))
        apart = abs(a.sum() / b.sum() - 1)
        assert apart <= 1e-2, f"the losses are {apart:.1%} apart"
        alike = "the same losses" if np.array_equal(a, b) else f"mean losses {apart:.0e} apart"
        return f"{alike}; {describe(network, ours, steps * batch)}; {loader_rate(loader):,.0f} samples/s can be loaded"

    work = f"{steps} steps of {model}, {batch} samples of {LATENTS} x {SIDE} x {SIDE}"
    if micro != batch:
        work += f" by {micro}"
    return Comparison(f"{work}, {optimizer.precision}, {DEVICE.type}", 1.0, ours, {"plain loop": plain}, verify=verify)


class PlainLoop:
    """What a user would write, with the samples of all steps ready on the device."""

    def __init__(self, network: DiT, batches: list[list[Batch]], config: OptimizerConfig) -> None:
        self.network, self.batches, self.config = network, batches, config
        self.diffusion = GaussianDiffusion(DEVICE)

    def __call__(self) -> NDArray[np.float64]:
        config, diffusion = self.config, self.diffusion
        model = copy.deepcopy(self.network).to(DEVICE).train()
        ema = copy.deepcopy(model).requires_grad_(False)
        parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
        optimizer = torch.optim.AdamW(
            parameters, lr=config.lr, weight_decay=config.weight_decay, fused=DEVICE.type == "cuda"
        )
        losses = []
        for step in self.batches:
            total = torch.zeros(2, device=DEVICE)
            for batch in step:
                noisy = diffusion.q_sample(batch.x, batch.t, batch.noise)
                with autocast(DEVICE, config.precision):
                    output = model(noisy, batch.t)
                loss = diffusion.training_losses(output, batch.x, noisy, batch.t, batch.noise)
                (loss.total.sum() / config.batch).backward()
                total += torch.stack([loss.mse.detach().sum(), loss.vb.detach().sum()])
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
            with torch.no_grad():
                torch._foreach_lerp_(list(ema.parameters()), list(model.parameters()), 1 - config.ema)
            losses.append(total / config.batch)
        return torch.stack(losses).double().cpu().numpy()


def describe(network: DiT, steps: Callable[[], object], samples: int) -> str:
    """Samples a second, and on a GPU the share of its peak."""
    begun = time.perf_counter()
    steps()
    rate = samples / (time.perf_counter() - begun)
    text = f"{rate:,.1f} samples/s"
    if DEVICE.type == "cuda":
        device = torch.cuda.get_device_name()
        peak = next((peak for name, peak in PEAK.items() if name in device), None)
        rate *= flops(network) / 1e12
        text += f", {rate:,.0f} TFLOP/s" + (f", {rate / peak:.0%} of the peak of {device}" if peak else "")
    return text


def flops(network: DiT) -> float:
    """Operations of a sample, forward and backward: the products of weights and tokens, and of tokens and tokens."""
    config = network.config
    width, tokens = config["hidden_size"], (config["input_size"] // config["patch_size"]) ** 2
    block = tokens * (4 + 2 * config["mlp_ratio"]) * width**2 + 2 * tokens**2 * width + 6 * width**2
    return 3 * 2.0 * config["depth"] * block


def loader_rate(loader: LatentLoader) -> float:
    """Samples a second that the loader's threads make in batches of 256, while nothing else works."""
    begun = time.perf_counter()
    made = sum(len(batch.t) for batch in load_ahead(loader, ((step, range(256)) for step in range(20))))
    return made / (time.perf_counter() - begun)
