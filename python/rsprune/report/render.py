"""Pages from templates: one HTML file that loads nothing and runs its own script alone."""

from __future__ import annotations

import base64
import hashlib
from functools import cache
from importlib.resources import files
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from rsprune.report.words import percent, plural

__all__ = ["render"]


@cache
def environment() -> Environment:
    """Return the environment of the templates: whatever they are given is text, unless it is marked as HTML."""
    made = Environment(
        loader=PackageLoader("rsprune.report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    made.filters |= {"count": "{:,}".format, "fixed": lambda value, digits: f"{value + 0.0:.{digits}f}", "zip": zip}
    made.globals |= {"percent": percent, "plural": plural}
    return made


def render(template: str, **values: Any) -> str:
    """Render a template with the style and the script of all pages, which the page's policy knows by their hashes.

    The policy holds whatever the keys of a collection contain: nothing is loaded, and no other script or style is used.
    """
    style, script = (
        files("rsprune.report").joinpath("templates", f"page.{kind}").read_text("utf-8") for kind in ("css", "js")
    )
    policy = f"default-src 'none'; img-src data:; style-src {source_of(style)}; script-src {source_of(script)}"
    own = {"policy": policy, "style": Markup(style), "script": Markup(script)}
    return environment().get_template(template).render(values | own)


def source_of(text: str) -> str:
    """Name an inline style or script by its hash, as a content security policy does."""
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"
