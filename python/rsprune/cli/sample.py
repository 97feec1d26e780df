"""`rsprune sample`: images from a trained network."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from rsprune.cli import common
from rsprune.cli.train import Device, Precision
from rsprune.training import check_installed

EXAMPLES = """
[bold]Examples[/bold]\n
  rsprune sample training/checkpoints/last.pt --autoencoder sd-vae-ft-ema/ -n 5000 --out samples/\n
  rsprune sample small/checkpoints/last.pt --sampler ddim --steps 50 -n 64 -o samples/\n
  rsprune sample DiT-XL-2-256x256.pt -a sd-vae-ft-ema/ --classes 207,360 --guidance 4 -o samples/\n
  rsprune sample sr/checkpoints/last.pt -a sd-vae-ft-ema/ --condition SECOND/im1 -n 500 -o upscaled/
"""


@common.guarded
def command(
    checkpoint: Annotated[Path, typer.Argument(help="A checkpoint of rsprune train, or a published one.")],
    out: common.OutFolder,
    images: Annotated[int, typer.Option("--images", "-n", min=1, help="How many images.")] = 64,
    autoencoder: Annotated[
        str | None, typer.Option("--autoencoder", "-a", help="What decodes the latents; not needed for pixels.")
    ] = None,
    weights: Annotated[Literal["ema", "model"], typer.Option(help="The averaged weights, or the last ones.")] = "ema",
    classes: Annotated[str | None, typer.Option(help="Classes to draw in turn. Default: all.")] = None,
    condition: Annotated[
        str | None, typer.Option(help="Of a fine-tuned network: the images or label maps to draw from.")
    ] = None,
    sampler: Annotated[
        Literal["ddpm", "ddim", "dpm++"], typer.Option(help="ddpm as in the paper; the others need fewer steps.")
    ] = "ddpm",
    steps: Annotated[int, typer.Option(min=1, max=1000, help="Steps of the sampler.")] = 250,
    guidance: Annotated[float, typer.Option(help="Scale of classifier-free guidance; 1 is none.")] = 1.0,
    batch: Annotated[int, typer.Option(min=1, help="Images at once.")] = 32,
    precision: Precision = "auto",
    device: Device = None,
    seed: common.Seed = 0,
    quiet: common.Quiet = False,
    json: common.Json = False,
) -> None:
    """Draw images: images/<number>.png, and all of them in samples.npz. The same command draws what is missing."""
    check_installed()
    from rsprune.training.sample import Sampling, sample_run

    with common.watch(quiet, json) as observer:
        drawn = sample_run(
            checkpoint,
            out=out,
            images=images,
            autoencoder=autoencoder,
            weights=weights,
            classes=None if classes is None else classes.split(","),
            condition=condition,
            sampling=Sampling(sampler, steps, guidance, batch, seed),
            precision=precision,
            device=device,
            progress=observer,
        )
    common.conclude(drawn.figures, drawn.describe(), quiet, json)
