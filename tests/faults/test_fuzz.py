"""Damaged files of every kind are read or refused: `make fuzz` runs the same for as long as it is told to."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from failures import raises
from rsprune import errors
from rsprune.experiments.pool import read_classes
from rsprune.io import read_record
from rsprune.sources import open_source


@pytest.mark.parametrize("executions", [20, pytest.param(3000, marks=[pytest.mark.slow, pytest.mark.timeout(3600)])])
def test_mutations_of_files_are_read_or_refused(executions, tmp_path):
    """In a process of its own, as a crash would take this one with it."""
    driver = Path(__file__).parents[1] / "fuzzing.py"
    words = [sys.executable, "-W", "ignore", driver, "--executions", str(executions), "--findings", tmp_path]
    done = subprocess.run(words, capture_output=True, text=True, env={**os.environ, "RAYON_NUM_THREADS": "1"})
    assert done.returncode == 0, done.stdout + done.stderr[-2000:]
    assert done.stdout.count(f": {executions} executions, 0 findings") == 13


@pytest.mark.parametrize("name", ["parquet-rows", "parquet-histogram"])
def test_a_parquet_file_that_says_what_is_not_so_is_refused(name):
    """A row group of fewer rows than it names; what is said of a column, which aborts a process that asks for it."""
    path = Path(__file__).parents[1] / "found_by_fuzzing" / f"{name}.parquet"
    code = f"from rsprune.sources import open_source\ns = open_source({os.fspath(path)!r})\nlist(s.read(s.shards[0]))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 1
    assert f"FormatError: {path} is cut short or damaged" in done.stderr


def test_what_mutations_found(tmp_path):
    """Names that are no UTF-8, places before a file, half a surrogate pair, infinity, two lines, a short row."""
    with pa.ipc.new_file(str(tmp_path / "x.arrow"), (table := pa.table({"im": [{"bytes": b"x"}]})).schema) as writer:
        writer.write_table(table)
    (tmp_path / "x.arrow").write_bytes((tmp_path / "x.arrow").read_bytes().replace(b"bytes", b"\xffytes"))
    with raises(errors.FormatError, tmp_path / "x.arrow"):
        open_source(str(tmp_path / "x.arrow")).total()
    np.savez(tmp_path / "x.npz", images=np.zeros((2, 4, 4), np.uint8))
    content = bytearray((tmp_path / "x.npz").read_bytes())
    end = content.rindex(b"PK\x05\x06")
    content[end + 12 : end + 20] = content[end + 12 : end + 16] + (10**6).to_bytes(4, "little")
    (tmp_path / "x.npz").write_bytes(content)
    with raises(errors.FormatError, tmp_path / "x.npz"):
        open_source(str(tmp_path / "x.npz"))
    (tmp_path / "x.txt").write_text('"\\ud800.jpg"\n')
    with raises(FileNotFoundError, tmp_path / "x.txt"):
        open_source(str(tmp_path / "x.txt"))
    (tmp_path / "long.txt").write_text("x" * 10_000 + ".jpg")
    with raises(FileNotFoundError, tmp_path / "long.txt") as caught:
        open_source(str(tmp_path / "long.txt"))
    assert len(str(caught.value)) <= errors.LONGEST_MESSAGE
    (tmp_path / "x.json").write_text('{"files": {}, "a": "\\ud800", "digest": ""}')
    with raises(errors.DamagedFileError, tmp_path / "x.json"):
        read_record(tmp_path / "x.json")
    for value in ("1e999", "-1e999", "NaN", "Infinity"):
        (tmp_path / "x.json").write_text('{"files": {}, "digest": "", "a": ' + value + "}")
        with raises(errors.DamagedFileError, tmp_path / "x.json"):
            read_record(tmp_path / "x.json")
    (tmp_path / "x.csv").write_text('n,path\na,"x\ny.jpg"\n')
    with raises(FileNotFoundError, tmp_path / "x.csv") as caught:
        open_source(str(tmp_path / "x.csv"))
    assert "\n" not in str(caught.value)
    (tmp_path / "x.csv").write_text("name,kind\na,even\nb\n")
    classes, names = read_classes(tmp_path / "x.csv", ["a", "b"], "name", "kind")
    assert (classes.tolist(), names) == ([0, -1], ["even"])
