"""What can be known of a run before its first image is read: it is checked here, for the run and for its plan."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from typing import Any

from rsprune import strategies
from rsprune.encoders import Encoder
from rsprune.errors import ArgumentError, BudgetError, DamagedFileError
from rsprune.runs.config import PruneOptions
from rsprune.runs.context import check_bands
from rsprune.runs.folder import RunFolder
from rsprune.runs.reference import FittedReference, ImageReference, Reference, ReferenceLike, open_reference
from rsprune.runs.stages.left_out import LeavingOut
from rsprune.runs.stages.select import check_strategy
from rsprune.selection import budget_rows
from rsprune.sources import Source

__all__ = ["Prepared", "holds_all", "holds_embeddings", "prepare"]


@dataclass(frozen=True)
class Prepared:
    """What a run is to do.

    Attributes
    ----------
    reference
        The reference, opened.
    total, budget
        The images of the collection, and how many of them are kept.
    keep_embeddings
        Whether the embeddings are kept.
    leaving_out
        What the options leave out.
    selection
        The choice, as the configuration names it.
    """

    reference: Reference
    total: int
    budget: int
    keep_embeddings: bool
    leaving_out: LeavingOut
    selection: dict[str, Any]


def config_of(folder: RunFolder | None) -> dict[str, Any]:
    """Read the configuration of the run that a folder holds; nothing if it holds none."""
    with contextlib.suppress(FileNotFoundError, DamagedFileError):
        return {} if folder is None else folder.read_config()
    return {}


def holds_embeddings(folder: RunFolder | None) -> bool | None:
    """Tell whether a folder holds embeddings, and not only clusters; None if it holds no run that has any."""
    held = config_of(folder).get("keep_embeddings")
    return held if isinstance(held, bool) else None


def holds_all(folder: RunFolder) -> bool:
    """Tell whether a folder holds what `rsprune embed` wrote, of all images and not of survivors alone."""
    config = config_of(folder)
    return bool(config.get("keep_embeddings")) and "selection" not in config


def prepare(
    images: Source, reference: ReferenceLike, options: PruneOptions, encoder: Encoder, folder: RunFolder | None = None
) -> Prepared:
    """Check the arguments of :func:`rsprune.prune` in a folder; see there for what is raised."""
    check_bands(images, gray=options.gray, decode=options.gray.decode)
    choice, rule = options.choice, options.choice.strategy
    total = images.total()
    budget = budget_rows(rule.keep, total)
    if budget > total:
        message = f"a budget of {budget} images is more than the collection has: {total}"
        raise BudgetError(message)
    opened = open_reference(reference, options.reference, options.source.of_reference(), seed=rule.seed, pool=images)
    if isinstance(opened, ImageReference):
        check_bands(opened.source, decode=options.gray.decode)
    opened.check(encoder)
    by_quota = strategies.get(rule.strategy).quotas
    if options.preselected and not by_quota:
        message = f"preselected is for strategies by quota; {rule.strategy!r} has none"
        raise ArgumentError(message)
    selection: dict[str, Any] = {"images": total, "budget": budget, "seed": rule.seed}
    selection |= {"coverage_sample": options.coverage_sample}
    selection |= {"fill": choice.fill, "within": choice.within, "min_similarity": choice.min_similarity}
    selection |= check_strategy(choice, has_reference=not isinstance(opened, FittedReference))
    # A strategy that selects by quota works from clusters and similarities; the others need the embeddings themselves.
    # Embeddings that are there stay.
    keep = bool(options.keep_embeddings or not by_quota or holds_embeddings(folder))
    leaving_out = LeavingOut.read(choice, images, encoder, keep_embeddings=keep)
    return Prepared(opened, total, budget, keep, leaving_out, selection | leaving_out.config())
