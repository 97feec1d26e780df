"""Options: one dataclass gives the signature, the command line, the configuration and the checks."""

import inspect
from dataclasses import dataclass, field
from typing import Any, Literal

import pytest
import typer
from typer.testing import CliRunner

from failures import raises
from rsprune.cli.options import with_options
from rsprune.errors import ArgumentError
from rsprune.options import build, check_options, integers, keywords, option, to_config


@dataclass(frozen=True)
class Inner:
    color: Literal["red", "green"] = option("red", help="A color.")
    bands: tuple[int, ...] | None = option(
        None, help="Bands.", metavar="B,B", parser=lambda text: tuple(map(int, text.split(",")))
    )

    def __post_init__(self):
        check_options(self)


@dataclass(frozen=True)
class Outer:
    count: int = option(3, help="How many.", flags=("--count", "-n"), minimum=1)
    share: float | None = option(None, help="A share.", minimum=0, maximum=1)
    mirror: bool = option(True, help="Mirror.")
    secret: Any = option(None, help="Python alone.", hidden=True)
    inner: Inner = field(default_factory=Inner)

    def __post_init__(self):
        check_options(self)


@keywords(Outer)
def work(source: str, *, options: Outer) -> Outer:
    """Work.

    Parameters
    ----------
    source
        Where from.

    Returns
    -------
    Outer
        The options.
    """
    return options


def test_keywords_reach_the_groups_of_a_dataclass():
    assert work("x", count=5, color="green") == Outer(count=5, inner=Inner(color="green"))
    assert work("x") == Outer()
    assert work("x", options=Outer(count=9)).count == 9


def test_the_signature_lists_every_option():
    names = list(inspect.signature(work).parameters)
    assert names == ["source", "count", "share", "mirror", "secret", "color", "bands"]
    assert inspect.signature(work).parameters["count"].default == 3


def test_the_docstring_lists_every_option_before_what_is_returned():
    doc = inspect.getdoc(work)
    assert doc.index("source") < doc.index("How many.") < doc.index("Bands.") < doc.index("Returns")


def test_an_unknown_option_is_a_type_error_that_names_it():
    with raises(TypeError, "colour"):
        work("x", colour="red")


def test_options_twice_are_refused():
    with raises(TypeError, "count"):
        work("x", options=Outer(), count=2)


@pytest.mark.parametrize(
    ("name", "value"),
    [("count", 0), ("count", 2.5), ("count", True), ("share", 1.5), ("share", float("nan")), ("share", "a"),
     ("mirror", "no"), ("color", "blue"), ("color", None), ("color", [1])],
)  # fmt: skip
def test_a_value_out_of_range_is_named(name, value):
    with raises(ArgumentError, name):
        work("x", **{name: value})


def test_a_configuration_is_json():
    assert to_config(build(Outer, {"bands": (1, 2)})) == {
        "count": 3,
        "share": None,
        "mirror": True,
        "secret": None,
        "inner": {"color": "red", "bands": [1, 2]},
    }


def command_line(*arguments):
    seen = []
    app = typer.Typer()

    @app.command()
    @with_options
    def run(source: str, options: Outer, quiet: bool = False) -> None:
        """Run."""
        seen.append((source, options, quiet))

    result = CliRunner().invoke(app, list(arguments))
    return result, seen


def test_the_command_line_has_every_option_that_is_not_hidden():
    result, seen = command_line("x", "-n", "7", "--color", "green", "--bands", "3,2,1", "--no-mirror", "--share", "0.5")
    assert result.exit_code == 0, result.output
    assert seen == [("x", Outer(count=7, share=0.5, mirror=False, inner=Inner("green", (3, 2, 1))), False)]
    assert command_line("x")[1] == [("x", Outer(), False)]
    help = command_line("--help")[0].output
    assert "How many." in help
    assert "--secret" not in help


@pytest.mark.parametrize("arguments", [("x", "-n", "0"), ("x", "--color", "blue"), ("x", "--share", "2"), ("x", "-z")])
def test_the_command_line_refuses_what_an_option_cannot_be(arguments):
    result, seen = command_line(*arguments)
    assert result.exit_code == 2
    assert seen == []


def test_integers_are_read_from_text_as_many_as_asked_for():
    assert integers("3,-2, 1") == (3, -2, 1)
    assert integers("0,10000", count=2) == (0, 10000)
    for text, count in (("", None), ("3,x", None), ("1.5", None), ("1,2,3", 2)):
        with raises(ValueError, repr(text)):
            integers(text, count)


def test_a_value_that_a_parser_refuses_is_a_usage_error():
    @dataclass(frozen=True)
    class Bands:
        bands: tuple[int, ...] | None = option(None, help="Bands.", parser=integers)

    app = typer.Typer()

    @app.command()
    @with_options
    def show(options: Bands) -> None:
        typer.echo(options.bands)

    done = CliRunner().invoke(app, ["--bands", "3,x"])
    assert done.exit_code == 2
    assert "'3,x'" in done.output
    assert CliRunner().invoke(app, ["--bands", "3,2"]).output == "(3, 2)\n"
