"""The page of a finished run: right figures, no way out of it for what the keys say, the same bytes each time."""

import base64
import hashlib
import io
import re
import shutil
from html.parser import HTMLParser
from xml.etree import ElementTree

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from failures import raises
from finished_run import FakeSource, make_rows, rank, write_run
from rsprune import _core, charts
from rsprune.errors import KeyMismatchError, UnfinishedRunError
from rsprune.report import write_report
from rsprune.report.gallery import LARGE, SMALL
from rsprune.report.stages import merge_bins, round_values
from rsprune.report.statistics import KEPT_SHOWN, RANDOM_SHOWN, STRIP, run_statistics
from rsprune.report.words import percent
from rsprune.runs.folder import RunFolder
from rsprune.runs.reader import RunReader
from rsprune.sources import Item

SHARDS = {"a": 220, "b": 1, "c.part": 279}


@pytest.fixture
def rows():
    return make_rows(SHARDS, k=6, refused={3, 220, 400}, failed=set(range(0, 500, 17)))


@pytest.fixture
def folder(tmp_path, rows):
    return write_run(tmp_path / "run", rows, k=6, budget=75)[0]


class Page(HTMLParser):
    """What a browser would make of the page: its elements, in order, and its text."""

    VOID = ("meta", "img", "br", "input")

    def __init__(self, folder):
        super().__init__()
        self.elements, self.open, self.words = [], [], []
        self.feed(folder.report.read_text(encoding="utf-8"))
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if self.open and self.open[-1] not in ("style", "script"):
            self.words.append(data)

    @property
    def text(self):
        return " ".join("".join(self.words).split())

    def all(self, tag):
        return [attrs for name, attrs in self.elements if name == tag]


# --- figures ----------------------------------------------------------------------------------------------------------


def test_headline_and_funnel_count_every_step(folder):
    write_report(folder)
    text = Page(folder).text
    assert "75 of 500 images kept (15.0 %)" in text
    for step in ("images500in all", "read49799.4 %", "Stage I15030.0 %", "kept7515.0 %"):
        assert step in text


@pytest.mark.parametrize("seed", range(5))
def test_histograms_count_as_a_loop_does(tmp_path, seed):
    rows = make_rows(SHARDS, k=6, seed=seed, refused={1, 2}, failed={5, 80, 300})
    folder, summary = write_run(tmp_path / "run", rows, k=6, budget=75)
    counts = run_statistics(RunReader(folder))
    entropy, similarity = np.zeros((2, 80), int), np.zeros((3, 400), int)
    for i in rank(rows):
        r = rows[i]
        entropy[0 if r.survived else 1, min(int(r.entropy / 0.1), 79)] += 1
        if r.survived and r.cluster >= 0:
            similarity[2 if r.phase is None else r.phase, min(int((float(r.similarity) + 1) / 0.005), 399)] += 1
    assert counts.ranked == len(rank(rows)) == 498
    np.testing.assert_array_equal(counts.entropy, entropy)
    np.testing.assert_array_equal(counts.similarity, similarity)
    assert similarity.sum() == sum(summary["clusters"]["pool"])


def test_pictures_are_the_extremes_of_all_shards(folder, rows):
    counts = run_statistics(RunReader(folder))
    ranked = rank(rows)
    dropped = [i for i in ranked if not rows[i].survived]
    missed = [i for i in ranked if rows[i].survived and rows[i].cluster >= 0 and rows[i].phase is None]
    assert [p.number for p in counts.lowest_entropy] == sorted(dropped, key=lambda i: (rows[i].entropy, i))[:8]
    assert [p.number for p in counts.nearly_kept] == dropped[:8]
    assert [p.number for p in counts.least_similar] == sorted(missed, key=lambda i: (rows[i].similarity, i))[:16]
    for example in counts.least_similar:
        row = rows[example.number]
        figures = (row.shard, row.row, row.entropy, row.cluster, float(row.similarity))
        assert (example.shard, example.row, example.entropy, example.cluster, example.similarity) == figures


def test_kept_pictures_go_round_the_clusters_from_the_largest(tmp_path, rows):
    folder, summary = write_run(tmp_path / "other", rows, k=6, budget=75)
    examples = run_statistics(RunReader(folder)).kept_in_turn
    pool = summary["clusters"]["pool"]
    order = sorted((k for k in range(6) if pool[k]), key=lambda k: (-pool[k], k))
    nearest = {
        k: sorted(
            (i for i, r in enumerate(rows) if r.phase is not None and r.cluster == k),
            key=lambda i: (
                -rows[i].similarity,
                i,
            ),
        )
        for k in order
    }
    turns = [nearest[k][turn] for turn in range(4) for k in order if turn < len(nearest[k])]
    assert [p.number for p in examples] == turns[:KEPT_SHOWN]


def test_strips_are_the_edges_of_each_cluster(tmp_path, rows):
    folder, _ = write_run(tmp_path / "other", rows, k=6, budget=75)
    strips = run_statistics(RunReader(folder)).strips
    assert set(strips) == set(range(6))
    for k, strip in strips.items():
        mine = [i for i, r in enumerate(rows) if r.survived and r.cluster == k]
        nearest = sorted(mine, key=lambda i: (-rows[i].similarity, i))
        kept = [i for i in nearest if rows[i].phase is not None]
        farthest = sorted(kept, key=lambda i: (rows[i].similarity, i))
        assert [e.number for e in strip.nearest] == kept[: STRIP[0]]
        assert [e.number for e in strip.last_kept] == [i for i in farthest if i not in kept[: STRIP[0]]][: STRIP[1]]
        assert [e.number for e in strip.first_dropped] == [i for i in nearest if i not in kept][: STRIP[2]]


def test_random_examples_are_drawn_from_all_and_by_the_seed_alone(tmp_path):
    pages = []
    for name, shards in (("one", {"a": 2000}), ("two", {"a": 700, "b": 1300})):
        rows = make_rows(shards, k=4)
        counts = run_statistics(RunReader(write_run(tmp_path / name, rows, k=4, budget=400)[0]))
        pages.append([[example.number for example in some] for some in (counts.random_kept, counts.random_dropped)])
        kept, dropped = pages[-1]
        assert len(kept) == len(dropped) == RANDOM_SHOWN
        assert all(rows[i].phase is not None for i in kept)
        assert all(rows[i].phase is None for i in dropped)
        assert 600 < np.mean(kept + dropped) < 1400  # of 0 to 1999
    assert pages[0] == pages[1]


def test_every_number_of_the_table_is_that_of_the_summary(folder):
    write_report(folder)
    clusters = RunReader(folder).summary["clusters"]
    found = {}
    for body in re.findall(r"<tbody>\n<tr><th scope=\"row\" .*?</tbody>", folder.report.read_text(), re.DOTALL):
        k, *numbers = re.findall(r'data-value="([^"]*)"', body)
        found[int(k)] = [float(number) for number in numbers]
    assert len(found) == 6
    for k, (pool, quota, fill, kept, share, cut) in found.items():
        assert (pool, quota, fill) == tuple(clusters[name][k] for name in ("pool", "quota", "fill"))
        assert kept == quota + fill
        assert share == pytest.approx(kept / pool)
        assert cut == (-2 if clusters["quota_cut"][k] is None else clusters["quota_cut"][k])


def test_figures_do_not_depend_on_the_shards(tmp_path):
    one, two = (make_rows(shards, k=4, failed={7}) for shards in ({"a": 300}, {"a": 100, "b": 150, "c": 50}))
    counts = [
        run_statistics(RunReader(write_run(tmp_path / n, r, k=4, budget=40)[0]))
        for n, r in (("one", one), ("two", two))
    ]
    np.testing.assert_array_equal(counts[0].entropy, counts[1].entropy)
    np.testing.assert_array_equal(counts[0].similarity, counts[1].similarity)
    numbers = [[p.number for p in c.kept_in_turn + c.lowest_entropy + c.least_similar] for c in counts]
    assert numbers[0] == numbers[1]


def test_repeated_keys_are_no_part_of_stage_one(tmp_path):
    rows = make_rows({"a": 60}, k=2)
    rows[50].entropy, rows[50].refused = None, ("entropy", "duplicate", "row 10 of shard a has this key")
    folder, _ = write_run(tmp_path / "run", rows, k=2, budget=8)
    assert run_statistics(RunReader(folder)).ranked == 59


@pytest.mark.parametrize(
    ("shards", "k", "budget"),
    [({"a": 1}, 1, 1), ({"a": 40}, 1, 6), ({"a": 900, "b": 900}, 1000, 180), ({"a": 300}, 50, 45), ({"a": 20}, 3, 0)],
    ids=["one image", "one cluster", "1000 clusters", "budget below K", "nothing kept"],
)
def test_every_size_of_run_has_a_page(tmp_path, shards, k, budget):
    rows = make_rows(shards, k=k)
    folder, summary = write_run(tmp_path / "run", rows, k=k, budget=budget)
    write_report(folder, FakeSource(rows))
    page = Page(folder)
    assert f"{summary['selected']:,} of {len(rows):,} image" in page.text
    assert "Every image could be read." in page.text
    charts_of_page = 8 + (k > 2)  # the funnel, three charts, the stretched part of each, and a map of three points
    assert len(page.all("svg")) == charts_of_page


def test_clusters_that_are_empty_or_small_are_told_in_words(tmp_path):
    rows = make_rows({"a": 100}, k=4)
    for i, row in enumerate(rows):
        row.cluster, row.entropy = (0 if i < 20 else 2 if i < 22 else 3), 7.0
    folder, _ = write_run(tmp_path / "run", rows, k=4, budget=20, keep=0.5)
    write_report(folder)
    text = Page(folder).text
    assert "1 of 4 clusters (25.0 %) is empty. 1 (25.0 %) has fewer images than the quota of 5, and gave all." in text
    assert "left 8 places of their quotas open. The fill kept 8 images." in text


@pytest.mark.parametrize("within", ["nearest", "random", "mid", "far"])
@pytest.mark.parametrize("fill", ["global", "waterfill", "zscore", "none"])
def test_similarity_cut_is_shown_only_where_similarity_decided(tmp_path, rows, within, fill):
    folder, _ = write_run(tmp_path / "run", rows, k=6, budget=75, within=within, fill=fill)
    write_report(folder)
    assert ("fill ended at" in Page(folder).text) == (within == "nearest" and fill == "global")


# --- the page as a document -------------------------------------------------------------------------------------------


def test_page_loads_nothing_and_runs_its_own_script_alone(folder, rows):
    write_report(folder, FakeSource(rows))
    page, text = Page(folder), folder.report.read_text()
    assert not {"link", "iframe", "object"} & {tag for tag, _ in page.elements}
    assert all(attrs["href"].startswith("#") for attrs in page.all("a"))
    assert all(attrs["src"].startswith("data:image/jpeg;base64,") for attrs in page.all("img"))
    assert "url(" not in text
    assert "style" not in {name for _, attrs in page.elements for name in attrs}
    policy = next(attrs["content"] for attrs in page.all("meta") if "http-equiv" in attrs)
    rules = dict(rule.strip().split(" ", 1) for rule in policy.split(";"))
    for tag, rule in (("style", "style-src"), ("script", "script-src")):
        (inside,) = re.findall(rf"<{tag}>(.*?)</{tag}>", text, re.DOTALL)
        digest = base64.b64encode(hashlib.sha256(inside.encode()).digest()).decode()
        assert rules.pop(rule) == f"'sha256-{digest}'"
    assert rules == {"default-src": "'none'", "img-src": "data:"}


def test_page_is_readable_without_eyes(folder, rows):
    write_report(folder, FakeSource(rows))
    page = Page(folder)
    ids = [attrs["id"] for _, attrs in page.elements if "id" in attrs]
    assert len(ids) == len(set(ids))
    charts_of_page = [attrs for attrs in page.all("svg") if "role" in attrs]
    assert len(charts_of_page) == 5
    for attrs in charts_of_page:
        assert set(attrs["aria-labelledby"].split()) <= set(ids)
    assert all(attrs["alt"] for attrs in page.all("img"))


HOSTILE = "</title><script>alert(1)</script>\"'><img src=x onerror=alert(2)>&lt;{shard}{row}"


def test_keys_cannot_write_html(tmp_path):
    rows = make_rows(
        {"s": 120}, k=3, refused={4}, key=lambda shard, row: HOSTILE.replace("{shard}{row}", f"{shard}{row}")
    )
    rows[4].refused = ("entropy", "<b>kind", "<script>message</script>")
    folder, _ = write_run(tmp_path / "run", rows, k=3, budget=18, encoder="<script>encoder</script>")
    write_report(folder, FakeSource(rows))
    page = Page(folder)
    assert len(page.all("script")) == 2  # its own, and the data of the map
    assert not page.all("b")
    assert not any("onerror" in attrs for _, attrs in page.elements)
    for told in (HOSTILE.replace("{shard}{row}", "s4"), "<script>message</script>", "<script>encoder</script>"):
        assert told in page.text


def test_same_run_gives_the_same_bytes_wherever_it_lies(folder, rows, tmp_path):
    write_report(folder, FakeSource(rows))
    first = folder.report.read_bytes()
    shutil.copytree(folder.path, tmp_path / "elsewhere")
    again = RunFolder(tmp_path / "elsewhere")
    write_report(again, FakeSource(rows))
    assert again.report.read_bytes() == first
    assert str(tmp_path).encode() not in first


def test_quarantine_counts_all_causes_and_lists_the_first(tmp_path):
    rows = make_rows({"a": 300}, k=3, refused=set(range(100, 170)))
    folder, _ = write_run(tmp_path / "run", rows, k=3, budget=20)
    write_report(folder)
    page = Page(folder)
    assert "70 images (23.3 %) could not be used" in page.text
    assert "The first 50" in page.text
    assert "a/00149.png" in page.text
    assert "a/00150.png" not in page.text


def test_provenance_names_what_made_the_run(folder):
    write_report(folder)
    text = Page(folder).text
    for fact in ("made-up", "ab" * 32, "rsprune-core 0.1.0", "K = 6, seed 7", '{"side": 224}', '"gray": "bt601"'):
        assert fact in text


def test_unfinished_run_is_refused(folder):
    folder.summary.unlink()
    with raises(UnfinishedRunError, "summary.json"):
        write_report(folder)


def test_folder_that_is_no_run_is_refused(tmp_path):
    with raises(FileNotFoundError, tmp_path):
        write_report(RunFolder(tmp_path))


# --- thumbnails -------------------------------------------------------------------------------------------------------


def test_only_the_images_shown_are_read(folder, rows):
    source = FakeSource(rows)
    write_report(folder, source)
    counts = run_statistics(RunReader(folder))
    named = (counts.kept_in_turn, counts.random_kept, counts.random_dropped)
    extremes = (counts.lowest_entropy, counts.nearly_kept, counts.least_similar)
    strips = [part for strip in counts.strips.values() for part in vars(strip).values()]
    flagged = [one.examples for one in counts.quality]
    examples = {example for some in (*named, *extremes, *strips, *flagged) for example in some}
    assert sorted(source.reads) == sorted({(example.shard, example.row) for example in examples})


def test_thumbnails_are_small_and_of_the_right_image(folder, rows):
    write_report(folder, FakeSource(rows))
    images = Page(folder).all("img")
    sides = [int(attrs["width"]) for attrs in images]
    assert sides.count(LARGE) == 24 + 16 + 16 + 2 * RANDOM_SHOWN
    assert sides.count(SMALL) > 24
    number = {row.key: row.row for row in rows}
    for attrs in images:
        picture = Image.open(io.BytesIO(base64.b64decode(attrs["src"].partition(",")[2])))
        side = int(attrs["width"])
        assert (picture.format, picture.size) == ("JPEG", (2 * side, side))
        red, green, _ = picture.getpixel((side, side // 2))
        assert abs(red - number[attrs["alt"]] % 256) <= 3
        assert abs(green - number[attrs["alt"]] // 256) <= 3


@pytest.mark.parametrize("bands", [1, 2, 4])
def test_any_number_of_bands_has_a_thumbnail(folder, rows, bands, monkeypatch):
    monkeypatch.setattr(_core, "decode_images", lambda items, **_: ([np.zeros((8, 8, bands), np.uint8)], []))
    write_report(folder, FakeSource(rows))
    assert len(Page(folder).all("img")) > 88


def test_decoder_is_given_the_options_of_the_run(folder, rows, monkeypatch):
    given = []
    monkeypatch.setattr(_core, "decode_images", lambda items, **options: given.append(options) or ([None], []))
    write_report(folder, FakeSource(rows))
    assert given[0] == {"bands": [0, 1, 2], "valid_range": None, "max_pixels": 10**8, "max_bytes": None, "threads": 1}


def test_without_images_the_page_says_so(folder, rows):
    class Gone(FakeSource):
        def read(self, shard, rows=None):
            raise FileNotFoundError(shard.name)

    for source in (None, Gone(rows), FakeSource([])):
        write_report(folder, source)
        page = Page(folder)
        assert "not at hand" in page.text
        assert not page.all("img")


def test_a_page_keeps_its_pictures_without_the_images(tmp_path):
    rows = make_rows(SHARDS, k=6, key=lambda shard, row: f'{shard}/"{row}" & <b>.png')
    folder, _ = write_run(tmp_path / "run", rows, k=6, budget=75)
    write_report(folder, FakeSource(rows))
    first = folder.report.read_bytes()
    assert len(Page(folder).all("img")) > 88
    write_report(folder)
    assert folder.report.read_bytes() == first


def test_image_that_changed_since_is_not_shown_as_another(folder, rows):
    class Changed(FakeSource):
        def read(self, shard, rows=None):
            for item in super().read(shard, rows):
                yield item if shard.name == "a" else Item("another", item.data)

    with raises(KeyMismatchError, folder.path, "'another'"):
        write_report(folder, Changed(rows))


# --- charts -----------------------------------------------------------------------------------------------------------


def draw(*series, **options):
    count = len(series[0])
    defaults = {"labels": [f"<{i}>" for i in range(count)], "ticks": [(0.0, "<"), (1.0, "&")], "axis": "<axis>"}
    styled = [charts.Series(f"s{i}", "<&>", values) for i, values in enumerate(series)]
    return ElementTree.fromstring(charts.columns("x", "<title>", "<desc>", styled, **(defaults | options)))


def tops(path):
    """The height of each column that a path draws, in thousandths of the plot."""
    return [1000 - int(part.partition("h")[0]) for part in path.get("d").split("V")[1:] if "h" in part]


@given(st.lists(st.tuples(st.integers(0, 10**7), st.integers(0, 10**7)), min_size=1, max_size=150))
def test_columns_are_stacked_to_scale(values):
    low, high = zip(*values, strict=True)
    svg = draw(low, high)
    shapes = {path.get("class"): path.get("d") for path in svg.iter("path")}
    assert list(shapes) == ["s1", "s0"]  # the whole stack lies behind its lower part
    drawn = tops(svg.find(".//path[@class='s1']"))
    sums = [a + b for a, b in values]
    if len(values) <= charts.GAPS_UP_TO:
        sums = [one for one in sums if one]
    assert len(drawn) == len(sums)
    step = charts.count_step(max([1, *sums]))
    top = step * -(-max([1, *sums]) // step)
    for height, one in zip(drawn, sums, strict=True):
        assert height == pytest.approx(1000 * one / top, abs=0.5) or (one and height == charts.THINNEST)


def test_chart_escapes_and_explains_itself():
    svg = draw([1, 0], [2, 0], mark=(0.2, "<mark>"), level=(2, "<level>"))
    text = "".join(svg.itertext())
    for word in ("<title>", "<desc>", "<axis>", "<mark>", "<level>", "<0>: 1 <&>, 2 <&>"):
        assert word in text
    assert len(svg.findall(".//rect")) == 1  # an empty column has nothing to tell


@given(st.integers(1, 10**12))
def test_axis_has_at_most_five_round_steps(highest):
    step = charts.count_step(highest)
    assert highest / step <= 5
    assert str(step).rstrip("0") in ("1", "2", "5")
    assert all(len(charts.compact(step * i)) <= 5 for i in range(6) if step * i < 10**12)


def test_funnel_narrows_as_the_numbers_do():
    steps = [("a", 1000, "x"), ("b", 500, "y"), ("c", 1, "<z>")]
    svg = ElementTree.fromstring(charts.funnel("f", "title", steps))
    paths = [path.get("d") for path in svg.iter("path") if path.get("class") != "lost"]
    widths = [int(d.split("V")[1].split("H")[0]) - int(d.split("C")[1].split("H")[0].split()[-1]) for d in paths]
    assert widths == [1000, 500, 8]
    assert "<z>" in "".join(svg.itertext())


@given(st.lists(st.tuples(st.integers(0, 399), st.integers(1, 9)), max_size=20))
def test_merged_bins_lose_nobody(filled):
    counts = np.zeros((3, 400), np.int64)
    for at, number in filled:
        counts[at % 3, at] += number
    start, step, merged = merge_bins(counts)
    np.testing.assert_array_equal(merged.sum(axis=1), counts.sum(axis=1))
    assert merged.shape[1] <= 60
    assert start >= -1.0
    assert start + step * merged.shape[1] <= 1.0 + 1e-9
    assert 1 <= len(round_values(start, start + step * merged.shape[1])) <= 9


@pytest.mark.parametrize(
    ("part", "whole", "words"),
    [(0, 0, "0 %"), (0, 5, "0.0 %"), (5, 5, "100.0 %"), (1, 10**6, "under 0.1 %"), (10**6 - 1, 10**6, "over 99.9 %")],
)
def test_a_share_is_never_rounded_to_none_or_all(part, whole, words):
    assert percent(part, whole) == words
