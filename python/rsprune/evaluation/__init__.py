"""How good a subset is, and how good generated images are: figures on features, in float64, without SciPy."""

from rsprune.evaluation.coverage import Coverage, Quality
from rsprune.evaluation.diagnostics import Redundancy, Trial, redundancy, sweep
from rsprune.evaluation.frechet import frechet_distance
from rsprune.evaluation.kid import KernelDistance, gaussian, kernel_distance, mmd, polynomial
from rsprune.evaluation.prdc import Manifolds, prdc
from rsprune.evaluation.statistics import Statistics
from rsprune.evaluation.vendi import vendi_score

__all__ = [
    "Coverage",
    "KernelDistance",
    "Manifolds",
    "Quality",
    "Redundancy",
    "Statistics",
    "Trial",
    "frechet_distance",
    "gaussian",
    "kernel_distance",
    "mmd",
    "polynomial",
    "prdc",
    "redundancy",
    "sweep",
    "vendi_score",
]
