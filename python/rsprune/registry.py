"""Registries: the one way in which sources, encoders, strategies and runners are found by name.

A member is built in, and then imported when it is first asked for, or it belongs to another package, which names it in
the entry points of its metadata::

    [project.entry-points."rsprune.strategies"]
    my_strategy = "my_package.my_module:my_strategy"
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from importlib import import_module
from importlib.metadata import EntryPoint, entry_points
from typing import Any, Generic, TypeVar

from rsprune.errors import ArgumentError

__all__ = ["Registry"]

T = TypeVar("T")


class Registry(Generic[T]):
    """The members of one kind, by name.

    ``kind`` is what a member is, in the singular, as messages call it (``"strategy"``); ``group`` the entry-point group
    of other packages (``"rsprune.strategies"``); ``built_in`` the ``"module:attribute"`` of each member of rsprune, by
    name, in the order of the documentation. ``check`` tells whether an object is a member, since an entry point may
    load anything, and ``expected`` says in words what it asks for.
    """

    def __init__(
        self, kind: str, group: str, built_in: Mapping[str, str], *, check: Callable[[Any], bool], expected: str
    ) -> None:
        self.kind = kind
        self.group = group
        self.built_in = dict(built_in)
        self._check = check
        self._expected = expected

    def names(self) -> list[str]:
        """List the built-in members in order, then those of other packages by name."""
        return [*self.built_in, *sorted(set(self._entry_points()) - set(self.built_in))]

    def __iter__(self) -> Iterator[str]:
        """Iterate over :meth:`names`, without a look at other packages as long as built-in members are enough."""
        yield from self.built_in
        yield from self.names()[len(self.built_in) :]

    def __contains__(self, name: object) -> bool:
        return name in self.built_in or name in self._entry_points()

    def get(self, name: str) -> T:
        """Import the member called ``name``. Another package cannot replace a built-in member.

        It is an :class:`ArgumentError` if there is none, or an entry point cannot be loaded or is something else.
        """
        if not isinstance(name, str):
            message = f"{self.kind} is a {type(name).__name__}; expected one of {', '.join(self.names())}"
            raise ArgumentError(message)
        if name in self.built_in:
            module, _, attribute = self.built_in[name].partition(":")
            member = getattr(import_module(module), attribute)
        elif (point := self._entry_points().get(name)) is not None:
            try:
                member = point.load()
            except Exception as error:  # whatever another package does when it is imported
                message = f"the {self.kind} {name!r} ({point.value}) cannot be loaded: {type(error).__name__}: {error}"
                raise ArgumentError(message) from error
        else:
            message = f"{self.kind} is {name!r}; expected one of {', '.join(self.names())}"
            raise ArgumentError(message)
        if not self._check(member):
            message = f"the {self.kind} {name!r} is {member!r}; expected {self._expected}"
            raise ArgumentError(message)
        return member  # type: ignore[no-any-return]

    def _entry_points(self) -> dict[str, EntryPoint]:
        return {point.name: point for point in entry_points(group=self.group)}
