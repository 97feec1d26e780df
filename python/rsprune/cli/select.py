"""`rsprune select`: Stage II's choice alone."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from rsprune.cli import common

EXAMPLES = """
[bold]Examples[/bold]\n
  rsprune select embedded/ --centroids reference/centroids.safetensors --keep 0.15 --out selection.parquet\n
  rsprune select img_emb/ -c centroids.safetensors --keep 1575000 -o selection.parquet
"""


@common.guarded
def command(
    embeds: Annotated[
        Path, typer.Argument(help="A folder of [bold]rsprune embed[/bold], a .npy file, or a folder of them.")
    ],
    centroids: Annotated[Path, typer.Option("--centroids", "-c", help="Fitted centroids (.safetensors).")],
    out: Annotated[Path, typer.Option("--out", "-o", help="The manifest to write (.parquet).")],
    keep: common.Keep = "0.15",
    fill: common.Fill = "global",
    within: common.Within = "nearest",
    seed: common.Seed = 0,
    threads: common.Threads = None,
    quiet: common.Quiet = False,
    json: common.Json = False,
) -> None:
    """Choose rows of embeddings: an equal number nearest to each centroid, the rest from the global remainder."""
    from rsprune.pipeline import select_run

    result = select_run(
        embeds,
        centroids=centroids,
        keep=common.budget(keep),
        out=out,
        fill=fill,
        within=within,
        seed=seed,
        threads=threads,
    )
    common.conclude(result.figures, result.text, quiet, json)
