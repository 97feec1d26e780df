"""The choices of a run by their names: each is kept in ``selections/NAME``, the newest stands in the folder itself."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import re
import shutil
from collections.abc import Mapping
from typing import Any

from rsprune.errors import ArgumentError, ConfigMismatchError, DamagedFileError
from rsprune.io import atomic_write, canonical_json, config_diff, digest, read_record
from rsprune.options import options_of
from rsprune.runs.config import PruneOptions
from rsprune.runs.folder import RunFolder

__all__ = ["check_name", "choice_name", "describe_choices", "open_choice", "selection_names", "store_choice"]

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._=-]{0,99}")
#: What a choice is called after, beside its strategy and budget, where it is not the default.
TELLING = {"entropy_keep", "tau", "strategy_options", "seed", "preselected", "fill", "within", "min_similarity"}
TELLING |= {"groups", "quotas", "max_per_group", "dedup", "leak_eps"}
#: What a choice of one name may have otherwise than it had: the collection has grown, and the budget and the choice
#: that it tops up with it.
FOLLOWS = ("source.", "centroids.", "selection.images", "selection.budget", "selection.preselected")
#: What is no part of the choice itself.
APART = ("selection.coverage_sample", "keep_embeddings")


def choice_name(options: PruneOptions, digests: Mapping[str, Any]) -> str:
    """Return the name of the choice that options make, such as ``rsprune-keep0.15-fill-waterfill``.

    ``digests`` are those of what is given in files or arrays, by the names of the options.

    Raises
    ------
    ArgumentError
        The name that the options give it cannot be that of a folder.
    """
    if options.name is not None:
        if not NAME.fullmatch(options.name):
            message = (
                f"name is {options.name!r}; expected up to 100 letters, digits, dots, dashes and underscores, of which "
                "the first is a letter or a digit"
            )
            raise ArgumentError(message)
        return options.name
    values = flat(options)
    parts = [f"{values['strategy']}-keep{values['keep']}"]
    for one in options_of(PruneOptions):
        value = values.get(one.name)
        if one.name in ("exclude", "leaks"):
            parts += [f"{one.name}-{digests[one.name][:8]}"] if one.name in digests else []
        elif one.name in TELLING and value not in (None, one.default, {}):
            word = one.name.replace("_", "-")
            if isinstance(value, bool):
                parts.append(word)
            elif isinstance(value, (int, float)):
                parts.append(f"{word}{value:g}")
            else:
                plain = isinstance(value, str) and NAME.fullmatch(value)
                parts.append(f"{word}-{value if plain else digest(value)[:8]}")
    name = "-".join(parts)
    return name if len(name) <= 100 else f"{name[:91]}-{digest(name)[:8]}"


def flat(options: Any) -> dict[str, Any]:
    """Return the values of options and of their groups, side by side."""
    values: dict[str, Any] = {}
    for field in dataclasses.fields(options):
        value = getattr(options, field.name)
        values |= flat(value) if dataclasses.is_dataclass(value) else {field.name: value}
    return values


def selection_names(folder: RunFolder) -> list[str]:
    """Return the names of the choices of a run, in alphabetical order."""
    return sorted(path.parent.name for path in folder.selections.glob("*/summary.json"))


def check_name(folder: RunFolder, name: str, config: dict[str, Any]) -> None:
    """Fail where another choice has the name already: it would be lost.

    Raises
    ------
    ConfigMismatchError
        It says what differs.
    """
    stored = RunFolder(folder.selections / name)
    try:
        before = stored.read_config()
    except (FileNotFoundError, DamagedFileError):
        return
    grown = before.get("source") != config.get("source") or "preselected" in config.get("selection", {})
    follows = FOLLOWS if grown else ()
    lines = [
        line
        for line in config_diff(before, json.loads(canonical_json(config)))
        if not line.startswith((*follows, *APART))
    ]
    if lines:
        message = (
            f"{stored.choice} holds another choice ({'; '.join(lines)}): give this one another name, or delete that one"
        )
        raise ConfigMismatchError(message)


def store_choice(folder: RunFolder, name: str) -> None:
    """Keep the finished choice of a folder under a name, unless it is there already."""
    stored = RunFolder(folder.selections / name)
    copies = {getattr(folder, one): getattr(stored, one) for one in ("config", "summary")}
    files = {folder.choice / one: stored.choice / one for one in read_record(folder.summary)["files"]}
    with contextlib.suppress(FileNotFoundError):
        same = all(copy.read_bytes() == path.read_bytes() for path, copy in copies.items())
        if same and stored.is_whole(*files.values()):
            return
    stored.summary.unlink(missing_ok=True)
    for path, copy in (files | copies).items():  # the record is the last
        with atomic_write(copy) as beside:
            shutil.copyfile(path, beside)


def open_choice(folder: RunFolder, name: str | None) -> RunFolder:
    """Return the folder of a choice by its name; None stands for the newest.

    Raises
    ------
    ArgumentError
        The run has no choice of this name; the message has those that it has.
    """
    if name is None:
        return folder
    if name not in (known := selection_names(folder)):
        message = f"{folder.path} has no selection {name!r}; it has {', '.join(known) or 'none'}"
        raise ArgumentError(message)
    return RunFolder(folder.selections / name)


def describe_choices(folder: RunFolder) -> list[dict[str, Any]]:
    """Describe the choices of a run: name, strategy, budget and images of each, and whether it is the newest one."""
    newest = folder.summary.read_bytes() if folder.summary.is_file() else b""
    choices = []
    for name in selection_names(folder):
        path = folder.selections / name / folder.summary.name
        summary = read_record(path)
        told = {one: summary.get(one) for one in ("strategy", "budget", "selected")}
        choices.append({"name": name, **told, "newest": path.read_bytes() == newest})
    return choices
