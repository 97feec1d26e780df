"""`rsprune centroids`: the reference centroids alone."""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated, Any

import typer

from rsprune.cli import common
from rsprune.cli.options import with_options
from rsprune.options import integers
from rsprune.runs.config import CentroidOptions, parse_budget

EXAMPLES = """
[bold]Examples[/bold]\n
  rsprune centroids aid/ --encoder efficientnet-lite0 --k 200 --out reference/\n
  rsprune centroids aid-embeddings.npy -k 200 -o reference/\n
  rsprune centroids 'embeddings-*.parquet' -k 200 -o reference/\n
  rsprune centroids run/ --sweep --ks 50,100,200 --out sweep/
"""


@common.guarded
@with_options
def command(
    source: common.SourceArgument,
    out: common.OutFolder,
    options: CentroidOptions,
    sweep: Annotated[
        bool, typer.Option("--sweep", help="Of a run that kept its embeddings: try several K, and say what each does.")
    ] = False,
    ks: Annotated[
        Any, typer.Option(parser=integers, metavar="K,K,K", help="With --sweep: the numbers of centroids.")
    ] = "25,50,100,200,400",
    seeds: Annotated[int, typer.Option(min=1, help="With --sweep: how many seeds, from --seed on.")] = 3,
    keep: Annotated[str, typer.Option(help="With --sweep: the budget.")] = "0.15",
    quiet: common.Quiet = False,
    json: common.Json = False,
) -> None:
    """Fit the reference centroids: embed labelled scene images (or take their embeddings), spherical K-means.

    Writes centroids.safetensors into the folder. With --sweep the argument is a run folder with embeddings, and what is
    written is a table and a figure: coverage of held-out reference images, empty and large clusters, the share that the
    quotas leave and how stable the selection is, each against K; and how redundant the pool is, with a recommended
    pruning ratio.
    """
    if not sweep:
        from rsprune.runs.stages import centroids_run

        with common.watch(quiet, json) as progress:
            result = centroids_run(common.one_or_many(source), out=out, options=options, progress=progress)
        common.conclude(result.metrics, result.text, quiet, json)
        return
    from rsprune.experiments import diagnose

    if len(source) != 1:
        message = f"--sweep takes one run folder, not {len(source)} arguments"
        raise typer.BadParameter(message)
    found = diagnose(
        source[0],
        out=out,
        ks=ks,
        keep=parse_budget(keep),
        seeds=seeds,
        seed=options.seed,
        threads=options.execution.threads,
    )
    metrics = {
        "head": found.head,
        "trials": [asdict(one) for one in found.trials],
        "keep": found.redundancy.keep,
        "height": found.redundancy.height,
    }
    common.conclude(metrics, found.describe(), quiet, json)
