"""How good a subset is, and how good generated images are: metrics on features, in float64, without SciPy."""

from rsprune.evaluation.diagnostics import Redundancy, Trial, redundancy, sweep
from rsprune.evaluation.evaluate import Evaluation, Metric, evaluate, evaluate_pairs
from rsprune.evaluation.extractors import EncoderExtractor, Extractor
from rsprune.evaluation.images import export_npz, open_images
from rsprune.evaluation.inception import Inception
from rsprune.evaluation.kid import KernelDistance, gaussian, kernel_distance, mmd, polynomial
from rsprune.evaluation.lpips import Lpips
from rsprune.evaluation.prdc import Manifolds, prdc
from rsprune.evaluation.statistics import Statistics, frechet_distance
from rsprune.evaluation.subset import SubsetEvaluator, SubsetMetrics
from rsprune.evaluation.vendi import vendi_score

__all__ = [
    "EncoderExtractor",
    "Evaluation",
    "Extractor",
    "Inception",
    "KernelDistance",
    "Lpips",
    "Manifolds",
    "Metric",
    "Redundancy",
    "Statistics",
    "SubsetEvaluator",
    "SubsetMetrics",
    "Trial",
    "evaluate",
    "evaluate_pairs",
    "export_npz",
    "frechet_distance",
    "gaussian",
    "kernel_distance",
    "mmd",
    "open_images",
    "polynomial",
    "prdc",
    "redundancy",
    "sweep",
    "vendi_score",
]
