"""An engineer with many tar files: a run that is killed, goes on, is shared out, checked, and exported."""

import gc
import json
import shutil
import signal
import subprocess
import sys
import tarfile

import pytest

import readme
import rsprune
from small_runs import artefacts, picture, write_tar


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """`pool-*.tar` with captions, in which names repeat from one to the next, and the labelled scenes `aid.tar`."""
    folder = tmp_path_factory.mktemp("engineer")
    for shard in range(3):
        members = {}
        for i in range(50):
            members[f"{i:06d}.jpg"] = picture(100 * shard + i)
            members[f"{i:06d}.txt"] = f"scene {i} of {shard}".encode()
        write_tar(folder / f"pool-{shard}.tar", members)
    write_tar(folder / "aid.tar", {f"{'Port' if i % 2 else 'Forest'}/{i}.jpg": picture(9_000 + i) for i in range(40)})
    return folder


@pytest.fixture
def here(folder, colours, monkeypatch):
    monkeypatch.chdir(folder)
    return folder


def small(words, **other):
    """The words of a command with an encoder that has no weights, and one process."""
    change = {"efficientnet-lite0": "colours", "4": "1"} | other
    return [change.get(word, word) for word in words]


@pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning")
def test_the_commands_of_the_readme_lead_to_tar_files(here, command):
    plan, prune, verify, export = [small(words) for words in readme.commands("Many tar files")]
    done = command(*plan)
    assert done.returncode == 0, done.stderr
    assert "150 images in 3 shards" in done.stdout

    done = command(*prune)
    assert done.returncode == 0, done.stderr
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    assert next(line["stage"] for line in lines if line["event"] == "finish") == "entropy"
    result = lines[-1]
    assert (result["event"], result["images"], result["selected"]) == ("result", 150, 22)

    done = command(*verify)
    assert (done.returncode, "pruned is whole" in done.stdout) == (0, True), done.stdout + done.stderr

    done = command(*export)
    assert done.returncode == 0, done.stderr
    run = rsprune.open("pruned/")
    expected = {key: original(key) for key in run.keys}
    webdataset = pytest.importorskip("webdataset")
    shards = sorted(str(path) for path in (here / "shards").glob("*.tar"))
    found = {}
    for sample in webdataset.WebDataset(shards, shardshuffle=False, empty_check=False):
        found[sample["img_name"].decode()] = sample["jpg"], json.loads(sample["json"])["txt"]
    assert found == expected
    assert {sample["jpg"] for sample in run.webdataset("pool-*.tar")} == {jpg for jpg, _ in expected.values()}
    gc.collect()  # the library leaves files open


def original(key):
    """The image and the caption that a key stands for: pool-1/000007."""
    shard, name = key.split("/")
    with tarfile.open(f"{shard}.tar") as tar:
        return tar.extractfile(f"{name}.jpg").read(), tar.extractfile(f"{name}.txt").read().decode()


def test_killed_it_goes_on_and_parts_end_alike(here, command, tmp_path):
    """A run in one piece, one that is killed while it embeds, and three parts that are called twice."""
    _, words, *_ = [small(words) for words in readme.commands("Many tar files")]
    whole = command(*small(words, **{"pruned/": str(tmp_path / "whole")}))
    assert whole.returncode == 0, whole.stderr
    expected = artefacts(tmp_path / "whole")

    words = small(words, **{"pruned/": str(tmp_path / "killed"), "processes": "local"})
    del words[words.index("--workers") : words.index("--workers") + 2]
    process = subprocess.Popen([sys.executable, "-m", "rsprune", *words], stdout=subprocess.PIPE, text=True)
    for line in process.stdout:
        if json.loads(line).get("stage") == "reference":
            process.kill()
            break
    assert process.wait() == -signal.SIGKILL
    process.stdout.close()
    assert not (tmp_path / "killed" / "selection.parquet").exists()
    resumed = command(*words)
    assert resumed.returncode == 0, resumed.stderr
    said = [json.loads(line) for line in resumed.stdout.splitlines()]
    assert {"event": "start", "stage": "entropy", "total": 150, "done": 150} in said
    assert artefacts(tmp_path / "killed") == expected

    words[words.index("--out") + 1] = tmp_path / "parts"
    for part in ("1/3", "2/3", "3/3", "1/3", "2/3", "3/3"):
        assert command(*words, "--part", part).returncode == 0
    assert command(*words).returncode == 0
    assert artefacts(tmp_path / "parts") == expected
    shutil.rmtree(tmp_path / "parts")
