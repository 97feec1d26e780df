"""Run folders: atomic writes, provenance, the pool of Stage I, refusals."""

import errno
import io
import json
import os
import tempfile
import threading
import time
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from failures import raises, warns
from rsprune.errors import ConfigMismatchError, FormatError
from rsprune.io import atomic_write, digest, read_json, read_provenance, read_table, write_json, write_table
from rsprune.runners import JsonLines
from rsprune.runs import folder as folder_module
from rsprune.runs import summary as summary_module
from rsprune.runs.folder import FORMAT, RunFolder
from rsprune.runs.reader import RunReader
from rsprune.runs.schema import ENTROPY_SCHEMA
from rsprune.runs.stages.entropy import EntropyRanking
from rsprune.runs.summary import ShardSummary, key_form
from rsprune.runs.verify import verify_run
from rsprune.sources import Shard


def write_entropies(folder: RunFolder, shards: dict[str, tuple[list[str], list[float | None]]]) -> RunReader:
    """Write Stage I's tables, and their records, in the order given."""
    folder.start({"made": "by hand"})
    for shard, (keys, entropies) in shards.items():
        rows = [{"key": k, "entropy": h, "kind": None, "message": None} for k, h in zip(keys, entropies, strict=True)]
        write_table(folder.entropy(shard), pa.Table.from_pylist(rows, schema=ENTROPY_SCHEMA), {})
        folder.complete(folder.record(folder.entropy(shard)), [folder.entropy(shard)])
    return RunReader(folder)


def summarize(reader: RunReader) -> ShardSummary:
    summary = ShardSummary()
    for shard in reader.shards:
        summary.merge(ShardSummary().update(reader.index.count(shard), [], reader.entropy(shard)))
    return summary


# --- writing ----------------------------------------------------------------------------------------------------------


def test_a_failed_write_leaves_the_old_file_and_nothing_beside_it(tmp_path):
    path = tmp_path / "file.txt"
    path.write_text("old")

    def fail():
        with atomic_write(path) as beside:
            beside.write_text("half of the n")
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail()
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_tables_carry_their_provenance_and_equal_tables_are_equal_bytes(tmp_path):
    table = pa.table({"x": [1, 2, 3]})
    write_table(tmp_path / "a.parquet", table, {"seed": 0, "encoder": {"name": "e"}})
    write_table(tmp_path / "b.parquet", table, {"encoder": {"name": "e"}, "seed": 0})
    assert read_provenance(tmp_path / "a.parquet") == {"seed": 0, "encoder": {"name": "e"}}
    assert (tmp_path / "a.parquet").read_bytes() == (tmp_path / "b.parquet").read_bytes()
    pq.write_table(table, tmp_path / "foreign.parquet")
    assert read_provenance(tmp_path / "foreign.parquet") == {}


def test_digest_does_not_depend_on_the_order_of_keys():
    assert digest({"a": 1, "b": [2]}) == digest({"b": [2], "a": 1})
    assert digest({"a": 1}) != digest({"a": 2})


@pytest.mark.parametrize("content", [b"", b"PAR1 and no more", b"\x00" * 100])
def test_a_damaged_table_is_named(tmp_path, content):
    path = tmp_path / "damaged.parquet"
    path.write_bytes(content)
    with raises(FormatError, "damaged.parquet"):
        read_table(path)


@pytest.mark.parametrize("content", ["", "{", "[1, 2]"])
def test_a_damaged_config_is_named(tmp_path, content):
    (tmp_path / "config.json").write_text(content)
    with raises(FormatError, "config.json"):
        read_json(tmp_path / "config.json")


# --- configurations ---------------------------------------------------------------------------------------------------


def test_a_different_configuration_is_refused_with_every_difference(tmp_path):
    folder = RunFolder(tmp_path / "run")
    folder.start({"seed": 0, "encoder": {"name": "a", "dim": 6}, "gone": 1})
    folder.start({"seed": 0, "encoder": {"name": "a", "dim": 6}, "gone": 1})
    with pytest.raises(ConfigMismatchError) as refusal:
        folder.start({"seed": 1, "encoder": {"name": "b", "dim": 6}})
    assert 'encoder.name: "a" there, "b" now' in str(refusal.value)
    assert "gone: 1 there, null now" in str(refusal.value)
    assert "seed: 0 there, 1 now" in str(refusal.value)
    assert "dim" not in str(refusal.value)
    assert folder.read_config()["seed"] == 0


def test_tuples_and_lists_are_the_same_configuration(tmp_path):
    folder = RunFolder(tmp_path / "run")
    folder.start({"bands": (0, 1, 2)})
    folder.start({"bands": [0, 1, 2]})
    assert folder.read_config() == {"bands": [0, 1, 2]}


def test_a_folder_is_waited_for_until_its_holder_lets_go(tmp_path, monkeypatch):
    folder = RunFolder(tmp_path / "run")
    held, let_go = threading.Event(), threading.Event()

    def hold():
        with RunFolder(folder.path).lock():
            folder.start({"a": 1})
            held.set()
            let_go.wait(10)

    holder = threading.Thread(target=hold)
    holder.start()
    assert held.wait(10)
    monkeypatch.setattr(folder_module, "PATIENCE", 0.1)
    with raises(ConfigMismatchError, folder.path), folder.lock():
        pass
    monkeypatch.setattr(folder_module, "PATIENCE", 10)
    threading.Timer(0.3, let_go.set).start()
    begun = time.monotonic()
    with folder.lock():
        assert 0.2 < time.monotonic() - begun < 9
    holder.join()


@pytest.mark.parametrize("code", [errno.ENOSYS, errno.ENOLCK, errno.ENOTSUP, errno.EINVAL])
def test_a_file_system_without_flock_has_locks(tmp_path, monkeypatch, code):
    fcntl = pytest.importorskip("fcntl")

    def missing(*_):
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(fcntl, "flock", missing)
    monkeypatch.setattr(folder_module, "PATIENCE", 0.1)
    folder = RunFolder(tmp_path / "run")
    for _ in range(2):
        with warns(UserWarning, folder.path, os.strerror(code), ".lock"), folder.lock():
            folder.start({"a": 1})
            with raises(ConfigMismatchError, folder.path, folder.path / ".lock"), RunFolder(folder.path).lock():
                pass
    assert not (folder.path / ".lock").exists()
    other = RunFolder(folder.path)
    with warns(UserWarning, folder.path), folder.lock(shared=True), other.lock(shared=True):
        pass


def test_a_folder_without_a_run_is_named(tmp_path):
    with raises(FileNotFoundError, tmp_path):
        RunFolder(tmp_path).read_config()


# --- rows and keys ----------------------------------------------------------------------------------------------------


def test_rows_are_numbered_through_the_shards(tmp_path):
    shards = {"b": (["x", "y"], [5.0, None]), "a": (["p", "q", "r"], [1.0, 2.0, 3.0]), "c": ([], [])}
    reader = write_entropies(RunFolder(tmp_path), shards)
    assert reader.shards == ("a", "b", "c")
    assert reader.index.offsets.tolist() == [0, 3, 5, 5]
    np.testing.assert_array_equal(reader.entropy("b"), [5.0, np.nan])
    located = [(shard, rows.tolist(), at.tolist()) for shard, rows, at in reader.index.locate(np.array([0, 2, 3, 4]))]
    assert located == [("a", [0, 2], [0, 1]), ("b", [0, 1], [2, 3])]


def test_names_of_several_shards_make_keys_with_these(tmp_path):
    once = write_entropies(RunFolder(tmp_path / "once"), {"a": (["p", "q"], [1.0, 2.0]), "b": (["r"], [3.0])})
    assert (once.key_form, once.keys("a").to_pylist(), once.keys_note()) == ("name", ["p", "q"], [])
    again = write_entropies(RunFolder(tmp_path / "again"), {"a": (["p", "q"], [1.0, 2.0]), "b": (["q"], [3.0])})
    assert (again.key_form, again.keys("b").to_pylist()) == ("shard/name", ["b/q"])
    assert (again.names("b").to_pylist(), again.as_names("b", ["b/q"])) == (["q"], ["q"])
    [note] = again.keys_note()
    assert "shard/name" in note


def test_a_folder_of_another_format_is_refused_in_one_line(tmp_path):
    folder = RunFolder(tmp_path / "run")
    folder.start({"rsprune": "0.1", "a": 1})
    config = read_json(folder.config)
    for form in (None, 7):
        other = {name: value for name, value in config.items() if name not in ("format", "digest")}
        other |= {} if form is None else {"format": form}
        write_json(folder.config, other | {"digest": digest(other)})
        with raises(FormatError, tmp_path / "run", "0.1", form or 0, FORMAT):
            RunFolder(tmp_path / "run").start({"rsprune": "0.1", "a": 1})
        with raises(FormatError, tmp_path / "run", form or 0):
            RunReader(tmp_path / "run")
        assert len(verify_run(tmp_path / "run").findings) == 1


def test_a_name_that_a_shard_repeats_makes_no_other_keys(tmp_path):
    reader = write_entropies(RunFolder(tmp_path), {"a": (["p", "p"], [1.0, None]), "b": (["q"], [3.0])})
    assert reader.key_form == "name"


SOME = st.lists(st.sampled_from([0.0, 1.0, 1.0001, 2.5, 2.50001, 7.9999, 8.0, None]), max_size=7)


@given(st.lists(SOME, min_size=1, max_size=4))
@settings(max_examples=12, deadline=None)
def test_the_cut_is_that_of_sorting_all_rows(values):
    with tempfile.TemporaryDirectory() as folder:
        shards = {f"{i:03d}": ([f"{i}-{j}" for j in range(len(part))], part) for i, part in enumerate(values)}
        reader = write_entropies(RunFolder(Path(folder) / "run"), shards)
        ranking = EntropyRanking(reader, summarize(reader))
        flat = [value for part in values for value in part]
        order = sorted((-value, row) for row, value in enumerate(flat) if value is not None)
        assert ranking.readable == len(order)
        for keep in range(1, len(order) + 1):
            cut = ranking.cut(keep=keep)
            first = dict(zip(reader.shards, reader.index.offsets.tolist(), strict=False))
            kept = [first[shard] + row for shard in reader.shards for row in cut.rows(Shard(shard)).tolist()]
            assert kept == sorted(row for _, row in order[:keep])
            assert (cut.total, cut.tau, cut.last) == (keep, -order[keep - 1][0], order[keep - 1][1])


@pytest.mark.parametrize("run", [1, 7, 10_000])
def test_a_name_in_two_shards_is_found_wherever_it_is(monkeypatch, run):
    monkeypatch.setattr(summary_module, "RUN", run)
    names = [[f"{shard}-{i}" for i in range(50)] for shard in range(6)]
    assert key_form(names) == "name"
    assert key_form(pa.chunked_array([part[:20], part[20:]]).slice(3) for part in names) == "name"
    for first, second in ((0, 5), (2, 3)):
        again = [list(part) for part in names]
        again[second][49] = again[first][0]
        assert key_form(again) == "shard/name"
    assert [key_form([]), key_form([[], ["", "a", "a"]]), key_form([[""], [""]])] == ["name", "name", "shard/name"]


# --- progress ---------------------------------------------------------------------------------------------------------


def test_json_lines_say_how_far_a_stage_is():
    out = io.StringIO()
    lines = JsonLines(out, period=0.0)
    lines.start("entropy", 10, 4)
    lines.advance(3)
    lines.advance(3)
    lines.finish()
    lines.note("a note")
    events = [json.loads(line) for line in out.getvalue().splitlines()]
    assert [event["event"] for event in events] == ["start", "progress", "progress", "finish", "note"]
    assert events[0] == {"event": "start", "stage": "entropy", "total": 10, "done": 4}
    assert [event["done"] for event in events[1:3]] == [7, 10]
    assert events[2]["seconds_left"] == 0
    assert events[3]["images"] == 6
    assert events[4]["message"] == "a note"
