"""`rsprune evaluate`: generated images against real ones."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from rsprune.cli import common
from rsprune.errors import ArgumentError

EXAMPLES = """
[bold]Examples[/bold]\n
  rsprune evaluate samples.npz --real aid/ --inception weights-inception-2015-12-05-6726825d.pth --count 5000\n
  rsprune evaluate samples/ --real aid/ --encoder efficientnet-lite0 --cache statistics/ --out metrics.json\n
  rsprune evaluate restored/ --pairs originals/ --lpips alexnet-owt-7be5be79.pth
"""


@common.guarded
def command(
    generated: Annotated[list[str], typer.Argument(help="Generated images: a collection, or an array (.npz, .npy).")],
    real: Annotated[str | None, typer.Option(help="Real images, to be compared with as a set.")] = None,
    pairs: Annotated[str | None, typer.Option(help="Real images, to be compared with one by one.")] = None,
    inception: Annotated[Path | None, typer.Option(help="Weights of FID's Inception network: FID and KID.")] = None,
    encoder: Annotated[
        str | None, typer.Option("--encoder", "-e", help="An encoder: the same distances in its space.")
    ] = None,
    weights: common.Weights = None,
    lpips: Annotated[Path | None, typer.Option(help="torchvision's weights of the backbone of LPIPS.")] = None,
    lpips_net: Annotated[str, typer.Option(help="The backbone: alex, vgg or squeeze.")] = "alex",
    size: Annotated[
        int | None, typer.Option(min=1, help="Bring the sets to this height and width first. Default: as they are.")
    ] = None,
    count: Annotated[int | None, typer.Option(min=2, help="So many of both sets. Default: all.")] = None,
    seed: common.Seed = 0,
    device: Annotated[str, typer.Option(help="cpu or cuda.")] = "cpu",
    cache: Annotated[Path | None, typer.Option(help="A folder that keeps the statistics of the real set.")] = None,
    npz: Annotated[Path | None, typer.Option(help="Also write the generated images for the ADM suite.")] = None,
    out: Annotated[Path | None, typer.Option("--out", "-o", help="Write all metrics as JSON.")] = None,
    quiet: common.Quiet = False,
    json: common.Json = False,
) -> None:
    """Compare generated images with real ones.

    As sets (--real): FID and KID by Inception features, and Frechet and kernel distances in the space of an encoder,
    which are not FID; precision, recall, density and coverage. In pairs (--pairs): PSNR, SSIM, LPIPS. Every figure
    says what made it: extractor, digest of the weights, rule of resizing, numbers of images, seed. Weights of Inception
    and LPIPS are never downloaded.
    """
    from rsprune.encoders import load_encoder
    from rsprune.evaluation.evaluate import Evaluation, evaluate, evaluate_pairs
    from rsprune.evaluation.extractors import EncoderExtractor, Extractor
    from rsprune.evaluation.images import export_npz
    from rsprune.evaluation.inception import Inception
    from rsprune.evaluation.lpips import FILES, Lpips

    images = common.one_or_many(generated)
    if lpips_net not in FILES:
        msg = f"--lpips-net is {lpips_net!r}; expected one of {', '.join(FILES)}"
        raise typer.BadParameter(msg)
    if real is None and pairs is None and npz is None:
        msg = "nothing to compare with: give --real, --pairs, or both"
        raise ArgumentError(msg)
    found = Evaluation(())
    if real is not None:
        extractors: list[Extractor] = []
        if inception is not None:
            extractors.append(Inception(inception, device=device))
        if encoder is not None:
            extractors.append(EncoderExtractor(load_encoder(encoder, weights=weights, device=device)))
        if not extractors:
            msg = "--real needs features: give --inception (FID), --encoder, or both"
            raise ArgumentError(msg)
        found += evaluate(images, real, extractors, size=size, count=count, seed=seed, cache=cache)
    if pairs is not None:
        measure = None if lpips is None else Lpips(lpips, net=lpips_net, device=device)  # type: ignore[arg-type]
        found += evaluate_pairs(images, pairs, lpips=measure)
    if npz is not None:
        export_npz(images, npz)
    if out is not None:
        found.save(out)
    common.conclude({"metrics": [asdict(one) for one in found.metrics]}, found.describe(), quiet, json)
