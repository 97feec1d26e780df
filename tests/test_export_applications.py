"""The layouts of an export that applications open, read as these read them."""

import datetime
import io
import json

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

import rsprune
from rsprune.export import export_run
from rsprune.report.embedding_map import draw_sample
from rsprune.runs.reader import RunReader
from small_runs import picture, small_prune, write_tar

#: What a collection says of its images, with names that the applications have for themselves.
SAID = {
    "x": ([0.5, float("nan")], [0.5, None]),
    "tags": ([["a", "b"], None], ['["a", "b"]', None]),
    "a.b": ([3, -1], [3, -1]),
    "a_b": (["é", ""], ["é", ""]),
    "seen": ([datetime.date(2024, 5, 6), None], ["2024-05-06", None]),
    "clear": ([True, False], [True, False]),
    "number": (pa.array([2**64 - 1, 0], pa.uint64()), [str(2**64 - 1), "0"]),
}
FIELDS = {"x": "x", "tags": "meta_tags", "a.b": "a_b", "a_b": "meta_a_b", "seen": "seen", "clear": "clear"}
MANIFEST = ["key", "shard", "row", "entropy", "cluster", "similarity", "phase"]


@pytest.fixture(scope="module", params=[True, False], ids=["kept", "not kept"])
def run(request, tmp_path_factory):
    """A run over a folder with classes that keeps its embeddings or does not, and the collection."""
    folder = tmp_path_factory.mktemp("applications")
    for number in range(24):
        path = folder / "pool" / ("Port", "Forest")[number % 2] / f"{number:02d} ü.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(picture(number))
    write_tar(folder / "reference.tar", {f"r{i}.jpg": picture(9000 + i) for i in range(12)})
    options = {"keep": 12, "entropy_keep": 1.0, "k": 3, "keep_embeddings": request.param}
    return small_prune(folder / "pool", folder / "reference.tar", folder / "run", **options), folder / "pool"


@pytest.fixture
def said(tmp_path):
    """A run that keeps both of two images, of which the collection says something."""
    cells = [{"bytes": picture(i), "path": None} for i in range(2)]
    columns = {name: values for name, (values, _) in SAID.items()}
    pq.write_table(pa.table({"image": cells, "key": ["one", "two"], **columns}), tmp_path / "pool.parquet")
    write_tar(tmp_path / "reference.tar", {f"r{i}.jpg": picture(9000 + i) for i in range(4)})
    options = {"keep": 2, "entropy_keep": 1.0, "k": 2}
    run = small_prune(tmp_path / "pool.parquet", tmp_path / "reference.tar", tmp_path / "run", **options)
    return run, tmp_path / "pool.parquet"


def samples(folder):
    """The types of the fields of a data set of FiftyOne, and its samples."""
    data_set = json.loads((folder / "metadata.json").read_text("utf-8"))
    assert data_set["media_type"] == "image"
    types = {one["name"]: one["ftype"].removeprefix("fiftyone.core.fields.") for one in data_set["sample_fields"]}
    return types, json.loads((folder / "samples.json").read_text("utf-8"))["samples"]


def test_embedding_atlas_has_images_places_and_the_manifest(run, tmp_path):
    chosen, pool = run
    export_run(chosen.path, pool, to=tmp_path / "out", layout="embedding-atlas", progress=False)
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["export.json", "images.parquet"]
    table = pq.read_table(tmp_path / "out" / "images.parquet")
    manifest = pq.read_table(chosen.path / "selection.parquet")
    for name in manifest.column_names:
        assert table[name].equals(manifest[name]), name
    assert table["label"].to_pylist() == [key.split("/")[0] for key in chosen.keys]
    cells = table["image"].to_pylist()
    assert [cell["bytes"] for cell in cells] == [(pool / key).read_bytes() for key in chosen.keys]
    assert {Image.open(io.BytesIO(cell["bytes"])).size for cell in cells} == {(24, 24)}
    reader = RunReader(chosen.path)
    if not reader.config["keep_embeddings"]:
        assert not {"x", "y"} & set(table.column_names)
        return
    # The two directions in which the embeddings of the pool and of the reference differ most.
    (shard,) = reader.shards
    stored = np.load(reader.folder.embeddings(shard)).astype(np.float64)
    rows = np.concatenate([stored, draw_sample(reader).references])
    _, _, directions = np.linalg.svd(rows - rows.mean(axis=0), full_matrices=False)
    expected = (stored[manifest["row"].to_numpy()] - rows.mean(axis=0)) @ directions[:2].T
    places = np.stack([table["x"].to_numpy(), table["y"].to_numpy()], axis=1)
    np.testing.assert_allclose(places * np.sign((places * expected).sum(axis=0)), expected, atol=1e-6)


def test_a_column_x_of_the_collection_makes_room(said, tmp_path):
    chosen, pool = said
    export_run(chosen.path, pool, to=tmp_path / "out", layout="embedding-atlas", progress=False)
    table = pq.read_table(tmp_path / "out" / "images.parquet")
    at = [("one", "two").index(key) for key in chosen.keys]
    np.testing.assert_array_equal(table["meta_x"].to_numpy(), np.array(SAID["x"][0])[at])
    assert np.isfinite([table["x"].to_numpy(), table["y"].to_numpy()]).all()


def test_fiftyone_has_the_manifest_as_fields(run, tmp_path):
    chosen, pool = run
    export_run(chosen.path, pool, to=tmp_path / "out", layout="fiftyone", progress=False)
    types, rows = samples(tmp_path / "out")
    text, whole, real = "StringField", "IntField", "FloatField"
    assert [types[name] for name in MANIFEST] == [text, text, whole, real, whole, real, whole]
    assert types["label"] == text
    manifest = pq.read_table(chosen.path / "selection.parquet").to_pylist()
    assert [{name: row[name] for name in manifest[0]} for row in rows] == manifest
    for row in rows:
        assert set(row) == {"filepath", "tags", "_media_type", "_rand", *types}
        assert (row["tags"], row["_media_type"], row["label"]) == ([], "image", row["key"].split("/")[0])
        assert (tmp_path / "out" / row["filepath"]).read_bytes() == (pool / row["key"]).read_bytes()
    order = [row["_rand"] for row in rows]
    assert len(set(order)) == 12
    assert 0 <= min(order) < max(order) < 1


def test_fiftyone_gets_other_columns_by_names_and_types_that_it_takes(said, tmp_path):
    chosen, pool = said
    export_run(chosen.path, pool, to=tmp_path / "out", layout="fiftyone", progress=False)
    types, rows = samples(tmp_path / "out")
    at = [("one", "two").index(key) for key in chosen.keys]
    for name, (_, values) in SAID.items():
        assert [row[FIELDS.get(name, name)] for row in rows] == [values[i] for i in at], name
    found = [types[FIELDS.get(name, name)] for name in SAID]
    text = "StringField"
    assert found == ["FloatField", text, "IntField", text, text, "BooleanField", text]
    assert rsprune.open(chosen.path).keys == [row["key"] for row in rows]
