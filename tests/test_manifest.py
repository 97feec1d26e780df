"""Run folders: atomic writes, provenance, the pool of Stage I, refusals."""

import io
import json
import threading
import time

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from failures import raises
from rsprune.errors import ConfigMismatchError, FormatError
from rsprune.io import atomic_write, digest, read_json, read_provenance, read_table, write_json, write_table
from rsprune.runners import JsonLines, run_shards
from rsprune.runs import folder as folder_module
from rsprune.runs.folder import RunFolder
from rsprune.runs.reader import keys_of, read_pool
from rsprune.runs.schema import ENTROPY_SCHEMA


def write_entropies(folder: RunFolder, shard: str, keys: list[str], entropies: list[float | None]) -> None:
    rows = [{"key": key, "entropy": h, "kind": None, "message": None} for key, h in zip(keys, entropies, strict=True)]
    write_table(folder.entropy(shard), pa.Table.from_pylist(rows, schema=ENTROPY_SCHEMA), {"made": "by hand"})


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


def test_a_lock_that_its_holder_removed_is_none(tmp_path):
    place = tmp_path / ".lock"
    with place.open("w") as file:
        place.unlink()
        assert not folder_module.take_lock(file, place)
        with place.open("w") as other:
            assert not folder_module.take_lock(file, place)
            assert folder_module.take_lock(other, place)


def test_a_folder_without_a_run_is_named(tmp_path):
    with raises(FileNotFoundError, tmp_path):
        RunFolder(tmp_path).read_config()


# --- the pool ---------------------------------------------------------------------------------------------------------


def test_the_pool_numbers_rows_through_the_shards(tmp_path):
    folder = RunFolder(tmp_path)
    write_entropies(folder, "b", ["x", "y"], [5.0, None])
    write_entropies(folder, "a", ["p", "q", "r"], [1.0, 2.0, 3.0])
    write_entropies(folder, "c", [], [])
    pool = read_pool(folder)
    assert pool.shards == ("a", "b", "c")
    assert pool.offsets.tolist() == [0, 3, 5, 5]
    np.testing.assert_array_equal(pool.entropy, [1.0, 2.0, 3.0, 5.0, np.nan])
    assert pool.rows_of("b") == slice(3, 5)
    shard, row = pool.locate(np.array([0, 2, 3, 4]))
    assert shard.tolist() == [0, 0, 1, 1]
    assert row.tolist() == [0, 2, 0, 1]
    assert keys_of(folder, pool, np.array([1, 2, 4])) == ["q", "r", "y"]
    assert keys_of(folder, pool, np.array([], np.int64)) == []


def test_repeated_keys_are_found_within_and_across_shards(tmp_path):
    folder = RunFolder(tmp_path)
    write_entropies(folder, "a", ["p", "q", "p"], [1.0, 2.0, 3.0])
    write_entropies(folder, "b", ["q", "r", "p"], [4.0, 5.0, 6.0])
    pool = read_pool(folder)
    assert pool.duplicates.tolist() == [2, 3, 5]
    np.testing.assert_array_equal(pool.entropy, [1.0, 2.0, np.nan, np.nan, 5.0, np.nan])


def test_equal_hashes_of_different_keys_are_no_repeats(tmp_path, monkeypatch):
    folder = RunFolder(tmp_path)
    write_entropies(folder, "a", ["p", "q", "r", "q"], [1.0, 2.0, 3.0, 4.0])
    monkeypatch.setattr("rsprune.runs.reader.hash", lambda key: 7, raising=False)
    assert read_pool(folder).duplicates.tolist() == [3]


def test_an_empty_pool_is_empty(tmp_path):
    pool = read_pool(RunFolder(tmp_path))
    assert len(pool) == 0
    assert pool.duplicates.tolist() == []


# --- runners ----------------------------------------------------------------------------------------------------------


def test_shards_that_are_done_are_skipped(tmp_path):
    done = []

    def work(shard):
        done.append(shard)
        write_json(tmp_path / shard, {})

    write_json(tmp_path / "b", {})
    run_shards(["a", "b", "c"], lambda shard: tmp_path / shard, work)
    assert done == ["a", "c"]


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
