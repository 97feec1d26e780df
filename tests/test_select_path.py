"""The way from the command line to the kernel: one pass over the rows, and few files."""

import sys
from pathlib import Path

import numpy as np
import pytest

import rsprune
from rsprune import _core, assignment, embeddings, strategies

N, DIM, K = 300, 8, 5

# The files that `rsprune select` goes through for embeddings in a file, as docs/selection.md lists them ...
PATH = {
    "cli/select.py",
    "strategies/__init__.py",
    "strategies/base.py",
    "strategies/rsprune.py",
    "selection.py",
    "select_options.py",
    "left_out.py",
    "assignment.py",
    "embedding_tables.py",
    "embeddings.py",
    "centroids.py",
}
# ... and what every command and every check goes through.
GROUND_FLOOR = {"errors", "validation", "options", "io", "registry", "cli", "runs", "runners", "sources", "storage"}
GROUND_FLOOR |= {"interrupts", "temporaries", "tensors"}


@pytest.fixture
def scene(tmp_path):
    rng = np.random.default_rng(0)
    x = rng.normal(size=(N, DIM)).astype(np.float32)
    x[3] = np.nan
    centroids = rsprune.Centroids(np.eye(DIM)[:K])
    np.save(tmp_path / "x.npy", x)
    centroids.save(tmp_path / "c.safetensors")
    return tmp_path, x, centroids


@pytest.fixture
def passes(monkeypatch):
    """The passes over rows of embeddings since the test began: how often their parts are gone through."""
    seen = []

    class Parts(list):
        def __iter__(self):
            seen.append("parts")
            return super().__iter__()

    class Counted(embeddings.Embeddings):
        def __init__(self, shape, parts):
            super().__init__(shape, Parts(parts) if shape[0] == N else parts)

        def on_host(self):
            if self.shape[0] == N:
                seen.append("on_host")
            return super().on_host()

    monkeypatch.setattr(embeddings, "Embeddings", Counted)
    honest = _core.assign

    def assign(rows, *args, **options):
        seen.append(f"assign {rows.shape[0]}")
        return honest(rows, *args, **options)

    monkeypatch.setattr(assignment._core, "assign", assign)
    return seen


ONE_PASS = ["parts", f"assign {N}"]


@pytest.mark.parametrize("options", [{}, {"fill": "waterfill", "min_similarity": 0.1, "exclude": [1]}])
def test_select_reads_the_rows_once(scene, passes, options):
    folder, x, centroids = scene
    expected = rsprune.select(x, centroids, 30, **options)
    assert passes == ONE_PASS
    passes.clear()
    got = strategies.select("rsprune", folder / "x.npy", 30, centroids=centroids, **options)
    assert passes == ONE_PASS
    for name in ("indices", "cluster", "similarity", "phase", "counts", "invalid", "outside"):
        assert getattr(got, name).tobytes() == getattr(expected, name).tobytes()
    assert got.groups == expected.groups


def test_the_command_reads_the_rows_once(scene, passes, command):
    folder, *_ = scene
    words = ["select", folder / "x.npy", "-c", folder / "c.safetensors", "--keep", 30, "-o", folder / "s.parquet"]
    assert command(*words).returncode == 0
    assert passes == ONE_PASS


def test_an_assignment_stands_in_for_the_rows(scene, passes):
    _, x, centroids = scene
    known = rsprune.assign(x, centroids)
    passes.clear()
    got = strategies.select("rsprune", budget=30, assignment=known, centroids=centroids)
    assert passes == []
    assert got.indices.tolist() == rsprune.select(x, centroids, 30).indices.tolist()
    with pytest.raises(rsprune.errors.MissingInputError):
        strategies.select("rsprune", budget=30, assignment=known, centroids=centroids, dedup=0.1)
    with pytest.raises(rsprune.errors.MissingInputError):
        strategies.select("rsprune", budget=30, assignment=known)


def test_the_command_goes_through_few_files(scene, command):
    folder, *_ = scene
    words = ["select", folder / "x.npy", "-c", folder / "c.safetensors", "--keep", 30, "-o", folder / "s.parquet"]
    command(*words)  # what is imported once is no part of the way
    root = Path(rsprune.__file__).parent
    entered = set()

    def trace(frame, event, _):
        if event == "call" and (path := Path(frame.f_code.co_filename)).is_relative_to(root):
            entered.add(path.relative_to(root).as_posix())

    sys.setprofile(trace)
    try:
        done = command(*words)
    finally:
        sys.setprofile(None)
    assert done.returncode == 0
    way = {path for path in entered if path.removesuffix(".py").split("/")[0] not in GROUND_FLOOR} | {"cli/select.py"}
    assert way <= PATH
    assert {"selection.py", "assignment.py", "strategies/rsprune.py"} <= way


def test_every_option_is_reachable_from_the_command(scene, command):
    import pyarrow.parquet as pq

    folder, x, centroids = scene
    rng = np.random.default_rng(1)
    given = {"groups": rng.integers(0, 3, N), "exclude": np.arange(10), "preselected": np.array([20, 21])}
    score = rng.normal(size=N)
    for name, values in (given | {"score": score, "c": np.asarray(centroids)}).items():
        np.save(folder / f"{name}.npy", values)
    words = ["select", folder / "x.npy", "-c", folder / "c.npy", "--keep", "0.1", "-o", folder / "s.parquet"]
    for name in (*given, "score"):
        words += [f"--{name}", folder / f"{name}.npy"]
    words += ["--quotas", '{"1": 0.5}', "--dedup", "0.01", "--fill", "waterfill", "--within", "far"]
    done = command(*words)
    assert done.returncode == 0, done.stderr
    options = {"quotas": {1: 0.5}, "dedup": 0.01, "fill": "waterfill", "within": "far"}
    expected = rsprune.select(x, centroids, 0.1, score=score, **given, **options)
    assert pq.read_table(folder / "s.parquet")["row"].to_pylist() == expected.indices.tolist()


@pytest.mark.parametrize(
    "words",
    [
        ("c.npy", "-c", "x.npy"),  # swapped
        ("x.npy", "-c", "c.npy", "--strategy", "random", "--score", "score.npy"),  # not used
        ("x.npy", "-c", "c.npy", "--strategy", "herding", "--fill", "zscore"),  # not an option of it
    ],
)
def test_nothing_is_ignored(scene, command, words):
    folder, _, centroids = scene
    np.save(folder / "c.npy", np.asarray(centroids))
    np.save(folder / "score.npy", np.zeros(N))
    words = [folder / word if word.endswith(".npy") else word for word in words]
    done = command("select", *words, "--keep", 3, "-o", folder / "s.parquet")
    assert done.returncode == 1
    assert not (folder / "s.parquet").exists()
