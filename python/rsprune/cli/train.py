"""`rsprune train`: a diffusion transformer on what was kept."""

from __future__ import annotations

from rsprune.cli import common
from rsprune.cli.options import with_options
from rsprune.training import check_installed
from rsprune.training.config import PretrainOptions

EXAMPLES = """
[bold]Examples[/bold]\n
  rsprune train images/ --run run/ --autoencoder sd-vae-ft-ema/ --iterations 100000 --out training/\n
  torchrun --nproc-per-node 8 -m rsprune train images/ --run run/ --autoencoder sd-vae-ft-ema/ -o training/\n
  rsprune train aid/ --size 32 --model 192x6x6/4 --iterations 2000 --batch 64 --sample-every 500 -o small/
"""


@common.guarded
@with_options
def command(
    source: common.SourceArgument,
    out: common.OutFolder,
    options: PretrainOptions,
    quiet: common.Quiet = False,
    json: common.Json = False,
) -> None:
    """Train a diffusion transformer (DiT) on a collection, or on the selection of a run.

    The defaults are the published recipe. The images are encoded once; the same command goes on from the last
    checkpoint, with the same result as if it had never stopped.
    """
    check_installed()
    from rsprune.training.pretrain import pretrain

    with common.watch(quiet, json) as progress:
        trained = pretrain(common.one_or_many(source), out=out, options=options, progress=progress)
    common.conclude(trained.metrics, trained.describe(), quiet, json)
