"""What people work with in a notebook: a run as a table, keys beside rows, and results that show themselves."""

import numpy as np
import pyarrow.parquet as pq
import pytest

import rsprune
from failures import raises
from rsprune.errors import DtypeError, MissingDependencyError, ShapeError, UnfinishedRunError
from rsprune.runs.stages import centroids_run, entropy_run
from small_runs import Colours, picture, small_prune


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("notebook")
    for i in range(80):
        path = folder / "pool" / f"{i:02d} <b>.jpg"
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(picture(i))
    return small_prune(folder / "pool", folder / "pool", folder / "run")


def test_a_run_is_opened_explained_and_read_as_a_table(run):
    again = rsprune.open(run.path)
    table = again.to_arrow()
    assert table.equals(pq.read_table(run.path / "selection.parquet").replace_schema_metadata())
    assert table["key"].to_pylist() == run.keys
    (said,) = again.explain(run.keys[0])
    assert said.kept
    assert [one.key for one in again.explain(*run.keys[:3])] == run.keys[:3]


@pytest.mark.parametrize("stage", ["entropy", "centroids"])
def test_the_folder_of_a_single_stage_is_no_damaged_run(stage, run, tmp_path):
    pool = run.path.parent / "pool"
    if stage == "entropy":
        entropy_run(pool, out=tmp_path / "out", progress=False)
    else:
        centroids_run(pool, out=tmp_path / "out", k=3, encoder=Colours(), progress=False)
    with raises(UnfinishedRunError, "out", "rsprune prune", stage):
        rsprune.open(tmp_path / "out")


def test_a_run_becomes_a_data_frame(run, monkeypatch):
    frame = pytest.importorskip("pandas") and run.to_pandas()
    assert frame["key"].tolist() == run.keys
    assert frame["similarity"].to_numpy() == pytest.approx(run.selection.similarity)
    monkeypatch.setitem(__import__("sys").modules, "pandas", None)
    with raises(MissingDependencyError, "pandas"):
        run.to_pandas()


@pytest.mark.parametrize("container", [list, tuple, np.array])
def test_keys_stand_beside_the_rows(container, tmp_path):
    rng = np.random.default_rng(0)
    embeds, centroids = rng.normal(size=(60, 8)).astype(np.float32), rng.normal(size=(4, 8)).astype(np.float32)
    centroids /= np.linalg.norm(centroids, axis=1, keepdims=True)
    names = container([f"image-{i}" for i in range(60)])
    chosen = rsprune.select(embeds, centroids, 12, keys=names)
    assert chosen.keys == [f"image-{i}" for i in chosen.indices]
    labels, similarity = rsprune.assign(embeds, centroids)
    assert rsprune.select_assigned(labels, similarity, 12, k=4, keys=names).keys == chosen.keys
    chosen.to_parquet(tmp_path / "chosen.parquet")
    table = pq.read_table(tmp_path / "chosen.parquet")
    assert table["key"].to_pylist() == chosen.keys
    assert table["row"].to_pylist() == chosen.indices.tolist()
    assert rsprune.select(embeds, centroids, 12).keys is None


def test_keys_that_fit_no_rows_are_refused():
    labels, similarity = np.zeros(5, np.int32), np.ones(5, np.float32)
    with raises(ShapeError, "keys", 4, 5):
        rsprune.select_assigned(labels, similarity, 2, k=1, keys=["a", "b", "c", "d"])
    with raises(DtypeError, "keys", "int"):
        rsprune.select_assigned(labels, similarity, 2, k=1, keys=[1, 2, 3, 4, 5])


def test_results_show_themselves_and_hostile_text_is_text(run):
    planned = rsprune.plan(run.path.parent / "pool", reference="self", keep=8, k=3, encoder=Colours(), measure=False)
    centroids = rsprune.Centroids.load(run.path)
    for one, text in (
        (run, "images kept"),
        (run.selection, "by quota"),
        (centroids, "6 centroids of 6 dimensions, of colours"),
        (planned, "Stage I keeps"),
    ):
        shown = one._repr_html_()
        assert shown.startswith("<pre>")
        assert text in shown
    assert "&lt;b&gt;" in rsprune.Centroids(np.eye(2, dtype=np.float32), {"note": "<b>"})._repr_html_()
