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
[bold]Examples[/bold]\n
  rsprune explain run/ 000017 004211\n
  rsprune explain run/   [dim]# which choices it holds[/dim]\n
  rsprune explain run/ 000017 --name rsprune-keep0.15
"""


@common.guarded
def command(
    run: Annotated[Path, typer.Argument(help="A finished run folder.")],
    keys: Annotated[
        list[str] | None, typer.Argument(help="Keys of images, as in selected.txt. Default: list the choices.")
    ] = None,
    name: Annotated[
        str | None, typer.Option(help="The choice that is explained, of those in selections/. Default: the newest.")
    ] = None,
    source: Annotated[
        list[str] | None,
        typer.Option("--source", "-s", help="The images of the run: checks that they are still the same."),
    ] = None,
    json: common.Json = False,
) -> None:
    """Say why images were kept or dropped: entropy and rank, cluster, similarity and rank, phase, and the cut-offs."""
    from rsprune.report import explain
    from rsprune.runs.folder import RunFolder
    from rsprune.runs.selections import describe_choices, open_choice

    folder, unknown = open_choice(RunFolder(run), name), None
    if not keys:
        RunFolder(run).read_config()
        choices = describe_choices(folder)
        width = max((len(one["name"]) for one in choices), default=0)
        lines = (
            f"{one['name']:<{width}}  {one['selected']:,} images{', the newest' * one['newest']}" for one in choices
        )
        common.conclude({"selections": choices}, "\n".join(lines) or "no choice has been made", quiet=False, json=json)
        return
    try:
        explanations = explain(
            folder, [key_of_line(key) for key in keys], common.one_or_many(source) if source else None
        )
    except UnknownKeyError as error:
        unknown, explanations = error, error.explanations
    for explanation in explanations:
        common.conclude(asdict(explanation), explanation.text(), quiet=False, json=json)
    if unknown:
        raise unknown
