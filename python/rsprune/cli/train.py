"""`rsprune train`: a diffusion transformer on what was kept."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from rsprune.cli import common
from rsprune.training import check_installed

EXAMPLES = """
[bold]Examples[/bold]\n
  rsprune train images/ --run run/ --autoencoder sd-vae-ft-ema/ --iterations 100000 --out training/\n
  torchrun --nproc-per-node 8 -m rsprune train images/ --run run/ --autoencoder sd-vae-ft-ema/ -o training/\n
  rsprune train aid/ --size 32 --model 192x6x6/4 --iterations 2000 --batch 64 --sample-every 500 -o small/
"""

Precision = Annotated[
    Literal["auto", "float32", "bfloat16"],
    typer.Option(help="What the network computes in. auto: bfloat16 on GPUs that have it. Weights are float32."),
]
MicroBatch = Annotated[int | None, typer.Option(min=1, help="Images at once on a device; the batch is accumulated.")]
Device = Annotated[str | None, typer.Option(help="cpu, cuda or cuda:1. Default: a GPU, or the CPU.")]
CheckpointEvery = Annotated[
    int, typer.Option(min=1, help="Steps between two states that a killed training goes on from.")
]
SampleEvery = Annotated[int, typer.Option(min=1, help="Steps between two grids of samples.")]


@common.guarded
def command(
    source: common.SourceArgument,
    out: common.OutFolder,
    autoencoder: Annotated[
        str, typer.Option("--autoencoder", "-a", help="A folder of diffusers or TAESD, or identity: train on pixels.")
    ] = "identity",
    run: Annotated[
        Path | None, typer.Option(help="The run folder whose selection is trained on. Default: all.")
    ] = None,
    latents: Annotated[Path | None, typer.Option(help="The latent cache. Default: latents/ in the folder.")] = None,
    size: Annotated[int, typer.Option(min=1, help="Height and width of the images.")] = 256,
    channels: Annotated[int, typer.Option(min=1, help="Channels of the images.")] = 3,
    bands: common.Bands = None,
    valid_range: common.ValidRange = None,
    model: Annotated[str, typer.Option(help="DiT-XL/2 to DiT-S/8, or WIDTHxBLOCKSxHEADS/PATCH.")] = "DiT-XL/2",
    conditional: Annotated[bool, typer.Option("--conditional", help="Tell the network the class folders.")] = False,
    measured_scale: Annotated[
        bool, typer.Option("--measured-scale", help="Scale latents as measured, not by the autoencoder's constant.")
    ] = False,
    iterations: Annotated[int, typer.Option("--iterations", "-n", min=1, help="Steps in all.")] = 100_000,
    batch: Annotated[int, typer.Option(min=1, help="Images of a step, over all devices.")] = 256,
    micro_batch: MicroBatch = None,
    lr: Annotated[float, typer.Option(help="The learning rate of AdamW.")] = 1e-4,
    weight_decay: Annotated[float, typer.Option(help="The weight decay of AdamW.")] = 0.0,
    ema: Annotated[float, typer.Option(help="What averaged weights keep of themselves at a step.")] = 0.9999,
    mirror: Annotated[bool, typer.Option("--mirror/--no-mirror", help="Mirror half of the images.")] = True,
    precision: Precision = "auto",
    compile: Annotated[bool, typer.Option("--compile", help="Compile the network.")] = False,
    checkpoint_every: CheckpointEvery = 2500,
    keep_every: Annotated[int, typer.Option(min=1, help="Steps between two checkpoints that are kept.")] = 50_000,
    sample_every: SampleEvery = 10_000,
    samples: Annotated[int, typer.Option(min=1, help="Images of a grid of samples.")] = 16,
    device: Device = None,
    seed: common.Seed = 0,
    quiet: common.Quiet = False,
    json: common.Json = False,
) -> None:
    """Train a diffusion transformer (DiT) on a collection, or on what a run chose of it.

    The defaults are the published recipe. The images are encoded once; the same command goes on from the last
    checkpoint, with the same result as if it had never stopped.
    """
    check_installed()
    from rsprune.training.pretrain import pretrain

    with common.watch(quiet, json) as observer:
        trained = pretrain(
            common.one_or_many(source),
            out=out,
            autoencoder=autoencoder,
            size=size,
            channels=channels,
            bands=common.integers(bands, "--bands"),
            valid_range=common.sample_range(valid_range),
            run=run,
            latents=latents,
            model=model,
            conditional=conditional,
            measured_scale=measured_scale,
            iterations=iterations,
            batch=batch,
            micro_batch=micro_batch,
            lr=lr,
            weight_decay=weight_decay,
            ema=ema,
            mirror=mirror,
            precision=precision,
            compile=compile,
            checkpoint_every=checkpoint_every,
            keep_every=keep_every,
            sample_every=sample_every,
            samples=samples,
            device=device,
            seed=seed,
            progress=observer,
        )
    common.conclude(trained.figures, trained.describe(), quiet, json)
