"""How good a subset is, and how good generated images are: figures on features, in float64, without SciPy."""

from rsprune.evaluation.coverage import Coverage, Quality
from rsprune.evaluation.diagnostics import Redundancy, Trial, redundancy, sweep
from rsprune.evaluation.evaluate import Evaluation, Figure, evaluate, evaluate_pairs
from rsprune.evaluation.extractors import Extractor, OfEncoder
from rsprune.evaluation.frechet import frechet_distance
from rsprune.evaluation.images import export_npz, open_pictures
from rsprune.evaluation.inception import Inception
from rsprune.evaluation.kid import KernelDistance, gaussian, kernel_distance, mmd, polynomial
from rsprune.evaluation.lpips import Lpips
from rsprune.evaluation.prdc import Manifolds, prdc
from rsprune.evaluation.statistics import Statistics
from rsprune.evaluation.vendi import vendi_score

__all__ = [
    "Coverage",
    "Evaluation",
    "Extractor",
    "Figure",
    "Inception",
    "KernelDistance",
    "Lpips",
    "Manifolds",
    "OfEncoder",
    "Quality",
    "Redundancy",
    "Statistics",
    "Trial",
    "evaluate",
    "evaluate_pairs",
    "export_npz",
    "frechet_distance",
    "gaussian",
    "kernel_distance",
    "mmd",
    "open_pictures",
    "polynomial",
    "prdc",
    "redundancy",
    "sweep",
    "vendi_score",
]
