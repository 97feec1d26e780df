"""`rsprune autoencoder`: an autoencoder for images that have no published one."""

from __future__ import annotations

from rsprune.cli import common
from rsprune.cli.options import with_options
from rsprune.training import check_installed
from rsprune.training.config import AutoencoderOptions

EXAMPLES = """
[bold]Examples[/bold]\n
  rsprune autoencoder naip/ --channels 4 --iterations 100000 --out autoencoder/\n
  rsprune train naip/ --channels 4 --autoencoder autoencoder/ --out training/\n
  rsprune autoencoder naip/ --channels 4 --size 64 --widths 32,64 --iterations 2000 -o small/
"""


@common.guarded
@with_options
def command(
    source: common.SourceArgument,
    out: common.OutFolder,
    options: AutoencoderOptions,
    quiet: common.Quiet = False,
    json: common.Json = False,
) -> None:
    """Train an autoencoder (AutoencoderKL), for images of four bands or others that have no published one.

    The loss is the mean absolute error and a weak divergence. The weights of the lowest error on the held-out images
    are kept, with the scale of their latents, in a folder that rsprune train --autoencoder takes. The same command goes
    on from the last validation, with the same result as if it had never stopped.
    """
    check_installed()
    from rsprune.training.train_autoencoder import train_autoencoder

    with common.watch(quiet, json) as progress:
        trained = train_autoencoder(common.one_or_many(source), out=out, options=options, progress=progress)
    common.conclude(trained.metrics, trained.describe(), quiet, json)
