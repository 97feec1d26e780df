"""`rsprune entropy`: Stage I alone."""

from __future__ import annotations

from rsprune.cli import common
from rsprune.cli.options import with_options
from rsprune.runs.config import EntropyOptions

EXAMPLES = """
[bold]Examples[/bold]\n
  rsprune entropy images/ --out entropy/\n
  rsprune entropy 'naip/*.tar' -o entropy/ --bands 0,1,2 --nodata 0\n
  rsprune entropy s2.txt -o entropy/ --valid-range 0,10000 --gray mean
"""


@common.guarded
@with_options
def command(
    source: common.SourceArgument,
    out: common.OutFolder,
    options: EntropyOptions,
    quiet: common.Quiet = False,
    json: common.Json = False,
) -> None:
    """Measure the gray-level histogram entropy of every image, in bits.

    Writes entropy/<shard>.parquet (key, entropy) and quarantine.parquet, and prints the thresholds that common cuts
    imply.
    """
    from rsprune.runs.stages import entropy_run

    with common.watch(quiet, json) as progress:
        result = entropy_run(common.one_or_many(source), out=out, options=options, progress=progress)
    common.conclude(result.metrics, result.text, quiet, json)
