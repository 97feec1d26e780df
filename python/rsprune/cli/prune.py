"""`rsprune prune`: the whole method."""

from __future__ import annotations

from typing import Annotated

import typer

from rsprune.cli import common

EXAMPLES = """
[bold]Examples[/bold]\n
  rsprune prune images/ --reference aid/ --keep 0.15 --encoder efficientnet-lite0 --out run/\n
  rsprune prune 'pool-*.tar' -r aid.tar --keep 100000 --k 200 -o run/ --json\n
  rsprune prune images/ -r centroids.safetensors --keep 0.15 -o run/\n
  rsprune prune images/ -r aid/ --keep 0.15 --strategy cluster_nearest -O k=1000 -o other/
"""


@common.guarded
def command(
    source: common.SourceArgument,
    reference: Annotated[
        str,
        typer.Option(
            "--reference", "-r", help="Labelled scene images, their embeddings (.npy), or centroids (.safetensors)."
        ),
    ],
    out: common.OutFolder,
    keep: common.Keep = "0.15",
    entropy_keep: common.EntropyKeep = 0.30,
    tau: common.Tau = None,
    encoder: common.Encoder = "git-rsclip",
    weights: common.Weights = None,
    device: common.Device = None,
    precision: common.Precision = "auto",
    compile: common.Compile = False,
    keep_embeddings: common.KeepEmbeddings = False,
    batch_size: common.BatchSize = None,
    k: common.K = 200,
    fill: common.Fill = "global",
    within: common.Within = "nearest",
    min_similarity: common.MinSimilarity = None,
    reference_max_per_class: Annotated[
        int | None, typer.Option(min=1, help="Fit the centroids on so many images of a class at most.")
    ] = None,
    reference_max_images: Annotated[
        int | None, typer.Option(min=1, help="Fit the centroids on so many images at most, balanced over the classes.")
    ] = None,
    strategy: common.Strategy = "rsprune",
    strategy_option: common.StrategyOption = None,
    seed: common.Seed = 0,
    gray: common.Gray = "bt601",
    bands: common.Bands = None,
    nodata: common.NoData = None,
    valid_range: common.ValidRange = None,
    max_pixels: common.MaxPixels = None,
    threads: common.Threads = None,
    quiet: common.Quiet = False,
    json: common.Json = False,
) -> None:
    """Choose the images of a collection that are worth training on.

    Stage I keeps the images of highest entropy; Stage II embeds those, assigns each to the nearest centroid of the
    reference images, and keeps an equal number nearest to each centroid. The run folder holds the result
    (selection.parquet, selected.txt), the images that could not be read (quarantine.parquet) and a report.
    """
    from rsprune.runs.prune import prune

    with common.watch(quiet, json) as observer:
        run = prune(
            common.one_or_many(source),
            reference=reference,
            keep=common.budget(keep),
            out=out,
            entropy_keep=entropy_keep,
            tau=tau,
            encoder=encoder,
            weights=weights,
            device=device,
            precision=precision,
            compile=compile,
            keep_embeddings=keep_embeddings,
            batch_size=batch_size,
            k=k,
            fill=fill,
            within=within,
            min_similarity=min_similarity,
            reference_max_per_class=reference_max_per_class,
            reference_max_images=reference_max_images,
            strategy=strategy,
            strategy_options=common.settings(strategy_option, "--strategy-option"),
            seed=seed,
            **common.pixels(gray, bands, nodata, valid_range, max_pixels),
            threads=threads,
            progress=observer,
        )
    common.conclude(run.summary, run.describe(), quiet, json)
