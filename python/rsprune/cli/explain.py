"""`rsprune explain`: why an image was kept or dropped."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from rsprune.cli import common
from rsprune.errors import UnknownKeyError
from rsprune.sources.key_lines import key_of_line

EXAMPLES = """
[bold]Example[/bold]\n
  rsprune explain run/ 000017 004211
"""


@common.guarded
def command(
    run: Annotated[Path, typer.Argument(help="A finished run folder.")],
    keys: Annotated[list[str], typer.Argument(help="Keys of images, as in selected.txt.")],
    source: Annotated[
        list[str] | None,
        typer.Option("--source", "-s", help="The images of the run: checks that they are still the same."),
    ] = None,
    json: common.Json = False,
) -> None:
    """Say why images were kept or dropped: entropy and rank, cluster, similarity and rank, phase, and the cut-offs."""
    from rsprune.report import explain

    unknown = None
    try:
        explanations = explain(run, [key_of_line(key) for key in keys], common.one_or_many(source) if source else None)
    except UnknownKeyError as error:
        unknown, explanations = error, error.explanations
    for explanation in explanations:
        common.conclude(asdict(explanation), explanation.text(), quiet=False, json=json)
    if unknown:
        raise unknown
