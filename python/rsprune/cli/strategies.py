"""`rsprune strategies`: the selection methods that there are."""

from __future__ import annotations

import inspect
from json import dumps as json_text
from typing import Annotated, Any

import typer

from rsprune.cli import common

EXAMPLES = """
[bold]Examples[/bold]\n
  rsprune strategies\n
  rsprune strategies cluster_nearest
"""


@common.guarded
def command(
    name: Annotated[str | None, typer.Argument(help="A strategy, to be described in full.")] = None,
    json: common.Json = False,
) -> None:
    """List the selection methods: what each does, and the inputs that it needs."""
    from rsprune import strategies

    methods = [strategies.get(one) for one in ([name] if name else strategies.names())]
    figures = {one.name: about(one) for one in methods}
    width = max(map(len, figures))
    inputs = {}
    for one in methods:
        needs = ", ".join(figures[one.name]["needs"]) or "nothing"
        inputs[one.name] = f"needs {needs}" + (f"; uses {', '.join(one.uses)}" if one.uses else "")
    if name:
        options = ", ".join(f"{option}={json_text(value)}" for option, value in methods[0].options.items())
        text = f"{inspect.getdoc(methods[0].run) or ''}\n\n{inputs[name]}\noptions: {options or 'none'}"
    else:
        text = "\n".join(f"{one.name:{width}}  {one.summary}\n{'':{width}}  {inputs[one.name]}" for one in methods)
    common.conclude({"strategies": figures}, text, quiet=False, json=json)


def about(method: Any) -> dict[str, Any]:
    """Describe the needs and options of a method as JSON values."""
    needs = list(method.needs)
    if method.budget == "required":
        needs.append("budget")
    return {
        "summary": method.summary,
        "needs": needs,
        "uses": list(method.uses),
        "budget": method.budget,
        "options": dict(method.options),
    }
