"""A run folder that was edited, digests and all, is told by an error that names the file, in every command."""

import json
import shutil

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from rsprune.errors import DamagedFileError, RspruneError
from rsprune.io import read_provenance, write_record, write_table
from rsprune.report import write_report
from rsprune.report.explain import explain
from rsprune.runs.prune import open_run
from rsprune.runs.reader import RunReader
from small_runs import picture, small_prune, write_tar

TABLES = {
    "selection.parquet": ("key", "shard", "row", "entropy", "cluster", "similarity", "phase"),
    "entropy/pool-0.parquet": ("key", "entropy", "kind", "message"),
    "embeddings/pool-0.parquet": ("row", "key", "label", "similarity"),
    "quarantine.parquet": ("key", "shard", "row", "stage", "kind", "message"),
}


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A finished run of two shards, with a damaged image in each."""
    folder = tmp_path_factory.mktemp("edited")
    for s in range(2):
        members = {f"{s}-{i:02d}.jpg": picture(100 * s + i) for i in range(12)}
        write_tar(folder / f"pool-{s}.tar", members | {f"{s}-05.jpg": b"no image"})
    write_tar(folder / "ref.tar", {f"r{i}.jpg": picture(900 + i) for i in range(8)})
    small_prune(str(folder / "pool-*.tar"), folder / "ref.tar", folder / "run", k=3)
    return folder / "run"


def edit_table(run, name, change):
    """Change a table, and make its record say so."""
    table, provenance = pq.read_table(run / name), read_provenance(run / name)
    write_table(run / name, change(table), provenance)
    record = run / "summary.json" if "/" not in name else (run / name).with_suffix(".json")
    content = json.loads(record.read_text())
    files = [record.parent / one for one in content.pop("files")]
    write_record(record, {key: value for key, value in content.items() if key != "digest"}, files)


def read_all(run):
    """Read a run in every way; at least one of them must tell."""
    told = 0
    for read in (
        lambda: open_run(run).describe(),
        lambda: write_report(run),
        lambda: explain(run, ["0-01.jpg", "0-05.jpg", "1-03.jpg"]),
        lambda: list(RunReader(run)),
    ):
        message = None
        try:
            read()
        except RspruneError as error:
            message = str(error)
        if message is not None:
            told += 1
            assert str(run) in message
            assert len(message) < 500
    return told


def replaced(name, values):
    return lambda table: table.set_column(
        table.column_names.index(name), name, values if values is not None else pa.nulls(len(table), pa.bool_())
    )


EDITS = {
    "dropped": lambda table, name: table.drop_columns([name]),
    "renamed": lambda table, name: table.rename_columns(
        [one if one != name else "other" for one in table.column_names]
    ),
    "lists": lambda table, name: replaced(name, pa.array([[1]] * len(table)))(table),
    "truths": lambda table, name: replaced(name, None)(table),
}


@pytest.mark.parametrize("edit", EDITS)
@pytest.mark.parametrize(("name", "column"), [(name, column) for name in TABLES for column in TABLES[name]])
def test_edited_columns_are_told(whole, tmp_path, name, column, edit):
    shutil.copytree(whole, tmp_path / "run")
    edit_table(tmp_path / "run", name, lambda table: EDITS[edit](table, column))
    told = read_all(tmp_path / "run")
    if column not in ("kind", "message"):  # which only the quarantine is made of
        assert told


@pytest.mark.parametrize(
    ("name", "column", "value"),
    [
        ("selection.parquet", "row", -1),
        ("selection.parquet", "row", 10**9),
        ("selection.parquet", "phase", 7),
        ("selection.parquet", "shard", "no shard"),
        ("entropy/pool-0.parquet", "entropy", 9.0),
        ("embeddings/pool-0.parquet", "row", -5),
        ("embeddings/pool-0.parquet", "row", 10**9),
        ("embeddings/pool-0.parquet", "similarity", 4e38),
    ],
)
def test_values_out_of_range_are_told(whole, tmp_path, name, column, value):
    shutil.copytree(whole, tmp_path / "run")
    kind = pq.read_schema(whole / name).field(column).type
    edit_table(
        tmp_path / "run",
        name,
        lambda table: replaced(column, pa.array([value] * len(table)).cast(kind, safe=False))(table),
    )
    assert read_all(tmp_path / "run")


@pytest.mark.parametrize("value", [None, -7, "x", [], {}, ["x"]], ids=repr)
@pytest.mark.parametrize("name", ["images", "quarantined", "survivors", "budget", "selected", "clusters", "phases"])
def test_edited_metrics_are_told(whole, tmp_path, name, value):
    shutil.copytree(whole, tmp_path / "run")
    record = tmp_path / "run" / "summary.json"
    content = json.loads(record.read_text())
    files = [record.parent / one for one in content.pop("files")]
    del content["digest"]
    write_record(record, content | {name: value}, files)
    with pytest.raises(DamagedFileError) as caught:
        open_run(tmp_path / "run").describe()
    assert str(record) in str(caught.value)
