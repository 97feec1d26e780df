"""Every selection method of the paper's comparison, and more, under one signature.

One file a method. A method of another package is found by its entry point in the group ``rsprune.strategies``.
"""

from rsprune.strategies.base import Choice, Clusters, FittedClusters, Inputs, Strategy, select, strategy
from rsprune.strategies.dynamics import tdds
from rsprune.strategies.registry import get, names

__all__ = ["Choice", "Clusters", "FittedClusters", "Inputs", "Strategy", "get", "names", "select", "strategy", "tdds"]
