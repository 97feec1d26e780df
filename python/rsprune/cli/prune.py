"""`rsprune prune`: the whole method."""

from __future__ import annotations

from rsprune.cli import common
from rsprune.cli.options import with_options
from rsprune.runs.config import PruneOptions

EXAMPLES = """
[bold]Examples[/bold]\n
  rsprune prune images/ --reference aid/ --keep 0.15 --encoder efficientnet-lite0 --out run/\n
  rsprune prune 'pool-*.tar' -r aid.tar --keep 100000 --k 200 -o run/ --json\n
  rsprune prune images/ -r centroids.safetensors --keep 0.15 -o run/\n
  rsprune prune Git-10M/ -r resisc45 -r ucmerced -r aid --keep 0.15 -o run/\n
  rsprune prune images/ -r aid/ --keep 0.15 --strategy cluster_nearest -O k=1000 -o other/\n
  rsprune prune scenes/ -r aid/ --keep 0.15 -o run/ --groups scene --max-per-group 20 --exclude test.txt\n
  rsprune prune 'pool-*.tar' -r aid/ --keep 0.15 -o /shared/run/ --part 3/16
"""


@common.guarded
@with_options
def command(
    source: common.SourceArgument,
    reference: common.ReferenceOption,
    out: common.OutFolder,
    options: PruneOptions,
    quiet: common.Quiet = False,
    json: common.Json = False,
) -> None:
    """Choose the images of a collection that are worth training on.

    Stage I keeps the images of highest entropy; Stage II embeds those, assigns each to the nearest centroid of the
    reference images, and keeps an equal number nearest to each centroid. The run folder holds the result
    (selection.parquet, selected.txt), the images that could not be read (quarantine.parquet) and a report.
    """
    from rsprune.runs.prune import prune

    images, scenes = common.one_or_many(source), common.one_or_many(reference)
    with common.watch(quiet, json) as progress:
        run = prune(images, reference=scenes, out=out, options=options, progress=progress)
    common.conclude(run.summary, run.describe(), quiet, json)
