"""`rsprune plan`: what a run will read, write, hold and roughly take."""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated

import typer

from rsprune.cli import common

EXAMPLES = """
[bold]Examples[/bold]\n
  rsprune plan 'pool-*.tar' --reference aid.tar --keep 0.15 --encoder efficientnet-lite0\n
  rsprune plan images/ -r aid/ --no-measure --json
"""


@common.guarded
def command(
    source: common.SourceArgument,
    reference: Annotated[str, typer.Option("--reference", "-r", help="As for [bold]rsprune prune[/bold].")],
    keep: common.Keep = "0.15",
    entropy_keep: common.EntropyKeep = 0.30,
    encoder: common.Encoder = "git-rsclip",
    weights: common.Weights = None,
    device: common.Device = None,
    precision: common.Precision = "auto",
    keep_embeddings: common.KeepEmbeddings = False,
    k: common.K = 200,
    threads: common.Threads = None,
    measure: Annotated[bool, typer.Option(help="Time both stages on a few hundred images.")] = True,
    json: common.Json = False,
) -> None:
    """Say what [bold]rsprune prune[/bold] with the same options would read, write, hold in memory and roughly take."""
    from rsprune.runs.plan import plan

    planned = plan(
        common.one_or_many(source),
        reference=reference,
        keep=common.budget(keep),
        entropy_keep=entropy_keep,
        encoder=encoder,
        weights=weights,
        device=device,
        precision=precision,
        keep_embeddings=keep_embeddings,
        k=k,
        threads=threads,
        measure=measure,
    )
    common.conclude(asdict(planned), planned.describe(), quiet=False, json=json)
