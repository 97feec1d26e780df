"""`centroids`, `select` and `compare` of embeddings alone: no encoder, no torch, and keys where there are any."""

import csv
import re
import subprocess
import sys

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import rsprune
from failures import raises
from rsprune.errors import ArgumentError, OutputError, ShapeError
from rsprune.runs.row_names import row_names
from rsprune.runs.stages import centroids_run, select_run

N, DIM, K = 300, 8, 5
X = np.random.default_rng(0).normal(size=(N, DIM)).astype(np.float32)
KEYS = [f"a/{i}.jpg" for i in range(N)]
PARTS = np.array_split(np.arange(N), 12)


@pytest.fixture
def layouts(tmp_path):
    """The same embeddings in several forms, each with the keys that it has (None: none)."""
    np.save(tmp_path / "x.npy", X)
    pq.write_table(pa.table({"key": KEYS, "v": list(X)}), tmp_path / "x-all.parquet")
    for folder in ("npy", "pairs", "tables", "clip/img_emb", "clip/metadata"):
        (tmp_path / folder).mkdir(parents=True)
    for i, rows in enumerate(PARTS):
        names = [KEYS[row] for row in rows]
        np.save(tmp_path / f"npy/e_{i}.npy", X[rows])
        np.save(tmp_path / f"pairs/e_{i}.npy", X[rows])
        pq.write_table(pa.table({"image_path": names}), tmp_path / f"pairs/e_{i}.parquet")
        pq.write_table(pa.table({"id": names, "v": list(X[rows])}), tmp_path / f"tables/e_{i}.parquet")
        np.save(tmp_path / f"clip/img_emb/img_emb_{i}.npy", X[rows])
        pq.write_table(pa.table({"image_path": names}), tmp_path / f"clip/metadata/metadata_{i}.parquet")
    return {
        f"{tmp_path}/x.npy": None,
        f"{tmp_path}/npy/e_*.npy": None,
        tmp_path / "npy": None,
        tmp_path / "x-all.parquet": KEYS,
        tmp_path / "pairs": KEYS,
        f"{tmp_path}/tables/e_{{0..11}}.parquet": KEYS,
        tmp_path / "tables": KEYS,
        tmp_path / "clip": KEYS,
    }


def test_all_layouts_give_one_choice_with_the_keys_that_they_have(layouts, tmp_path):
    expected = rsprune.select(X, rsprune.fit_centroids(X, K), 60)
    for number, (embeds, keys) in enumerate(layouts.items()):
        fitted = centroids_run(embeds, out=tmp_path / f"c{number}", k=K, progress=False).path
        out = tmp_path / f"o{number}"
        done = select_run(embeds, centroids=fitted, keep=60, out=out)
        table = pq.read_table(out / "selection.parquet")
        assert table["row"].to_pylist() == expected.indices.tolist()
        assert table["similarity"].to_pylist() == expected.similarity.tolist()
        lines = (out / "selected.txt").read_text().splitlines()
        assert lines == [str(row) if keys is None else keys[row] for row in expected.indices]
        assert ("key" in table.column_names) == (keys is not None)
        assert str(out / "selected.txt") in done.text


def test_the_command_line_needs_neither_torch_nor_weights(layouts, tmp_path):
    """Arguments as a shell makes them of a pattern; the modules of torch cannot be imported."""
    first, second = (str(tmp_path / f"tables/e_{i}.parquet") for i in range(2))
    fit = ["centroids", first, second, "-k", str(K), "-o", str(tmp_path / "c")]
    choose = ["select", first, second, "-c", str(tmp_path / "c"), "--keep", "0.2", "-o", str(tmp_path / "o")]
    program = f"""
import sys
sys.modules["torch"] = None
from rsprune.cli.app import app
for words in {[fit, choose]!r}:
    app(words, standalone_mode=False)
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    rows = np.concatenate(PARTS[:2])
    expected = rsprune.select(X[rows], rsprune.fit_centroids(X[rows], K), 0.2)
    assert (tmp_path / "o" / "selected.txt").read_text().splitlines() == [KEYS[row] for row in expected.indices]


def test_names_that_repeat_have_the_file_before_them(tmp_path):
    for name in ("b", "a"):
        pq.write_table(pa.table({"key": ["1", "2"], "v": list(X[:2])}), tmp_path / f"{name}.parquet")
    names = row_names(tmp_path).to_pylist()
    assert names == ["a/1", "a/2", "b/1", "b/2"]
    assert row_names([tmp_path / "b.parquet"]).to_pylist() == ["1", "2"]
    assert row_names(X) is None


def test_keys_of_a_file_of_their_own(tmp_path):
    np.save(tmp_path / "x.npy", X)
    np.save(tmp_path / "c.npy", rsprune.fit_centroids(X, K).vectors)
    (tmp_path / "keys.txt").write_text("".join(f"{key}\n" for key in KEYS))
    pq.write_table(pa.table({"name": KEYS[::-1], "other": KEYS}), tmp_path / "keys.parquet")
    options = {"centroids": tmp_path / "c.npy", "keep": 30}
    for file, keys in (("keys.txt", KEYS), ("keys.parquet", KEYS[::-1]), ("keys.parquet#other", KEYS)):
        select_run(tmp_path / "x.npy", out=tmp_path / "s.parquet", keys=f"{tmp_path}/{file}", **options)
        table = pq.read_table(tmp_path / "s.parquet")
        assert table["key"].to_pylist() == [keys[row] for row in table["row"].to_pylist()]
    (tmp_path / "keys.txt").write_text("a\nb\n")
    with raises(ShapeError, "keys.txt", 2, N):
        select_run(tmp_path / "x.npy", out=tmp_path / "s.parquet", keys=tmp_path / "keys.txt", **options)
    pq.write_table(pa.table({"n": [1]}), tmp_path / "keys.parquet")
    with raises(ArgumentError, "keys.parquet", "#column"):
        select_run(tmp_path / "x.npy", out=tmp_path / "s.parquet", keys=tmp_path / "keys.parquet", **options)


def test_a_folder_that_holds_other_files_is_not_written_to(tmp_path):
    np.save(tmp_path / "x.npy", X)
    np.save(tmp_path / "c.npy", rsprune.fit_centroids(X, K).vectors)
    options = {"centroids": tmp_path / "c.npy", "keep": 30}
    (tmp_path / "o").mkdir()
    (tmp_path / "o" / "selected.txt").write_text("mine\n")
    with raises(OutputError, tmp_path / "o"):
        select_run(tmp_path / "x.npy", out=tmp_path / "o", **options)
    (tmp_path / "o" / "selected.txt").unlink()
    first = select_run(tmp_path / "x.npy", out=tmp_path / "o", **options)
    again = select_run(tmp_path / "x.npy", out=tmp_path / "o", **options)
    assert first.metrics == again.metrics
    with raises(ArgumentError, "s.csv", ".parquet"):
        select_run(tmp_path / "x.npy", out=tmp_path / "s.csv", **options)


def test_a_table_of_images_is_a_reference_of_images(tmp_path):
    """With a column of bytes beside the vectors, the images are what is meant."""
    from rsprune.runs.reference import holds_embeddings

    table = pa.table({"image": [b"\x89PNG"] * 4, "v": list(X[:4])})
    pq.write_table(table, tmp_path / "x.parquet")
    assert not holds_embeddings(tmp_path / "x.parquet")
    assert holds_embeddings(f"{tmp_path}/x.parquet#v")
    assert not holds_embeddings(f"{tmp_path}/x.parquet#image")
    assert not holds_embeddings(tmp_path / "nothing-*.parquet")
    assert not holds_embeddings(tmp_path)
    np.save(tmp_path / "images.npy", np.zeros((2, 8, 8, 3), np.uint8))
    assert not holds_embeddings([tmp_path / "images.npy"])


def test_compare_of_embeddings_alone_is_that_of_what_each_method_chose(layouts, tmp_path):
    from rsprune.centroids import fit_centroids
    from rsprune.evaluation import SubsetEvaluator
    from rsprune.experiments import compare
    from rsprune.experiments.pool import halves

    rng = np.random.default_rng(1)
    reference = rng.normal(size=(120, DIM)).astype(np.float32)
    np.save(tmp_path / "reference.npy", reference)
    entropy = rng.uniform(0, 8, N)
    np.save(tmp_path / "entropy.npy", entropy)
    given = {"reference": str(tmp_path / "reference.npy"), "entropy": tmp_path / "entropy.npy", "k": K}
    options = given | {"keep": [40], "progress": False}
    done = compare(tmp_path / "tables", ["rsprune", "random", "entropy"], out=tmp_path / "compared", **options)
    prior, target = halves(rsprune.embeddings.as_rows(reference), 0.5, 0)
    measure = SubsetEvaluator(X, fit_centroids(X, K, seed=1, n_init=1), target=target)
    centroids = fit_centroids(prior, K, seed=0)
    expected = rsprune.select(X, centroids, 40)
    assert done.entries[0].metrics["vendi"] == measure(expected).vendi
    assert done.entries[0].metrics["target_coverage"] == measure(expected).target_coverage
    low = np.quantile(entropy, 0.25)
    assert done.entries[0].metrics["low_entropy"] == (entropy[expected.indices] < low).mean()
    (lines,) = (done.path / "entries").glob("rsprune-40-*.txt")
    assert lines.read_text().splitlines() == [KEYS[row] for row in expected.indices]
    assert all(one.failure is None for one in done.entries)
    again = compare(X, ["rsprune"], out=tmp_path / "again", **options | {"centroids": centroids})
    assert again.entries[0].metrics["vendi"] == done.entries[0].metrics["vendi"]


def test_compare_leaves_out_methods_that_need_what_is_not_given(tmp_path):
    from rsprune.experiments import compare

    options = {"keep": [40], "progress": False, "k": K}
    done = compare(X, ["rsprune", "random", "entropy"], out=tmp_path / "o", **options)
    assert [one.failure is None for one in done.entries] == [False, True, False]
    assert "low_entropy" not in done.entries[1].metrics
    assert done.entries[1].metrics["target_coverage"] is None
    assert "random" in done.describe()
    with raises(ArgumentError, "out"):
        compare(X, ["random"], **options)
    (tmp_path / "config.json").write_text("{}")
    with raises(ArgumentError, "keys"):
        compare(tmp_path, ["random"], keys="x.txt", **options)


def test_what_compare_prints_fits_a_terminal_and_axes_begin_at_zero(tmp_path):
    from rsprune.experiments import compare
    from rsprune.experiments.compare import COLUMNS

    options = {"keep": [0.1, 0.2], "progress": False, "k": K, "reference": X[::2], "out": tmp_path / "o"}
    done = compare(X, ["rsprune", "random", "kcenter", "semdedup:within=nearest"], **options)
    tables = done.describe().split("\n")
    assert max(map(len, tables[len(done.head) : -1])) <= 100
    used = [one for one in COLUMNS if done.entries[0].metrics.get(one.name) is not None]
    cells = [line.split()[1:] for line in tables if line.startswith("kcenter")]
    assert sum(map(len, cells)) == 2 * len(used)
    assert len(cells) > 2
    columns = next(csv.reader((tmp_path / "o" / "compare.csv").read_text().splitlines()))
    assert {"vendi", "target_coverage", "seconds", "covering_radius"} <= set(columns)
    figure = (tmp_path / "o" / "compare.svg").read_text()
    first = re.findall(r'class="tick"[^>]*text-anchor="start">([^<]*)<', figure)
    assert set(first) == {"0"}
    assert "-0.5" not in figure


def test_prune_takes_reference_embeddings_of_a_table(tmp_path):
    """The run is that with the same embeddings in a .npy file."""
    from small_runs import artefacts, picture, small_prune, write_tar

    write_tar(tmp_path / "pool.tar", {f"{i:02d}.jpg": picture(i) for i in range(30)})
    rows = np.random.default_rng(2).normal(size=(40, 6)).astype(np.float32)
    np.save(tmp_path / "r.npy", rows)
    pq.write_table(pa.table({"key": KEYS[:40], "v": list(rows)}), tmp_path / "r.parquet")
    runs = [
        small_prune(tmp_path / "pool.tar", tmp_path / name, tmp_path / f"run-{name}", k=3)
        for name in ("r.npy", "r.parquet")
    ]
    assert artefacts(runs[0].path) == artefacts(runs[1].path)
