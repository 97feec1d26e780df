"""The report in a browser: no error, no request, and what can be done with it by mouse and by keyboard."""

import json
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from finished_run import FakeSource, make_rows, write_run
from rsprune.cli.app import app
from rsprune.report import write_comparison, write_report
from small_runs import small_prune

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]

WIDTHS = {"desktop": 1280, "phone": 390}
HOSTILE = "</title><script>window.hacked = 1</script>\"'><img src=x onerror='window.hacked=1'>&lt;"


@pytest.fixture(scope="session")
def browser():
    from playwright.sync_api import sync_playwright

    path = shutil.which("chromium") or shutil.which("google-chrome")
    assert path is not None, "needs chromium: apt-get install chromium"
    with sync_playwright() as playwright:
        started = playwright.chromium.launch(executable_path=path, args=["--no-sandbox"])
        yield started
        started.close()


@pytest.fixture(scope="session")
def pages(tmp_path_factory):
    """A page made of random numbers with keys that are no friends, and of real images the demo and a run on a pool."""
    folder = tmp_path_factory.mktemp("pages")

    def random_rows(**options):
        return make_rows({"a": 900, "b": 700}, k=30, key=lambda shard, row: f"{HOSTILE}{shard}{row}", **options)

    rows = random_rows(refused={4, 90})
    made = {}
    run, _ = write_run(folder / "small", rows, k=30, budget=240)
    made["small"] = write_report(run, FakeSource(rows))
    other, _ = write_run(folder / "other", random_rows(), k=30, budget=90)
    made["comparison"] = write_comparison(run.path, other.path, source=FakeSource(rows))
    cut = CliRunner().invoke(app, ["demo", "--out", str(folder / "demo"), "--quiet"])
    assert cut.exit_code == 0, cut.output
    made["demo"] = folder / "demo" / "run" / "report.html"
    if data := os.environ.get("RSPRUNE_DATA"):
        pool = [Path(data) / f"pool-0000{i}.tar" for i in (0, 3)]
        settings = {"k": 30, "keep": 0.1, "entropy_keep": 0.3, "keep_embeddings": True}
        made["pool"] = small_prune(pool, Path(data) / "reference_aid_128.tar", folder / "pool", **settings).report
    return made


@pytest.fixture
def visit(browser, pages):
    """Open a page: visit(name, width, scheme) gives it, and fails at its end if it has logged or asked for anything."""
    contexts, told = [], []

    def open_page(name="small", width="desktop", scheme="light", **options):
        size = {"width": WIDTHS[width], "height": 900}
        contexts.append(browser.new_context(viewport=size, color_scheme=scheme, **options))
        page = contexts[-1].new_page()
        page.on("console", lambda message: told.append(message.text))
        page.on("pageerror", lambda error: told.append(str(error)))
        page.on("requestfailed", lambda request: told.append(request.url))
        address = pages[name].as_uri()
        page.on("request", lambda request: told.append(request.url) if request.url[:5] != "data:" else None)
        page.goto(address)
        assert told.pop(0) == address
        return page

    open_page.told = told
    yield open_page
    for context in contexts:
        context.close()
    assert told == []


NAMES = ["small", "comparison", "demo", *(["pool"] if "RSPRUNE_DATA" in os.environ else [])]


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("name", NAMES)
def test_pages_fit_and_are_accessible(visit, name, width, scheme):
    from axe_playwright_python.sync_playwright import Axe

    page = visit(name, width, scheme)
    assert page.evaluate("document.documentElement.scrollWidth") == WIDTHS[width]
    assert page.evaluate("window.hacked") is None
    assert page.evaluate("[...document.images].every((image) => image.naturalWidth > 0)")
    found = Axe().run(page).response
    assert {"color-contrast", "image-alt", "label", "svg-img-alt"} <= {one["id"] for one in found["passes"]}
    serious = [
        (one["id"], one["nodes"][0]["html"]) for one in found["violations"] if one["impact"] in ("serious", "critical")
    ]
    assert serious == []


def test_no_other_script_runs(visit):
    page = visit()
    page.evaluate("""() => {
        const script = document.createElement("script");
        script.textContent = "window.hacked = 1";
        document.body.append(script);
    }""")
    assert page.evaluate("window.hacked") is None
    refused = visit.told.pop()
    assert "Content Security Policy" in refused


def numbers(page, column):
    rows = page.locator("#cluster-table tbody tr:first-child")
    return [float(row.locator("> *").nth(column).get_attribute("data-value")) for row in rows.all()]


def test_the_table_is_sorted_by_mouse_and_by_keyboard(visit):
    page = visit()
    heads = page.locator("#cluster-table thead th")
    for column in range(heads.count()):
        head = heads.nth(column)
        before = sorted(numbers(page, column))
        head.locator("button").click()
        assert numbers(page, column) == (before if column == 0 else before[::-1])
        head.locator("button").focus()
        page.keyboard.press("Enter")
        assert numbers(page, column) == (before[::-1] if column == 0 else before)
        assert head.get_attribute("aria-sort") == ("descending" if column == 0 else "ascending")
    assert page.locator("[aria-sort]").count() == 1


def test_the_table_is_searched(visit):
    page = visit()
    search = page.get_by_label("Search")
    search.fill("cluster 1")
    shown = [row for row in page.locator("#cluster-table tbody").all() if row.is_visible()]
    assert len(shown) == 11  # 1 and 10 to 19
    assert page.locator("#cluster-count").inner_text() == "11 of 30 clusters"
    key = page.locator("#cluster-table img").nth(20).get_attribute("alt")
    search.fill(key)
    assert page.locator("#cluster-table tbody:visible").count() >= 1
    search.fill("no such cluster")
    assert page.locator("#cluster-table tbody:visible").count() == 0


@pytest.fixture
def atlas(visit):

    def open_map(width):
        page = visit("demo", width)
        points = json.loads(page.locator("#map-data").text_content())["points"]
        canvas = page.locator("#map-box canvas")
        canvas.scroll_into_view_if_needed()
        frame = canvas.bounding_box()
        scale = frame["width"] / 1000

        def place(point):
            bottom = frame["y"] + frame["height"]
            return frame["x"] + point["x"] * scale, bottom - (640 - point["y"]) * scale

        return page, points, place

    return open_map


def lonely(points):
    """The point that is farthest from all others."""
    places = np.array([[point["x"], point["y"]] for point in points])
    far = np.linalg.norm(places[:, None] - places[None], axis=2)
    np.fill_diagonal(far, np.inf)
    return int(far.min(axis=1).argmax())


@pytest.mark.parametrize("width", WIDTHS)
def test_the_map_answers_to_the_mouse(atlas, width):
    page, points, place = atlas(width)
    tip, keys = page.locator("#map-tip"), page.locator("#map-keys")
    assert tip.is_hidden()
    assert keys.is_hidden()
    one = points[lonely(points)]
    page.mouse.move(*place(one))
    assert one["key"] in tip.inner_text()
    assert one["text"] in tip.inner_text()
    page.mouse.click(*place(one))
    assert keys.input_value() == (one["key"] or one["text"])
    page.mouse.click(*place(one))
    assert keys.is_hidden()
    # A path around all.
    corners = [{"x": 1, "y": 1}, {"x": 999, "y": 1}, {"x": 999, "y": 639}, {"x": 1, "y": 639}]
    page.mouse.move(*place(corners[0]))
    page.mouse.down()
    for corner in corners[1:]:
        page.mouse.move(*place(corner), steps=5)
    page.mouse.up()
    assert keys.input_value().splitlines() == [point["key"] or point["text"] for point in points]
    assert page.locator("#map-count").inner_text() == str(len(points))


def test_the_map_answers_to_the_keyboard(atlas):
    page, points, _ = atlas("desktop")
    known = {point["key"]: point for point in points}
    tip, keys = page.locator("#map-tip"), page.locator("#map-keys")
    page.locator("#map-box").focus()
    page.keyboard.press("ArrowRight")
    first = tip.inner_text().splitlines()[0]
    for arrow, axis, sign in (
        ("ArrowRight", "x", 1),
        ("ArrowLeft", "x", -1),
        ("ArrowUp", "y", -1),
        ("ArrowDown", "y", 1),
    ):
        before = known[tip.inner_text().splitlines()[0]]
        page.keyboard.press(arrow)
        after = known[tip.inner_text().splitlines()[0]]
        assert sign * (after[axis] - before[axis]) > 0
    page.keyboard.press("Enter")
    assert keys.input_value() == tip.inner_text().splitlines()[0]
    page.keyboard.press("Escape")
    assert keys.is_hidden()
    assert first in known


def test_numbers_in_the_head_are_those_of_the_summary(visit, pages):
    page = visit("demo")
    summary = json.loads((pages["demo"].parent / "summary.json").read_text())
    figures = [int(one.text_content().replace(",", "")) for one in page.locator(".funnel .figure").all()]
    assert figures == [summary["images"], summary["images"], summary["survivors"], summary["selected"]]
    rows = {
        int(k): [float(one) for one in values]
        for k, *values in (
            [cell.get_attribute("data-value") for cell in row.locator("> *").all()]
            for row in page.locator("#cluster-table tbody tr:first-child").all()
        )
    }
    clusters = summary["clusters"]
    assert [rows[k][1:4] for k in range(len(rows))] == [
        list(one) for one in zip(clusters["pool"], clusters["quota"], clusters["fill"], strict=True)
    ]


@pytest.mark.parametrize("name", NAMES)
def test_everything_is_there_without_script(visit, name):
    page = visit(name, java_script_enabled=False)
    for chart in page.locator("svg[role=img]").all():
        assert chart.is_visible()
    assert page.locator("#cluster-table tbody").first.is_visible()
    assert page.locator(".tools").first.is_hidden()
    if name != "comparison":
        assert page.locator("svg.scatter").bounding_box()["height"] > 300
        assert page.locator("#map-help").is_hidden()


def test_the_page_is_printed(visit):
    page = visit()
    page.emulate_media(media="print")
    assert page.locator("nav").is_hidden()
    assert page.pdf(format="A4").startswith(b"%PDF")
