"""`rsprune centroids`: the reference centroids alone."""

from __future__ import annotations

from rsprune.cli import common

EXAMPLES = """
[bold]Examples[/bold]\n
  rsprune centroids aid/ --encoder efficientnet-lite0 --k 200 --out reference/\n
  rsprune centroids aid-embeddings.npy -k 200 -o reference/
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
    batch_size: common.BatchSize = None,
    k: common.K = 200,
    seed: common.Seed = 0,
    threads: common.Threads = None,
    quiet: common.Quiet = False,
    json: common.Json = False,
) -> None:
    """Fit the reference centroids: embed labelled scene images (or take their embeddings), spherical K-means.

    Writes centroids.safetensors into the folder.
    """
    from rsprune.pipeline import centroids_run

    with common.watch(quiet, json) as observer:
        result = centroids_run(
            common.one_or_many(source),
            out=out,
            encoder=encoder,
            weights=weights,
            device=device,
            precision=precision,
            compile=compile,
            batch_size=batch_size,
            k=k,
            seed=seed,
            threads=threads,
            progress=observer,
        )
    common.conclude(result.figures, result.text, quiet, json)
