"""The wording of errors and warnings, in one file: golden/messages.txt.

Other tests assert the class of an error and the values that it names: a better sentence changes this file alone, which
`pytest tests/test_messages.py --bless` writes anew, and whose diff is what a reviewer reads.
"""

import os
import re
import shlex
import warnings
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import rsprune
from finished_run import make_rows, write_run
from rsprune import sources, strategies
from rsprune.encoders import load_encoder
from rsprune.report import explain
from small_runs import Colours

GOLDEN = Path(__file__).parent / "golden" / "messages.txt"

# Lines that begin with a dollar are commands, others are Python; `#` begins a heading.
CALLS = """
# Images
rsprune.entropy("a.jpg")
rsprune.entropy([3])
rsprune.entropy(PIXELS.astype(float))
rsprune.entropy(PIXELS[0, 0])
rsprune.entropy(np.moveaxis(PIXELS, 3, 1))
rsprune.entropy(PIXELS[..., :2])
rsprune.entropy(PIXELS, bands=(0, 3, 1))
rsprune.entropy(PIXELS, bands=())
rsprune.entropy(PIXELS, gray="bt709")
rsprune.entropy(PIXELS, nodata=256)
rsprune.entropy(PIXELS, valid_range=(0, 255))
rsprune.entropy(PIXELS, threads=0)
rsprune.entropy(PIXELS, on_error="skip")
rsprune.entropy(PIXELS, max_pixels=0)
rsprune.entropy(PIXELS * 0, nodata=0)
rsprune.entropy(["nowhere.png"])
rsprune.entropy(["empty.png"])
rsprune.entropy(["broken.png"])
rsprune.entropy(["text.png"])
# Sources
sources.open_source("nowhere")
sources.open_source("nowhere-*.tar")
sources.open_source(3)
sources.open_source([])
sources.open_source("bare")
sources.open_source("text.png")
sources.open_source("list.csv")
sources.open_source("twice.txt")
sources.open_source("{5..1}.tar")
# Embeddings and centroids
rsprune.assign(X, np.eye(3, dtype=np.float32))
rsprune.assign(X.astype(int), CENTROIDS)
rsprune.assign(X[0], CENTROIDS)
rsprune.assign(X[:0], CENTROIDS)
rsprune.assign("nowhere.npy", CENTROIDS)
rsprune.assign("text.npy", CENTROIDS)
rsprune.assign("bare", CENTROIDS)
rsprune.assign(BAD, CENTROIDS, on_invalid="raise")
rsprune.assign(X, CENTROIDS * 2)
rsprune.fit_centroids(X, 0)
rsprune.fit_centroids(X, 41)
rsprune.fit_centroids(X * 0, 2)
rsprune.fit_centroids(X, 2, seed=-1)
rsprune.Centroids.load("nowhere.safetensors")
rsprune.Centroids.load("text.npy")
# Selection
rsprune.select(X, CENTROIDS, 0)
rsprune.select(X, CENTROIDS, 41)
rsprune.select(X, CENTROIDS, 1.5)
rsprune.select(X, CENTROIDS, 2)
rsprune.select(BAD, CENTROIDS, 40)
rsprune.select(X, CENTROIDS, 20, min_similarity=0.99)
rsprune.select(X, CENTROIDS, 20, fill="local")
rsprune.select(X, CENTROIDS, 20, within="best")
rsprune.select(X, CENTROIDS, 20, fill="zscore", within="mid")
rsprune.select(X, CENTROIDS, 20, exclude=[40])
rsprune.select(X, CENTROIDS, 20, preselected=[1, 1])
rsprune.select(X, CENTROIDS, 20, preselected=[1], exclude=[1])
rsprune.select(X, CENTROIDS, 20, groups=["a"] * 40, quotas={"b": 3})
rsprune.select(X, CENTROIDS, 20, groups=["a"] * 39)
rsprune.select(X, CENTROIDS, 20, groups="city")
rsprune.select(X, CENTROIDS, 20, quotas="even")
rsprune.select(X, CENTROIDS, 20, quotas={9: 5})
rsprune.select(X, CENTROIDS, 20, max_per_group=2)
rsprune.select(X, CENTROIDS, 20, groups=["a"] * 40, max_per_group=2)
rsprune.select(X, CENTROIDS, 20, exclude=["a.jpg"])
rsprune.select(X, CENTROIDS, 20, exclude=["a.jpg"], keys=["b.jpg"] * 40)
rsprune.select(X, CENTROIDS, 20, leaks=X)
rsprune.select(X, CENTROIDS, 20, leaks=X[:, :3], leak_eps=0.1)
rsprune.select(X, CENTROIDS, 20, leaks=X, leak_eps=0.1)
rsprune.select(X, CENTROIDS, 20, score=[1.0])
rsprune.select_assigned([0, 1, 5], [0.1, 0.2, 0.3], 2, k=2)
rsprune.select_assigned([0, 1], [0.1, 0.2, 0.3], 2, k=2)
# Strategies
strategies.get("magic")
strategies.select("random", X)
strategies.select("random", X, 99)
strategies.select("random", None, 3)
strategies.select("random", X, 4, color="red")
strategies.select("rsprune", X, 4)
strategies.select("vjepa2", X, 4, centroids=CENTROIDS)
strategies.select("full", X, 4)
strategies.select("ccs", X, 4, score=X[:, 0], beta=1)
strategies.select("semdedup", X, 4, k=2, mode="both")
strategies.select("kcenter", X, 4, first=99)
strategies.select("random", X, 4, entropy=[1.0])
# Encoders
load_encoder("abacus")
load_encoder("git-rsclip", weights="nowhere.safetensors")
# Runs
rsprune.prune("images", reference="images", out="out", keep=2, encoder="abacus")
rsprune.prune("images", reference="images", out="out", encoder=COLOURS)
rsprune.prune("images", reference="images", out="out", encoder=COLOURS, keep=0)
rsprune.prune("images", reference="images", out="out", encoder=COLOURS, keep=9)
rsprune.prune("images", reference="images", out="out", encoder=COLOURS, keep=1, entropy_keep=2)
rsprune.prune("images", reference="images", out="out", encoder=COLOURS, keep=1, k=9)
explain("run", ["a/0042.png"])
explain("bare", ["x"])
# Commands
$ rsprune entropy nowhere -o out
$ rsprune entropy images -o out --bands red
$ rsprune entropy images -o out --threads 0
$ rsprune prune images -r images -o out --keep many
$ rsprune prune images -r images -o out --keep 2 -e abacus
$ rsprune select x.npy -c nowhere.safetensors -o s.parquet
$ rsprune select x.npy -o s.parquet
$ rsprune select x.npy -o s.parquet --strategy random -O k
$ rsprune centroids images --k 0 -o c.safetensors -e efficientnet-lite0
$ rsprune strategies magic
$ rsprune explain bare key
$ rsprune explain run 99.png
$ rsprune report bare
$ rsprune compare bare
$ rsprune encoders convert dinov2-s -o out
$ rsprune experiment table4
$ rsprune experiment table9 --pool images -r images
""".strip().splitlines()


@pytest.fixture
def names(tmp_path, monkeypatch):
    """What the calls name, and a working directory of the files that they name."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("RSPRUNE_WEIGHTS", "weights")
    monkeypatch.delenv("RSPRUNE_DATA", raising=False)
    rng = np.random.default_rng(0)
    x = rng.normal(size=(40, 6)).astype(np.float32)
    centroids = np.linalg.qr(rng.normal(size=(6, 6)))[0][:4].astype(np.float32)
    bad = x.copy()
    bad[3], bad[5] = 0, np.nan
    for folder in ("images", "bare"):
        Path(folder).mkdir()
    Path("bare", "note.txt").touch()
    pixels = rng.integers(0, 256, (4, 8, 8, 3), np.uint8)
    for i, image in enumerate(pixels):
        Image.fromarray(image).save(f"images/{i}.png")
    encoded = Path("images", "0.png").read_bytes()
    contents = {"empty.png": b"", "broken.png": encoded[:60], "text.png": b"<html>404</html>", "text.npy": b"1 2 3"}
    contents |= {"list.csv": b"file\na.jpg\n", "twice.txt": b"a.jpg\na.jpg\n"}
    for name, content in contents.items():
        Path(name).write_bytes(content)
    np.save("x.npy", x)
    write_run("run", make_rows({"a": 30}, 3), 3, 6)
    modules = {"np": np, "rsprune": rsprune, "load_encoder": load_encoder, "sources": sources, "strategies": strategies}
    return modules | {
        "explain": explain,
        "X": x,
        "BAD": bad,
        "CENTROIDS": centroids,
        "PIXELS": pixels,
        "COLOURS": Colours(),
    }


def said(call, names, command):
    """``Class: message`` of a call, or the code with which a command exits and what it writes to stderr."""
    if call.startswith("$"):
        done = command(*shlex.split(call)[2:])
        words = " ".join(re.sub("[╭╮╰╯─│]", " ", done.stderr).split())  # usage errors stand in a box
        return f"exit {done.returncode}: {words}"
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            eval(call, names)
    except Exception as error:  # whatever it is, it is what users see
        return f"{type(error).__name__}: {error}"
    pytest.fail(f"{call} is not refused")


@pytest.mark.timeout(900)
def test_messages_are_those_of_the_golden_file(names, command, tmp_path, request):
    lines = []
    for call in CALLS:
        lines += ["", call] if call.startswith("#") else [call, f"    {said(call, names, command)}"]
    text = "\n".join(lines).strip().replace(f"{tmp_path}{os.sep}", "").replace(str(tmp_path), ".") + "\n"
    if request.config.getoption("--bless"):
        GOLDEN.write_text(text)
    assert text.splitlines() == GOLDEN.read_text().splitlines()
