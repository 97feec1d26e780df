"""The options of a selection, each written once."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

from rsprune.centroids import OnInvalid
from rsprune.errors import ArgumentError
from rsprune.options import Options, option
from rsprune.quotas import Quotas
from rsprune.sources.filesystem import load_array

__all__ = ["AssignedSelectOptions", "Fill", "SelectOptions", "Within", "check_together"]

Fill = Literal["global", "waterfill", "zscore", "none"]
Within = Literal["nearest", "far", "random", "mid"]


@dataclass(frozen=True, eq=False, kw_only=True)
class AssignedSelectOptions(Options):
    """Options of :func:`select_assigned`."""

    panel: ClassVar[str] = "Stage II: the choice"

    fill: Fill = option(
        "global",
        help="How the rest of the budget is distributed, which the quotas leave because K does not divide it or "
        "because clusters are small. global: to the best of all remaining rows, the paper's rule, which favors tight "
        "clusters. waterfill: evenly over the clusters, as far as their rows reach. zscore: as global, by similarity "
        "standardized within each cluster. none: it is not, so fewer rows than the budget come back.",
    )
    within: Within = option(
        "nearest",
        help="Which rows of a cluster come first, also in the fill. nearest, far: the most, or least, similar to the "
        "centroid. random: by a random key of seed and row number. mid: those of middle rank by similarity.",
    )
    min_similarity: float | None = option(
        None,
        help="Rows less similar than this to their centroid (both as float32) are out of the domain: never selected, "
        "but listed in Selection.outside.",
    )
    groups: Any = option(
        None,
        help="A group for each row, strings or numbers (N,), such as its resolution, region or sensor. Rows are "
        "selected from each group as if it were alone, with its own share of the budget, or with max_per_group from "
        "all of them. In a run: a column of the collection's metadata, such as scene, or a field of one, such as "
        "json.city; or folder, in which an image lies, or shard.",
        parser=str,
        metavar="COLUMN|FILE.npy",
    )
    quotas: Quotas | None = option(
        None,
        help="The shares of the groups. By default in proportion to the rows to select from, by largest remainder. "
        "even: alike, as far as the rows of each group reach. Or a mapping of groups to rows (ints) or fractions of "
        "the budget (floats); the groups that it leaves out share the rest in proportion. Ties go to the larger group, "
        "then to the first by name. No group gets less than is preselected of it. Without groups, a mapping is of "
        "clusters.",
        parser=lambda text: json.loads(text) if text.startswith("{") else text,
        metavar="even|JSON",
    )
    max_per_group: int | None = option(
        None,
        help="Select at most so many rows of each group, such as the windows of one scene: of each the most similar to "
        "their centroids stay to be selected from, and all preselected ones. The budget is not shared out then, unless "
        "quotas are given.",
        minimum=1,
    )
    weights: Any = option(
        None,
        help="Integers (K,), what the quotas of the clusters are in proportion to, and the shares of fill=waterfill. "
        "By default all are alike. A cluster of weight 0 has no quota; fill=waterfill gives it what the others leave.",
        parser=load_array,
        metavar="FILE.npy",
    )
    exclude: Any = option(
        None,
        help="Rows that are never selected: their numbers, a boolean mask (N,), or their keys; or a file of these: "
        ".npy, a text file with a key on each line, or the column key of a .parquet file.",
        parser=str,
        metavar="FILE",
    )
    preselected: Any = option(
        None,
        help="Row numbers, a boolean mask (N,), or a Selection, of rows that are selected already. They count towards "
        "the budget and the quotas of their clusters; where they exceed those, the other quotas are lowered evenly.",
        parser=load_array,
        metavar="FILE.npy",
    )
    strict: bool = option(
        True,
        help="Fail when fewer rows than the budget can be selected, instead of returning all of them.",
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        check_together(self)


@dataclass(frozen=True, eq=False, kw_only=True)
class SelectOptions(AssignedSelectOptions):
    """Options of :func:`select`: those of :func:`select_assigned`, and those that need the embeddings."""

    dedup: float | None = option(
        None,
        help="Leave out near-duplicates: rows within this cosine distance (0.01, say) of a row of their cluster that "
        "stays. The most similar to the centroid stays (or the one of the highest score, where there is one), and so "
        "do all preselected rows. The paper takes duplicates as they come.",
        minimum=0,
        maximum=1,
    )
    leaks: Any = option(
        None,
        help="Embeddings (M, D) of an evaluation set, by the same encoder: rows that resemble any of its images are "
        "left out. In a run also a folder of `rsprune embed`.",
        parser=str,
        metavar="FILE.npy|FOLDER",
    )
    leak_eps: float | None = option(
        None,
        help="The cosine distance below which a row is a leak. It depends on the encoder: look at some pairs first.",
        minimum=0,
        maximum=2,
    )
    normalize: bool = option(
        True,
        help="Divide by the norm of each row. Otherwise similarities are dot products, which prefer long rows.",
    )
    on_invalid: OnInvalid = option(
        "exclude",
        help="What happens with rows that are NaN, infinite or all zero: they are left out and listed in "
        "Selection.invalid, or raise an error.",
    )


def check_together(options: Any) -> None:
    """Fail where one of the options needs another one.

    Raises
    ------
    ArgumentError
        It names both.
    """
    if isinstance(options.quotas, str) and options.groups is None:
        message = (
            f"quotas is {options.quotas!r}, shares of groups: give groups, too, or a mapping of clusters to rows. "
            'fill="waterfill" spreads the rows evenly over the clusters'
        )
        raise ArgumentError(message)
    if options.max_per_group is not None and options.groups is None:
        message = f"max_per_group is {options.max_per_group} without groups: say which group each row is of"
        raise ArgumentError(message)
    given = [name for name in ("leaks", "leak_eps") if getattr(options, name, None) is not None]
    if len(given) == 1:
        other = {"leaks": "leak_eps: how near is too near", "leak_eps": "leaks: the embeddings of the evaluation set"}
        message = f"{given[0]} needs {other[given[0]]}"
        raise ArgumentError(message)
