"""Why images could not be read: told on the terminal and in the summary, and an error when it is all of them."""

import numpy as np
import pyarrow.parquet as pq
import pytest

from failures import raises
from rsprune.errors import EmptyInputError
from rsprune.runs.quarantine import describe_causes
from rsprune.runs.stages import embed_run, entropy_run
from small_runs import Colours, picture, small_prune, write_tar

JUNK = {f"junk-{i}.jpg": b"no image" for i in range(3)} | {"cut.jpg": picture(1)[:300]}


@pytest.fixture(scope="module")
def pool(tmp_path_factory):
    path = tmp_path_factory.mktemp("pool") / "pool.tar"
    write_tar(path, {f"{i:02d}.jpg": picture(i) for i in range(40)} | JUNK)
    return path


@pytest.fixture(scope="module")
def bad(tmp_path_factory):
    path = tmp_path_factory.mktemp("bad") / "bad.tar"
    write_tar(path, JUNK)
    return path


def test_causes_are_counted_in_the_summary_and_told(pool, tmp_path):
    run = small_prune(pool, pool, tmp_path / "run", k=3)
    causes = run.summary["causes"]
    assert [(one["stage"], one["kind"], one["images"], one["key"]) for one in causes] == [
        ("entropy", "unknown_format", 3, "junk-0"),
        ("entropy", "truncated", 1, "cut"),
    ]
    table = pq.read_table(run.path / "quarantine.parquet").to_pylist()
    for one in causes:
        same = [row for row in table if row["kind"] == one["kind"]]
        assert (len(same), same[0]["message"]) == (one["images"], one["message"])
    said = run.describe().splitlines()
    assert "unread    3  unknown format  such as junk-0" in said
    assert "unread    1  truncated       such as cut" in said
    assert f"unread    {run.path / 'quarantine.parquet'}" in said
    alone = entropy_run(pool, out=tmp_path / "entropy", progress=False)
    assert alone.metrics["causes"] == causes
    assert "unread  3  unknown format  such as junk-0" in alone.text


def test_nothing_is_said_where_all_were_read(tmp_path):
    write_tar(tmp_path / "pool.tar", {f"{i:02d}.jpg": picture(i) for i in range(20)})
    done = entropy_run(tmp_path / "pool.tar", out=tmp_path / "run", progress=False)
    assert done.metrics["causes"] == []
    assert "unread" not in done.text
    assert describe_causes({"quarantined": 0}, tmp_path) == []


def test_when_no_image_could_be_read_the_error_says_why(pool, bad, tmp_path):
    calls = {
        "prune": lambda out: small_prune(bad, pool, out, keep=1),
        "entropy": lambda out: entropy_run(bad, out=out, progress=False),
        "embed": lambda out: embed_run(bad, out=out, encoder=Colours(), progress=False),
    }
    for name, call in calls.items():
        for _ in range(2):  # the second call finds all of it done
            with raises(EmptyInputError, 4, "3 unknown format", "1 truncated", "junk-0", f"{name}/quarantine.parquet"):
                call(tmp_path / name)
        assert len(pq.read_table(tmp_path / name / "quarantine.parquet")) == 4


def test_a_command_that_could_read_nothing_ends_with_1(bad, tmp_path, command):
    done = command("entropy", bad, "--out", tmp_path / "run")
    assert done.returncode == 1
    assert done.stderr.count("\n") == 1
    assert "junk-0" in done.stderr


def test_a_summary_names_some_of_the_images_without_embedding(tmp_path, monkeypatch):
    """The encoder fails for every second one; the selection reads all of their numbers from the tables."""

    class Blind(Colours):
        def forward(self, pixels):
            rows = super().forward(pixels)
            rows[1::2] = np.nan
            return rows

    monkeypatch.setattr("rsprune.runs.stages.select.LISTED", 3)
    write_tar(tmp_path / "pool.tar", {f"{i:02d}.jpg": picture(i) for i in range(40)})
    run = small_prune(tmp_path / "pool.tar", "self", tmp_path / "run", k=2, encoder=Blind(), keep=5, entropy_keep=1)
    told = run.summary["invalid"]
    assert told["rows"] == len(run.selection.invalid) == 20
    assert told["first"] == run.selection.invalid[:3].tolist()
    labels = pq.read_table(run.path / "embeddings" / "pool.parquet")["label"].fill_null(-1).to_numpy()
    assert run.selection.invalid.tolist() == np.flatnonzero(labels < 0).tolist()
