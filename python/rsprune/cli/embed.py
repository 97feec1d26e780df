"""`rsprune embed`: the embeddings alone."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from rsprune.cli import common

EXAMPLES = """
[bold]Examples[/bold]\n
  rsprune embed images/ --encoder efficientnet-lite0 --out embedded/\n
  rsprune embed 'pool-*.tar' -e efficientnet-lite0 --centroids centroids.safetensors -o embedded/
"""


@common.guarded
def command(
    source: common.SourceArgument,
    out: common.OutFolder,
    encoder: common.Encoder = "git-rsclip",
    weights: common.Weights = None,
    device: common.Device = None,
    precision: common.Precision = "auto",
    compile: common.Compile = False,
    keep_embeddings: common.KeepEmbeddings = False,
    batch_size: common.BatchSize = None,
    centroids: Annotated[
        Path | None, typer.Option(help="Write the nearest of these centroids and the similarity with each row.")
    ] = None,
    bands: common.Bands = None,
    valid_range: common.ValidRange = None,
    max_pixels: common.MaxPixels = None,
    threads: common.Threads = None,
    quiet: common.Quiet = False,
    json: common.Json = False,
) -> None:
    """Embed every image: embeddings/<shard>.npy (float16 unit rows) and embeddings/<shard>.parquet (row, key).

    With centroids, each image's cluster and similarity stand in the table, and the embeddings are only kept on demand.
    [bold]rsprune select[/bold] takes the folder as it is.
    """
    from rsprune.runs.single import embed_run

    options = common.pixels("bt601", bands, None, valid_range, max_pixels)
    with common.watch(quiet, json) as observer:
        result = embed_run(
            common.one_or_many(source),
            out=out,
            encoder=encoder,
            weights=weights,
            device=device,
            precision=precision,
            compile=compile,
            keep_embeddings=keep_embeddings or centroids is None,
            batch_size=batch_size,
            centroids=centroids,
            bands=options["bands"],
            valid_range=options["valid_range"],
            max_pixels=options["max_pixels"],
            threads=threads,
            progress=observer,
        )
    common.conclude(result.figures, result.text, quiet, json)
