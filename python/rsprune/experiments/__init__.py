"""Comparisons: the same pool, the same budget, one method beside the other."""

from rsprune.experiments.compare import Comparison, compare

__all__ = ["Comparison", "compare"]
