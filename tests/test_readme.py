"""What the README shows works: its Python, its commands, its files."""

import pkgutil
import re
import shlex
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", README, re.DOTALL)


@pytest.fixture(scope="module")
def collection(tmp_path_factory):
    """What the README takes for granted: `images/` and `aid/`."""
    folder = tmp_path_factory.mktemp("readme")
    rng = np.random.default_rng(0)
    for name, count in [("images/a", 100), ("images/b", 100), ("aid/Airport", 15), ("aid/Beach", 15)]:
        (folder / name).mkdir(parents=True)
        for i in range(count):
            pixels = rng.integers(0, rng.integers(2, 256), (48, 48, 3), np.uint8)
            Image.fromarray(pixels).save(folder / name / f"{i:03d}.jpg")
    return folder


def test_python(collection, monkeypatch):
    monkeypatch.chdir(collection)
    namespace = {}
    for block in blocks("python"):
        exec(block, namespace)
    assert len(namespace["s"]) == 1_500
    assert namespace["h"].shape == (2,)
    assert len(namespace["run"].keys) == 30
    assert namespace["run"].report.is_file()


def test_commands(collection, tmp_path):
    commands = [line for block in blocks("console") for line in block.splitlines() if line.startswith("rsprune ")]
    assert len(commands) == 3
    for command in commands:
        words = shlex.split(command.partition("#")[0].replace("run/", str(tmp_path / "run")))
        done = subprocess.run([sys.executable, "-m", *words], cwd=collection, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
    assert "a/000.jpg" in done.stdout


def test_make_targets_exist():
    makefile = (ROOT / "Makefile").read_text()
    for target in re.findall(r"^make (\S+)", "\n".join(blocks("console")), re.MULTILINE):
        assert re.search(rf"^{target}:", makefile, re.MULTILINE), target


def test_links_lead_somewhere():
    for path in re.findall(r"\]\((?!https?:)([^)#]+)\)", README):
        assert (ROOT / path).exists(), path


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
