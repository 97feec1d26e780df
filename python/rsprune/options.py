"""Options, written once.

An option is a field of a dataclass, made by :func:`option`: its name, type, default, bounds and help text stand there
and nowhere else. From these the signatures of the public functions (:func:`keywords`), the command line
(:mod:`rsprune.cli.options`), ``config.json`` (:func:`to_config`) and the checks (:class:`Options`) follow.
A field whose type is such a dataclass groups options: callers see them side by side with the others.
"""

from __future__ import annotations

import dataclasses
import functools
import inspect
import textwrap
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, TypeVar, get_type_hints

from rsprune.validation import check_annotated

__all__ = [
    "Option",
    "Options",
    "build",
    "check_options",
    "integers",
    "keywords",
    "option",
    "options_of",
    "same_option",
    "to_config",
]

T = TypeVar("T")

#: The fields of :class:`Option` that bound a number.
BOUNDS = ("minimum", "maximum", "above", "below")

# The evaluated annotations of the dataclasses seen so far.
_HINTS: dict[Any, dict[str, Any]] = {}


@dataclasses.dataclass(frozen=True)
class Option:
    """One option of a dataclass, its groups resolved."""

    help: str  # one sentence or more, for the command line and the docstring
    flags: Sequence[str] = ()  # names on the command line; empty for --name
    metavar: str | None = None  # how the command line shows the value; None for that of the type
    parser: Callable[[Any], Any] | None = None  # how it reads the value from text; None for that of the type
    minimum: float | None = None  # inclusive bounds of a number
    maximum: float | None = None
    above: float | None = None  # exclusive bounds
    below: float | None = None
    hidden: bool = False  # whether it exists in Python alone
    panel: str | None = None  # under which heading --help shows it: the `panel` of its dataclass
    repeated: bool = False  # whether the command line may give it several times; the parser gets the list of texts
    name: str = ""  # of the field, unique in the dataclass and its groups
    type: Any = None  # the evaluated type of the field
    default: Any = None  # of the field; dataclasses.MISSING for an option that must be given


def option(default: Any = dataclasses.MISSING, *, help: str, **settings: Any) -> Any:
    """Make a dataclass field that is an option; for ``settings`` see :class:`Option`."""
    return dataclasses.field(default=default, metadata={"option": Option(help, **settings)})


def same_option(cls: type, name: str) -> Any:
    """Make a dataclass field that is the option ``name`` of another dataclass."""
    field = next(one for one in dataclasses.fields(cls) if one.name == name)
    return dataclasses.field(default=field.default, metadata=field.metadata)


def options_of(cls: type) -> Iterator[Option]:
    """Yield the options of a dataclass in order, those of its groups in their place."""
    hints = _hints(cls)
    for field in dataclasses.fields(cls):
        if dataclasses.is_dataclass(hints[field.name]):
            yield from options_of(hints[field.name])
        elif (details := field.metadata.get("option")) is not None:
            found = {"name": field.name, "type": hints[field.name], "default": field.default}
            yield dataclasses.replace(details, panel=details.panel or getattr(cls, "panel", None), **found)


def build(cls: type[T], values: Mapping[str, Any]) -> T:
    """Make a dataclass, groups included, of options side by side.

    A name that is no option, or a missing value, is a ``TypeError``, as for any call.
    """
    known = {one.name for one in options_of(cls)}
    if unknown := sorted(set(values) - known):
        message = f"{unknown[0]!r} is no option; expected some of {', '.join(sorted(known))}"
        raise TypeError(message)
    return _build(cls, values)


def _build(cls: type[T], values: Mapping[str, Any]) -> T:
    hints = _hints(cls)
    made: dict[str, Any] = {}
    for field in dataclasses.fields(cls):  # type: ignore[arg-type]
        if dataclasses.is_dataclass(hints[field.name]):
            made[field.name] = _build(hints[field.name], values)
        elif field.name in values:
            made[field.name] = values[field.name]
    return cls(**made)


def check_options(options: Any) -> None:
    """Check the values of a dataclass against the types and bounds of its options; for ``__post_init__``.

    See :func:`~rsprune.validation.check_annotated`; types that it does not check are left to the dataclass.
    """
    hints = _hints(type(options))
    for field in dataclasses.fields(options):
        if (details := field.metadata.get("option")) is not None:
            bounds = {name: bound for name in BOUNDS if (bound := getattr(details, name)) is not None}
            value = check_annotated(
                field.name, getattr(options, field.name), hints[field.name], from_zero=True, **bounds
            )
            object.__setattr__(options, field.name, value)


class Options:
    """A dataclass of options whose values are checked when it is made."""

    def __post_init__(self) -> None:
        check_options(self)


def integers(text: str, count: int | None = None) -> tuple[int, ...]:
    """Parse integers such as ``3,2,1``, as many as ``count`` if given; any other text is a ``ValueError``."""
    try:
        values = tuple(int(part) for part in text.split(","))
    except ValueError:
        values = ()
    if not values or count not in (None, len(values)):
        message = f"{text!r}: expected {'' if count is None else f'{count} '}integers with commas between them"
        raise ValueError(message)
    return values


def to_config(options: Any) -> dict[str, Any]:
    """Turn a dataclass into JSON values, groups included."""
    return {name: list(value) if isinstance(value, tuple) else value for name, value in _items(options)}


def _items(options: Any) -> Iterator[tuple[str, Any]]:
    for field in dataclasses.fields(options):
        value = getattr(options, field.name)
        yield field.name, to_config(value) if dataclasses.is_dataclass(value) else value


def keywords(cls: type, name: str = "options") -> Callable[[Callable[..., T]], Callable[..., T]]:
    """Let callers give the options of a dataclass as keywords.

    The decorated function has one keyword-only parameter called ``name``, of type ``cls``. Callers may pass it, or
    instead of it any options of ``cls``; signature and docstring list these one by one.
    """
    options = list(options_of(cls))

    def decorate(function: Callable[..., T]) -> Callable[..., T]:
        signature = inspect.signature(function)
        own = [one for one in signature.parameters.values() if one.name != name]
        last = len(own) - 1 if own and own[-1].kind is inspect.Parameter.VAR_KEYWORD else len(own)
        listed = [
            inspect.Parameter(
                one.name,
                inspect.Parameter.KEYWORD_ONLY,
                default=inspect.Parameter.empty if one.default is dataclasses.MISSING else one.default,
                annotation=one.type,
            )
            for one in options
        ]
        names = {one.name for one in options}

        @functools.wraps(function)
        def call(*args: Any, **kwargs: Any) -> T:
            given = {key: kwargs.pop(key) for key in list(kwargs) if key in names}
            if name not in kwargs:
                kwargs[name] = build(cls, given)
            elif given:
                message = f"{function.__name__}() takes {name}= or the option {next(iter(given))}=, not both"
                raise TypeError(message)
            return function(*args, **kwargs)

        call.__signature__ = signature.replace(parameters=[*own[:last], *listed, *own[last:]])  # type: ignore[attr-defined]
        call.__doc__ = _with_parameters(function.__doc__ or "", options)
        return call

    return decorate


def _with_parameters(doc: str, options: list[Option]) -> str:
    """Append the options to the section ``Parameters`` of a numpydoc docstring."""
    lines = inspect.cleandoc(doc).split("\n")
    entries: list[str] = []
    for one in options:
        entries += [one.name, *textwrap.wrap(one.help, 112, initial_indent="    ", subsequent_indent="    ")]
    if "Parameters" not in lines:
        return "\n".join([*lines, "", "Parameters", "----------", *entries])
    end = next(
        (i - 1 for i in range(lines.index("Parameters") + 2, len(lines)) if lines[i] and set(lines[i]) == {"-"}),
        len(lines),
    )
    while end and not lines[end - 1].strip():
        end -= 1
    return "\n".join([*lines[:end], *entries, *lines[end:]])


def _hints(cls: Any) -> dict[str, Any]:
    if cls not in _HINTS:
        _HINTS[cls] = get_type_hints(cls)
    return _HINTS[cls]
