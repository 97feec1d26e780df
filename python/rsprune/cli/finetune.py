"""`rsprune finetune sr | sis`: from a trained network to super-resolution or semantic image synthesis."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from rsprune.cli import common
from rsprune.cli.train import CheckpointEvery, Device, MicroBatch, Precision, SampleEvery
from rsprune.training import check_installed

EXAMPLES = """
[bold]Examples[/bold]\n
  rsprune finetune sr SECOND/im1 SECOND/im2 --checkpoint training/checkpoints/last.pt -a sd-vae-ft-ema/ -o sr/\n
  rsprune finetune sis OpenEarthMap/ --dataset openearthmap --checkpoint training/checkpoints/last.pt -o sis/
"""

app = typer.Typer(
    help="Fine-tune a trained network: super-resolution (sr), or images from label maps (sis).",
    epilog=EXAMPLES,
    no_args_is_help=True,
    rich_markup_mode="rich",
)

Checkpoint = Annotated[Path, typer.Option("--checkpoint", "-c", help="The trained network.")]
Autoencoder = Annotated[
    str | None, typer.Option("--autoencoder", "-a", help="The one it was trained with; not needed for pixels.")
]
Size = Annotated[int | None, typer.Option(min=1, help="Height and width of the images. Default: as it was trained.")]
Iterations = Annotated[int, typer.Option("--iterations", "-n", min=1, help="Steps in all.")]
BatchOf = Annotated[int, typer.Option(min=1, help="Images of a step, over all devices.")]
Rate = Annotated[float, typer.Option(help="The learning rate of AdamW.")]
Average = Annotated[float, typer.Option(help="What averaged weights keep of themselves at a step.")]


@app.command("sr", epilog=EXAMPLES)
@common.guarded
def super_resolution(
    source: common.SourceArgument,
    checkpoint: Checkpoint,
    out: common.OutFolder,
    factor: Annotated[int, typer.Option(min=2, help="How many times smaller the low resolution is.")] = 4,
    bands: common.Bands = None,
    autoencoder: Autoencoder = None,
    size: Size = None,
    iterations: Iterations = 5000,
    batch: BatchOf = 256,
    micro_batch: MicroBatch = None,
    lr: Rate = 1e-4,
    ema: Average = 0.9999,
    precision: Precision = "auto",
    checkpoint_every: CheckpointEvery = 500,
    sample_every: SampleEvery = 1000,
    device: Device = None,
    seed: common.Seed = 0,
    quiet: common.Quiet = False,
    json: common.Json = False,
) -> None:
    """Learn to draw images from the same images made small. The same command goes on from the last checkpoint."""
    check_installed()
    from rsprune.training.finetune import finetune_sr

    options = tuning(iterations, batch, micro_batch, lr, ema, precision, checkpoint_every, sample_every, device, seed)
    with common.watch(quiet, json) as observer:
        tuned = finetune_sr(
            common.one_or_many(source),
            checkpoint,
            out=out,
            factor=factor,
            size=size,
            bands=common.integers(bands, "--bands"),
            autoencoder=autoencoder,
            **options,
            progress=observer,
        )
    common.conclude(tuned.figures, tuned.describe(), quiet, json)


@app.command("sis", epilog=EXAMPLES)
@common.guarded
def synthesis(
    root: Annotated[Path, typer.Argument(help="The folder of the data set.")],
    checkpoint: Checkpoint,
    out: common.OutFolder,
    dataset: Annotated[Literal["second", "openearthmap"], typer.Option(help="Whose layout and palette it has.")],
    encoding: Annotated[
        Literal["onehot", "palette"], typer.Option(help="Shares of classes, or colours through the autoencoder.")
    ] = "onehot",
    autoencoder: Autoencoder = None,
    size: Size = None,
    iterations: Iterations = 5000,
    batch: BatchOf = 256,
    micro_batch: MicroBatch = None,
    lr: Rate = 1e-4,
    ema: Average = 0.9999,
    precision: Precision = "auto",
    checkpoint_every: CheckpointEvery = 500,
    sample_every: SampleEvery = 1000,
    device: Device = None,
    seed: common.Seed = 0,
    quiet: common.Quiet = False,
    json: common.Json = False,
) -> None:
    """Learn to draw images from label maps. The same command goes on from the last checkpoint."""
    check_installed()
    from rsprune.training.finetune import finetune_sis

    options = tuning(iterations, batch, micro_batch, lr, ema, precision, checkpoint_every, sample_every, device, seed)
    with common.watch(quiet, json) as observer:
        tuned = finetune_sis(
            root,
            checkpoint,
            out=out,
            dataset=dataset,
            encoding=encoding,
            size=size,
            autoencoder=autoencoder,
            **options,
            progress=observer,
        )
    common.conclude(tuned.figures, tuned.describe(), quiet, json)


def tuning(*values: Any) -> dict[str, Any]:
    """The options that both tasks share, by name."""
    names = "iterations batch micro_batch lr ema precision checkpoint_every sample_every device seed"
    return dict(zip(names.split(), values, strict=True))
