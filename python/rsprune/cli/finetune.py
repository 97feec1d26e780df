"""`rsprune finetune sr | sis`: from a trained network to super-resolution or semantic image synthesis."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from rsprune.cli import common
from rsprune.cli.options import with_options
from rsprune.training import check_installed
from rsprune.training.config import SisOptions, SrOptions

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


@app.command("sr", epilog=EXAMPLES)
@common.guarded
@with_options
def super_resolution(
    source: common.SourceArgument,
    checkpoint: Checkpoint,
    out: common.OutFolder,
    options: SrOptions,
    quiet: common.Quiet = False,
    json: common.Json = False,
) -> None:
    """Learn to draw images from their low resolutions. The same command goes on from the last checkpoint."""
    check_installed()
    from rsprune.training.finetune import finetune_sr

    with common.watch(quiet, json) as progress:
        tuned = finetune_sr(common.one_or_many(source), checkpoint, out=out, options=options, progress=progress)
    common.conclude(tuned.metrics, tuned.describe(), quiet, json)


@app.command("sis", epilog=EXAMPLES)
@common.guarded
@with_options
def synthesis(
    root: Annotated[Path, typer.Argument(help="The folder of the data set.")],
    checkpoint: Checkpoint,
    out: common.OutFolder,
    options: SisOptions,
    quiet: common.Quiet = False,
    json: common.Json = False,
) -> None:
    """Learn to draw images from label maps. The same command goes on from the last checkpoint."""
    check_installed()
    from rsprune.training.finetune import finetune_sis

    with common.watch(quiet, json) as progress:
        tuned = finetune_sis(root, checkpoint, out=out, options=options, progress=progress)
    common.conclude(tuned.metrics, tuned.describe(), quiet, json)
