"""What is waited for is said: once, by whoever shows the progress, and only if it takes long."""

import sys
import threading
import time

import pytest

from rsprune import waiting
from rsprune.encoders import checkpoints
from rsprune.errors import WeightsError
from rsprune.runners import JsonLines, NoProgress, show_progress
from rsprune.runs import folder as folder_module
from rsprune.runs.folder import RunFolder
from rsprune.storage import clients
from rsprune.waiting import saying, waiting_for


@pytest.fixture
def said(monkeypatch):
    """The lines that are said in a test, which wait for a tenth of a second."""
    lines = []
    monkeypatch.setattr(waiting, "PATIENCE", 0.1)
    monkeypatch.setattr(waiting, "PERIOD", 0.01)
    monkeypatch.setattr(waiting, "_said", set())
    with saying(lines.append):
        yield lines


def wait(lines, count=1, seconds=10.0):
    end = time.monotonic() + seconds
    while len(lines) < count and time.monotonic() < end:
        time.sleep(0.01)


def test_a_long_wait_is_said_once_and_a_short_one_is_not(said):
    for _ in range(2):
        with waiting_for("a"):
            wait(said)
    with waiting_for("b"):
        pass
    time.sleep(0.2)
    assert said == ["waiting for a"]


def test_of_waits_within_each_other_the_innermost_is_said(said):
    with waiting_for("the weights"), waiting_for("the hub"):
        wait(said)
    assert said == ["waiting for the hub"]


def test_many_short_waits_take_one_thread(said):
    before = threading.active_count()
    begun = time.monotonic()
    for _ in range(20_000):
        with waiting_for("a"):
            pass
    assert threading.active_count() <= before + 1
    assert time.monotonic() - begun < 5


def test_progress_shows_the_line_and_no_progress_hides_it(said, capsys):
    with show_progress(JsonLines(sys.stdout)), waiting_for("a"):
        time.sleep(0.5)
    with show_progress(NoProgress()), waiting_for("b"):
        time.sleep(0.5)
    out = capsys.readouterr()
    assert "waiting for a" in out.out
    assert "waiting" not in out.err
    assert said == []


def test_without_any_progress_standard_error_has_it(monkeypatch, capsys):
    monkeypatch.setattr(waiting, "PATIENCE", 0.1)
    monkeypatch.setattr(waiting, "_listeners", [])
    with waiting_for("somebody else"):
        time.sleep(0.6)
    assert capsys.readouterr().err == "rsprune: waiting for somebody else\n"


def test_a_lock_that_another_process_holds_is_named(said, tmp_path, monkeypatch):
    monkeypatch.setattr(folder_module, "PATIENCE", 10.0)
    folder, held = RunFolder(tmp_path / "run"), threading.Event()

    def hold():
        with RunFolder(folder.path).lock():
            held.set()
            wait(said)

    holder = threading.Thread(target=hold)
    holder.start()
    assert held.wait(10)
    with folder.lock():
        pass
    holder.join()
    assert said == [f"waiting for the process that works on {folder.path} to end"]


def test_a_bucket_that_does_not_answer_is_named(said):
    clients.attempt("s3://pool/a/00.tar", lambda: wait(said))
    assert said == ["waiting for an answer of s3://pool"]


def test_the_hub_is_named(said, monkeypatch, tmp_path):
    hub = pytest.importorskip("huggingface_hub")

    def fetch(repository, file):
        wait(said)
        raise OSError

    monkeypatch.setattr(hub, "hf_hub_download", fetch)
    monkeypatch.setenv("RSPRUNE_WEIGHTS", str(tmp_path))
    with pytest.raises(WeightsError):
        checkpoints.fetch("git-rsclip", "nobody/nothing", "model.safetensors")
    assert said == ["waiting for model.safetensors of nobody/nothing from the Hugging Face hub"]
