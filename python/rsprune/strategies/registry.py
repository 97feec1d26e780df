"""Which methods there are, and where: none is imported before it is asked for."""

from __future__ import annotations

from importlib import import_module
from importlib.metadata import EntryPoint, entry_points

from rsprune.errors import ArgumentError
from rsprune.strategies.strategy import Strategy

__all__ = ["get", "names"]

GROUP = "rsprune.strategies"

# Each is the function of its name in the module of its name.
BUILT_IN = (
    "rsprune",
    "full",
    "random",
    "entropy",
    "moderate",
    "cluster_nearest",
    "hierarchical",
    "vjepa2",
    "datacomp",
    "dbp",
    "prototypes",
    "ccs",
    "dinov2",
    "semdedup",
    "d2",
    "kcenter",
    "facility_location",
    "herding",
    "a2mae_like",
)


def names() -> list[str]:
    """All methods: those of rsprune in the order of its documentation, then those of other packages by name."""
    return [*BUILT_IN, *sorted(set(_others()) - set(BUILT_IN))]


def get(name: str) -> Strategy:
    """The method called ``name``. One of rsprune cannot be replaced by one of another package.

    Raises
    ------
    ArgumentError
        There is no such method, or what stands for it is none.
    """
    if name in BUILT_IN:
        found = getattr(import_module(f"rsprune.strategies.{name}"), name)
    elif (others := _others()) and name in others:
        found = others[name].load()
    else:
        message = f"strategy is {name!r}; expected one of {', '.join(names())}"
        raise ArgumentError(message)
    if not isinstance(found, Strategy):
        message = f"the strategy {name!r} is {found!r}; expected a function under @rsprune.strategies.strategy(...)"
        raise ArgumentError(message)
    return found


def _others() -> dict[str, EntryPoint]:
    return {point.name: point for point in entry_points(group=GROUP)}
