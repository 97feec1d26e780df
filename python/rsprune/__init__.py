"""rsprune: choose the few percent of a remote-sensing image collection that a diffusion model should be trained on."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from rsprune import errors
from rsprune._core import VERSION as __version__
from rsprune._core import cpu_features
from rsprune.assignment import Assignment, assign
from rsprune.calibration import calibrate
from rsprune.centroids import Centroids, fit_centroids
from rsprune.dedup import leaks
from rsprune.entropy import entropy, image_scores
from rsprune.selection import Selection, select, select_assigned

if TYPE_CHECKING:
    from rsprune import strategies
    from rsprune.runs.plan import plan
    from rsprune.runs.prune import open_run as open
    from rsprune.runs.prune import prune

__all__ = [
    "Assignment",
    "Centroids",
    "Selection",
    "__version__",
    "assign",
    "calibrate",
    "cpu_features",
    "entropy",
    "errors",
    "fit_centroids",
    "image_scores",
    "leaks",
    "open",
    "plan",
    "prune",
    "select",
    "select_assigned",
    "strategies",
]


def __getattr__(name: str) -> Any:
    """Import what selecting from arrays does not need when it is asked for: runs bring pyarrow."""
    if name in ("open", "plan", "prune"):
        module = import_module(f"rsprune.runs.{'plan' if name == 'plan' else 'prune'}")
        return getattr(module, "open_run" if name == "open" else name)
    if name == "strategies":
        return import_module("rsprune.strategies")
    msg = f"module 'rsprune' has no attribute {name!r}"
    raise AttributeError(msg)
