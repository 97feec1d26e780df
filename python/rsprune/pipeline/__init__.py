"""The whole method, from images to the manifest of those that are kept."""

from rsprune.pipeline.plan import Plan, plan
from rsprune.pipeline.prune import Run, open_run, prune
from rsprune.pipeline.single import Outcome, centroids_run, embed_run, entropy_run, select_run

__all__ = [
    "Outcome",
    "Plan",
    "Run",
    "centroids_run",
    "embed_run",
    "entropy_run",
    "open_run",
    "plan",
    "prune",
    "select_run",
]
