"""The page about two choices: counts of what both and each alone keep, and no page in place of a better one."""

import re
import warnings

import pytest
from typer.testing import CliRunner

from failures import raises
from finished_run import FakeSource, make_rows, write_run
from rsprune.cli.app import app
from rsprune.errors import ArgumentError, OutputError
from rsprune.report import write_comparison, write_report

SHARDS = {"a": 220, "b": 279}


def make(path, k=6, budget=75, key=lambda shard, row: f"{shard}/<b>{row}</b>", shards=SHARDS, **options):
    rows = make_rows(shards, k=6, key=key)
    for row in rows:
        row.cluster %= k
    return write_run(path, rows, k=k, budget=budget, **options)[0], rows


def kept(rows, k=None):
    return {r.key for r in rows if r.phase is not None and k in (None, r.cluster)}


def rows_of(page):
    """Of each table, by cluster, the values of its row."""
    found = []
    for table in re.findall(r"<table.*?</table>", page.read_text(), re.DOTALL):
        bodies = re.findall(r"<tbody>(.*?)</tbody>", table, re.DOTALL)
        values = [[float(one) for one in re.findall(r'data-value="([^"]*)"', body)] for body in bodies]
        found.append({int(k): numbers for k, *numbers in values})
    return found


def text_of(page):
    return " ".join(re.sub(r"<[^>]*>", " ", page.read_text()).split())


def test_counts_are_those_of_the_sets(tmp_path):
    (one, first), (two, second) = make(tmp_path / "one", budget=75), make(tmp_path / "two", budget=30)
    page = write_comparison(one.path, two.path, source=FakeSource(first))
    assert page == one.path / "comparison.html"
    both = kept(first) & kept(second)
    assert f"one keeps 75 images, two 30. {len(both)} of them are the same" in text_of(page)
    (table,) = rows_of(page)
    for k in range(6):
        pool = sum(r.survived and r.cluster == k for r in first)
        a, b = kept(first, k), kept(second, k)
        expected = [pool, len(a), len(a) / pool, pool, len(b), len(b) / pool, len(a & b)]
        assert table[k] == pytest.approx(expected)
    assert "<b>" not in page.read_text()
    shown = set(re.findall('alt="([^"]*)"', page.read_text()))
    assert len(shown) > 16
    assert "selection.budget: 75 in one, 30 in two" in text_of(page)


def test_other_centroids_have_a_table_each(tmp_path):
    (one, first), (two, second) = make(tmp_path / "one"), make(tmp_path / "two", k=3)
    page = write_comparison(one.path, two.path, out=tmp_path / "page.html")
    tables = rows_of(page)
    assert [len(table) for table in tables] == [6, 3]
    for table, mine, other in ((tables[0], first, second), (tables[1], second, first)):
        for k, (_, count, _, both) in table.items():
            assert (count, both) == (len(kept(mine, k)), len(kept(mine, k) & kept(other)))


def test_what_has_no_shard_in_common_is_refused(tmp_path):
    one, two = make(tmp_path / "one")[0], make(tmp_path / "two", shards={"c": 90}, budget=9)[0]
    with raises(ArgumentError, one.path, two.path):
        write_comparison(one.path, two.path)


def test_no_other_file_is_replaced(tmp_path):
    one, two = make(tmp_path / "one")[0], make(tmp_path / "two", budget=30)[0]
    (tmp_path / "mine.html").write_text("<title>mine</title>")
    with raises(OutputError, tmp_path / "mine.html"):
        write_comparison(one.path, two.path, out=tmp_path / "mine.html")
    page = write_comparison(one.path, two.path)
    first = page.read_bytes()
    assert write_comparison(one.path, two.path).read_bytes() == first


def test_the_command_compares_two_runs_and_no_other_number(tmp_path):
    one, two = make(tmp_path / "one")[0], make(tmp_path / "two", budget=30)[0]
    runner = CliRunner()
    done = runner.invoke(app, ["report", "--compare", str(one.path), str(two.path)])
    assert (done.exit_code, done.stdout.strip()) == (0, str(one.path / "comparison.html"))
    for words in ([one.path, two.path], ["--compare", one.path], [one.path, "--out", tmp_path / "x.html"]):
        assert runner.invoke(app, ["report", *map(str, words)]).exit_code == 2


def test_pictures_are_not_lost_to_a_page_without_any(tmp_path):
    folder, rows = make(tmp_path / "run")
    write_report(folder, FakeSource(rows))
    page = folder.report.read_text()
    folder.report.write_text(page.replace('alt="', 'alt="other'))
    with raises(ArgumentError, folder.report):
        write_report(folder)
    some = re.search('alt="([^"]*)"', page).group(0)
    folder.report.write_text(page.replace(some, 'alt="other"'))
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        write_report(folder)
    assert [str(folder.report) in str(one.message) for one in told] == [True]
    assert folder.report.read_text().count("not readable now") > 0
