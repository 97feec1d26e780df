"""`rsprune autoencoder`: an autoencoder for images that have no published one."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from rsprune.cli import common
from rsprune.cli.train import Device, Precision
from rsprune.training import check_installed

EXAMPLES = """
[bold]Examples[/bold]\n
  rsprune autoencoder naip/ --channels 4 --iterations 100000 --out autoencoder/\n
  rsprune train naip/ --channels 4 --autoencoder autoencoder/ --out training/\n
  rsprune autoencoder naip/ --channels 4 --size 64 --widths 32,64 --iterations 2000 -o small/
"""


@common.guarded
def command(
    source: common.SourceArgument,
    out: common.OutFolder,
    run: Annotated[
        Path | None, typer.Option(help="The run folder whose selection is trained on. Default: all.")
    ] = None,
    size: Annotated[int, typer.Option(min=1, help="Height and width of the images.")] = 256,
    channels: Annotated[int, typer.Option(min=1, help="Channels of the images.")] = 4,
    bands: common.Bands = None,
    valid_range: common.ValidRange = None,
    latent_channels: Annotated[int, typer.Option(min=1, help="Channels of the latents.")] = 4,
    widths: Annotated[
        str, typer.Option(help="Channels of each level; each but the first halves the side.", metavar="W,W,W")
    ] = "128,256,512,512",
    iterations: Annotated[int, typer.Option("--iterations", "-n", min=1, help="Steps in all.")] = 100_000,
    batch: Annotated[int, typer.Option(min=1, help="Images of a step.")] = 16,
    lr: Annotated[float, typer.Option(help="The learning rate of AdamW.")] = 1e-4,
    kl: Annotated[float, typer.Option(help="Weight of the divergence from the standard normal.")] = 1e-6,
    held_out: Annotated[int, typer.Option(min=1, help="Images that are not trained on, and choose the weights.")] = 256,
    validate_every: Annotated[
        int, typer.Option(min=1, help="Steps between two looks at them; a killed training goes on from the last.")
    ] = 1000,
    precision: Precision = "auto",
    device: Device = None,
    seed: common.Seed = 0,
    quiet: common.Quiet = False,
    json: common.Json = False,
) -> None:
    """Train an autoencoder (AutoencoderKL), for images of four bands or others that have no published one.

    The loss is the mean absolute error and a weak divergence. The weights of the lowest error on the held-out images
    are kept, with the scale of their latents, in a folder that rsprune train --autoencoder takes. The same command goes
    on from the last look at the held-out images, with the same result as if it had never stopped.
    """
    check_installed()
    from rsprune.training.train_autoencoder import Fit, fit_autoencoder

    levels = common.integers(widths, "--widths") or ()
    with common.watch(quiet, json) as observer:
        fitted = fit_autoencoder(
            common.one_or_many(source),
            out=out,
            size=size,
            channels=channels,
            bands=common.integers(bands, "--bands"),
            valid_range=common.sample_range(valid_range),
            run=run,
            iterations=iterations,
            validate_every=validate_every,
            fit=Fit(latent_channels, levels, batch, lr, kl, seed, held_out, precision),
            device=device,
            progress=observer,
        )
    common.conclude(fitted.figures, fitted.describe(), quiet, json)
