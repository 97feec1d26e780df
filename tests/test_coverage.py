"""What a run did to the kinds of scenes is told: which clusters and class folders it lost, and to which stage."""

import numpy as np
import pytest
from PIL import Image

from failures import raises
from rsprune.errors import ArgumentError
from rsprune.runs.coverage import advice_of, coverage_lines, coverage_of
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
    classes = run.summary["coverage"]["classes"]
    assert list(classes) == ["desert", "forest", "water"]
    assert [counts[0] for counts in classes.values()] == [40, 40, 40]
    kept = [key.partition("/")[0] for key in run.keys]
    assert [counts[2] for counts in classes.values()] == [kept.count(name) for name in classes]
    assert sum(counts[1] for counts in classes.values()) == run.summary["survivors"]
    assert "Stage I dropped 1 of 3 class folders whole: desert" in run.describe()


def test_the_page_says_what_the_summary_says(run, tmp_path):
    page = (run.path / "report.html").read_text()
    assert "<h2>Kinds of scenes</h2>" in page
    assert "2 of the 3 clusters that the collection has are in the selection." in page
    assert "desert 100% (cluster" in page
    assert "crowd out" not in page


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
    found = coverage_of(pool, kept, dropped=0, sample=np.zeros(20, int), names=None, shares=None, classes=None)
    summary = {"coverage": found, "quota": 1}
    assert "the largest 2 clusters have 90% of the selection" in coverage_lines(summary)
    assert ["waterfill" in line for line in advice_of(summary)] == [True]
    kept[2:7] = 0
    found = coverage_of(pool, kept, dropped=0, sample=np.zeros(20, int), names=None, shares=None, classes=None)
    assert found["lost_by_stage_two"] == [2, 3, 4, 5, 6]
    assert "Stage II 5" in coverage_lines({"coverage": found, "quota": 1})[0]
    assert advice_of({}) == coverage_lines({}) == []
