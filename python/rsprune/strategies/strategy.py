"""A selection method as the registry knows it: a function, the inputs that it needs, the options that it takes."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal

from rsprune.errors import ArgumentError, BudgetError, MissingInputError
from rsprune.selection import Selection
from rsprune.strategies.inputs import Choice, Inputs

__all__ = ["Budget", "Strategy", "strategy"]

Budget = Literal["required", "optional", "none"]


@dataclass(frozen=True)
class Strategy:
    """A selection method; made by :func:`strategy`.

    Attributes
    ----------
    run
        ``run(inputs, **options)`` makes the :class:`Choice`, or a Selection. Its keyword-only parameters are the
        method's options.
    needs
        The inputs without which it cannot work: names of fields of :class:`Inputs`. An option may need more.
    budget
        Whether it needs a budget, can do without one, or chooses as many rows as its own rule says.
    """

    run: Callable[..., Choice | Selection]
    needs: tuple[str, ...] = ()
    budget: Budget = "required"

    @property
    def name(self) -> str:
        """Its name."""
        return self.run.__name__

    @property
    def summary(self) -> str:
        """What it does, in a line."""
        return (inspect.getdoc(self.run) or "").partition("\n")[0]

    @cached_property
    def options(self) -> Mapping[str, Any]:
        """Its options and their defaults."""
        parameters = inspect.signature(self.run).parameters.values()
        return {one.name: one.default for one in parameters if one.kind is one.KEYWORD_ONLY}

    def check(self, options: Mapping[str, Any]) -> None:
        """Fail when ``options`` holds one that the method does not have."""
        if unknown := sorted(set(options) - set(self.options)):
            known = ", ".join(self.options) or "none at all"
            message = f"the strategy {self.name!r} has no option {unknown[0]!r}; it has {known}"
            raise ArgumentError(message)

    def __call__(self, inputs: Inputs, options: Mapping[str, Any]) -> Choice | Selection:
        """Check what the method needs, and run it."""
        self.check(options)
        if self.budget == "required" and inputs.budget is None:
            message = f"the strategy {self.name!r} needs a budget: a number of rows, or a fraction between 0 and 1"
            raise BudgetError(message)
        if self.budget == "none" and inputs.budget is not None:
            message = f"the strategy {self.name!r} has no budget: its own rule says how many rows it keeps; pass None"
            raise BudgetError(message)
        for need in self.needs:
            inputs.need(need)
        return self.run(inputs, **options)


def strategy(
    *, needs: tuple[str, ...] = (), budget: Budget = "required"
) -> Callable[[Callable[..., Choice | Selection]], Strategy]:
    """Make a :class:`Strategy` of a function ``f(inputs, *, option=default, ...) -> Choice``."""
    for need in needs:
        if need not in MissingInputError.WHAT:
            message = f"needs holds {need!r}; expected some of {', '.join(MissingInputError.WHAT)}"
            raise ArgumentError(message)

    def make(run: Callable[..., Choice | Selection]) -> Strategy:
        return Strategy(run, tuple(needs), budget)

    return make
