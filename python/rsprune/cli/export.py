"""`rsprune export`: the images that a run chose, as a data set of their own."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from rsprune.cli import common
from rsprune.cli.options import with_options
from rsprune.export.options import ExportOptions

EXAMPLES = """
[bold]Examples[/bold]\n
  rsprune export run/ --source images/ --as folder --to subset/\n
  rsprune export run/ --source 'pool-*.tar' --as tar --shard-bytes 1000000000 --to shards/\n
  rsprune export run/ --source images/ --as list --to train.csv\n
  rsprune export run/ --source images/ --as embedding-atlas --to atlas/
"""


@common.guarded
@with_options
def command(
    run: Annotated[Path, typer.Argument(help="A finished run folder.")],
    source: Annotated[list[str], typer.Option("--source", "-s", help="The images of the run.")],
    options: ExportOptions,
    to: Annotated[Path, typer.Option("--to", help="The folder to write, or the list. An interrupted export goes on.")],
    quiet: common.Quiet = False,
    json: common.Json = False,
) -> None:
    """Write the images that a run chose as a data set: their encoded bytes, as they are, with the manifest beside them.

    Data sets whose license forbids to pass on their images, as Git-10M's does, leave the manifest for that.
    """
    from rsprune.export import export_run

    with common.watch(quiet, json) as observer:
        result = export_run(run, common.one_or_many(source), to=to, options=options, progress=observer)
    common.conclude(result.metrics | {"path": str(result.path)}, result.describe(), quiet, json)
