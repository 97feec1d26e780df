"""`rsprune experiment`: the paper's tables and figures."""

from __future__ import annotations

import os
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Literal

import typer

from rsprune.cli import common
from rsprune.cli.options import with_options
from rsprune.experiments.presets import TrialOptions
from rsprune.runs.config import parse_settings
from rsprune.training import check_installed

EXAMPLES = """
[bold]Examples[/bold]\n
  rsprune experiment table3 --pool images/ --reference aid/\n
  rsprune experiment fig4 --scale gpu --pool 'pool-*.tar' --reference reference.tar --set iterations=3000\n
  rsprune experiment table4 --scale paper --pool images/ --reference resisc45=NWPU-RESISC45/ --reference aid=AID/
    --set autoencoder=sd-vae-ft-ema/ --inception weights-inception-2015-12-05-6726825d.pth
"""

#: A folder with a pool and reference images: pool-*.tar and reference*.tar.
DATA = "RSPRUNE_DATA"

Name = Literal["table1", "table2", "table3", "table4", "fig3", "fig4"]


@common.guarded
@with_options
def command(
    name: Annotated[Name, typer.Argument(help="The table or figure of the paper.")],
    options: TrialOptions,
    pool: Annotated[
        list[str] | None, typer.Option(help=f"The collection; may be repeated. Default: ${DATA}/pool-*.tar.")
    ] = None,
    reference: Annotated[
        list[str] | None,
        typer.Option(
            "--reference", "-r", metavar="[NAME=]SOURCE", help=f"Labelled images; may be repeated. Default: of ${DATA}."
        ),
    ] = None,
    scale: Annotated[
        Literal["paper", "gpu", "cpu"], typer.Option(help="The paper's budget, one GPU, or two cores and an hour.")
    ] = "cpu",
    changes: Annotated[
        list[str] | None,
        typer.Option("--set", "-s", metavar="NAME=VALUE", help="Change a setting of the scale: iterations=2000."),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(
            "--out", "-o", help="The folder, which experiments of one pool may share. Default: experiments-SCALE/."
        ),
    ] = None,
    quiet: common.Quiet = False,
    json: common.Json = False,
) -> None:
    """Train the same model on what different methods select, several times, and compare its samples.

    table1: methods. table2: what Stage I leaves for Stage II. table3: Stage I against both. table4: reference sets
    against clusters of the pool. fig3: the number of centroids. fig4: how much Stage I keeps. Writes a table (.txt,
    .md, .csv) and a figure (.svg) beside the published results. The same command resumes a stopped experiment.
    """
    check_installed()
    from rsprune.experiments.experiment import experiment

    collection = pool or from_data("--pool", "pool-*.tar")
    scenes = reference or from_data("--reference", "reference*.tar")
    with common.watch(quiet, json) as observer:
        result = experiment(
            name,
            common.one_or_many(collection),
            by_name(scenes),
            out=out or Path(f"experiments-{scale}"),
            scale=scale,
            changes=parse_settings(changes or []),
            options=options,
            progress=observer,
        )
    rows = [
        {"arm": arm, **{key: asdict(value) if hasattr(value, "spread") else value for key, value in metrics.items()}}
        for arm, metrics in result.summary()
    ]
    common.conclude({"path": str(result.path), "head": result.head, "arms": rows}, result.describe(), quiet, json)


def from_data(option: str, pattern: str) -> list[str]:
    """Find the default of an option in the data folder."""
    data = os.environ.get(DATA)
    paths = [] if data is None else [str(path) for path in sorted(Path(data).glob(pattern))]
    if not paths:
        where = f"{DATA} is not set" if data is None else f"no {pattern} in {data}, where {DATA} points"
        msg = f"{option} is missing, and {where}"
        raise typer.BadParameter(msg)
    return paths


def by_name(sources: list[str]) -> dict[str, str]:
    """Parse ``aid=AID/``; a set without a name has that of its file."""
    sets: dict[str, str] = {}
    for source in sources:
        name, equals, place = source.partition("=")
        if not equals:
            name, place = Path(source).name.partition(".")[0], source
        if name in sets:
            msg = f"two reference sets are called {name!r}: give them names, NAME=SOURCE"
            raise typer.BadParameter(msg)
        sets[name] = place
    return sets
