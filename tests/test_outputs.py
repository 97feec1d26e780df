"""No command writes over what it reads, or over what it did not make."""

import json
import shutil

import numpy as np
import pytest

from oracles import unit
from rsprune.cli.app import app

QUICK = ("-e", "efficientnet-lite0")


@pytest.fixture(scope="module")
def place(embedded_run, tmp_path_factory):
    """A folder with every kind of input, each of which a user may name as the output by mistake."""
    folder = tmp_path_factory.mktemp("outputs")
    rng = np.random.default_rng(0)
    np.save(folder / "x.npy", rng.normal(size=(60, 8)).astype(np.float32))
    np.save(folder / "k.npy", unit(rng.normal(size=(4, 8))))
    np.save(folder / "column.npy", rng.random(60))
    np.save(folder / "labels.npy", rng.integers(0, 3, 60))
    np.save(folder / "rows.npy", np.arange(3))
    for name in ("fake", "real"):
        np.savez(folder / f"{name}.npz", rng.integers(0, 255, (8, 32, 32, 3), np.uint8))
    shutil.copytree(embedded_run, folder / "run")
    shutil.copy(embedded_run.parent / "classes.csv", folder)
    shutil.copy(embedded_run.parent / "reference.tar", folder)
    (folder / "pool").mkdir()
    for path in embedded_run.parent.glob("pool-*.tar"):
        shutil.copy(path, folder / "pool")
    (folder / "notes").mkdir()
    (folder / "notes" / "README.md").write_text("mine")
    (folder / "open_clip").mkdir()
    (folder / "open_clip" / "open_clip_config.json").write_text('{"model_cfg": {}}')
    return folder


# What each command reads, by the names of the files in `place`; those that begin with "-" are options. The last is the
# option that says where to write.
COMMANDS = {
    "prune": [["pool", "-r", "reference.tar", "--keep", "4", "--k", "3", *QUICK, "-o"]],
    "entropy": [["pool", "-o"]],
    "embed": [["pool", *QUICK, "-o"]],
    "centroids": [["reference.tar", "--k", "3", *QUICK, "-o"], ["run", "--sweep", "--ks", "3", "-o"]],
    "select": [
        ["x.npy", "-c", "k.npy", "--score", "column.npy", "--groups", "labels.npy", "--exclude", "rows.npy", "-o"],
        ["x.npy", "-c", "k.npy", "--entropy", "column.npy", "-O", "entropy_keep=0.5", "-o"],
        ["x.npy", "--strategy", "moderate", "--labels", "labels.npy", "-o"],
        ["run", "-c", "run/centroids.safetensors", "-o"],
    ],
    "report": [["--compare", "run", "run", "-o"]],
    "compare": [["run", "--labels", "classes.csv", "--strategy", "random", "-o"]],
    "evaluate": [["fake.npz", "--pairs", "real.npz", "-o"], ["fake.npz", "--npz"]],
    "sample": [["column.npy", "-o"]],
    "train": [["pool", "--run", "run", "-o"]],
    "autoencoder": [["pool", "--run", "run", "-o"]],
    "finetune sr": [["pool", "-c", "column.npy", "-o"]],
    "finetune sis": [["pool", "-c", "column.npy", "-o"]],
    "export": [
        *(
            ["run", "-s", "pool", "--as", layout, "--to"]
            for layout in ("folder", "tar", "parquet", "hf", "list", "embedding-atlas", "fiftyone")
        ),
    ],
    "experiment": [["table3", "--pool", "pool", "-r", "reference.tar", "-o"]],
    "encoders convert": [["git-rsclip", "--weights", "open_clip", "-o"]],
    # Writes new files alone: nothing that is there is replaced.
    "demo": [],
}
CASES = [(name, words) for name, forms in COMMANDS.items() for words in forms]


def contents(folder):
    return {
        path.relative_to(folder): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file() and path.name != ".lock"
    }


def with_output(app, prefix=""):
    names = set()
    for one in app.registered_commands:
        if {"out", "npz", "to"} & set(one.callback.__annotations__):
            names.add(prefix + one.name)
    for group in app.registered_groups:
        names |= with_output(group.typer_instance, f"{group.name} ")
    return names


def test_every_command_with_an_output_is_tried():
    assert set(COMMANDS) == with_output(app) - {"plan"}  # which writes nothing


@pytest.mark.parametrize(
    ("name", "words"), CASES, ids=[f"{name} {words[-2] if name == 'export' else words[0]}" for name, words in CASES]
)
def test_nothing_that_is_there_is_overwritten(name, words, place, command, monkeypatch):
    monkeypatch.chdir(place)
    before = contents(place)
    outputs = [*sorted({path.name for path in place.iterdir()}), "run/selection.parquet", "run/summary.json"]
    for out in outputs:
        done = command(*name.split(), *words, out)
        assert done.returncode != 0, (out, done.stdout)
        assert contents(place) == before, out


def test_a_command_replaces_what_it_made(place, command, tmp_path, monkeypatch):
    monkeypatch.chdir(place)
    manifest, metrics, arrays = tmp_path / "m.parquet", tmp_path / "m.json", tmp_path / "a.npz"
    for budget in ("5", "6"):
        assert command("select", "x.npy", "-c", "k.npy", "--keep", budget, "-o", manifest).returncode == 0
    for _ in range(2):
        words = ["fake.npz", "--pairs", "real.npz", "--npz", arrays, "-o", metrics]
        assert command("evaluate", *words).returncode == 0
    assert json.loads(metrics.read_text())["metrics"]
    assert np.load(arrays)["arr_0"].shape == (8, 32, 32, 3)


@pytest.mark.parametrize("name", ["m.npy", "m.parquet.txt"])
def test_a_manifest_has_the_name_of_one(name, place, command, tmp_path, monkeypatch):
    monkeypatch.chdir(place)
    done = command("select", "x.npy", "-c", "k.npy", "--keep", "5", "-o", tmp_path / name)
    assert done.returncode == 1
    assert ".parquet" in done.stderr
    assert list(tmp_path.iterdir()) == []
