"""The paper's tables and figures: the arms of each experiment, and the published results where they are known."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from rsprune.experiments.presets import Scale

__all__ = ["GRIDS", "POOL", "THIRD", "Arm", "Grid"]

#: Centroids fitted on the pool itself, and on a third of the classes of the reference images.
POOL, THIRD = "pool", "third"


@dataclass(frozen=True)
class Arm:
    """One way to select the training images."""

    name: str  # in tables
    strategy: str
    keep: float  # the fraction of the collection that is trained on
    options: Mapping[str, Any] = field(default_factory=dict)  # of the strategy
    k: int | None = None  # number of centroids; None for that of the scale
    centroids: str | None = None  # fitted on all reference images, on a set of that name, on POOL or on THIRD
    at: float | None = None  # the position on the axis of a sweep
    paper: str | None = None  # the published FID, comparable with published values alone


@dataclass(frozen=True)
class Grid:
    """An experiment."""

    title: str  # the question that it answers
    arms: Callable[[Scale, tuple[str, ...]], tuple[Arm, ...]]  # of a scale and the names of the reference sets
    baseline: str  # the name of the arm that others are compared with
    paper: str  # the setting of the published results
    notes: tuple[str, ...] = ()  # on these
    axis: str | None = None  # the swept parameter, if there is one
    paper_iterations: int | None = None  # of training, if they differ from the scale's


FULL = Arm("full", "full", 1.0)


def stage_i(keep: float, **of: Any) -> Arm:
    """Stage I alone: the images of highest entropy."""
    return Arm(f"Stage I, keep {keep:g}", "entropy", keep, **of)


def both(keep: float, entropy_keep: float, **of: Any) -> Arm:
    """Both stages: RS-Prune."""
    return Arm(
        f"Stage I to {entropy_keep:g} + II, keep {keep:g}", "rsprune", keep, {"entropy_keep": entropy_keep}, **of
    )


def chance(keep: float, **of: Any) -> Arm:
    """Random images, the baseline of any method."""
    return Arm(f"random, keep {keep:g}", "random", keep, **of)


def methods(scale: Scale, sets: tuple[str, ...]) -> tuple[Arm, ...]:
    """Table 1: the methods of the paper's comparison that can be built from what is published."""
    others = ("random", "entropy", "moderate", "cluster_nearest", "dinov2", "a2mae_like")
    arms = [Arm("full", "full", 1.0, paper="45.30")]
    for keep in scale.keeps:
        arms += [Arm(f"{name}, keep {keep:g}", name, keep) for name in others]
        arms.append(Arm(f"rsprune, keep {keep:g}", "rsprune", keep, {"entropy_keep": stage_i_share(keep)}))
    return tuple(arms)


def pools(scale: Scale, sets: tuple[str, ...]) -> tuple[Arm, ...]:
    """Table 2: what Stage II chooses its 15 % from."""
    published = {0.30: "61.33"}
    return (
        FULL,
        chance(0.15),
        stage_i(0.15, at=0.15, paper="68.78"),
        *(both(0.15, share, at=share, paper=published.get(share)) for share in (0.30, 0.50, 0.70)),
        Arm("Stage II, keep 0.15", "rsprune", 0.15, at=1.0),
    )


def stages(scale: Scale, sets: tuple[str, ...]) -> tuple[Arm, ...]:
    """Table 3: Stage I alone and both stages, the more is pruned."""
    published = {0.30: ("68.38", "70.04")}
    arms = [Arm("full", "full", 1.0, paper="127.89"), chance(0.15)]
    for keep in (0.50, 0.30, 0.15):
        alone, two = published.get(keep, (None, None))
        arms += [stage_i(keep, paper=alone), both(keep, stage_i_share(keep), paper=two)]
    return tuple(arms)


def references(scale: Scale, sets: tuple[str, ...]) -> tuple[Arm, ...]:
    """Table 4: centroids of reference sets, one by one and together, and of the pool itself."""
    published = {"resisc45": "60.14"}
    options = {"entropy_keep": 0.30}
    of_sets = sets if len(sets) > 1 else ()
    return (
        chance(0.15),
        *(Arm(name, "rsprune", 0.15, options, centroids=name, paper=published.get(name)) for name in of_sets),
        *((Arm("a third of the classes", "rsprune", 0.15, options, centroids=THIRD),) if len(sets) == 1 else ()),
        Arm("all reference images", "rsprune", 0.15, options),
        Arm("clusters of the pool", "rsprune", 0.15, options, centroids=POOL),
    )


def numbers_of_centroids(scale: Scale, sets: tuple[str, ...]) -> tuple[Arm, ...]:
    """Figure 3: how many centroids."""
    ks = sorted({max(scale.k * share // 8, 1) for share in (1, 2, 4, 8, 16, 32)})
    return tuple(Arm(f"K {k}", "rsprune", 0.15, {"entropy_keep": 0.30}, k=k, at=float(k)) for k in ks)


def entropies(scale: Scale, sets: tuple[str, ...]) -> tuple[Arm, ...]:
    """Figure 4: how much Stage I keeps, without Stage II."""
    published = {0.30: "32.86"}
    shares = (0.10, 0.15, 0.30, 0.50, 0.70)
    return (
        *(stage_i(share, at=share, paper=published.get(share)) for share in shares),
        Arm("full", "full", 1.0, at=1.0, paper="61.69"),
    )


def stage_i_share(keep: float) -> float:
    """Fraction that Stage I keeps for a budget: twice the budget, or the middle between the budget and all."""
    return round(min(2 * keep, (1 + keep) / 2), 4)


GIT10M = "Git-10M, DiT-XL/2, FID with Inception"
GRIDS: Mapping[str, Grid] = {
    "table1": Grid(
        "methods at equal iterations",
        methods,
        "full",
        f"{GIT10M}, 100,000 iterations",
        ("a2mae_like is a stand-in: A2-MAE's sampling is not published",),
    ),
    "table2": Grid(
        "what Stage I leaves for Stage II",
        pools,
        "full",
        f"{GIT10M}, keep 15 %",
        axis="kept by Stage I",
        paper_iterations=60_000,
    ),
    "table3": Grid(
        "Stage I against Stage I + II",
        stages,
        "full",
        f"{GIT10M}; its number of iterations is not stated",
        ("the two figures at keep 0.3 are of an earlier, withdrawn version of the paper",),
        paper_iterations=60_000,
    ),
    "table4": Grid(
        "reference sets against clusters of the pool",
        references,
        "all reference images",
        f"{GIT10M}; its pruning ratio is not stated",
        (
            "RESISC45 60.14, three sets (43,600 images) 62.28, five sets (55,605) 60.65",
            "seconds for 3.1 million rows: reference sets 77 to 115, K-means of the pool 4,630, "
            "mini-batch K-means in 128 dimensions 308; the machine is not stated",
        ),
        paper_iterations=60_000,
    ),
    "fig3": Grid(
        "the number of centroids",
        numbers_of_centroids,
        "K 200",
        f"{GIT10M}: worse where K is too large or too small; no figures are known",
        axis="K",
        paper_iterations=60_000,
    ),
    "fig4": Grid(
        "how much Stage I keeps",
        entropies,
        "full",
        f"{GIT10M}, 60,000 iterations; over what is kept the curve falls and rises again",
        axis="kept by Stage I",
        paper_iterations=60_000,
    ),
}
