"""`rsprune report`: the page of a finished run."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from rsprune.cli import common

EXAMPLES = """
[bold]Example[/bold]\n
  rsprune report run/ --source images/
"""


@common.guarded
def command(
    run: Annotated[Path, typer.Argument(help="A finished run folder.")],
    source: Annotated[
        list[str] | None,
        typer.Option("--source", "-s", help="The images of the run, for thumbnails; otherwise the page keeps its own."),
    ] = None,
) -> None:
    """Write report.html again: what was kept, what was dropped, and why."""
    from rsprune.report import write_report

    typer.echo(write_report(run, common.one_or_many(source) if source else None))
