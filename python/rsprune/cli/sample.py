"""`rsprune sample`: images from a trained network."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from rsprune.cli import common
from rsprune.cli.options import with_options
from rsprune.training import check_installed
from rsprune.training.config import SampleOptions

EXAMPLES = """
[bold]Examples[/bold]\n
  rsprune sample training/checkpoints/last.pt --autoencoder sd-vae-ft-ema/ -n 5000 --out samples/\n
  rsprune sample small/checkpoints/last.pt --sampler ddim --steps 50 -n 64 -o samples/\n
  rsprune sample DiT-XL-2-256x256.pt -a sd-vae-ft-ema/ --classes 207,360 --guidance 4 -o samples/\n
  rsprune sample sr/checkpoints/last.pt -a sd-vae-ft-ema/ --condition SECOND/im1 -n 500 -o upscaled/
"""


@common.guarded
@with_options
def command(
    checkpoint: Annotated[Path, typer.Argument(help="A checkpoint of rsprune train, or a published one.")],
    out: common.OutFolder,
    options: SampleOptions,
    condition: Annotated[
        str | None, typer.Option(help="For a fine-tuned network: the images or label maps to draw from.")
    ] = None,
    quiet: common.Quiet = False,
    json: common.Json = False,
) -> None:
    """Draw images: images/<number>.png, and all of them in samples.npz. The same command draws what is missing."""
    check_installed()
    from rsprune.training.sample import sample_run

    with common.watch(quiet, json) as progress:
        drawn = sample_run(checkpoint, out=out, condition=condition, options=options, progress=progress)
    common.conclude(drawn.metrics, drawn.describe(), quiet, json)
