"""The command `rsprune`, put together."""

from __future__ import annotations

from importlib import import_module
from typing import Annotated

import typer

from rsprune._core import VERSION
from rsprune.cli import encoders, finetune

__all__ = ["main"]

# In the order of the help; each is the function `command` of the module of its name.
COMMANDS = [
    "prune",
    "plan",
    "entropy",
    "embed",
    "centroids",
    "select",
    "strategies",
    "export",
    "explain",
    "report",
    "verify",
    "compare",
    "autoencoder",
    "train",
    "sample",
    "evaluate",
    "experiment",
    "demo",
]

app = typer.Typer(
    name="rsprune",
    help="Choose the few percent of a remote-sensing image collection that a diffusion model should be trained on.",
    epilog="Start with: rsprune demo",
    no_args_is_help=True,
    rich_markup_mode="rich",
    pretty_exceptions_show_locals=False,
)


def print_version(wanted: bool) -> None:
    """Print the version and end."""
    if wanted:
        typer.echo(f"rsprune {VERSION}")
        raise typer.Exit


@app.callback()
def rsprune(
    version: Annotated[
        bool, typer.Option("--version", callback=print_version, is_eager=True, help="Print the version and end.")
    ] = False,
) -> None:
    """Choose the few percent of a remote-sensing image collection that a diffusion model should be trained on."""


for name in COMMANDS:
    module = import_module(f"rsprune.cli.{name}")
    app.command(name, epilog=module.EXAMPLES)(module.command)
app.add_typer(encoders.app, name="encoders")
app.add_typer(finetune.app, name="finetune")


def main() -> None:
    """Run the command line."""
    app()
