"""Comparisons: the same pool, the same budget, one method beside the other.

``rsprune.experiments.experiment`` trains networks, too; it needs torch, and is imported by its own name.
"""

from rsprune.experiments.compare import Comparison, compare
from rsprune.experiments.sweep import Diagnosis, diagnose

__all__ = ["Comparison", "Diagnosis", "compare", "diagnose"]
