"""`rsprune entropy`: Stage I alone."""

from __future__ import annotations

from rsprune.cli import common

EXAMPLES = """
[bold]Examples[/bold]\n
  rsprune entropy images/ --out entropy/\n
  rsprune entropy 'naip/*.tar' -o entropy/ --bands 0,1,2 --nodata 0\n
  rsprune entropy s2.txt -o entropy/ --valid-range 0,10000 --gray mean
"""


@common.guarded
def command(
    source: common.SourceArgument,
    out: common.OutFolder,
    gray: common.Gray = "bt601",
    bands: common.Bands = None,
    nodata: common.NoData = None,
    valid_range: common.ValidRange = None,
    max_pixels: common.MaxPixels = None,
    threads: common.Threads = None,
    quiet: common.Quiet = False,
    json: common.Json = False,
) -> None:
    """Measure the gray-level histogram entropy of every image, in bits.

    Writes entropy/<shard>.parquet (key, entropy) and quarantine.parquet, and prints the thresholds that common cuts
    imply.
    """
    from rsprune.runs.single import entropy_run

    with common.watch(quiet, json) as observer:
        result = entropy_run(
            common.one_or_many(source),
            out=out,
            **common.pixels(gray, bands, nodata, valid_range, max_pixels),
            threads=threads,
            progress=observer,
        )
    common.conclude(result.figures, result.text, quiet, json)
