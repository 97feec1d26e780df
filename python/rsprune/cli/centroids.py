"""`rsprune centroids`: the reference centroids alone."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from rsprune.cli import common

EXAMPLES = """
[bold]Examples[/bold]\n
  rsprune centroids aid/ --encoder efficientnet-lite0 --k 200 --out reference/\n
  rsprune centroids aid-embeddings.npy -k 200 -o reference/\n
  rsprune centroids run/ --sweep --ks 50,100,200 --out sweep/
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
    max_per_class: Annotated[int | None, typer.Option(min=1, help="Take so many images of a class at most.")] = None,
    max_images: Annotated[
        int | None, typer.Option(min=1, help="Take so many images at most, balanced over the classes.")
    ] = None,
    seed: common.Seed = 0,
    sweep: Annotated[
        bool, typer.Option("--sweep", help="Of a run that kept its embeddings: try several K, and say what each does.")
    ] = False,
    ks: Annotated[str, typer.Option(help="With --sweep: the numbers of centroids.")] = "25,50,100,200,400",
    seeds: Annotated[int, typer.Option(min=1, help="With --sweep: how many seeds, from --seed on.")] = 3,
    keep: Annotated[str, typer.Option(help="With --sweep: the budget.")] = "0.15",
    threads: common.Threads = None,
    quiet: common.Quiet = False,
    json: common.Json = False,
) -> None:
    """Fit the reference centroids: embed labelled scene images (or take their embeddings), spherical K-means.

    Writes centroids.safetensors into the folder. With --sweep the argument is a run folder with embeddings, and what is
    written is a table and a figure: coverage of held-out reference images, empty and large clusters, the share that the
    quotas leave and how stable the selection is, each against K; and how redundant the pool is, with a recommended
    pruning ratio.
    """
    if sweep:
        conclude_sweep(source, out, ks, keep, seeds, seed, threads, quiet, json)
        return
    from rsprune.runs.single import centroids_run

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
            max_per_class=max_per_class,
            max_images=max_images,
            seed=seed,
            threads=threads,
            progress=observer,
        )
    common.conclude(result.figures, result.text, quiet, json)


def conclude_sweep(
    source: list[str],
    out: Path,
    ks: str,
    keep: str,
    seeds: int,
    seed: int,
    threads: int | None,
    quiet: bool,
    json: bool,
) -> None:
    """Sweep, and show what was found."""
    from rsprune.experiments import diagnose

    if len(source) != 1:
        msg = f"--sweep takes one run folder, not {len(source)} arguments"
        raise typer.BadParameter(msg)
    numbers = common.integers(ks, "--ks") or ()
    budget = common.budget(keep)
    found = diagnose(source[0], out=out, ks=numbers, keep=budget, seeds=seeds, seed=seed, threads=threads)
    figures = {
        "head": found.head,
        "trials": [asdict(one) for one in found.trials],
        "keep": found.redundancy.keep,
        "height": found.redundancy.height,
    }
    common.conclude(figures, found.describe(), quiet, json)
