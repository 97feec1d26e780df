"""A student with a folder of images: from the README's first commands to batches of the right pixels."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import readme
import rsprune

CLASSES = ("Airport", "Beach", "Desert")
# Names that sort otherwise by number than by letter, and kinds of files that other readers leave out or fail at.
ENDINGS = ("jpg", "JPG", "png", "jpeg", "tif", "webp")


def scene(kind: int, number: int, mode: str = "RGB") -> Image.Image:
    rng = np.random.default_rng([kind, number])
    shape = (int(rng.integers(40, 60)), int(rng.integers(40, 60)), 3)
    pixels = np.array([90, 120, 60]) + 30 * kind + rng.integers(0, 20 + 12 * kind + number, shape)
    return Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).convert(mode)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """`images/`, with gray ones and one that is damaged, and the labelled scenes `aid/`."""
    folder = tmp_path_factory.mktemp("student")
    for kind, name in enumerate(CLASSES):
        for number in range(60):
            ending = ENDINGS[number % len(ENDINGS)]
            path = folder / "images" / name / f"{number:03d}.{ending if number else 'jpg'}"
            path.parent.mkdir(parents=True, exist_ok=True)
            scene(kind, number, "L" if number % 7 == 3 else "RGB").save(path)
        for number in range(10):
            path = folder / "aid" / name / f"{number}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            scene(kind, 1000 + number).save(path)
    (folder / "images" / "Desert" / "damaged.jpg").write_bytes(b"\xff\xd8\xff")
    return folder


@pytest.fixture(scope="module")
def done(folder, command):
    """The README's commands have run, in their order; what each said."""
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        said = {}
        for words in readme.commands("A folder"):
            result = command(*words)
            assert result.returncode == 0, result.stderr
            said[words[0]] = result.stdout
        return said


def pixels(image):
    return np.asarray(image.convert("RGB"))


def same(path, image):
    return np.array_equal(pixels(Image.open(path)), pixels(image))


def test_the_summary_says_what_happened(done, folder):
    assert "27 of 181 images kept" in done["prune"]
    assert "1 in quarantine" in done["prune"]
    for name in ("selection.parquet", "selected.txt", "quarantine.parquet", "report.html"):
        assert (folder / "run" / name).is_file()
    assert "Airport/000.jpg" in done["explain"]


def test_the_loop_of_the_readme_sees_the_images_that_were_chosen(done, folder, monkeypatch):
    monkeypatch.chdir(folder)
    seen = []
    names = {"train_on": lambda batch: seen.extend(zip(batch["key"], batch["image"], batch["label"], strict=True))}
    for block in readme.blocks("python")[:1]:
        exec(block, names)
    keys = rsprune.open("run/").keys
    assert sorted(key for key, _, _ in seen) == sorted(keys)
    for key, tensor, label in seen:
        assert label == key.split("/")[0]
        assert tensor.equal(names["transform"](Image.open(folder / "images" / key)))
    assert len({key.split("/")[0] for key in keys}) > 1


def test_every_image_of_the_data_set_is_the_file_of_its_key(done, folder):
    run = rsprune.open(folder / "run")
    images = run.dataset(folder / "images")
    assert len(images) == 27
    assert [one["key"] for one in images] == run.keys == (folder / "run/selected.txt").read_text().splitlines()
    assert all(same(folder / "images" / one["key"], one["image"]) for one in images)


def test_torchvision_reads_the_export(done, folder):
    datasets = pytest.importorskip("torchvision.datasets")
    run, subset = rsprune.open(folder / "run"), datasets.ImageFolder(folder / "subset")
    found = {
        Path(path).relative_to(folder / "subset").as_posix(): image
        for (path, _), (image, _) in zip(subset.samples, subset, strict=True)
    }
    assert sorted(found) == sorted(run.keys)
    assert all(same(folder / "images" / key, image) for key, image in found.items())


def test_keys_find_the_rows_of_a_data_set_of_another_library(done, folder, monkeypatch):
    """As docs/export.md shows it: its rows are numbered otherwise than those of the collection."""
    pytest.importorskip("torchvision.datasets")
    monkeypatch.chdir(folder)
    run, names = rsprune.open("run/"), {}
    [block] = [one for one in readme.blocks("python", "docs/export.md") if "ImageFolder" in one]
    exec(block, names)
    subset = names["subset"]
    assert len(subset) == len(run.keys)
    shown = [Path(subset.dataset.samples[at][0]).relative_to("images").as_posix() for at in subset.indices]
    assert sorted(shown) == sorted(run.keys)
    for (image, _), key in zip(subset, shown, strict=True):
        assert same(folder / "images" / key, image)
