"""`rsprune plan`: what a run will read, write, hold and roughly take."""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated

import typer

from rsprune.cli import common
from rsprune.cli.options import with_options
from rsprune.runs.config import PruneOptions

EXAMPLES = """
[bold]Examples[/bold]\n
  rsprune plan 'pool-*.tar' --reference aid.tar --keep 0.15 --encoder efficientnet-lite0\n
  rsprune plan images/ -r aid/ --no-measure --json
"""


@common.guarded
@with_options
def command(
    source: common.SourceArgument,
    reference: common.ReferenceOption,
    options: PruneOptions,
    measure: Annotated[bool, typer.Option(help="Time both stages on a few hundred images.")] = True,
    json: common.Json = False,
) -> None:
    """Say what [bold]rsprune prune[/bold] with the same options would read, write, hold in memory and roughly take."""
    from rsprune.runs.plan import plan

    images, scenes = common.one_or_many(source), common.one_or_many(reference)
    planned = plan(images, reference=scenes, options=options, measure=measure)
    common.conclude(asdict(planned), planned.describe(), quiet=False, json=json)
