"""`rsprune plan`: what a run will read, write, hold and roughly take."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from rsprune.cli import common
from rsprune.cli.options import with_options
from rsprune.export.options import Layout
from rsprune.runs.config import PruneOptions

EXAMPLES = """
[bold]Examples[/bold]\n
  rsprune plan 'pool-*.tar' --reference aid.tar --keep 0.15 --encoder efficientnet-lite0\n
  rsprune plan images/ -r aid/ --no-measure --json   [dim]# needs no weights[/dim]\n
  rsprune plan 's3://bucket/pool-*.tar' -r resisc45 --machines 4 --gpus 16 --export tar
"""


@common.guarded
@with_options
def command(
    source: common.SourceArgument,
    reference: common.ReferenceOption,
    options: PruneOptions,
    measure: Annotated[bool, typer.Option(help="Time the stages on a sample of the images, for some 20 s.")] = True,
    machines: Annotated[int, typer.Option(min=1, help="Machines like this one that share the shards.")] = 1,
    gpus: Annotated[int, typer.Option(min=0, help="GPUs like this machine's, on all machines together.")] = 0,
    export: Annotated[
        Layout | None, typer.Option(help="The layout that `rsprune export` is to write the images in afterwards.")
    ] = None,
    out: Annotated[
        Path | None, typer.Option("--out", "-o", help="The run folder that is to be; nothing is written to it.")
    ] = None,
    quiet: common.Quiet = False,
    json: common.Json = False,
) -> None:
    """Say what [bold]rsprune prune[/bold] with the same options would read, write, hold in memory and roughly take."""
    from rsprune.runs.plan import plan

    images, scenes = common.one_or_many(source), common.one_or_many(reference)
    planned = plan(
        images,
        reference=scenes,
        out=out,
        options=options,
        measure=measure,
        machines=machines,
        gpus=gpus,
        export=export,
    )
    common.conclude(asdict(planned), planned.describe(), quiet, json)
