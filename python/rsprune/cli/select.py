"""`rsprune select`: Stage II's choice alone."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from rsprune.cli import common
from rsprune.cli.options import with_options
from rsprune.runs.config import SelectRunOptions

EXAMPLES = """
[bold]Examples[/bold]\n
  rsprune select embedded/ --centroids reference/centroids.safetensors --keep 0.15 --out selection.parquet\n
  rsprune select img_emb/ -c centroids.safetensors --keep 1575000 -o selection.parquet\n
  rsprune select 'embeddings-*.parquet' -c centroids.safetensors --keep 0.15 -o chosen/\n
  rsprune select img_emb/ --strategy herding -O shares=proportional --keep 0.1 -o herd.parquet
"""


@common.guarded
@with_options
def command(
    embeds: Annotated[
        list[str],
        typer.Argument(
            help="A folder of [bold]rsprune embed[/bold] or prune; or embeddings: .npy files, tables (.parquet, "
            ".arrow) with a column of vectors (table#column), a folder, pattern or range of these."
        ),
    ],
    out: Annotated[
        Path,
        typer.Option("--out", "-o", help="The manifest to write (.parquet), or a folder for it and for selected.txt."),
    ],
    options: SelectRunOptions,
    centroids: Annotated[
        Path | None,
        typer.Option(
            "--centroids", "-c", help="Fitted centroids (.safetensors, .npy), or the folder that they were written to."
        ),
    ] = None,
    reference: Annotated[
        str | None, typer.Option("--reference", "-r", help="Reference embeddings, as those to choose from.")
    ] = None,
    keys: Annotated[
        Path | None,
        typer.Option(help="What names the rows of embeddings: a text with a line a row, or a table with a column key."),
    ] = None,
    entropy: Annotated[Path | None, typer.Option(help="An entropy for each row (.npy).")] = None,
    score: Annotated[Path | None, typer.Option(help="A score for each row, more is better (.npy).")] = None,
    labels: Annotated[Path | None, typer.Option(help="A class for each row (.npy).")] = None,
    source: Annotated[
        list[str] | None,
        typer.Option("--source", "-s", help="The images of the run, whose metadata the manifest then has."),
    ] = None,
    quiet: common.Quiet = False,
    json: common.Json = False,
) -> None:
    """Choose rows of embeddings: an equal number nearest to each centroid, the rest from the global remainder.

    Or by any other strategy; --keep none leaves the number of rows to one that has a rule of its own.
    """
    from rsprune.runs.stages import select_run

    result = select_run(
        embeds,
        out=out,
        keys=keys,
        centroids=centroids,
        reference=reference,
        entropy=entropy,
        score=score,
        labels=labels,
        source=common.one_or_many(source) if source else None,
        options=options,
    )
    common.conclude(result.metrics, result.text, quiet, json)
