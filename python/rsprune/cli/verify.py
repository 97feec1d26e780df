"""`rsprune verify`: whether a run is as it was written."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from rsprune.cli import common

EXAMPLES = """
[bold]Examples[/bold]\n
  rsprune verify run/\n
  rsprune verify run/ --source images/ --deep
"""


@common.guarded
def command(
    run: Annotated[Path, typer.Argument(help="A run folder.")],
    source: Annotated[
        list[str] | None,
        typer.Option("--source", "-s", help="The images of the run: checks that they are still the same."),
    ] = None,
    deep: Annotated[
        bool,
        typer.Option(
            "--deep", help="Read some of the images of --source again, and embed them if the encoder is here."
        ),
    ] = False,
    seed: Annotated[int, typer.Option(min=0, help="The seed of the draw of --deep.")] = 0,
    json: common.Json = False,
) -> None:
    """Compare every file of a run with its digest, and budget, order, phases and cut-offs with the tables.

    Ends with exit code 1 and a list of what is wrong, or with a line if all is well.
    """
    from rsprune.runs.verify import verify_run

    verified = verify_run(run, source=common.one_or_many(source) if source else None, deep=deep, seed=seed)
    common.conclude(asdict(verified), verified.describe(), quiet=False, json=json)
    if verified.findings:
        raise typer.Exit(1)
