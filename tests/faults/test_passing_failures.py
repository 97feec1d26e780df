"""What the system says of files for a moment is no result: the next run reads them again, to the same bytes."""

import shutil
import threading
import time

import numpy as np
import pyarrow.parquet as pq
import pytest

from failures import raises
from rsprune import errors
from rsprune.runs.stages import embed_run, entropy_run
from rsprune.sources import open_source
from rsprune.sources.image_files import FileSource
from rsprune.sources.passing import read_again
from small_runs import Colours, artefacts, picture, small_prune, write_tar


@pytest.fixture
def pool(tmp_path, monkeypatch):
    """30 images in two folders, in shards of 10, of which four are damaged; and a list of them with a name in vain."""
    monkeypatch.setattr("rsprune.sources.image_files.SHARD_IMAGES", 10)
    for i in range(30):
        path = tmp_path / "pool" / ("early" if i < 20 else "late") / f"{i:02d}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(picture(i)[: 200 if i % 8 == 0 else None])
    names = sorted(str(path.relative_to(tmp_path)) for path in (tmp_path / "pool").rglob("*.jpg"))
    (tmp_path / "list.txt").write_text("\n".join([*names, "pool/late/never.jpg"]) + "\n")
    write_tar(tmp_path / "reference.tar", {f"r{i}.jpg": picture(900 + i) for i in range(12)})
    return tmp_path / "pool"


def renamed(folder):
    folder.rename(folder.with_name("away"))
    return lambda: folder.with_name("away").rename(folder)


def emptied(folder):
    """A mount point without its disk."""
    back = renamed(folder)
    folder.mkdir()
    return lambda: (folder.rmdir(), back())


def folders_for_files(folder):
    """The system gives no file where there was one."""
    shutil.copytree(folder, folder.with_name("kept"))
    for path in folder.iterdir():
        path.unlink()
        path.mkdir()
    return lambda: (shutil.rmtree(folder), folder.with_name("kept").rename(folder))


def one_renamed(folder):
    path = min(folder.iterdir())
    path.rename(path.with_name("elsewhere"))
    return lambda: path.with_name("elsewhere").rename(path)


def looped(folder):
    """Reading fails with an error that is none of the usual ones."""
    folder.rename(folder.with_name("away"))
    folder.symlink_to(folder)
    return lambda: (folder.unlink(), folder.with_name("away").rename(folder))


AWAY = [renamed, emptied, folders_for_files, one_renamed, looped]


def once_at(monkeypatch, action, stage):
    """Do something when a stage begins to read the last shard."""
    read, done = FileSource.read, []
    begun = {"entropy": 1, "embed": 2}[stage]
    seen = []

    def reading(self, shard, rows=None):
        if shard.name == "part-000002":
            seen.append(shard)
            if len(seen) == begun and not done:
                done.append(action())
        return read(self, shard, rows)

    monkeypatch.setattr(FileSource, "read", reading)
    return done


@pytest.mark.parametrize("kind", ["folder", "list"])
@pytest.mark.parametrize("stage", ["entropy", "embed"])
@pytest.mark.parametrize("away", AWAY)
def test_files_that_are_away_for_a_moment(pool, tmp_path, monkeypatch, away, stage, kind):
    monkeypatch.setattr("rsprune.sources.passing.DELAYS", (0.001, 0.001))
    source = pool if kind == "folder" else tmp_path / "list.txt"
    reference = tmp_path / "reference.tar"
    small_prune(source, reference, tmp_path / "untouched", entropy_keep=1.0)
    done = once_at(monkeypatch, lambda: away(pool / "late"), stage)
    with raises(errors.UnreadShardError, "part-000002"):
        small_prune(source, reference, tmp_path / "run", entropy_keep=1.0)
    tables = {path.stem for path in (tmp_path / "run" / "entropy").glob("*.json")}
    assert ("part-000002" in tables) == (stage == "embed")
    assert not list((tmp_path / "run").rglob("*.writing"))
    done[0]()
    small_prune(source, reference, tmp_path / "run", entropy_keep=1.0)
    assert artefacts(tmp_path / "run") == artefacts(tmp_path / "untouched")
    kinds = [row["kind"] for row in pq.read_table(tmp_path / "run" / "quarantine.parquet").to_pylist()]
    assert kinds.count("not_found") == (kind == "list")
    assert len(kinds) == 4 + (kind == "list")


def test_a_failure_that_passes_within_the_attempts_shows_nowhere(pool, tmp_path, monkeypatch):
    entropy_run(pool, out=tmp_path / "untouched", progress=False)
    done = once_at(monkeypatch, lambda: threading.Timer(0.2, renamed(pool / "late")).start() or True, "entropy")
    begun = time.perf_counter()
    entropy_run(pool, out=tmp_path / "run", progress=False)
    assert done
    assert 0.1 < time.perf_counter() - begun < 3
    assert artefacts(tmp_path / "run") == artefacts(tmp_path / "untouched")


@pytest.mark.parametrize("runner", ["local", "processes"])
def test_other_shards_go_on(pool, tmp_path, command, monkeypatch, runner):
    """Seen from the command: one line, which names the shard and the file, and the exit code 1."""
    source = tmp_path / "list.txt"
    entropy_run(source, out=tmp_path / "untouched", progress=False)

    fingerprint, back = FileSource.fingerprint, []

    def taken(self):
        """The folder goes when the fingerprint has been taken."""
        made = fingerprint(self)
        back.append(renamed(pool / "early"))
        return made

    monkeypatch.setattr(FileSource, "fingerprint", taken)
    with raises(errors.UnreadShardError, 2, 4, "part-000000", "00.jpg"):
        entropy_run(source, out=tmp_path / "run", runner=runner, workers=2, progress=False)
    done = sorted(path.stem for path in (tmp_path / "run" / "entropy").glob("*.json"))
    assert done == ["part-000002", "part-000003"]
    back[0]()
    monkeypatch.setattr(FileSource, "fingerprint", fingerprint)
    assert command("entropy", source, "--out", tmp_path / "run").returncode == 0
    assert artefacts(tmp_path / "run") == artefacts(tmp_path / "untouched")


def test_a_tar_that_cannot_be_read_does_not_end_the_others(tmp_path, monkeypatch):
    for i in range(3):
        write_tar(tmp_path / f"p-{i}.tar", {f"{i}-{j}.jpg": picture(10 * i + j) for j in range(4)})
    entropy_run(str(tmp_path / "p-*.tar"), out=tmp_path / "untouched", progress=False)
    opened = open_source(str(tmp_path / "p-*.tar"))
    fingerprint = opened.fingerprint()
    monkeypatch.setattr(opened, "fingerprint", lambda: fingerprint, raising=False)
    assert opened.total() == 12
    (tmp_path / "p-1.tar").rename(tmp_path / "away")
    with raises(errors.UnreadShardError, 1, 3, "p-1"):
        entropy_run(opened, out=tmp_path / "run", progress=False)
    assert sorted(path.stem for path in (tmp_path / "run" / "entropy").glob("*.json")) == ["p-0", "p-2"]
    (tmp_path / "away").rename(tmp_path / "p-1.tar")
    entropy_run(str(tmp_path / "p-*.tar"), out=tmp_path / "run", progress=False)
    assert artefacts(tmp_path / "run") == artefacts(tmp_path / "untouched")


@pytest.mark.parametrize("kind", ["not_found", "permission", "io", "is_directory"])
def test_only_what_the_system_says_is_tried_again(monkeypatch, kind):
    """The kinds as the core names them: nothing is forbidden to a test that runs as root."""
    monkeypatch.setattr("rsprune.sources.passing.DELAYS", (0.001, 0.001))
    calls = []

    def read(images):
        calls.append(images)
        return np.array([2.0]), [] if len(calls) == 2 else [(0, kind, "why")]

    values = np.zeros(3)
    failed = [(0, "corrupt", "bytes"), (2, kind, "why")]
    assert read_again(read, ["a", "b", "/nowhere/c"], values, failed) == [(0, "corrupt", "bytes")]
    assert calls == [["/nowhere/c"]] * 2
    assert values.tolist() == [0, 0, 2]


def test_folders_that_are_away_before_the_run_leave_nothing_behind(pool, tmp_path):
    for run in (entropy_run, lambda *a, **k: embed_run(*a, encoder=Colours(), **k)):
        back = renamed(pool / "late")
        with raises(errors.SourceError, "late"):
            run(tmp_path / "list.txt", out=tmp_path / "run", progress=False)
        assert not (tmp_path / "run").exists()
        back()
