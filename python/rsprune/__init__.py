"""rsprune: choose the few percent of a remote-sensing image collection that a diffusion model should be trained on."""

from rsprune import errors
from rsprune._core import VERSION as __version__
from rsprune._core import cpu_features
from rsprune.centroids import Centroids, fit_centroids
from rsprune.entropy import entropy
from rsprune.selection import Assignment, Selection, assign, select, select_assigned

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
    "select",
    "select_assigned",
]
