"""Why an image was kept or dropped, against the method written out the slow way."""

import re

import numpy as np
import pyarrow as pa
import pytest

from failures import raises
from finished_run import make_rows, rank, write_run
from rsprune.errors import RspruneError, UnfinishedRunError, UnknownKeyError
from rsprune.io import write_table
from rsprune.report import explain
from rsprune.report.explain import telling_digits
from rsprune.runs.reader import RunReader
from rsprune.runs.schema import EMBEDDING_SCHEMA, ENTROPY_SCHEMA

SHARDS = {"a": 150, "b": 1, "c": 99}


@pytest.fixture
def rows():
    rows = make_rows(SHARDS, k=5, refused={3, 150, 200}, failed={0, 10, 20, 30, 40, 50, 60, 70, 80, 90})
    rows[120].key, rows[120].entropy = rows[5].key, None
    rows[120].refused = ("entropy", "duplicate", "row 5 of shard a has this key")
    return rows


@pytest.fixture
def run(tmp_path, rows):
    return write_run(tmp_path / "run", rows, k=5, budget=37)


def test_every_figure_of_every_image(rows, run):
    folder, summary = run
    ranked = rank(rows)
    valid = [i for i, r in enumerate(rows) if r.survived and r.cluster >= 0]
    asked = [i for i in range(len(rows)) if i != 120]
    for i, found in zip(asked, explain(folder.path, [rows[i].key for i in asked]), strict=True):
        row = rows[i]
        assert (found.key, found.shard, found.row) == (row.key, row.shard, row.row)
        assert found.kept == (row.phase is not None)
        assert (found.stage, found.cause, found.message) == (row.refused or (None, None, None))
        assert found.entropy == row.entropy
        assert found.entropy_rank == (ranked.index(i) + 1 if i in ranked else None)
        assert (found.ranked, found.tau) == (len(ranked), summary["tau"])
        assert found.stage_one == row.survived
        assert found.phase == (None if row.phase is None else ("quota", "fill")[row.phase])
        assert (found.quota, found.fill_cut) == (7, summary["fill_cut"])
        if i in valid:
            mates = sorted((j for j in valid if rows[j].cluster == row.cluster), key=lambda j: (-rows[j].similarity, j))
            assert (found.cluster, found.similarity) == (row.cluster, float(row.similarity))
            assert (found.cluster_rank, found.cluster_pool) == (mates.index(i) + 1, len(mates))
            assert found.quota_cut == summary["clusters"]["quota_cut"][row.cluster]
        else:
            assert (found.cluster, found.similarity, found.cluster_rank, found.cluster_pool) == (None,) * 4


def one_row(rows, **wanted):
    return next(r for r in rows if all(getattr(r, name) == value for name, value in wanted.items()))


def texts(folder, rows):
    return [found.text() for found in explain(folder, [r.key for r in rows])]


def test_text_of_each_fate(rows, run):
    folder, summary = run
    unread = rows[3]
    below = one_row(rows, survived=False, refused=None)
    failed = next(r for r in rows if r.survived and r.refused)
    by_quota, by_fill = one_row(rows, phase=0), one_row(rows, phase=1)
    missed = next(r for r in rows if r.survived and r.phase is None and not r.refused)
    text = texts(folder, [unread, below, failed, by_quota, by_fill, missed])
    cause = "in stage entropy (truncated): the data ends before the image does."
    assert text[0] == f"a/00003.png (shard a, row 3) was quarantined {cause}"
    assert "was dropped by Stage I.\n" in text[1]
    assert f"Entropy {below.entropy:.3f} bits, rank " in text[1]
    assert text[1].endswith(f"; Stage I ended at {summary['tau']:.3f}.")
    assert "was quarantined in stage embed (corrupt)" in text[2]
    assert f"; Stage I kept everything down to {summary['tau']:.3f}." in text[2]
    assert "was kept, by the quota of Stage II." in text[3]
    assert text[3].endswith(f"ended at {summary['clusters']['quota_cut'][by_quota.cluster]:.3f}.")
    assert "was kept, by the fill of Stage II." in text[4]
    assert "was dropped by Stage II." in text[5]
    cut = summary["clusters"]["quota_cut"][missed.cluster]
    assert f"Similarity {missed.similarity:.3f} to centroid {missed.cluster}, rank " in text[5]
    assert (
        f"the quota of cluster {missed.cluster} (7) ended at {cut:.3f}, the fill at {summary['fill_cut']:.3f}."
    ) in text[5]


def test_equal_figures_are_explained_by_the_order_of_rows(tmp_path):
    rows = make_rows({"a": 40}, k=1)
    for row in rows:
        row.entropy, row.similarity = 6.0, np.float32(0.5)
    folder, _ = write_run(tmp_path / "run", rows, k=1, budget=5)
    found = explain(folder, [r.key for r in rows])
    assert [one.entropy_rank for one in found] == list(range(1, 41))
    assert [one.cluster_rank for one in found[:12]] == list(range(1, 13))
    assert found[11].text().endswith("Among equal similarities the earlier rows come first.")
    assert found[12].text().endswith("images of this very entropy, but only the earlier ones.")


def test_cuts_that_similarity_did_not_make_are_not_told(tmp_path, rows):
    folder, _ = write_run(tmp_path / "run", rows, k=5, budget=37, within="far", fill="waterfill")
    missed = next(r for r in rows if r.survived and r.phase is None and not r.refused)
    (text,) = texts(folder, [missed])
    assert text.endswith("the quota (7) went by the rule 'far', and the fill by the rule 'waterfill'.")


def test_budget_below_the_number_of_clusters(tmp_path):
    rows = make_rows({"a": 100}, k=20)
    folder, summary = write_run(tmp_path / "run", rows, k=20, budget=9)
    (text,) = texts(folder, [one_row(rows, survived=True, phase=None)])
    assert text.endswith(f"the quota was 0, the fill ended at {summary['fill_cut']:.3f}.")


def test_repeated_key_means_its_first_row(rows, run):
    (found,) = explain(run[0], [rows[5].key])
    assert (found.row, found.stage) == (5, None)


def test_keys_are_answered_in_the_order_asked(rows, run):
    keys = [rows[i].key for i in (240, 7, 150, 7)]
    assert [found.key for found in explain(run[0], keys)] == keys
    assert explain(run[0], rows[7].key) == explain(run[0], [rows[7].key])
    assert explain(run[0], []) == []


def test_search_stops_at_the_last_key(rows, run, monkeypatch):
    read = []
    keys = RunReader.keys
    monkeypatch.setattr(RunReader, "keys", lambda self, name: read.append(name) or keys(self, name))
    explain(run[0], [rows[7].key])
    assert read == ["a"]


def test_unknown_key_suggests_keys_like_it(run):
    with raises(UnknownKeyError, "'c/0042.png'", "'c/00042.png'") as caught:
        explain(run[0], ["c/0042.png"])
    assert isinstance(caught.value, KeyError)
    assert isinstance(caught.value, RspruneError)


def test_unknown_key_like_no_other_is_shown_what_keys_look_like(run):
    with raises(UnknownKeyError, "'???'") as caught:
        explain(run[0], ["???"])
    assert re.search(r"'[abc]/\d{5}\.png'", str(caught.value))


def test_unknown_keys_do_not_spoil_the_others(rows, run):
    known = [rows[150].key, rows[7].key]
    with raises(UnknownKeyError, "'c/0042.png'", "'c/00042.png'", "'???'") as caught:
        explain(run[0], ["c/0042.png", known[0], "???", known[1], "???"])
    assert caught.value.keys == ("c/0042.png", "???")
    assert caught.value.explanations == explain(run[0], known)


def test_unfinished_run_is_refused(run):
    run[0].selection.unlink()
    with raises(UnfinishedRunError, "selection.parquet"):
        explain(run[0], ["a"])


def test_folder_that_is_no_run_is_refused(tmp_path):
    with raises(FileNotFoundError, tmp_path):
        explain(tmp_path, ["a"])


@pytest.mark.parametrize(
    ("values", "digits"),
    [((0.5, 0.9), 3), ((0.5, 0.5), 3), ((0.90001, 0.90002), 5), ((0.1, 0.1000001, 0.2), 7)],
)
def test_different_figures_look_different(values, digits):
    assert telling_digits(*values) == digits


def test_empty_shards_are_passed_over(tmp_path, rows):
    folder, _ = write_run(tmp_path / "run", rows, k=5, budget=37)
    for path, schema in ((folder.entropy("aa"), ENTROPY_SCHEMA), (folder.assignments("aa"), EMBEDDING_SCHEMA)):
        write_table(path, pa.table([[]] * len(schema), schema=schema), {})
        folder.complete(folder.record(path), [path])
    (found,) = explain(folder, [rows[240].key])
    assert (found.shard, found.row) == ("c", 89)
