"""What a collection says of its images beside the pixels ends in the manifest."""

import json
from datetime import date

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from failures import raises
from rsprune.errors import ArgumentError, KeyMismatchError, UnreadShardError
from rsprune.report import explain
from rsprune.runs.schema import SELECTION_SCHEMA, manifest_schema
from rsprune.runs.stages import select_run
from rsprune.sources import Item, Shard, Source, open_source
from rsprune.sources.concat import ConcatSource
from rsprune.sources.damaged import IntactShards
from small_runs import picture, small_prune, write_tar


class Captioned(Source):
    """Two shards of images with a caption, a number of pixels a metre, a date, and a column that is called row."""

    def __init__(self, images=12, **types):
        self.images = images
        columns = {"caption": pa.string(), "scale": pa.float64(), "row": pa.int32(), "taken": pa.date32()}
        self.metadata_columns = pa.schema(list((columns | types).items()))
        self.read_for_metadata = []

    shards = (Shard("a"), Shard("b"))

    @property
    def metadata_schema(self):
        return self.metadata_columns

    def count(self, shard):
        return self.images

    size = count

    def fingerprint(self):
        return {"kind": "captioned", "shards": [self.images]}

    def read(self, shard, rows=None):
        for row in range(self.images) if rows is None else rows:
            number = 100 * "ab".index(shard.name) + row
            yield Item(f"{shard.name}{row}", picture(number), metadata=said(shard.name, row))

    def read_metadata(self, shard, rows):
        self.read_for_metadata.append((shard.name, list(rows)))
        return super().read_metadata(shard, rows)


def said(shard, row):
    """The metadata of an image."""
    whole = {"caption": f"scene {shard} {row}", "scale": row / 4, "row": -row, "taken": date(2020, 1, 1)}
    return {"scale": 0.5} if row == 3 else whole


def manifest(folder):
    return pq.read_table(folder / "selection.parquet")


@pytest.fixture
def reference(tmp_path):
    write_tar(tmp_path / "reference.tar", {f"r{i}.jpg": picture(9000 + i) for i in range(20)})
    return tmp_path / "reference.tar"


def test_columns_stand_behind_the_fixed_ones(tmp_path, reference):
    source = Captioned()
    run = small_prune(source, reference, tmp_path / "run", keep=0.5, entropy_keep=0.8)
    table = manifest(tmp_path / "run")
    assert table.schema.names == [*SELECTION_SCHEMA.names, "caption", "scale", "meta_row", "taken"]
    assert table.schema.types[-4:] == [pa.string(), pa.float64(), pa.int32(), pa.date32()]
    rows = table.to_pylist()
    assert len(rows) == 12
    for row in rows:
        expected = said(row["shard"], row["row"])
        assert row["caption"] == expected.get("caption")
        assert row["scale"] == expected["scale"]
        assert row["meta_row"] == expected.get("row")
    assert run.metadata == table.drop_columns(SELECTION_SCHEMA.names)
    # Of the rows that are kept alone, a shard at a time.
    assert source.read_for_metadata == [
        (shard, [row["row"] for row in rows if row["shard"] == shard]) for shard in ("a", "b")
    ]


def test_a_source_without_metadata_leaves_the_manifest_as_it_is(tmp_path, reference):
    small_prune(reference, reference, tmp_path / "run", k=2)
    assert manifest(tmp_path / "run").schema.equals(SELECTION_SCHEMA)
    assert manifest_schema(SELECTION_SCHEMA, pa.schema([])) == SELECTION_SCHEMA


def test_names_that_are_taken_get_a_prefix():
    names = ["key", "meta_key", "phase", "caption"]
    schema = manifest_schema(SELECTION_SCHEMA, pa.schema([(name, pa.int8()) for name in names]))
    assert schema.names[len(SELECTION_SCHEMA) :] == ["meta_key", "meta_meta_key", "meta_phase", "caption"]


def test_explain_shows_them(tmp_path, reference, command):
    small_prune(Captioned(), reference, tmp_path / "run", keep=0.5, entropy_keep=0.8)
    kept = next(row for row in manifest(tmp_path / "run").to_pylist() if row["row"] != 3)
    (found,) = explain(tmp_path / "run", kept["key"])
    assert found.metadata == {name: kept[name] for name in ("caption", "scale", "meta_row", "taken")}
    assert f"caption: {kept['caption']}" in found.text().splitlines()
    keys = {row["key"] for row in manifest(tmp_path / "run").to_pylist()}
    dropped = next(f"{s}{i}" for s in "ab" for i in range(12) if f"{s}{i}" not in keys and i != 3)
    assert explain(tmp_path / "run", dropped)[0].metadata == {}
    (found,) = explain(tmp_path / "run", dropped, Captioned())
    assert found.metadata["caption"] == f"scene {dropped[0]} {dropped[1:]}"
    assert set(found.metadata) == {"caption", "scale", "meta_row", "taken"}
    shown = command("explain", tmp_path / "run", kept["key"], "--json")
    assert json.loads(shown.stdout)["metadata"]["taken"] == "2020-01-01"


def test_wrappers_pass_them_on():
    numbered = Captioned(2, scale=pa.string(), place=pa.int64())
    numbered.read_metadata = lambda shard, rows: pa.Table.from_pylist(
        [{"caption": "x", "scale": "wide", "row": 0, "taken": None, "place": 7}] * len(rows), numbered.metadata_schema
    )
    both = ConcatSource([Captioned(3), numbered])
    assert both.metadata_schema.names == ["caption", "scale", "row", "taken", "place"]
    assert both.metadata_schema.field("scale").type == pa.string()
    first, last = both.read_metadata(both.shards[0], [0, 2]), both.read_metadata(both.shards[3], [1])
    assert first.schema == last.schema == both.metadata_schema
    assert first["scale"].to_pylist() == ["0.0", "0.5"]
    assert first["place"].to_pylist() == [None, None]
    assert last.to_pylist() == [{"caption": "x", "scale": "wide", "row": 0, "taken": None, "place": 7}]
    intact = IntactShards(both, {both.shards[0].name: "damaged"})
    assert intact.metadata_schema == both.metadata_schema
    assert intact.read_metadata(intact.shards[-1], [0]) == both.read_metadata(both.shards[-1], [0])
    assert open_source([Captioned(3), Captioned(3)]).metadata_schema == Captioned().metadata_schema


def test_a_failure_while_they_are_read_says_that_the_collection_is_to_blame(tmp_path, reference):
    class Unplugged(Captioned):
        def read_metadata(self, shard, rows):
            raise OSError(5, "Input/output error", f"/mnt/{shard.name}")

    with raises(UnreadShardError, "/mnt/a"):
        small_prune(Unplugged(), reference, tmp_path / "run", keep=0.5, entropy_keep=0.8)


def test_choosing_again_keeps_them_if_the_collection_is_given(tmp_path, reference):
    small_prune(Captioned(), reference, tmp_path / "run", keep=0.5, entropy_keep=0.8)
    again = {"centroids": tmp_path / "run" / "centroids.safetensors", "keep": 8}
    plain = select_run(tmp_path / "run", out=tmp_path / "plain.parquet", **again)
    assert all(name in plain.text for name in ("caption", "scale", "meta_row", "taken", "--source"))
    result = select_run(tmp_path / "run", out=tmp_path / "s.parquet", source=Captioned(), **again)
    assert "--source" not in result.text
    table = pq.read_table(tmp_path / "s.parquet")
    assert table.schema.names[-4:] == ["caption", "scale", "meta_row", "taken"]
    assert table.select(pq.read_schema(tmp_path / "plain.parquet").names) == pq.read_table(tmp_path / "plain.parquet")
    for row in table.to_pylist():
        assert row["caption"] == said(row["shard"], row["row"]).get("caption")
    with raises(KeyMismatchError, "a"):
        select_run(tmp_path / "run", out=tmp_path / "s.parquet", source=Renamed(), **again)
    np.save(tmp_path / "rows.npy", np.eye(12, dtype=np.float32))
    with raises(ArgumentError, tmp_path / "rows.npy"):
        select_run(tmp_path / "rows.npy", out=tmp_path / "s.parquet", source=Captioned(), **again)


class Renamed(Captioned):
    """The same images under other keys."""

    def read_keys(self, shard):
        return [f"other{row}" for row in range(self.count(shard))]
