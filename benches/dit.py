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
from torch import Tensor

from benches.embed import PEAK
from benches.harness import Comparison
from rsprune.concurrency import prefetch_map
from rsprune.io import write_json, write_table
from rsprune.training.autoencoder import Identity
from rsprune.training.distributed import Processes
from rsprune.training.dit import DiT
from rsprune.training.gaussian_diffusion import Diffusion
from rsprune.training.latent_cache import LATENT_SCHEMA, LatentCache
from rsprune.training.pretrain import Feed, build_network
from rsprune.training.trainer import (
    AHEAD,
    MAKERS,
    Batch,
    Optimisation,
    Schedule,
    State,
    Stepping,
    autocast,
    precision_on,
)

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
            yield compare(cache, model, batch, Schedule(steps, micro_batch))


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


def compare(cache: LatentCache, model: str, batch: int, schedule: Schedule) -> Comparison:
    steps = schedule.iterations
    optimisation = Optimisation(batch, precision=precision_on(DEVICE, "auto"))
    network = build_network(model, 0, input_size=SIDE, in_channels=LATENTS, num_classes=None)
    feed = Feed(cache, Identity(LATENTS), None, network, optimisation, mirror=True)
    us = Processes(0, 1, DEVICE)
    stepping = Stepping(
        State(copy.deepcopy(network).to(DEVICE).train(), optimisation, us), feed, optimisation, schedule, us
    )
    batches = [[feed(step, part).to(DEVICE) for part in stepping.parts()] for step in range(steps)]
    plain = Plain(network, batches, optimisation)

    def ours() -> Tensor:
        return torch.stack(list(stepping.losses(0, steps))).cpu()

    def verify(answers: Mapping[str, object]) -> str:
        a, b = (answers[name] for name in ("rsprune", "plain loop"))
        apart = abs(a.sum() / b.sum() - 1).item()
        assert apart <= 1e-2, f"the losses are {apart:.1%} apart"
        alike = "the same losses" if torch.equal(a, b) else f"mean losses {apart:.0e} apart"
        return f"{alike}; {describe(network, ours, steps * batch)}; {feed_rate(stepping):,.0f} samples/s can be fed"

    work = f"{steps} steps of {model}, {batch} samples of {LATENTS} x {SIDE} x {SIDE}"
    if schedule.micro_batch != batch:
        work += f" by {schedule.micro_batch}"
    return Comparison(
        f"{work}, {optimisation.precision}, {DEVICE.type}", 1.0, ours, {"plain loop": plain}, verify=verify
    )


class Plain:
    """What a user would write, with the samples of all steps ready on the device."""

    def __init__(self, network: DiT, batches: list[list[Batch]], optimisation: Optimisation) -> None:
        self.network = copy.deepcopy(network).to(DEVICE).train()
        self.averaged = copy.deepcopy(self.network).requires_grad_(False)
        self.batches, self.optimisation = batches, optimisation
        self.diffusion = Diffusion(DEVICE)
        moved = [parameter for parameter in self.network.parameters() if parameter.requires_grad]
        self.optimizer = torch.optim.AdamW(
            moved, lr=optimisation.lr, weight_decay=optimisation.weight_decay, fused=DEVICE.type == "cuda"
        )
        self.pairs = list(self.averaged.parameters()), list(self.network.parameters())

    def __call__(self) -> Tensor:
        shown = []
        for step in self.batches:
            sums = torch.zeros(2, device=DEVICE)
            for batch in step:
                noisy = self.diffusion.q_sample(batch.x, batch.t, batch.noise)
                with autocast(DEVICE, self.optimisation.precision):
                    output = self.network(noisy, batch.t)
                losses = self.diffusion.losses(output, batch.x, noisy, batch.t, batch.noise)
                (losses.total.sum() / self.optimisation.batch).backward()
                sums += torch.stack([losses.mse.detach().sum(), losses.vb.detach().sum()])
            self.optimizer.step()
            self.optimizer.zero_grad(set_to_none=True)
            with torch.no_grad():
                torch._foreach_lerp_(*self.pairs, 1 - self.optimisation.ema)
            shown.append(sums / self.optimisation.batch)
        return torch.stack(shown).cpu()


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


def feed_rate(stepping: Stepping) -> float:
    """Samples a second that the loop's threads make in batches of 256, while nothing else works."""
    places = ((step, range(256)) for step in range(20))
    begun = time.perf_counter()
    made = sum(
        len(batch.t)
        for batch in prefetch_map(lambda _, place: stepping.make(*place[0]), places, 1, threads=MAKERS, depth=AHEAD)
    )
    return made / (time.perf_counter() - begun)
