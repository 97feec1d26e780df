"""Experiments: what is compared, what is shared, and what a kill leaves of them."""

import csv
import dataclasses
import io
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from xml.etree import ElementTree

import numpy as np
import pytest

from failures import raises
from rsprune import errors, strategies
from rsprune.cli.experiment import by_name, from_data
from rsprune.experiments.experiment import experiment
from rsprune.experiments.pool import EmbeddedPool, EmbeddedSet
from rsprune.experiments.presets import SCALES, scale_of
from rsprune.experiments.results import COLUMNS, PLOTS, Experiment
from rsprune.experiments.tables import Column, Mean
from rsprune.experiments.tables_and_figures import GRIDS
from rsprune.experiments.trial import SPLIT, TrialRunner
from small_runs import picture, write_tar

TINY = {
    "model": "16x1x2/4",
    "size": 8,
    "iterations": 3,
    "batch": 4,
    "images": 8,
    "sampler": "ddim",
    "steps": 2,
    "real": 10,
    "k": 4,
    "seeds": 1,
}


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    """60 images, one of them unreadable, and 24 reference images of three classes."""
    folder = tmp_path_factory.mktemp("images")
    for shard in range(2):
        members = {f"{shard}-{i:03d}.jpg": picture(1000 * shard + i) for i in range(30)}
        members["1-007.jpg" if shard else "0-000.jpg"] = b"" if shard else picture(5)
        write_tar(folder / f"pool-{shard}.tar", members)
    write_tar(folder / "reference.tar", {f"{'abc'[i % 3]}/r{i}.jpg": picture(9000 + i) for i in range(24)})
    return folder


def run(images, name, out, *, workers=1, **changes):
    return experiment(
        name,
        str(images / "pool-*.tar"),
        {"scenes": str(images / "reference.tar")},
        out=out,
        changes=TINY | changes,
        device="cpu",
        workers=workers,
        progress=False,
    )


@pytest.fixture(scope="module")
def done(images, tmp_path_factory):
    out = tmp_path_factory.mktemp("experiments") / "tiny"
    return run(images, "table4", out, seeds=2)


def results(result):
    """All metrics but the clock's."""
    return {
        arm: {
            seed: {name: value for name, value in metrics.items() if name != "seconds"}
            for seed, metrics in trials.items()
        }
        for arm, trials in result.trials.items()
    }


def test_every_arm_is_trained_on_what_its_method_keeps(done):
    names = ["random, keep 0.15", "a third of the classes", "all reference images", "clusters of the pool"]
    assert [arm.name for arm in done.arms] == names
    assert done.failures == {}
    assert all(sorted(trials) == [0, 1] for trials in done.trials.values())
    assert {metrics["rows"] for trials in done.trials.values() for metrics in trials.values()} == {9}
    runner = TrialRunner(done.path, scale_of("cpu", TINY), ("scenes",), None, None, "cpu", 1)
    for arm in done.arms:
        for seed in (0, 1):
            folder = runner.folder(arm, seed)
            rows = np.load(folder / "rows.npy")
            assert np.array_equal(rows, runner.choose(arm, seed).indices)
            found = json.loads((folder / "metrics.json").read_text())
            assert found["arm"]["name"] == arm.name
            assert found["seed"] == seed
            assert {one["n_gen"] for one in found["details"]} == {8}
            assert {one["extractor"]["name"] for one in found["details"]} == {"efficientnet-lite0"}
            assert not any("FID" in one["metric"] for one in found["details"])


def test_methods_never_see_the_images_that_the_target_is_made_of(images, done):
    runner = TrialRunner(done.path, scale_of("cpu", TINY), ("scenes",), None, None, "cpu", 1)
    one = runner.references["scenes"]
    known, held = one.split(SPLIT)
    assert len(known) == len(held) == 12
    assert np.array_equal(np.sort(np.concatenate([known, held])), np.arange(24))
    assert np.array_equal(runner.known["scenes"], one.embeds.take(known))
    assert len(np.load(done.path / "real" / "target.npy")) == 10
    third = one.of_classes(known, 3)
    assert {one.keys[row][0] for row in third.tolist()} == {"a"}
    assert set(third.tolist()) < set(known.tolist())


def test_rows_of_the_pool_find_their_latents(done):
    runner = TrialRunner(done.path, scale_of("cpu", TINY), ("scenes",), None, None, "cpu", 1)
    assert len(runner.pool.keys) == len(runner.latents) == 59
    assert [runner.latents.keys[number] for number in runner.numbers] == runner.pool.keys


@pytest.fixture
def only(monkeypatch):
    """Leave an experiment some of its arms: only(experiment, *arms)."""

    def leave(name, *arms):
        every = GRIDS[name].arms
        grid = dataclasses.replace(
            GRIDS[name], arms=lambda *given: tuple(arm for arm in every(*given) if arm.name in arms)
        )
        monkeypatch.setitem(GRIDS, name, grid)

    return leave


def test_a_stopped_experiment_goes_on_with_the_trials_that_it_has(images, done, only, monkeypatch, tmp_path):
    shutil.copytree(done.path, tmp_path, dirs_exist_ok=True)
    shutil.rmtree(tmp_path / "trials")
    names = ("random, keep 0.15", "all reference images")
    only("table4", *names)
    honest, calls = TrialRunner.run, []

    def dying(self, arm, seed):
        calls.append(arm.name)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return honest(self, arm, seed)

    with monkeypatch.context() as patch:
        patch.setattr(TrialRunner, "run", dying)
        with pytest.raises(KeyboardInterrupt):
            run(images, "table4", tmp_path)
    (first,) = (tmp_path / "trials").glob("*/metrics.json")
    before = first.stat().st_mtime_ns
    again = run(images, "table4", tmp_path)
    assert results(again) == {name: {0: results(done)[name][0]} for name in names}
    assert first.stat().st_mtime_ns == before


@pytest.mark.slow
def test_figures_depend_neither_on_workers_nor_on_a_kill(images, done, tmp_path):
    words = [sys.executable, "-m", "rsprune", "experiment", "table4", "--pool", str(images / "pool-*.tar")]
    words += ["-r", f"scenes={images / 'reference.tar'}", "-o", str(tmp_path / "killed"), "--device", "cpu", "-q"]
    words += [f"--set={name}={json.dumps(value)}" for name, value in TINY.items()]
    process = subprocess.Popen([*words, "--workers", "2"], start_new_session=True)
    trials = tmp_path / "killed" / "trials"
    while process.poll() is None and not list(trials.glob("*/metrics.json")):
        time.sleep(0.05)
    assert process.poll() is None
    os.kill(process.pid, signal.SIGKILL)  # its workers are left to themselves
    process.wait()
    before = {path: path.stat().st_mtime_ns for path in trials.glob("*/metrics.json")}
    assert before
    again = run(images, "table4", tmp_path / "killed")
    assert results(again) == {arm: {0: trials[0]} for arm, trials in results(done).items()}
    assert all(path.stat().st_mtime_ns == when for path, when in before.items())


def test_experiments_of_a_pool_share_what_they_have_in_common(images, done, only):
    trials = {path.name for path in (done.path / "trials").iterdir()}
    only("table2", "full", "random, keep 0.15", "Stage I to 0.3 + II, keep 0.15")
    stages = run(images, "table2", done.path)
    assert len({path.name for path in (done.path / "trials").iterdir()} - trials) == 2  # all but the random draw
    assert results(stages)["random, keep 0.15"][0] == results(done)["random, keep 0.15"][0]
    # The same choice under another name is the same trial.
    assert results(stages)["Stage I to 0.3 + II, keep 0.15"][0] == results(done)["all reference images"][0]
    only("table2", "full")
    longer = run(images, "table2", done.path, iterations=4)
    assert results(longer)["full"][0] != results(stages)["full"][0]
    with raises(errors.ConfigMismatchError, "size"):
        run(images, "table2", done.path, size=16)


def test_the_tables_hold_means_and_spreads(done):
    (line,) = [row for name, row in done.summary() if name == "a third of the classes"]
    values = [metrics["target_frechet"] for metrics in done.trials["a third of the classes"].values()]
    assert line["target_frechet"].value == pytest.approx(np.mean(values))
    assert line["target_frechet"].spread == pytest.approx(np.std(values, ddof=1))
    base = [metrics["target_frechet"] for metrics in done.trials["all reference images"].values()]
    assert line["target_change"].value == pytest.approx(np.mean(values) - np.mean(base))
    written = (done.path / "table4.md").read_text()
    assert f"{np.mean(values):.4f} ± {np.std(values, ddof=1):.4f}" in written
    assert "5" in written
    assert "4,630" in written
    rows = list(csv.DictReader(io.StringIO((done.path / "table4.csv").read_text())))
    assert len(rows) == 8
    assert float(rows[0]["target_frechet"]) == done.trials["random, keep 0.15"][0]["target_frechet"]


def test_a_mean_of_one_has_no_spread():
    column = Column("x", "x", 2, 10)
    assert column.show(Mean.of([1.0])) == "10.00"
    assert column.show(Mean.of([1.0, 3.0])) == "20.00 ± 14.14"
    assert column.show("61.33") == "61.33"
    assert column.show(None) == ""


@pytest.mark.parametrize("name", GRIDS)
@pytest.mark.parametrize("scale", SCALES)
@pytest.mark.parametrize("sets", [("aid",), ("resisc45", "aid")], ids=len)
def test_every_grid_has_a_table_and_a_figure(name, scale, sets, tmp_path):
    chosen = scale_of(scale, {})
    arms = GRIDS[name].arms(chosen, sets)
    names = [arm.name for arm in arms]
    assert len(set(names)) == len(names)
    assert GRIDS[name].baseline in names
    runner = TrialRunner(tmp_path, chosen, sets, None, None, "cpu", 1)
    assert len({runner.folder(arm, seed) for arm in arms for seed in range(3)}) == 3 * len(arms)
    for arm in arms:
        strategies.get(arm.strategy).check(arm.options)
        assert arm.options.get("entropy_keep", 1) >= arm.keep
        assert arm.centroids in (None, "pool", "third", *sets)
    measures = [column.name for column in COLUMNS if column.name not in ("paper", "target_change")]
    rng = np.random.default_rng(0)
    result = Experiment(tmp_path, name, GRIDS[name], arms, ("head",))
    result.write()  # before the first trial
    for arm in arms[:-1]:
        for seed in range(2):
            result.add(
                arm,
                seed,
                {"failure": None, "metrics": dict(zip(measures, rng.random(len(measures)).tolist(), strict=True))},
            )
    result.add(arms[-1], 0, {"failure": "too few rows", "metrics": {}})
    result.write()
    drawn = ElementTree.fromstring((tmp_path / f"{name}.svg").read_text())
    marks = drawn.findall(".//{*}circle")
    assert len(marks) >= len(PLOTS)
    text = (tmp_path / f"{name}.md").read_text()
    assert f"{arms[-1].name}: too few rows" in text
    assert all(arm.name in text for arm in arms)
    assert all(arm.paper in text for arm in arms[:-1] if arm.paper)


def test_a_scale_changes_only_as_it_can():
    assert scale_of("cpu", {"lr": 1, "keeps": [0.5]}).keeps == (0.5,)
    assert dataclasses.replace(SCALES["cpu"], iterations=7) == scale_of("cpu", {"iterations": 7})
    for name, value in (("iterations", 0), ("iterations", 2.5), ("iterations", True), ("model", 3), ("keeps", [2.0])):
        with raises(errors.ArgumentError, name):
            scale_of("cpu", {name: value})
    with raises(errors.ArgumentError, "'iteration'"):
        scale_of("cpu", {"iteration": 3})
    with raises(errors.ArgumentError, "laptop"):
        scale_of("laptop", {})


def test_what_cannot_be_run_is_refused(images, tmp_path):
    with raises(errors.ArgumentError, "table9"):
        run(images, "table9", tmp_path / "out")
    with raises(errors.ArgumentError, "autoencoder"):
        experiment("fig4", str(images / "pool-*.tar"), {"a": images}, out=tmp_path / "out", scale="paper")
    with raises(errors.ArgumentError, "reference"):
        experiment("fig4", str(images / "pool-*.tar"), {}, out=tmp_path / "out")
    # Nothing is embedded before it is known that the trials can be run.
    for changes, value in (({"model": "DiT-XXL/2"}, "DiT-XXL/2"), ({"size": 9}, 9), ({"autoencoder": "no/"}, "no")):
        with raises(errors.ArgumentError, value):
            run(images, "fig4", tmp_path / "out", **changes)
    with raises(errors.WeightsError, "nothing.pth"):
        experiment("fig4", str(images / "pool-*.tar"), {"a": images}, out=tmp_path / "out", inception="nothing.pth")
    for name in ("", "a/b", "..", "pool", "third"):
        with raises(errors.ArgumentError, repr(name)):
            experiment("fig4", str(images / "pool-*.tar"), {name: images}, out=tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_the_command_says_what_it_lacks(command, images, monkeypatch):
    monkeypatch.delenv("RSPRUNE_DATA", raising=False)
    for words, said in (
        (["table3"], "--pool is missing"),
        (["table3", "--pool", images / "pool-0.tar"], "--reference is missing"),
        (["table5", "--pool", images / "pool-0.tar"], "'table5' is not one of"),
        (["fig4", "--pool", "a", "-r", "b", "--set", "steps"], "setting 'steps'; expected NAME=VALUE"),
        (["fig4", "--pool", images / "pool-0.tar", "-r", images, "--set", "step=3"], "no option 'step'"),
        (["fig4", "--pool", images / "pool-0.tar", "-r", images, "--scale", "paper"], "names no autoencoder"),
        (["fig4", "--pool", images / "nothing.tar", "-r", images], "nothing.tar"),
    ):
        done = command("experiment", *words)
        assert done.returncode != 0
        assert said in done.stderr, done.stderr
        assert "Traceback" not in done.stderr
    monkeypatch.setenv("RSPRUNE_DATA", str(images / "nowhere"))
    done = command("experiment", "table3", "-r", images)
    assert "no pool-*.tar in" in done.stderr
    monkeypatch.setenv("RSPRUNE_DATA", str(images))
    assert from_data("--pool", "pool-*.tar") == [str(images / f"pool-{shard}.tar") for shard in range(2)]
    assert by_name(["a/reference_aid.tar", "aid=a/b.tar"]) == {"reference_aid": "a/reference_aid.tar", "aid": "a/b.tar"}
    done = command("experiment", "table4", "-r", images / "reference.tar", "-r", "reference=there.tar")
    assert "two reference sets are called 'reference'" in done.stderr


def test_an_embedded_set_is_split_among_its_valid_rows(done):
    one = EmbeddedSet.open(done.path / "references" / "scenes")
    assert len(one.keys) == one.embeds.shape[0] == 24
    pool = EmbeddedPool.open(done.path / "pool")
    assert pool.total == 60
