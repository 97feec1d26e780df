"""`rsprune encoders`: list, check and convert encoders."""

from __future__ import annotations

import importlib.metadata
from pathlib import Path
from typing import Annotated, Any

import typer

from rsprune.cli import common
from rsprune.cli.options import with_options
from rsprune.encoders import ZOO, DeviceOptions

LIST_EXAMPLES = """
[bold]Example[/bold]\n
  rsprune encoders list
"""
CHECK_EXAMPLES = """
[bold]Examples[/bold]\n
  rsprune encoders check                     # every encoder whose weights are here\n
  rsprune encoders check git-rsclip --weights Git-RSCLIP/\n
  rsprune encoders check timm:resnet50 --precision float32
"""
CONVERT_EXAMPLES = """
[bold]Example[/bold]\n
  rsprune encoders convert git-rsclip --weights Git-RSCLIP/ --out git-rsclip-open_clip/
"""

app = typer.Typer(no_args_is_help=True, help="List, check and convert encoders.", rich_markup_mode="rich")

LIBRARIES = ("torch", "timm", "open_clip_torch", "safetensors", "huggingface_hub")


@app.command("list", epilog=LIST_EXAMPLES)
@common.guarded
def list_encoders(json: common.Json = False) -> None:
    """List the encoders, whether their weights are on this machine, and where they are published.

    Beside these: open_clip:ARCHITECTURE:TAG_OR_FILE, timm:ARCHITECTURE:FILE, hf:FOLDER_OR_ID.
    """
    rows: list[dict[str, Any]] = []
    for name, spec in sorted(ZOO.items()):
        place = weights_of(name)
        rows.append(
            {
                "name": name,
                "dimensions": spec.dim,
                "pixels": spec.size,
                "weights": None if place is None else str(place),
                "file": spec.file,
                "repository": spec.repository or None,
                "licence": spec.licence,
            }
        )
    if json:
        common.conclude({"encoders": rows, "libraries": versions()}, "", quiet=False, json=True)
        return
    widths = (max(map(len, ZOO)), 4, 3, 5)
    for cells in [("name", "dim", "px", "here", "published as"), *map(cells_of, rows)]:
        typer.echo("  ".join([f"{cell:<{width}}" for cell, width in zip(cells, widths, strict=False)] + [cells[-1]]))
    typer.echo("installed: " + ", ".join(f"{name} {version}" for name, version in versions().items()))


def cells_of(row: dict[str, Any]) -> tuple[str, ...]:
    """Return the cells of a line of the list."""
    origin = f"{row['repository']}, {row['file']}" if row["repository"] else 'pip install "rsprune[demo]"'
    here = "yes" if row["weights"] else "no"
    return row["name"], str(row["dimensions"]), str(row["pixels"]), here, origin


@app.command("check", epilog=CHECK_EXAMPLES)
@common.guarded
@with_options
def check_encoders(
    options: DeviceOptions,
    names: Annotated[list[str] | None, typer.Argument(help="Encoders. Default: all whose weights are here.")] = None,
    weights: common.Weights = None,
    json: common.Json = False,
) -> None:
    """Load encoders, embed six known images, and compare with the cosines that are stored for their weights."""
    from rsprune.encoders import load_encoder
    from rsprune.encoders.selftest import check
    from rsprune.errors import RspruneError

    wanted = names or [name for name in sorted(ZOO) if weights_of(name)]
    if not wanted:
        typer.echo("no encoder's weights are here: `rsprune encoders list` says where they are published")
    failed = False
    figures: dict[str, Any]
    for name in wanted:
        try:
            found = check(load_encoder(name, weights=weights, options=options))
        except (RspruneError, OSError) as error:
            passed, figures, text = False, {"error": str(error)}, f"failed    {error}"
        else:
            passed = found.passed
            figures = {"worst": found.worst, "precision": found.precision, "images_per_second": found.images_per_second}
            stored = (
                "no cosines stored for these weights" if found.worst is None else f"cosines within {found.worst:.1e}"
            )
            text = (
                f"{'ok' if passed else 'WRONG':9} {stored}, {found.precision}, {found.images_per_second:.1f} images/s"
            )
        failed |= not passed
        common.conclude({"name": name, "passed": passed, **figures}, f"{name:24} {text}", quiet=False, json=json)
    if failed:
        raise typer.Exit(1)


@app.command("convert", epilog=CONVERT_EXAMPLES)
@common.guarded
def convert_encoder(
    name: Annotated[str, typer.Argument(help="git-rsclip or git-rsclip-base.")],
    out: Annotated[Path, typer.Option("--out", "-o", help="The folder to write.")],
    weights: common.Weights = None,
    quiet: common.Quiet = False,
    json: common.Json = False,
) -> None:
    """Write an encoder as a folder for open_clip's local-dir:, both towers, in float32."""
    from rsprune.errors import needed_by

    with needed_by("the conversion", "embed"):
        from rsprune.encoders.convert import convert
    folder = convert(name, out, weights=weights)
    common.conclude({"out": str(folder)}, f"written to {folder}: its README.md says how to load it", quiet, json)


def weights_of(name: str) -> Path | None:
    """Return where an encoder's weights are on this machine."""
    from rsprune.encoders.checkpoints import find, packaged_weights

    spec = ZOO[name]
    if spec.repository:
        return find(name, spec.repository, spec.file)
    try:
        return packaged_weights()
    except ImportError:
        return None


def versions() -> dict[str, str]:
    """Return the versions of the libraries that encoders need."""
    found = {}
    for name in LIBRARIES:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            found[name] = "missing"
    return found
