"""rsprune: choose the few percent of a remote-sensing image collection that a diffusion model should be trained on."""

from typing import TYPE_CHECKING, Any

from rsprune import errors
from rsprune._core import VERSION as __version__
from rsprune._core import cpu_features
from rsprune.centroids import Centroids, fit_centroids
from rsprune.entropy import entropy
from rsprune.selection import Assignment, Selection, assign, select, select_assigned

if TYPE_CHECKING:
    from rsprune.pipeline import plan, prune

__all__ = [
    "Assignment",
    "Centroids",
    "Selection",
    "__version__",
    "assign",
    "cpu_features",
    "entropy",
    "errors",
    "fit_centroids",
    "plan",
    "prune",
    "select",
    "select_assigned",
]


def __getattr__(name: str) -> Any:
    """Import the pipeline when it is asked for: it brings pyarrow, which selecting from arrays does not need."""
    if name in ("plan", "prune"):
        from rsprune import pipeline

        return getattr(pipeline, name)
    msg = f"module 'rsprune' has no attribute {name!r}"
    raise AttributeError(msg)
