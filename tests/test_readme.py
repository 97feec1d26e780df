"""What the README shows works: its Python, its commands, its files."""

import pkgutil
import re

import numpy as np
import pytest
from PIL import Image

import rsprune
from readme import ROOT, blocks

DOCS = sorted((ROOT / "docs").glob("*.md"))


@pytest.fixture(scope="module")
def collection(tmp_path_factory):
    """What the pages take for granted: `images/` and `aid/`."""
    folder = tmp_path_factory.mktemp("readme")
    rng = np.random.default_rng(0)
    for name, count in [("images/Airport", 100), ("images/Port", 100), ("aid/Airport", 15), ("aid/Port", 15)]:
        (folder / name).mkdir(parents=True)
        for i in range(count):
            pixels = rng.integers(0, rng.integers(2, 256), (48, 48, 3), np.uint8)
            Image.fromarray(pixels).save(folder / name / f"{i:03d}.jpg")
    return folder


def test_the_page_of_python(collection, monkeypatch):
    monkeypatch.chdir(collection)
    names = {"rsprune": rsprune, "transform": None}
    for block in blocks("python", "docs/python.md"):
        exec(block, names)
    assert len(names["s"]) == 1_500
    assert names["h"].shape == (2,)
    assert len(names["run"].keys) == 30
    assert names["run"].report.is_file()


def test_every_command_of_the_readme_has_its_journey():
    """They are run by `tests/journeys/`, a heading in each of its modules."""
    headings = re.findall(r"^# (.+)$", "\n".join(blocks("console")), re.MULTILINE)
    modules = [path.read_text() for path in (ROOT / "tests" / "journeys").glob("test_*.py")]
    asked = [heading for text in modules for heading in re.findall(r'commands\("(.+?)"\)', text)]
    assert len(headings) == 4
    assert all(any(heading.startswith(one) for one in asked) for heading in headings)


def test_make_targets_exist():
    makefile = (ROOT / "Makefile").read_text()
    for target in re.findall(r"`make ([\w-]+)`", (ROOT / "README.md").read_text()):
        assert re.search(rf"^{target}:", makefile, re.MULTILINE), target


@pytest.mark.parametrize("page", ["README.md", "CONTRIBUTING.md", *(f"docs/{path.name}" for path in DOCS)])
def test_links_lead_somewhere(page):
    """To a file, and to a heading of it."""
    for path, heading in re.findall(r"\]\((?!https?:)([^)#\s]*)#?([^)\s]*)\)", (ROOT / page).read_text()):
        target = (ROOT / page).parent / path if path else ROOT / page
        assert target.exists(), path
        if heading:
            titles = re.findall(r"^#+ (.+)$", target.read_text(), re.MULTILINE)
            assert heading in {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}, (
                path,
                heading,
            )


def test_the_index_names_every_page():
    index = (ROOT / "docs" / "index.md").read_text()
    assert {path.name for path in DOCS} - {"index.md"} <= set(re.findall(r"\]\(([\w.]+\.md)", index))


def words_of_docs() -> list[tuple[str, str]]:
    """What the README, CONTRIBUTING and the pages of `docs/` write as code, with the name of the page."""
    pages = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]
    return [(page.name, word) for page in pages for word in re.findall(r"`([^`\n]+)`", page.read_text())]


def test_paths_in_the_docs_exist():
    rooms = ("rust/", "python/", "tests/", "docs/", "benches/", "examples/", "rsprune/")
    for page, word in words_of_docs():
        if word.startswith(rooms) and re.fullmatch(r"[\w./-]+", word):
            assert (ROOT / word).exists() or (ROOT / "python" / word).exists(), f"{page}: {word}"


def test_modules_and_functions_in_the_docs_exist():
    for page, word in words_of_docs():
        if match := re.match(r"rsprune(?:\.\w+)+", word):
            assert pkgutil.resolve_name(match[0]) is not None, f"{page}: {match[0]}"
