"""`rsprune verify`: a whole run is one line, and whatever is wrong with one is named."""

import json
import shutil

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from typer.testing import CliRunner

from failures import raises
from rsprune.cli.app import app
from rsprune.errors import ArgumentError
from rsprune.io import read_provenance, write_record, write_table
from rsprune.runs.stages import centroids_run, embed_run, entropy_run
from rsprune.runs.verify import verify_run
from small_runs import Colours, artefacts, picture, small_prune, write_tar


@pytest.fixture(scope="module")
def there(tmp_path_factory):
    """Two shards with a damaged image in each, a reference, and a finished run."""
    folder = tmp_path_factory.mktemp("verify")
    for s in range(2):
        members = {f"{s}-{i:02d}.jpg": picture(100 * s + i) for i in range(12)}
        write_tar(folder / f"pool-{s}.tar", members | {f"{s}-05.jpg": b"no image"})
    write_tar(folder / "ref.tar", {f"r{i}.jpg": picture(900 + i) for i in range(8)})
    small_prune(str(folder / "pool-*.tar"), folder / "ref.tar", folder / "run", k=3)
    return folder


def copied(there, tmp_path):
    shutil.copytree(there / "run", tmp_path / "run")
    return tmp_path / "run"


def test_a_whole_run_is_one_line(there):
    shallow = verify_run(there / "run")
    assert shallow.findings == []
    assert (shallow.images, shallow.read_again) == (24, 0)
    deep = verify_run(there / "run", source=str(there / "pool-*.tar"), deep=True, encoder=Colours())
    assert deep.findings == []
    assert deep.read_again == 24
    assert deep.embedded_again > 4
    ended = CliRunner().invoke(app, ["verify", str(there / "run"), "-s", str(there / "pool-*.tar"), "--deep"])
    assert (ended.exit_code, len(ended.stdout.splitlines())) == (0, 1)


def test_runs_of_one_stage_are_verified_too(there, tmp_path):
    pool = str(there / "pool-*.tar")
    entropy_run(pool, out=tmp_path / "entropy", progress=False)
    embed_run(pool, out=tmp_path / "embed", encoder=Colours(), progress=False)
    centroids_run(there / "ref.tar", out=tmp_path / "centroids", k=3, encoder=Colours(), progress=False)
    for name in ("entropy", "embed", "centroids"):
        assert verify_run(tmp_path / name).findings == [], name
    for name in ("entropy", "embed"):
        assert verify_run(tmp_path / name, source=pool, deep=True, encoder=Colours()).findings == [], name


def test_every_flipped_bit_is_named_by_its_file(there, tmp_path):
    run = copied(there, tmp_path)
    for name, content in artefacts(run).items():
        if name == "report.html":  # made of the others, and of no use to any
            continue
        at = len(content) // 2
        (run / name).write_bytes(content[:at] + bytes([content[at] ^ 4]) + content[at + 1 :])
        found = {one.file for one in verify_run(run).findings}
        assert found & {name, f"{name.rpartition('.')[0]}.parquet", f"{name.rpartition('.')[0]}.npy"}, name
        ended = CliRunner().invoke(app, ["verify", str(run)])
        assert ended.exit_code == 1
        assert name.rpartition("/")[2].partition(".")[0] in ended.stdout
        (run / name).write_bytes(content)
    assert verify_run(run).findings == []


def edit(run, name, change):
    """Change a table, and make its record say so."""
    table, provenance = pq.read_table(run / name), read_provenance(run / name)
    write_table(run / name, change(table), provenance)
    record = run / "summary.json" if "/" not in name else (run / name).with_suffix(".json")
    rewrite(record, {})


def rewrite(record, changes):
    content = json.loads(record.read_text()) | changes
    files = [record.parent / one for one in content.pop("files")]
    del content["digest"]
    write_record(record, content, files)


def with_column(name, values):
    return lambda table: table.set_column(
        table.column_names.index(name),
        table.field(name),
        pa.array(values(table[name].to_numpy()), table[name].type, from_pandas=True),
    )


@pytest.mark.parametrize(
    ("name", "change", "file"),
    [
        ("selection.parquet", lambda table: table.slice(1), "selection.parquet"),
        ("selection.parquet", lambda table: table.take([1, 0, *range(2, len(table))]), "selection.parquet"),
        ("selection.parquet", with_column("phase", lambda phase: 1 - phase), "summary.json"),
        ("selection.parquet", with_column("similarity", lambda one: one * 0.9), "selection.parquet"),
        ("selection.parquet", with_column("cluster", lambda one: (one + 1) % 3), "selection.parquet"),
        ("selection.parquet", with_column("entropy", lambda one: one * 0.9), "selection.parquet"),
        ("quarantine.parquet", lambda table: table.slice(1), "quarantine.parquet"),
        ("entropy/pool-0.parquet", with_column("entropy", lambda one: 8 - one), "embeddings/pool-0.parquet"),
        ("embeddings/pool-1.parquet", with_column("similarity", lambda one: -one), "selection.parquet"),
    ],
    ids=lambda one: one if isinstance(one, str) else "",
)
def test_what_contradicts_the_tables_is_named(there, tmp_path, name, change, file):
    run = copied(there, tmp_path)
    edit(run, name, change)
    assert file in {one.file for one in verify_run(run).findings}


@pytest.mark.parametrize(
    "changes", [{"tau": 1.0}, {"survivors": 3}, {"budget": 5}, {"selected": 4}, {"fill_cut": 0.5}, {"quarantined": 0}]
)
def test_edited_metrics_are_named(there, tmp_path, changes):
    run = copied(there, tmp_path)
    rewrite(run / "summary.json", changes)
    (found,) = {one.file for one in verify_run(run).findings}
    assert found == "summary.json"


def test_another_collection_and_other_pixels_are_named(there, tmp_path):
    run, pool = copied(there, tmp_path), tmp_path / "pool"
    pool.mkdir()
    for s in range(2):
        members = {f"{s}-{i:02d}.jpg": picture(100 * s + i) for i in range(12)} | {f"{s}-05.jpg": b"no image"}
        write_tar(pool / f"pool-{s}.tar", members)
    assert verify_run(run, source=str(pool / "pool-*.tar"), deep=True, encoder=Colours()).findings == []
    data = bytearray((pool / "pool-1.tar").read_bytes())
    at = data.index(picture(103))
    data[at : at + len(picture(103))] = picture(104).ljust(len(picture(103)), b"\0")[: len(picture(103))]
    (pool / "pool-1.tar").write_bytes(data)
    found = verify_run(run, source=str(pool / "pool-*.tar"), deep=True, encoder=Colours()).findings
    assert "entropy/pool-1.parquet" in {one.file for one in found}
    write_tar(pool / "pool-1.tar", {f"1-{i:02d}.png": picture(i) for i in range(13)})
    assert verify_run(run, source=str(pool / "pool-*.tar")).findings
    with raises(ArgumentError, "--source"):
        verify_run(run, deep=True)
    assert np.all([one.problem.count("\n") == 0 for one in found])
