"""`rsprune select`: Stage II's choice alone."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from rsprune.cli import common

EXAMPLES = """
[bold]Examples[/bold]\n
  rsprune select embedded/ --centroids reference/centroids.safetensors --keep 0.15 --out selection.parquet\n
  rsprune select img_emb/ -c centroids.safetensors --keep 1575000 -o selection.parquet\n
  rsprune select img_emb/ --strategy herding -O per_cluster=true --keep 0.1 -o herd.parquet
"""


@common.guarded
def command(
    embeds: Annotated[
        Path, typer.Argument(help="A folder of [bold]rsprune embed[/bold], a .npy file, or a folder of them.")
    ],
    out: Annotated[Path, typer.Option("--out", "-o", help="The manifest to write (.parquet).")],
    centroids: Annotated[
        Path | None, typer.Option("--centroids", "-c", help="Fitted centroids (.safetensors).")
    ] = None,
    keep: common.Keep = "0.15",
    fill: common.Fill = "global",
    within: common.Within = "nearest",
    min_similarity: common.MinSimilarity = None,
    strategy: common.Strategy = "rsprune",
    strategy_option: common.StrategyOption = None,
    reference: Annotated[Path | None, typer.Option("--reference", "-r", help="Reference embeddings (.npy).")] = None,
    entropy: Annotated[Path | None, typer.Option(help="An entropy for each row (.npy).")] = None,
    score: Annotated[Path | None, typer.Option(help="A score for each row, more is better (.npy).")] = None,
    labels: Annotated[Path | None, typer.Option(help="A class for each row (.npy).")] = None,
    seed: common.Seed = 0,
    threads: common.Threads = None,
    quiet: common.Quiet = False,
    json: common.Json = False,
) -> None:
    """Choose rows of embeddings: an equal number nearest to each centroid, the rest from the global remainder.

    Or by any other strategy; --keep none leaves the number of rows to one that has a rule of its own.
    """
    from rsprune.runs.single import select_run

    result = select_run(
        embeds,
        centroids=centroids,
        keep=None if keep == "none" else common.budget(keep),
        out=out,
        fill=fill,
        within=within,
        min_similarity=min_similarity,
        strategy=strategy,
        strategy_options=common.settings(strategy_option, "--strategy-option"),
        reference=reference,
        entropy=entropy,
        score=score,
        labels=labels,
        seed=seed,
        threads=threads,
    )
    common.conclude(result.figures, result.text, quiet, json)
