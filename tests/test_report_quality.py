"""Images that may be of no use are found by the scores of Stage I, counted, and shown where they were kept."""

import re

import numpy as np
import pyarrow.compute as pc
import pytest
from PIL import Image

from rsprune.report.quality import FLAGS
from rsprune.report.statistics import run_statistics
from rsprune.runs.reader import RunReader
from small_runs import small_prune


def write(path, pixels, **options):
    Image.fromarray(pixels.astype(np.uint8)).save(path, **options)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    pool, rng = tmp_path_factory.mktemp("pool"), np.random.default_rng(0)
    for i in range(10):
        noise = rng.integers(0, 256, (80, 80, 1)).repeat(3, 2) + rng.integers(0, 2, (80, 80, 3))
        smooth = np.linspace(40, 200, 80)[:, None, None] + np.linspace(0, 5 * i, 80)[None, :, None] + np.zeros(3)
        some = {
            "plain": noise,
            "dark": noise // 12,
            "bright": 255 - noise // 13,
            "blurred or empty": smooth,
            "small": noise[:, :40],
            "elongated": np.concatenate([noise] * 3),
        }
        for name, pixels in some.items():
            write(pool / f"{name}-{i}.png", pixels)
        write(pool / f"poorly compressed-{i}.jpg", noise, quality=20)
        write(pool / f"well compressed-{i}.jpg", noise, quality=90)
    return small_prune(pool, pool, tmp_path_factory.mktemp("run") / "run", k=4, keep=0.5, entropy_keep=1)


def test_each_kind_is_found_and_counted(run):
    flagged = run_statistics(RunReader(run.path, finished=True)).quality
    assert [one.name for one in flagged] == [flag.name for flag in FLAGS]
    for one in flagged:
        assert one.images == 10
        kept = {key for key in run.keys if key.startswith(one.name)}
        assert one.kept == len(kept)
        assert len(one.examples) == min(len(kept), 8)
    assert sum(one.kept for one in flagged) > 8


def test_counts_are_those_of_the_manifest_and_of_the_page(run):
    reader = RunReader(run.path, finished=True)
    manifest = reader.selected()
    dark, bright, blurred, _, _, poor = run_statistics(reader).quality
    for one, column, holds in (
        (dark, "gray_mean", lambda values: pc.less(values, 20)),
        (bright, "gray_mean", lambda values: pc.greater(values, 235)),
        (blurred, "sharpness", lambda values: pc.less(values, 20)),
        (poor, "jpeg_quality", lambda values: pc.less(values, 50)),
    ):
        assert one.kept == pc.sum(holds(manifest[column])).as_py()
    page = (run.path / "report.html").read_text()
    rows = re.findall(r'<tr><td>([\w ]+)</td><td>[^<]*</td><td class="number">(\d+)</td><td class="number">(\d+)', page)
    flagged = run_statistics(reader).quality
    assert rows == [(one.name, str(one.images), str(one.kept)) for one in flagged]
    for one in flagged:
        assert (f"Kept, and {one.name}" in page) == bool(one.kept)
