"""`rsprune embed`: the embeddings alone."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from rsprune.cli import common
from rsprune.cli.options import with_options
from rsprune.runs.config import EmbedOptions

EXAMPLES = """
[bold]Examples[/bold]\n
  rsprune embed images/ --encoder efficientnet-lite0 --out embedded/\n
  rsprune embed 'pool-*.tar' -e efficientnet-lite0 --centroids centroids.safetensors -o embedded/
"""


@common.guarded
@with_options
def command(
    source: common.SourceArgument,
    out: common.OutFolder,
    options: EmbedOptions,
    centroids: Annotated[
        Path | None, typer.Option(help="Write the nearest of these centroids and the similarity with each row.")
    ] = None,
    keep_embeddings: Annotated[
        bool, typer.Option("--keep-embeddings", help="With centroids: keep the embeddings, too.")
    ] = False,
    quiet: common.Quiet = False,
    json: common.Json = False,
) -> None:
    """Embed every image: embeddings/<shard>.npy (float16 unit rows) and embeddings/<shard>.parquet (row, key).

    With centroids, each image's cluster and similarity stand in the table, and the embeddings are only kept on demand.
    [bold]rsprune select[/bold] takes the folder as it is.
    """
    from rsprune.runs.stages import embed_run

    with common.watch(quiet, json) as progress:
        result = embed_run(
            common.one_or_many(source),
            out=out,
            centroids=centroids,
            keep_embeddings=keep_embeddings or centroids is None,
            options=options,
            progress=progress,
        )
    common.conclude(result.metrics, result.text, quiet, json)
