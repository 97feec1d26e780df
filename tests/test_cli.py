"""The commands: help, results, errors as one clear line, exit codes."""

import io
import json
import signal
import subprocess
import sys
import tarfile
import time
import warnings

import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image

from rsprune import __version__

COMMANDS = [
    "prune",
    "plan",
    "entropy",
    "embed",
    "centroids",
    "select",
    "strategies",
    "export",
    "explain",
    "verify",
    "report",
    "compare",
    "autoencoder",
    "train",
    "sample",
    "evaluate",
    "demo",
]


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    folder = tmp_path_factory.mktemp("images")
    rng = np.random.default_rng(1)
    for i in range(40):
        Image.fromarray(rng.integers(0, 5 + 6 * i, (32, 32, 3)).astype(np.uint8)).save(folder / f"{i:02d}.png")
    (folder / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    return folder


@pytest.fixture(scope="module")
def run(command, images, tmp_path_factory):
    out = tmp_path_factory.mktemp("cli") / "run"
    done = command("prune", images, "-r", images, "-o", out, "--keep", "0.2", "--k", "3", "-e", "efficientnet-lite0")
    assert done.returncode == 0, done.stderr
    return out, done


def test_help_names_every_command_and_gives_examples(command):
    top = command("--help")
    assert top.returncode == 0
    assert all(name in top.stdout for name in COMMANDS)
    assert "Usage" in command().stdout
    for name in COMMANDS:
        page = command(name, "--help")
        assert page.returncode == 0
        assert "Example" in page.stdout
        assert f"rsprune {name}" in page.stdout


def test_options_stand_under_the_stage_that_they_are_of(command):
    for name in ("prune", "plan"):
        page = command(name, "--help").stdout
        places = [
            page.index(f" {word} ") for word in ("Stage I: entropy", "The encoder", "How the work is carried out")
        ]
        assert places == sorted(places)
        assert page.index("Stage II: the choice") < page.index("--dedup") < places[0] < page.index("--tau") < places[1]


def test_version_of_the_installed_command():
    done = subprocess.run([sys.executable, "-m", "rsprune", "--version"], capture_output=True, text=True, check=True)
    assert done.stdout == f"rsprune {__version__}\n"


def test_warnings_are_one_line(command, images, tmp_path):
    with warnings.catch_warnings():
        warnings.simplefilter("default")
        words = ["prune", images, "-r", images, "-o", tmp_path / "run", "--keep", "2", "--k", "3"]
        done = command(*words, "-e", "efficientnet-lite0")
    assert done.returncode == 0
    note, warning = done.stderr.splitlines()
    assert note.startswith("1 of 41 reference images could not be read")
    assert warning.startswith("warning: a budget of 2 rows for 3 clusters")


def test_prune_prints_what_was_kept_and_where(run):
    out, done = run
    assert "8 of 41 images kept" in done.stdout
    assert str(out / "selection.parquet") in done.stdout
    assert str(out / "report.html") in done.stdout
    assert pq.read_table(out / "selection.parquet").num_rows == 8
    assert (out / "report.html").is_file()


def test_json_lines_carry_progress_and_result(command, run, images):
    out, _ = run
    words = ["prune", images, "-r", images, "-o", out, "--keep", "0.2", "--k", "3", "-e", "efficientnet-lite0"]
    events = [json.loads(line) for line in command(*words, "--json").stdout.splitlines()]
    assert events[-1]["event"] == "result"
    assert events[-1]["selected"] == 8
    assert command(*words, "--quiet").stdout == ""


def test_entropy_alone(command, images, tmp_path):
    done = command("entropy", images, "-o", tmp_path / "e", "--json")
    events = [json.loads(line) for line in done.stdout.splitlines()]
    assert [event["event"] for event in events] == ["start", "finish", "result"]
    assert events[0]["total"] == 41
    assert events[-1]["quarantined"] == 1


def test_explain_says_why(command, run):
    out, _ = run
    kept = (out / "selected.txt").read_text().splitlines()[0]
    done = command("explain", out, kept, "00.png", "broken.png")
    assert done.returncode == 0, done.stderr
    assert "kept" in done.stdout
    assert "Stage I" in done.stdout
    missing = command("explain", out, "99.png")
    assert missing.returncode == 1
    assert "99.png" in missing.stderr
    some = command("explain", out, kept, "99.png", "00.png")
    assert some.returncode == 1
    assert some.stdout == command("explain", out, kept, "00.png").stdout
    assert some.stderr == missing.stderr


def test_report_without_the_images_keeps_the_pictures(command, run):
    out, _ = run
    first = (out / "report.html").read_bytes()
    assert first.count(b"<img ") > 0
    assert command("report", out).returncode == 0
    assert (out / "report.html").read_bytes() == first


def test_plan_writes_nothing(command, images, tmp_path, monkeypatch):
    words = ["plan", images, "-r", images, "--k", "3", "-e", "efficientnet-lite0", "--no-measure", "--json"]
    monkeypatch.chdir(tmp_path)
    done = command(*words)
    assert json.loads(done.stdout.splitlines()[-1])["images"] == 41
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["prune", "{tmp}/nothing", "-r", "{images}", "-o", "{tmp}/run", "-e", "efficientnet-lite0"], "nothing"),
        (["prune", "{images}", "-r", "{images}", "-o", "{tmp}/run", "--keep", "0", "-e", "efficientnet-lite0"], "0"),
        (["prune", "{images}", "-r", "{images}", "-o", "{tmp}/run", "-e", "abacus"], "abacus"),
        (["explain", "{tmp}", "key"], "not a run folder"),
        (["select", "{tmp}/no.npy", "-c", "{tmp}/no.safetensors", "-o", "{tmp}/s.parquet"], "no.npy"),
    ],
)
def test_errors_are_one_line_and_exit_1(command, images, tmp_path, words, says):
    done = command(*[word.format(images=images, tmp=tmp_path) for word in words])
    assert done.returncode == 1, done.stderr
    assert done.stderr.startswith("error: ")
    assert says in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    "words",
    [
        ["prune", "x", "-r", "y", "-o", "z", "--keep", "many"],
        ["entropy", "x", "-o", "z", "--bands", "red"],
        ["entropy", "x", "-o", "z", "--valid-range", "7"],
        ["prune", "x"],
        ["entropy", "x", "-o", "z", "--threads", "0"],
    ],
)
def test_wrong_usage_exits_2(command, words):
    done = command(*words)
    assert done.returncode == 2
    assert "Traceback" not in done.stderr


def test_ctrl_c_ends_with_130_and_says_how_to_go_on(tmp_path):
    with tarfile.open(tmp_path / "big.tar", "w") as tar:
        file = io.BytesIO()
        pixels = np.random.default_rng(0).integers(0, 255, (600, 600, 3), np.uint8)
        Image.fromarray(pixels).save(file, "PNG", compress_level=1)
        for i in range(1500):
            info = tarfile.TarInfo(f"{i}.png")
            info.size = len(file.getvalue())
            tar.addfile(info, io.BytesIO(file.getvalue()))
    words = [sys.executable, "-m", "rsprune", "entropy", tmp_path / "big.tar", "-o", tmp_path / "e", "--json"]
    process = subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert json.loads(process.stdout.readline())["event"] == "start"
    time.sleep(0.3)
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=10)
    assert process.returncode == 130
    assert "goes on where it was" in said


# --- encoders ---------------------------------------------------------------------------------------------------------


def test_encoders_are_listed_with_their_origin(command, monkeypatch, tmp_path):
    monkeypatch.setenv("RSPRUNE_WEIGHTS", str(tmp_path))
    lines = {line.split()[0]: line for line in command("encoders", "list").stdout.splitlines()}
    assert lines["git-rsclip"].split()[1:4] == ["1024", "256", "no"]
    assert "lcybuaa/Git-RSCLIP, model.safetensors" in lines["git-rsclip"]
    assert lines["efficientnet-lite0"].split()[1:4] == ["1280", "224", "yes"]
    (tmp_path / "git-rsclip").mkdir()
    (tmp_path / "git-rsclip" / "model.safetensors").touch()
    [listed] = map(json.loads, command("encoders", "list", "--json").stdout.splitlines())
    entry = next(entry for entry in listed["encoders"] if entry["name"] == "git-rsclip")
    assert entry["weights"] == str(tmp_path / "git-rsclip" / "model.safetensors")
    assert "torch" in listed["libraries"]


def test_encoders_are_checked(command, monkeypatch, tmp_path):
    monkeypatch.setenv("RSPRUNE_WEIGHTS", str(tmp_path))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    done = command("encoders", "check")
    assert done.returncode == 0
    assert "efficientnet-lite0" in done.stdout
    assert "ok" in done.stdout
    done = command("encoders", "check", "git-rsclip", "efficientnet-lite0", "--json")
    first, second = map(json.loads, done.stdout.splitlines())
    assert done.returncode == 1
    assert (first["passed"], second["passed"]) == (False, True)
    assert "lcybuaa/Git-RSCLIP" in first["error"]


def test_conversion_of_what_has_none(command):
    done = command("encoders", "convert", "dinov2-s", "-o", "nowhere")
    assert (done.returncode, done.stderr) == (
        1,
        "error: dinov2-s has no conversion: known are git-rsclip, git-rsclip-base\n",
    )


def test_conversion_without_open_clip_names_the_extra(command, monkeypatch, tmp_path):
    for name in ("convert", "clip"):
        monkeypatch.delitem(sys.modules, f"rsprune.encoders.{name}", raising=False)
    monkeypatch.setitem(sys.modules, "open_clip", None)
    done = command("encoders", "convert", "git-rsclip", "-o", tmp_path)
    assert (done.returncode, done.stderr) == (
        1,
        'error: the conversion needs open_clip: `pip install "rsprune[embed]"`\n',
    )
