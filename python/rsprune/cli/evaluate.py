"""`rsprune evaluate`: generated images against real ones."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Literal

import typer

from rsprune.cli import common
from rsprune.cli.options import with_options
from rsprune.errors import ArgumentError
from rsprune.evaluation.evaluate import EvaluationOptions
from rsprune.evaluation.extractors import Extractor
from rsprune.io import check_output_file, is_own_npz
from rsprune.options import option

EXAMPLES = """
[bold]Examples[/bold]\n
  rsprune evaluate samples.npz --real aid/ --inception weights-inception-2015-12-05-6726825d.pth --count 5000\n
  rsprune evaluate samples/ --real aid/ --encoder efficientnet-lite0 --cache statistics/ --out metrics.json\n
  rsprune evaluate restored/ --pairs originals/ --lpips alexnet-owt-7be5be79.pth
"""


@dataclass(frozen=True)
class ExtractorOptions:
    """The networks that images are compared by."""

    inception: Path | None = option(None, help="Weights of FID's Inception network: FID and KID.")
    encoder: str | None = option(None, help="An encoder: the same distances in its space.", flags=("--encoder", "-e"))
    weights: Path | None = option(None, help="The encoder's weights, if they are not found automatically.")
    lpips: Path | None = option(None, help="torchvision's weights of the backbone of LPIPS.")
    lpips_net: Literal["alex", "vgg", "squeeze"] = option("alex", help="The backbone of LPIPS.")
    device: str = option("cpu", help="cpu or cuda.")

    def open(self) -> list[Extractor]:
        """Load the networks whose features are compared."""
        from rsprune.encoders import load_encoder
        from rsprune.evaluation.extractors import EncoderExtractor
        from rsprune.evaluation.inception import Inception

        extractors: list[Extractor] = []
        if self.inception is not None:
            extractors.append(Inception(self.inception, device=self.device))
        if self.encoder is not None:
            extractors.append(EncoderExtractor(load_encoder(self.encoder, weights=self.weights, device=self.device)))
        if not extractors:
            msg = "--real needs features: give --inception (FID), --encoder, or both"
            raise ArgumentError(msg)
        return extractors


@common.guarded
@with_options
def command(
    generated: Annotated[list[str], typer.Argument(help="Generated images: a collection, or an array (.npz, .npy).")],
    networks: ExtractorOptions,
    options: EvaluationOptions,
    real: Annotated[str | None, typer.Option(help="Real images to compare with as a set.")] = None,
    pairs: Annotated[str | None, typer.Option(help="Real images to compare with one by one.")] = None,
    npz: Annotated[Path | None, typer.Option(help="Also write the generated images for the ADM suite.")] = None,
    out: Annotated[Path | None, typer.Option("--out", "-o", help="Write all metrics as JSON.")] = None,
    quiet: common.Quiet = False,
    json: common.Json = False,
) -> None:
    """Compare generated images with real ones.

    As sets (--real): FID and KID by Inception features, and Frechet and kernel distances in the space of an encoder,
    which are not FID; precision, recall, density and coverage. In pairs (--pairs): PSNR, SSIM, LPIPS. Every metric
    names its extractor, digest of the weights, rule of resizing, numbers of images and seed. Weights of Inception and
    LPIPS are never downloaded.
    """
    from rsprune.evaluation.evaluate import Evaluation, evaluate, evaluate_pairs
    from rsprune.evaluation.images import export_npz
    from rsprune.evaluation.lpips import Lpips

    images = common.one_or_many(generated)
    if out is not None:
        check_output_file(out, Evaluation.is_saved)
    if npz is not None:
        check_output_file(npz, is_own_npz)
    if real is None and pairs is None and npz is None:
        msg = "nothing to compare with: give --real, --pairs, or both"
        raise ArgumentError(msg)
    found = Evaluation(())
    if real is not None:
        found += evaluate(images, real, networks.open(), options=options)
    if pairs is not None:
        lpips = (
            None if networks.lpips is None else Lpips(networks.lpips, net=networks.lpips_net, device=networks.device)
        )
        found += evaluate_pairs(images, pairs, lpips=lpips)
    if npz is not None:
        export_npz(images, npz)
    if out is not None:
        found.save(out)
    common.conclude({"metrics": [asdict(one) for one in found.metrics]}, found.describe(), quiet, json)
