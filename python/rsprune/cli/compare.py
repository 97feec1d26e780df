"""`rsprune compare`: selection methods side by side."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from rsprune.cli import common
from rsprune.cli.options import with_options
from rsprune.experiments.compare import CompareOptions

EXAMPLES = """
[bold]Examples[/bold]\n
  rsprune prune images/ -r aid/ --entropy-keep 1 --keep-embeddings -o run/ && rsprune compare run/\n
  rsprune compare 'embeddings-*.parquet' -r reference.npy -k 200 --out compared/\n
  rsprune compare run/ --strategies rsprune:entropy_keep=0.3,random,kcenter --keep 0.15 --labels labels.csv
"""


@common.guarded
@with_options
def command(
    pool: Annotated[
        list[str], typer.Argument(help="A run folder that kept its embeddings; or embeddings alone, as for select.")
    ],
    options: CompareOptions,
    strategies: Annotated[
        str | None, typer.Option("--strategies", "-s", help="Methods, as name:option=value. Default: all.")
    ] = None,
    out: Annotated[Path | None, typer.Option("--out", "-o", help="Where to. Default: compare/ in the run.")] = None,
    reference: Annotated[
        str | None, typer.Option("--reference", "-r", help="Embeddings alone: those of the reference images.")
    ] = None,
    centroids: Annotated[
        Path | None, typer.Option("--centroids", "-c", help="Embeddings alone: fitted centroids (.safetensors, .npy).")
    ] = None,
    keys: Annotated[Path | None, typer.Option(help="Embeddings alone: what names the rows, as for select.")] = None,
    entropy: Annotated[Path | None, typer.Option(help="Embeddings alone: an entropy for each row (.npy).")] = None,
    quiet: common.Quiet = False,
    json: common.Json = False,
) -> None:
    """Run selection methods on the embeddings of a run, or on embeddings alone, and measure what each chose.

    Writes one table (compare.txt, .csv, .md) and one figure (compare.svg), and the rows of each selection. A comparison
    that was stopped goes on. Only images that Stage I kept have embeddings: run prune with --entropy-keep 1 for all.
    """
    from rsprune.experiments import compare

    with common.watch(quiet, json) as observer:
        result = compare(
            pool,
            strategies.split(",") if strategies else [],
            out=out,
            reference=reference,
            centroids=centroids,
            keys=keys,
            entropy=entropy,
            options=options,
            progress=observer,
        )
    metrics = {"path": str(result.path), "head": result.head, "entries": [asdict(one) for one in result.entries]}
    common.conclude(metrics, result.describe(), quiet, json)
