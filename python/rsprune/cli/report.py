"""`rsprune report`: the page of a finished run."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from rsprune.cli import common

EXAMPLES = """
[bold]Examples[/bold]\n
  rsprune report run/ --source images/\n
  rsprune report run/ --source images/ --map-sample 1000   [dim]# where the run kept no embeddings[/dim]\n
  rsprune report --compare run/selections/rsprune-keep0.15 run/selections/kcenter-keep0.15 --source images/
"""


@common.guarded
def command(
    runs: Annotated[
        list[Path], typer.Argument(metavar="RUN...", help="A finished run folder, or a choice in its selections/.")
    ],
    source: Annotated[
        list[str] | None,
        typer.Option("--source", "-s", help="The images of the run, for thumbnails; otherwise the page keeps its own."),
    ] = None,
    map_sample: Annotated[
        int,
        typer.Option(min=0, help="Of a run without --keep-embeddings: embed so many images again, for the map."),
    ] = 0,
    compare: Annotated[
        bool, typer.Option("--compare", help="Compare two: what both keep, and what one keeps alone.")
    ] = False,
    out: Annotated[
        Path | None, typer.Option("--out", "-o", help="Of --compare: the page. Default: comparison.html in the first.")
    ] = None,
) -> None:
    """Write report.html again: what was kept, what was dropped, and why. With --compare, a page about two choices."""
    from rsprune.report import write_comparison, write_report

    images = common.one_or_many(source) if source else None
    if len(runs) != 1 + compare:
        message = f"{'--compare takes two runs' if compare else 'one run has one page'}, and there are {len(runs)}"
        raise typer.BadParameter(message, param_hint="RUN")
    if compare:
        typer.echo(write_comparison(*runs, out=out, source=images))
    elif out is not None:
        message = "the page of a run is report.html in its folder"
        raise typer.BadParameter(message, param_hint="--out")
    else:
        typer.echo(write_report(runs[0], images, map_sample=map_sample))
