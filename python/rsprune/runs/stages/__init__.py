"""The stages of a run, and the functions that carry out one of them alone."""

from rsprune.runs.stages.base import RunStage, StageResult
from rsprune.runs.stages.centroids import CentroidsStage, centroids_run
from rsprune.runs.stages.embed import EmbedStage, embed_run
from rsprune.runs.stages.entropy import EntropyStage, entropy_run
from rsprune.runs.stages.select import SelectStage, select_run

__all__ = [
    "CentroidsStage",
    "EmbedStage",
    "EntropyStage",
    "RunStage",
    "SelectStage",
    "StageResult",
    "centroids_run",
    "embed_run",
    "entropy_run",
    "select_run",
]
