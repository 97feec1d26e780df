"""Sampling from checkpoints: the same images however they are batched or interrupted, from the right weights."""

import csv
import zipfile

import numpy as np
import torch
from PIL import Image

from failures import raises
from rsprune.errors import ArgumentError, ConfigMismatchError
from rsprune.training.autoencoder import load_autoencoder
from rsprune.training.sample import sample_run, write_keys
from small_dits import small_dit

PIXELS = {"data": {"autoencoder": load_autoencoder("identity").provenance()}, "scale": 1.0, "shift": 0.0}


def checkpoint(path, classes=None, **recipe):
    """A checkpoint as training writes it."""
    model, averaged = (small_dit(seed, in_channels=3, num_classes=classes and len(classes)) for seed in (0, 1))
    recipe = PIXELS | {"network": model.config, "classes": classes} | recipe
    torch.save({"model": model.state_dict(), "ema": averaged.state_dict(), "recipe": recipe}, path)
    return path


def draw(path, out, images=6, **options):
    sample_run(path, out=out, images=images, steps=4, device="cpu", progress=False, **options)
    return np.load(out / "samples.npz")["arr_0"]


def test_an_image_depends_on_its_number_and_the_seed_alone(tmp_path):
    path = checkpoint(tmp_path / "a.pt")
    six = draw(path, tmp_path / "six", batch=6)
    assert six.shape == (6, 8, 8, 3)
    assert len({image.tobytes() for image in six}) == 6
    pairs = draw(path, tmp_path / "pairs", images=5, batch=2)
    np.testing.assert_allclose(pairs.astype(int), six[:5], atol=1)
    assert not np.array_equal(draw(path, tmp_path / "other", batch=6, seed=1), six)
    with Image.open(tmp_path / "six" / "images" / "000004.png") as image:
        np.testing.assert_array_equal(np.asarray(image), six[4])


def test_keys_with_commas_stay_whole_in_the_table(tmp_path):
    keys = ["a.png", "Paris, 2019/1.png", 'the "old" one.png', "ä.png"]
    write_keys(tmp_path / "conditions.csv", keys)
    with (tmp_path / "conditions.csv").open(newline="", encoding="utf-8") as file:
        rows = list(csv.reader(file))
    assert rows == [["number", "key"], *([str(i), key] for i, key in enumerate(keys))]


def test_what_is_missing_is_drawn_again_to_the_bit(tmp_path):
    path = checkpoint(tmp_path / "a.pt")
    want = draw(path, tmp_path / "out", batch=2)
    archive = (tmp_path / "out" / "samples.npz").read_bytes()
    with zipfile.ZipFile(tmp_path / "out" / "samples.npz") as file:
        assert file.getinfo("arr_0.npy").date_time == (1980, 1, 1, 0, 0, 0)  # no time that would change the bytes
    (tmp_path / "out" / "images" / "000003.png").unlink()
    kept = (tmp_path / "out" / "images" / "000005.png").stat().st_mtime_ns
    assert np.array_equal(draw(path, tmp_path / "out", batch=2), want)
    assert (tmp_path / "out" / "images" / "000005.png").stat().st_mtime_ns == kept
    assert (tmp_path / "out" / "samples.npz").read_bytes() == archive
    assert np.array_equal(draw(path, tmp_path / "out", images=8, batch=2)[:6], want)
    with raises(ConfigMismatchError, "sampling.seed", 0, 1):
        draw(path, tmp_path / "out", batch=2, seed=1)


def test_classes_weights_and_guidance_matter(tmp_path):
    path = checkpoint(tmp_path / "a.pt", classes=["forest", "sea"])
    options = {"batch": 2, "images": 2}
    sea = draw(path, tmp_path / "sea", classes=["sea"], **options)
    assert np.array_equal(draw(path, tmp_path / "one", classes=["1"], **options), sea)
    both = draw(path, tmp_path / "both", **options)
    assert np.array_equal(both[1], sea[1])
    assert not np.array_equal(both[0], sea[0])
    assert not np.array_equal(draw(path, tmp_path / "guided", classes=["sea"], guidance=4.0, **options), sea)
    assert not np.array_equal(draw(path, tmp_path / "last", classes=["sea"], weights="model", **options), sea)
    numbered = checkpoint(tmp_path / "numbered.pt", classes=["1", "2"])
    assert np.array_equal(
        draw(numbered, tmp_path / "folder", classes=["1"], **options),
        draw(path, tmp_path / "forest", classes=["0"], **options),
    )
    with raises(ArgumentError, "'city'", "forest", "sea"):
        draw(path, tmp_path / "city", classes=["city"])
    with raises(ArgumentError):
        draw(checkpoint(tmp_path / "b.pt"), tmp_path / "none", classes=["sea"])
    with raises(ArgumentError, "guidance"):
        draw(tmp_path / "b.pt", tmp_path / "none", guidance=4.0)
    assert not (tmp_path / "none").exists()


def test_the_autoencoder_must_be_the_one_that_it_was_trained_with(tmp_path):
    tiny = {"autoencoder": "tiny", "files": [], "channels": 3, "latents": 3, "factor": 8, "scale": 1.0, "shift": 0.0}
    path = checkpoint(tmp_path / "a.pt", data={"autoencoder": tiny})
    with raises(ArgumentError, "autoencoder"):
        draw(path, tmp_path / "out")
    with raises(ConfigMismatchError, "autoencoder", '"tiny"', '"identity"'):
        draw(path, tmp_path / "out", autoencoder="identity")


def test_the_command_draws_and_says_where(command, tmp_path):
    path = checkpoint(tmp_path / "a.pt")
    words = ["sample", path, "-o", tmp_path / "out", "-n", 3, "--sampler", "ddim", "--steps", 2, "--device", "cpu"]
    done = command(*words)
    assert done.returncode == 0, done.stderr
    assert "3 images in" in done.stdout
    assert (tmp_path / "out" / "samples.png").is_file()
    assert "no checkpoint at" in command("sample", tmp_path / "b.pt", "-o", tmp_path / "x").stderr


def test_without_what_it_needs_the_command_names_the_extra(command, tmp_path, monkeypatch):
    monkeypatch.setattr("rsprune.training.find_spec", lambda name: None if name == "diffusers" else name)
    for words in (
        ["sample", "a.pt"],
        ["train", tmp_path],
        ["autoencoder", tmp_path],
        ["finetune", "sr", tmp_path, "-c", "a.pt"],
    ):
        done = command(*words, "-o", tmp_path / "out")
        assert done.returncode == 1
        assert 'diffusers not installed, which training needs: pip install "rsprune[train]"' in done.stderr


def test_images_that_no_file_holds_are_refused_before_they_are_drawn(tmp_path):
    two = load_autoencoder("identity", channels=2).provenance()
    path = checkpoint(tmp_path / "a.pt", data={"autoencoder": two})
    with raises(ArgumentError, 2):
        draw(path, tmp_path / "out")
