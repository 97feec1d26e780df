"""What a run did to the kinds of scenes is told: which clusters and class folders it lost, and to which stage."""

from collections import Counter

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from failures import raises
from rsprune.errors import ArgumentError
from rsprune.report.scenes import group_table
from rsprune.runs.coverage import advice_of, coverage_lines, coverage_of, kept_by, warning_of
from small_runs import Colours, artefacts, small_prune

COLOURS = {"desert": (200, 170, 90), "forest": (30, 110, 40), "water": (20, 40, 160)}


def scenes(folder, each, noise):
    """Class folders of images of one colour each, with so much noise."""
    for number, (name, colour) in enumerate(COLOURS.items()):
        for i in range(each):
            rng = np.random.default_rng([number, i])
            pixels = np.array(colour) + rng.integers(0, noise[name] + 1, (16, 16, 1))
            path = folder / name / f"{i:03d}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(pixels.astype(np.uint8)).save(path)
    return folder


@pytest.fixture(scope="module")
def reference(tmp_path_factory):
    return scenes(tmp_path_factory.mktemp("reference"), 20, dict.fromkeys(COLOURS, 20))


@pytest.fixture(scope="module")
def pool(tmp_path_factory):
    """Deserts are flat: Stage I drops all of them."""
    return scenes(tmp_path_factory.mktemp("pool"), 40, {"desert": 1, "forest": 30, "water": 50})


@pytest.fixture(scope="module")
def run(pool, reference, tmp_path_factory):
    return small_prune(pool, reference, tmp_path_factory.mktemp("run") / "run", k=3, entropy_keep=0.5, keep=30)


def test_the_kinds_that_stage_one_drops_are_named(run):
    coverage = run.summary["coverage"]
    assert sorted(coverage["names"]) == ["desert", "forest", "water"]
    assert coverage["shares"] == [1.0, 1.0, 1.0]
    desert = coverage["names"].index("desert")
    assert coverage["lost_by_stage_one"] == [desert]
    assert coverage["lost_by_stage_two"] == []
    assert (coverage["present"], coverage["dropped"], sum(coverage["dropped_sample"])) == (3, 60, 60)
    assert coverage["dropped_sample"][desert] == 40
    said = run.describe()
    assert "2 of 3 clusters are in the selection; Stage I dropped 1 whole, Stage II 0" in said
    assert f"lost to Stage I: desert 100% (cluster {desert})" in said
    assert "--entropy-keep" in said


def test_class_folders_are_counted_through_both_stages(run, pool):
    (folders,) = run.summary["coverage"]["kept_by"]
    names, images, survivors, chosen = zip(*folders["largest"], strict=True)
    assert (folders["by"], names, images) == ("class folder", ("desert", "forest", "water"), (40, 40, 40))
    kept = [key.partition("/")[0] for key in run.keys]
    assert list(chosen) == [kept.count(name) for name in names]
    assert sum(survivors) == run.summary["survivors"]
    assert folders["lost_by_stage_one"] == [1, ["desert"]]
    assert folders["lost_by_stage_two"] == [0, []]
    assert folders["rest"] == [0, 0, 0, 0]
    assert "Stage I dropped 1 of 3 class folders whole: desert" in run.describe()


def test_the_page_says_what_the_summary_says(run, tmp_path):
    page = (run.path / "report.html").read_text()
    assert "<h2>Kinds of scenes</h2>" in page
    assert "2 of the 3 clusters that the collection has are in the selection." in page
    assert "desert 100% (cluster" in page
    assert "crowd out" not in page


def test_a_choice_that_loses_many_clusters_is_warned_of(run):
    assert "warning   1 of the 3 clusters that the collection has are lost: 33%, more than 5%" in run.describe()
    assert warning_of(run.summary) == run.summary["coverage"]["warning"]
    for many, warned in ((19, True), (20, False)):  # 5 % are no reason for one
        counts = np.array([0] + [1] * (many - 1))
        found = coverage_of(counts, counts, dropped=1, sample=1 - counts, names=None, shares=None, shares_kept=[])
        assert found["lost_by_stage_one"] == [0]
        assert (found["warning"] is not None) == warned
    assert warning_of({}) is None


def test_sources_shards_and_columns_are_counted_in_one_way(tmp_path, pool, reference):
    """Two Parquet files as two sources: all that the tables say can be counted in the manifest."""
    columns = {"city": ["Oslo", "Rome", None], "year": [2019, 2020, 2021], "caption": None, "cloud": [0.1, 0.2, 0.3]}
    paths = sorted(pool.rglob("*.png"))
    for number in range(2):
        some = paths[number::2]
        values = {name: [options[i % 3] for i in range(len(some))] for name, options in columns.items() if options}
        values["caption"] = [f"{number} {i}" for i in range(len(some))]
        table = pa.table({"image": [path.read_bytes() for path in some], **values})
        pq.write_table(table, tmp_path / f"part-{number}.parquet")
    files = [str(tmp_path / f"part-{number}.parquet") for number in range(2)]
    kept_by = {}
    for sources in (files, [[files[0]], [files[1]]]):
        run = small_prune(sources, reference, tmp_path / f"run-{len(kept_by)}", k=3, entropy_keep=0.5, keep=30)
        for one in run.summary["coverage"]["kept_by"]:
            kept_by[one["by"], one.get("column")] = one
        manifest = run.to_arrow()
        for column in ("city", "year"):
            chosen = Counter(None if value is None else str(value) for value in manifest[column].to_pylist())
            told = {name: (images, kept) for name, images, _, kept in kept_by["column", column]["largest"]}
            assert told == {name: (40, chosen[name]) for name in told}
            assert len(told) == 3
        shards = Counter(manifest["shard"].to_pylist())
        assert {name: kept for name, *_, kept in kept_by["shard", None]["largest"]} == shards
        for one in kept_by.values():
            assert sum(counts[1] for counts in one["largest"]) == 120
            assert sum(counts[2] for counts in one["largest"]) == run.summary["survivors"]
            assert sum(counts[3] for counts in one["largest"]) == 30
    # A caption is of one image, a measurement no kind.
    assert set(kept_by) == {("source", None), ("shard", None), ("column", "city"), ("column", "year")}
    assert [name for name, *_ in kept_by["source", None]["largest"]] == ["0", "1"]
    page = (run.path / "report.html").read_text()
    assert all(f"All {name}" in page for name in ("sources", "shards", "values of city", "values of year"))


def test_of_many_groups_the_largest_are_listed_and_the_rest_summed():
    counts = {f"{i:03d}": np.array([i, i % 3, 0]) for i in range(1, 200)} | {None: np.array([500, 0, 0])}
    told = kept_by("column", counts, "<b>")
    assert [name for name, *_ in told["largest"][:3]] == [None, "199", "198"]
    assert (told["groups"], len(told["largest"]), told["rest"][0]) == (200, 50, 150)
    listed = np.sum([numbers for _, *numbers in told["largest"]], axis=0)
    assert (listed + told["rest"][1:]).tolist() == np.sum(list(counts.values()), axis=0).tolist()
    assert told["lost_by_stage_one"][0] == 67
    assert told["lost_by_stage_one"][1][:2] == [None, "198"]
    assert told["lost_by_stage_two"][0] == 133
    assert len(told["lost_by_stage_two"][1]) == 50
    coverage = {"present": 1, "lost_by_stage_one": [], "lost_by_stage_two": [], "largest": [1, 1.0], "kept_by": [told]}
    said = coverage_lines({"coverage": coverage})
    assert "Stage I dropped 67 of 200 values of <b> whole: (none), 198, 195, 192, 189 and 62 more" in said
    table = group_table(told)
    assert table["head"] == "<b>"
    assert table["rows"][0] == ("(none)", [500, 0, 0])
    assert table["rows"][-1] == ("150 others", told["rest"][1:])


def test_a_sample_of_none_looks_at_nothing(pool, reference, tmp_path):
    run = small_prune(pool, reference, tmp_path / "run", k=3, keep=30, coverage_sample=0)
    assert "coverage" not in run.summary
    assert not (run.path / "dropped").exists()
    assert "scenes" not in run.describe()
    assert "Kinds of scenes" not in (run.path / "report.html").read_text()
    with raises(ArgumentError, "coverage_sample", -1):
        small_prune(pool, reference, tmp_path / "other", coverage_sample=-1)


def test_the_sample_is_drawn_by_the_seed_and_bounded(pool, reference, tmp_path):
    runs = [small_prune(pool, reference, tmp_path / str(i), k=3, keep=30, coverage_sample=25) for i in range(2)]
    assert artefacts(runs[0].path) == artefacts(runs[1].path)
    coverage = runs[0].summary["coverage"]
    assert (coverage["dropped"], sum(coverage["dropped_sample"])) == (60, 25)


def test_centroids_without_images_have_numbers_for_names(run, pool, tmp_path):
    other = small_prune(pool, run.path / "centroids.safetensors", tmp_path / "run", k=3, keep=30, encoder=Colours())
    coverage = other.summary["coverage"]
    assert "names" not in coverage
    assert coverage["lost_by_stage_one"] == run.summary["coverage"]["lost_by_stage_one"]
    assert "whole: desert" in other.describe()


def test_a_fill_that_few_clusters_take_is_told_with_the_remedy():
    pool, kept = np.full(20, 100), np.array([90, 80] + [1] * 18)
    found = coverage_of(pool, kept, dropped=0, sample=np.zeros(20, int), names=None, shares=None, shares_kept=[])
    summary = {"coverage": found, "quota": 1}
    assert "the largest 2 clusters have 90% of the selection" in coverage_lines(summary)
    assert ["waterfill" in line for line in advice_of(summary)] == [True]
    kept[2:7] = 0
    found = coverage_of(pool, kept, dropped=0, sample=np.zeros(20, int), names=None, shares=None, shares_kept=[])
    assert found["lost_by_stage_two"] == [2, 3, 4, 5, 6]
    assert "Stage II 5" in coverage_lines({"coverage": found, "quota": 1})[0]
    assert advice_of({}) == coverage_lines({}) == []
