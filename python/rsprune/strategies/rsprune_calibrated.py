"""RS-Prune with the entropy cut that the reference calibrates."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from rsprune.assignment import Assignment, assign
from rsprune.calibration import rows_below_tau
from rsprune.options import keywords, option
from rsprune.selection import Fill, Selection, SelectOptions, choose, read_request
from rsprune.strategies.base import Pool, strategy

__all__ = ["rsprune_calibrated"]


@dataclass(frozen=True, eq=False, kw_only=True)
class CalibratedOptions(SelectOptions):
    """Options of :func:`rsprune_calibrated`."""

    fill: Fill = option("waterfill", help="See rsprune.select; the default is another one.")
    quota: Literal["equal", "reference"] = option(
        "equal",
        help="What each cluster keeps. equal: the same number. reference: in proportion to the reference images of the "
        "cluster, which is better on scenes as the reference has them, and worse on those that it lacks.",
    )


@strategy(needs=("embeds", "centroids", "entropy"), uses=("score",), quotas=True)
@keywords(CalibratedOptions)
def rsprune_calibrated(pool: Pool, *, options: CalibratedOptions) -> Selection:
    """RS-Prune's choice among the rows that are as rich as the reference images of their own kind.

    Rows of less entropy than ``tau`` of their centroid (see :func:`rsprune.calibrate`) are left out, where the paper
    cuts at one entropy for all; an equal number nearest to each centroid is kept, and clusters that are too small leave
    their places to all others evenly (``fill="waterfill"``). Where fewer rows than the budget are rich enough, those
    that are least below complete it.

    Parameters
    ----------
    pool
        Centroids that :func:`rsprune.calibrate` returned.
    """
    assert pool.requested is not None
    centroids = pool.require("centroids")
    if options.dedup is not None:
        pool.require("embeds")
    assignment = pool.assignment or assign(
        pool.embeds, centroids, normalize=options.normalize, on_invalid=options.on_invalid, threads=pool.threads
    )
    if not pool.known.all():
        assignment = Assignment(np.where(pool.known, assignment.labels, np.int32(-1)), assignment.similarity)
    below = rows_below_tau(assignment.labels, pool.require("entropy"), centroids, pool.requested)
    if options.quota == "reference":
        options = replace(options, weights=centroids.reference_counts)
    request = read_request(pool.n, pool.requested, options, score=pool.score, seed=pool.seed, threads=pool.threads)
    request = request._replace(origin=pool.origin, excluded=np.union1d(request.excluded, below))
    return choose(request, assignment, centroids.k, pool.embeds)
