"""`rsprune.prune`: from a collection of images to the manifest of those worth training on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from rsprune import strategies
from rsprune.encoders import Encoder
from rsprune.encoders.base import Precision
from rsprune.entropy import Gray
from rsprune.errors import ArgumentError, BudgetError, MissingInputError
from rsprune.io import provenance_header, read_json, read_table
from rsprune.report import write_report
from rsprune.runners import Progress, show_progress
from rsprune.runs.choice import OWN, cut, decide, read_selection
from rsprune.runs.folder import RunFolder
from rsprune.runs.options import Pixels, Work, encoder_config, open_encoder, source_config
from rsprune.runs.reader import read_pool
from rsprune.runs.reference import Fitted, ReferenceLike, SourceLike, open_reference
from rsprune.runs.stages import embed_shards, entropy_shards
from rsprune.selection import Fill, Selection, Within, budget_rows, check_min_similarity
from rsprune.sources import open_source

__all__ = ["Run", "open_run", "prune"]


@dataclass(frozen=True)
class Run:
    """A finished run.

    Attributes
    ----------
    path
        The run folder.
    selection
        The rows kept. Rows are numbered through the whole collection, images that were pruned or not read included.
    """

    path: Path
    selection: Selection

    @cached_property
    def summary(self) -> dict[str, Any]:
        """The figures of the run, as ``summary.json`` holds them."""
        return read_json(RunFolder(self.path).summary)

    def describe(self) -> str:
        """The figures in words: what was kept, and where it is."""
        figures, folder = self.summary, RunFolder(self.path)
        clusters = figures["clusters"]["pool"]
        by_quota = f"{figures['phases']['quota']:,} by quota, {figures['phases']['fill']:,} from the remainder"
        rule = f"{figures['quota']:,} nearest to each of {len(clusters)} centroids: {by_quota}"
        if (strategy := figures.get("strategy", OWN)) != OWN:
            rule = f"{figures['selected']:,} by the strategy {strategy!r}"
        if outside := figures.get("outside", 0):
            rule += f"; {outside:,} are out of the domain"
        return "\n".join(
            [
                f"{figures['selected']:,} of {figures['images']:,} images kept "
                f"({figures['selected'] / figures['images']:.1%}), {figures['quarantined']:,} in quarantine",
                f"Stage I   kept {figures['survivors']:,} images of {figures['tau']:.4f} bits or more",
                f"Stage II  {rule}",
                f"manifest  {folder.selection}",
                *([f"unread    {folder.quarantine}"] if figures["quarantined"] else []),
                f"keys      {folder.selected}",
                f"report    {folder.report}",
            ]
        )

    @property
    def report(self) -> Path:
        """The page that shows what was kept and why."""
        return RunFolder(self.path).report

    @cached_property
    def keys(self) -> list[str]:
        """The keys of the images kept, aligned with ``selection.indices``."""
        keys: list[str] = read_table(RunFolder(self.path).selection, ["key"])["key"].to_pylist()
        return keys


def prune(
    source: SourceLike,
    *,
    reference: ReferenceLike,
    keep: int | float = 0.15,
    out: str | Path,
    entropy_keep: float = 0.30,
    tau: float | None = None,
    encoder: str | Encoder = "git-rsclip",
    weights: str | Path | None = None,
    device: str | None = None,
    precision: Precision = "auto",
    compile: bool = False,
    batch_size: int | None = None,
    keep_embeddings: bool = False,
    k: int = 200,
    fill: Fill = "global",
    within: Within = "nearest",
    min_similarity: float | None = None,
    reference_max_per_class: int | None = None,
    reference_max_images: int | None = None,
    strategy: str = "rsprune",
    strategy_options: Mapping[str, Any] | None = None,
    seed: int = 0,
    gray: Gray = "bt601",
    bands: Sequence[int] | None = None,
    nodata: int | None = None,
    valid_range: tuple[int, int] | None = None,
    max_pixels: int | None = None,
    threads: int | None = None,
    progress: bool | Progress = True,
) -> Run:
    """Choose the images of a collection that a diffusion model should be trained on.

    Stage I keeps the images of highest gray-level entropy; Stage II embeds those, assigns each to the nearest centroid
    of the reference images, and keeps an equal number nearest to each centroid (RS-Prune, arXiv 2512.23239, Sec. 3).

    The run folder ``out`` holds every intermediate result by input shard. A run that was stopped, in whatever way,
    goes on where it was when the same call is made again, and ends with the same bytes.

    Parameters
    ----------
    source
        The collection: a folder of images, a list file (``.txt``, ``.csv``), WebDataset tars (a file, a glob, a brace
        range, a list), or a :class:`rsprune.sources.Source`.
    reference
        What the centroids are fitted on: labelled scene images (anything that ``source`` can be), their embeddings (an
        array or a ``.npy`` file), or fitted centroids (:class:`Centroids` or a ``.safetensors`` file).
    keep
        The budget: a number of images, or a fraction in (0, 1) of the whole collection.
    out
        The run folder.
    entropy_keep
        The fraction of the collection that Stage I keeps. At least the budget is kept.
    tau
        Keep the images of entropy ``tau`` bits or more instead of a fraction.
    encoder, weights, device, precision, compile
        See :func:`rsprune.encoders.load_encoder`.
    batch_size
        How many images go through the network at once; what its device has room for if not given.
    keep_embeddings
        Write the embeddings, too (float16, 2 D bytes an image), and not only each image's cluster and similarity: for
        choosing again in other ways.
    k
        The number of centroids; ignored where fitted centroids are given.
    fill, within, min_similarity, seed
        See :func:`rsprune.select`. The seed is also that of the centroids. ``min_similarity`` leaves fewer images to
        select from than Stage I kept; where they are fewer than the budget the run ends without a selection, and
        ``rsprune select`` can choose less from its folder.
    reference_max_per_class, reference_max_images
        Fit the centroids on no more images of a class of a reference set, and no more in all: classes alike, as far as
        their images reach; which, the seed says. A set without class folders is one class.
    strategy
        How Stage II chooses among the images that Stage I kept: any of :func:`rsprune.strategies.names` that works to a
        budget. Each is given the embeddings, the entropies, the reference embeddings and the centroids, which stand in
        for clusters that it would fit itself.
    strategy_options
        The options of another strategy than ``"rsprune"``, whose options are ``fill``, ``within`` and
        ``min_similarity``.
    gray, bands, nodata, valid_range, max_pixels
        See :func:`rsprune.entropy`.
    threads
        All cores when None.
    progress
        Show progress on the terminal; or an :class:`rsprune.runners.Progress` of your own.

    Returns
    -------
    Run
        The selection and where it is written.

    Raises
    ------
    BudgetError
        The budget is no number of images, or more than there are readable images.
    ConfigMismatchError
        ``out`` holds a run of a different configuration.
    EncoderMismatchError
        The centroids were fitted on embeddings of another encoder.
    """
    images = open_source(source)
    total = images.total()
    budget = budget_rows(keep, total)
    if budget > total:
        msg = f"a budget of {budget} images is more than the collection has: {total}"
        raise BudgetError(msg)
    rule = check_cut(entropy_keep, tau)
    pixels = Pixels(gray, None if bands is None else tuple(bands), nodata, valid_range, max_pixels)
    prior = open_reference(
        reference, k=k, seed=seed, max_per_class=reference_max_per_class, max_images=reference_max_images
    )
    model = open_encoder(encoder, weights, device, precision, compile)
    prior.check(model)
    choice: dict[str, Any] = {"images": total, "budget": budget, "fill": fill, "within": within, "seed": seed}
    choice["min_similarity"] = check_min_similarity(min_similarity)
    own = {"fill": fill, "within": within, "min_similarity": min_similarity}
    choice |= check_strategy(strategy, strategy_options, own, has_reference=not isinstance(prior, Fitted))
    folder = RunFolder(out)
    making = encoder_config(model, batch_size, folder)
    stored = keep_embeddings or strategy != OWN  # the others choose among the embeddings themselves
    config = provenance_header() | {
        "source": source_config(images),
        "entropy": pixels.config() | rule,
        "encoder": making,
        "keep_embeddings": stored,
        "centroids": prior.fingerprint(),
        "selection": choice,
    }
    with folder.lock(), show_progress(progress) as observer:
        work = Work.begin(folder, config, observer, threads)
        if not folder.selection.exists():
            entropy_shards(work, images, pixels)
            pool = read_pool(folder)
            kept = cut(pool, budget, work, **rule)
            centroids = prior.centroids(work, model, pixels, making["batch_size"])
            survivors = {shard.name: np.flatnonzero(kept[pool.rows_of(shard.name)]) for shard in images.shards}
            size = making["batch_size"]
            embed_shards(work, images, survivors, model, centroids, pixels, size, keep=stored)
            decide(work, pool, kept, centroids, choice, prior.embeddings(work))
        write_report(folder, images)
    return open_run(folder.path)


def check_cut(entropy_keep: float, tau: float | None) -> dict[str, float]:
    """Stage I's rule: a fraction of the collection, or a threshold in bits."""
    if tau is not None:
        if not 0 <= tau <= 8:
            msg = f"tau is a histogram entropy of 256 levels, between 0 and 8 bits; got {tau!r}"
            raise ArgumentError(msg)
        return {"tau": float(tau)}
    if not 0 < entropy_keep <= 1:
        msg = f"entropy_keep is a fraction of the collection, in (0, 1]; got {entropy_keep!r}"
        raise ArgumentError(msg)
    return {"keep": float(entropy_keep)}


def check_strategy(
    name: str, options: Mapping[str, Any] | None, own: Mapping[str, Any], *, has_reference: bool
) -> dict[str, Any]:
    """The strategy of a run, as its configuration names it. ``own`` are the options of rsprune's.

    Raises
    ------
    ArgumentError
        No such strategy or option, or options of another one.
    MissingInputError
        It needs what a run does not have.
    BudgetError
        It does not work to a budget.
    """
    options = dict(options or {})
    method = strategies.get(name)
    if name == OWN and options:
        msg = (
            f"strategy_options is {options!r}; the options of the strategy {OWN!r} are fill, within and min_similarity"
        )
        raise ArgumentError(msg)
    if name != OWN and tuple(own.values()) != ("global", "nearest", None):
        msg = (
            f"fill, within and min_similarity are options of the strategy {OWN!r}; "
            f"give those of {name!r} as strategy_options"
        )
        raise ArgumentError(msg)
    method.check(options)
    if method.budget == "none":
        msg = f"the strategy {name!r} has no budget: a run keeps a number of images"
        raise BudgetError(msg)
    there = {"embeds", "centroids", "entropy", "budget"} | ({"reference", "references"} if has_reference else set())
    for need in method.needs:
        if need not in there:
            raise MissingInputError(name, need)
    return {"strategy": name, "strategy_options": options}


def open_run(path: str | Path) -> Run:
    """Open a finished run folder.

    Raises
    ------
    FileNotFoundError
        There is no such run, or it is not finished.
    """
    folder = RunFolder(path)
    folder.read_config()
    if not folder.selection.exists():
        msg = f"the run in {path} is not finished: make the call that began it again, and it goes on where it was"
        raise FileNotFoundError(msg)
    return Run(folder.path, read_selection(folder))
