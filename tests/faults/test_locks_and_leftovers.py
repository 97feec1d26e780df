"""Locks touch no file but their own, errors leave no temporary file, and a full disk names the file."""

import errno
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from failures import raises
from rsprune import errors, io, tensors
from rsprune.runs.folder import RunFolder
from rsprune.runs.stages import entropy_run
from small_runs import artefacts, picture, write_tar

pytestmark = pytest.mark.skipif(os.name == "nt", reason="links and limits are those of POSIX")


@pytest.mark.parametrize("kind", ["symlink", "dangling", "hardlink", "fifo", "folder"])
def test_a_lock_that_is_no_lock_is_refused_and_left_alone(tmp_path, kind):
    important, lock = tmp_path / "important", tmp_path / "run" / ".lock"
    important.write_bytes(b"keep me")
    lock.parent.mkdir()
    if kind == "symlink":
        lock.symlink_to(important)
    elif kind == "dangling":
        lock.symlink_to(tmp_path / "nowhere")
    elif kind == "hardlink":
        os.link(important, lock)
    elif kind == "fifo":
        os.mkfifo(lock)
    else:
        lock.mkdir()
    with raises(errors.OutputError, lock), RunFolder(lock.parent).lock():
        pytest.fail("locked")
    assert important.read_bytes() == b"keep me"
    assert not (tmp_path / "nowhere").exists()
    assert os.path.lexists(lock)


WRITERS = {
    "x.json": lambda path: io.write_json(path, {"a": "b" * 100_000}),
    "x.npy": lambda path: io.write_npy(path, np.random.default_rng(0).random(20_000)),
    "x.parquet": lambda path: io.write_table(path, pa.table({"a": np.random.default_rng(0).random(20_000)}), {}),
    "x.safetensors": lambda path: tensors.write_tensors(path, "x", {"a": np.zeros(20_000)}, {}),
    "x.npz": lambda path: io.write_npz(path, iter([np.zeros((300, 300, 3), np.uint8)]), 1),
}


@pytest.mark.parametrize("name", WRITERS)
def test_a_full_disk_names_the_file_and_leaves_nothing(tmp_path, name):
    """A limit on the size of files stands for the disk: the write that passes it fails in the same way."""
    resource = pytest.importorskip("resource")
    old = tmp_path / name
    old.write_bytes(b"before")
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, limits[1]))
    try:
        with raises(OSError, old):
            WRITERS[name](old)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert [path.name for path in tmp_path.iterdir()] == [name]
    assert old.read_bytes() == b"before"


def test_an_error_of_the_disk_names_the_file(tmp_path):
    with raises(OSError, "a.bin") as caught, io.atomic_write(tmp_path / "a.bin"):
        raise OSError(errno.EIO, "Input/output error")
    assert (caught.value.errno, caught.value.filename) == (errno.EIO, str(tmp_path / "a.bin"))
    with raises(PermissionError, "elsewhere"), io.atomic_write(tmp_path / "a.bin"):
        raise PermissionError(errno.EACCES, "Permission denied", "elsewhere")
    assert not list(tmp_path.iterdir())


def test_the_folder_is_flushed_after_the_rename(tmp_path, monkeypatch):
    done = []
    fsync, replace = os.fsync, type(tmp_path).replace
    monkeypatch.setattr(os, "fsync", lambda one: (done.append(Path(f"/proc/self/fd/{one}").is_dir()), fsync(one)))
    monkeypatch.setattr(type(tmp_path), "replace", lambda *paths: (done.append("rename"), replace(*paths)))
    io.write_text(tmp_path / "a.txt", "a")
    assert done in ([False, "rename", True], [False, "rename", False])  # without /proc no folder is told
    assert (tmp_path / "a.txt").read_text() == "a"


def test_a_run_on_a_full_disk_goes_on_with_the_same_bytes(tmp_path):
    """From the command: one line that names the file, the exit code 1, and no temporary file."""
    write_tar(tmp_path / "pool.tar", {f"{i:04d}-{'n' * 90}.jpg": picture(i % 5) for i in range(400)})
    entropy_run(tmp_path / "pool.tar", out=tmp_path / "whole", progress=False)
    for limit in (1, 500, 3000):
        code = f"import resource; resource.setrlimit(resource.RLIMIT_FSIZE, ({limit},) * 2)"
        words = ["entropy", str(tmp_path / "pool.tar"), "--out", str(tmp_path / "run"), "-q"]
        script = f"{code}\nfrom rsprune.cli.app import app\napp({words!r})"
        ended = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60)
        assert ended.returncode == 1, ended.stderr
        assert str(tmp_path / "run") in ended.stderr
        assert "Traceback" not in ended.stderr
        assert not list((tmp_path / "run").rglob("*.writing"))
    entropy_run(tmp_path / "pool.tar", out=tmp_path / "run", progress=False)
    assert artefacts(tmp_path / "run") == artefacts(tmp_path / "whole")
