"""`rsprune compare`: selection methods side by side."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from rsprune.cli import common
from rsprune.runs.config import parse_budget

EXAMPLES = """
[bold]Examples[/bold]\n
  rsprune prune images/ -r aid/ --entropy-keep 1 --keep-embeddings -o run/ && rsprune compare run/\n
  rsprune compare run/ --strategies rsprune:entropy_keep=0.3,random,kcenter --keep 0.15 --labels labels.csv
"""


@common.guarded
def command(
    run: Annotated[Path, typer.Argument(help="A run folder that kept its embeddings.")],
    strategies: Annotated[
        str | None, typer.Option("--strategies", "-s", help="Methods, as name:option=value. Default: all.")
    ] = None,
    keep: Annotated[str, typer.Option(help="Budgets: numbers of images, or fractions.")] = "0.30,0.15,0.10",
    labels: Annotated[Path | None, typer.Option(help="A CSV table of classes, for measuring alone.")] = None,
    key_column: Annotated[str, typer.Option(help="Its column of keys.")] = "key",
    label_column: Annotated[str, typer.Option(help="Its column of classes.")] = "class",
    holdout: Annotated[float, typer.Option(help="Share of the reference images held out as the target.")] = 0.5,
    out: Annotated[Path | None, typer.Option("--out", "-o", help="Where to. Default: compare/ in the run.")] = None,
    seed: common.Seed = 0,
    threads: common.Threads = None,
    quiet: common.Quiet = False,
    json: common.Json = False,
) -> None:
    """Run selection methods on the embeddings of a run, and measure what each chose.

    Writes one table (compare.txt, .csv, .md) and one figure (compare.svg), and the rows of each selection. A comparison
    that was stopped goes on. Only images that Stage I kept have embeddings: run prune with --entropy-keep 1 for all.
    """
    from rsprune.experiments import compare

    with common.watch(quiet, json) as observer:
        result = compare(
            run,
            [] if strategies is None else strategies.split(","),
            keep=[parse_budget(one) for one in keep.split(",")],
            labels=labels,
            key_column=key_column,
            label_column=label_column,
            holdout=holdout,
            out=out,
            seed=seed,
            threads=threads,
            progress=observer,
        )
    metrics = {"path": str(result.path), "head": result.head, "entries": [asdict(one) for one in result.entries]}
    common.conclude(metrics, result.describe(), quiet, json)
