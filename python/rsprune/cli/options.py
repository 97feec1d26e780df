"""The options of a command, made of the dataclasses that hold the options of the functions beneath it."""

from __future__ import annotations

import dataclasses
import functools
import inspect
from collections.abc import Callable
from typing import Annotated, Any, get_type_hints

import typer

from rsprune.options import Option, build, options_of

__all__ = ["with_options"]


def with_options(command: Callable[..., None]) -> Callable[..., None]:
    """Replace each parameter of a command whose type is a dataclass of options by these options, one by one.

    The command is called with the dataclass. An option that two dataclasses share is shown once, and both receive it.
    """
    hints = get_type_hints(command, include_extras=True)
    groups: dict[str, Any] = {name: kind for name, kind in hints.items() if dataclasses.is_dataclass(kind)}
    parameters: dict[str, inspect.Parameter] = {}
    for parameter in inspect.signature(command).parameters.values():
        if parameter.name in groups:
            listed = [_parameter(one) for one in options_of(groups[parameter.name]) if not one.hidden]
        else:
            listed = [parameter.replace(annotation=hints.get(parameter.name), kind=inspect.Parameter.KEYWORD_ONLY)]
        for one in listed:
            parameters.setdefault(one.name, one)

    repeated = {one.name: one.parser for cls in groups.values() for one in options_of(cls) if one.repeated}

    @functools.wraps(command)
    def call(**values: Any) -> None:
        for name, parser in repeated.items():
            values[name] = parser(values[name]) if parser and values[name] else None
        arguments = {name: value for name, value in values.items() if name in hints}
        for name, cls in groups.items():
            known = {one.name for one in options_of(cls)}
            arguments[name] = build(cls, {key: value for key, value in values.items() if key in known})
        command(**arguments)

    call.__signature__ = inspect.Signature(list(parameters.values()))  # type: ignore[attr-defined]
    call.__annotations__ = {name: one.annotation for name, one in parameters.items()}
    del call.__wrapped__
    return call


def _parameter(option: Option) -> inspect.Parameter:
    flag = f"--{option.name.replace('_', '-')}"
    flags = option.flags or ((f"{flag}/--no-{flag[2:]}",) if option.default is True else (flag,))
    settings: dict[str, Any] = {"help": option.help, "metavar": option.metavar, "rich_help_panel": option.panel}
    kind: Any = option.type
    if option.repeated:
        kind = list[str] | None
    elif option.parser is None:
        settings |= {"min": option.minimum, "max": option.maximum}
    else:
        kind, settings["parser"] = Any, _text_parser(option.parser)
    default = inspect.Parameter.empty if option.default is dataclasses.MISSING else option.default
    annotation = Annotated[kind, typer.Option(*flags, **settings)]
    return inspect.Parameter(option.name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=annotation)


def _text_parser(parser: Callable[[str], Any]) -> Callable[[Any], Any]:
    """Make a parser that lets a default value through, which is of the final type already."""

    def parse(value: Any) -> Any:
        if not isinstance(value, str):
            return value
        try:
            return parser(value)
        except ValueError as error:
            raise typer.BadParameter(str(error)) from error

    return parse
