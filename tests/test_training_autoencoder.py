"""Training an autoencoder: it learns, keeps its best, names its scale, and goes on after a kill to the bit."""

import json
from contextlib import nullcontext

import numpy as np
import pytest
import torch
from PIL import Image

import scenes
from failures import raises
from rsprune.errors import ArgumentError, ConfigMismatchError
from rsprune.runs.folder import RunFolder
from rsprune.temporaries import TEMPORARY
from rsprune.training.autoencoder import load_autoencoder, sample_posterior
from rsprune.training.config import AutoencoderConfig
from rsprune.training.distributed import DistributedContext
from rsprune.training.latent_cache import cache_latents
from rsprune.training.train_autoencoder import (
    AutoencoderTrainer,
    autoencoder_loss,
    build_autoencoder,
    train_autoencoder,
)
from rsprune.training.transforms import ImageTransform

FIT = {"latent_channels": 2, "widths": (8, 8), "batch": 4, "lr": 3e-3, "held_out": 4}


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    folder = tmp_path_factory.mktemp("images")
    for i, tile in enumerate(scenes.tiles(20, 16)):
        Image.fromarray(tile).save(folder / f"{i:02d}.png")
    return folder


def fitted(images, out, iterations=12, **options):
    options = {"bands": (0, 1, 2, 0), "validate_every": 4, "device": "cpu", "progress": False} | FIT | options
    return train_autoencoder(images, out=out, size=16, channels=4, iterations=iterations, **options)


@pytest.fixture(scope="module")
def whole(images, tmp_path_factory):
    out = tmp_path_factory.mktemp("whole")
    return out, fitted(images, out)


def test_it_learns_four_bands_and_is_an_autoencoder_that_loads(images, whole, tmp_path):
    out, done = whole
    errors = [error for _, error in done.validation]
    assert [step for step, _ in done.validation] == [4, 8, 12]
    assert errors[-1] < 0.8 * errors[0]
    codec = load_autoencoder(done.path, channels=4)
    assert (codec.latents, codec.factor, codec.scale) == (2, 2, done.scale)
    assert load_autoencoder(out, channels=4).provenance() == codec.provenance()
    cache = cache_latents(images, codec, ImageTransform(16, 4, (0, 1, 2, 0)), out=tmp_path, progress=False)
    assert cache.measured()[0] == pytest.approx(done.scale, rel=0.1)
    assert json.loads((out / "validation.json").read_text())["scale"] == done.scale


def test_the_loss_is_that_of_the_equations():
    generator = torch.Generator().manual_seed(0)
    images, decoded, moments = (torch.randn(2, c, 4, 4, generator=generator, dtype=torch.float64) for c in (4, 4, 6))
    got = autoencoder_loss(images, decoded, moments, 3, kl=0.1)
    normal = torch.distributions.Normal
    posterior = normal(moments[:, :3], torch.exp(0.5 * moments[:, 3:]))
    divergence = torch.distributions.kl_divergence(posterior, normal(0.0, 1.0)).sum()
    assert got.item() == pytest.approx(((images - decoded).abs().sum() + 0.1 * divergence).item() / images.numel())
    assert sample_posterior(moments, 3, torch.zeros(2, 3, 4, 4)).equal(moments[:, :3])


class Killed(BaseException):
    """Stands for the end of the process."""


@pytest.mark.parametrize("step", [1, 5, 8, 11])
def test_a_killed_training_ends_with_the_same_weights(images, whole, tmp_path, monkeypatch, step):
    train_step = AutoencoderTrainer.train_step

    def dying(self):
        if self.step == step:
            raise Killed
        train_step(self)

    with monkeypatch.context() as patch:
        patch.setattr(AutoencoderTrainer, "train_step", dying)
        with pytest.raises(Killed):
            fitted(images, tmp_path)
    done = fitted(images, tmp_path)
    assert (done.scale, done.validation) == (whole[1].scale, whole[1].validation)
    name = "autoencoder/diffusion_pytorch_model.safetensors"
    assert (tmp_path / name).read_bytes() == (whole[0] / name).read_bytes()


def test_the_weights_of_the_lowest_error_are_kept(images, tmp_path, monkeypatch):
    """After the second look the training goes wrong: what is written is what there was at that look."""
    want = fitted(images, tmp_path / "short", 8)
    train_step = AutoencoderTrainer.train_step

    def spoilt(self):
        train_step(self)
        if self.step > 8:
            with torch.no_grad():
                self.model.decoder.conv_out.bias.add_(5)

    monkeypatch.setattr(AutoencoderTrainer, "train_step", spoilt)
    done = fitted(images, tmp_path / "long")
    assert np.argmin([error for _, error in done.validation]) == 1
    name = "diffusion_pytorch_model.safetensors"
    assert (done.path / name).read_bytes() == (want.path / name).read_bytes()


def test_a_prolonged_training_is_a_longer_one(images, whole, tmp_path):
    fitted(images, tmp_path, 8)
    (tmp_path / f".state.pt.0123{TEMPORARY}").write_bytes(b"half")  # of a process that was killed
    done = fitted(images, tmp_path)
    assert (done.scale, done.validation) == (whole[1].scale, whole[1].validation)
    assert not [path for path in tmp_path.glob(".*") if path.name != ".lock"]


def test_a_process_that_ends_while_writing_leaves_no_mixture(images, whole, tmp_path, monkeypatch):
    """The folder is whole or not there, and the next run makes it."""
    fitted(images, tmp_path, 8)

    def dying(self, target):
        raise Killed

    with monkeypatch.context() as patch:
        patch.setattr("pathlib.Path.rename", dying)
        with pytest.raises(Killed):
            fitted(images, tmp_path)
    assert not (tmp_path / "autoencoder").exists()
    assert fitted(images, tmp_path).scale == whole[1].scale
    for name in ("config.json", "diffusion_pytorch_model.safetensors"):
        assert (tmp_path / "autoencoder" / name).read_bytes() == (whole[0] / "autoencoder" / name).read_bytes()


@pytest.mark.parametrize("widths", [(6, 9), (48, 72)])
def test_widths_need_not_divide_by_32(widths):
    model = build_autoencoder(4, AutoencoderConfig(latent_channels=2, widths=widths))
    x = torch.zeros(1, 4, 8, 8)
    assert model.decode(model.encode(x).latent_dist.mean).sample.shape == x.shape


def test_the_command_trains_and_says_where(command, images, whole, tmp_path):
    words = ["autoencoder", images, "-o", tmp_path, "--bands", "0,1,2,0", "--size", 16, "--device", "cpu"]
    words += ["--latent-channels", 2, "--widths", "8,8", "--batch", 4, "--lr", 3e-3, "--held-out", 4]
    done = command(*words, "-n", 8, "--validate-every", 4)
    assert done.returncode == 0, done.stderr
    assert "8 steps, mean absolute error of the held-out images" in done.stdout
    assert str(tmp_path / "autoencoder") in done.stdout
    lines = [
        json.loads(line) for line in command(*words, "-n", 12, "--validate-every", 4, "--json").stdout.splitlines()
    ]
    start = next(line for line in lines if line["event"] == "start" and line["stage"] == "train")
    assert (start["done"], start["total"]) == (32, 48)
    step, error = min(whole[1].validation, key=lambda look: look[1])
    want = {"steps": 12, "best_step": step, "error": error, "scale": whole[1].scale}
    assert {name: lines[-1][name] for name in want} == want


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["--held-out", 20], "20 images with 20 held out leave none to train on"),
        (["--widths", "8,0"], "widths must be positive"),
        (["--lr", -1], "lr is -1.0; expected a number above 0"),
        (["--size", 15], "size=15 must divide by 2"),
    ],
)
def test_the_command_refuses_in_one_line(command, images, tmp_path, words, says):
    words = ["autoencoder", images, "-o", tmp_path, "--channels", 3, "--size", 16, "--widths", "8,8", *words]
    done = command(*words, "--device", "cpu", "--quiet")
    assert done.returncode == 1
    assert done.stderr.startswith(f"error: {says}")
    assert len(done.stderr.splitlines()) == 1


@pytest.mark.parametrize("words", [["nowhere"], ["{images}", "--bands", "0,1"]])
def test_a_refused_command_makes_no_folder(command, images, tmp_path, words):
    done = command("autoencoder", *[word.format(images=images) for word in words], "-o", tmp_path / "out", "--quiet")
    assert done.returncode == 1
    assert len(done.stderr.splitlines()) == 1
    assert not (tmp_path / "out").exists()


def test_two_at_once_and_torchrun_are_refused(images, whole, tmp_path, monkeypatch):
    monkeypatch.setattr("rsprune.runs.folder.PATIENCE", 0.1)
    with RunFolder(whole[0]).lock(), raises(ConfigMismatchError, whole[0]):
        fitted(images, whole[0])
    here = DistributedContext(1, 2, torch.device("cpu"))
    monkeypatch.setattr("rsprune.training.train_autoencoder.join_processes", lambda device: nullcontext(here))
    with raises(ArgumentError, 2):
        fitted(images, tmp_path)


def test_what_cannot_be_trained_is_refused(images, whole, tmp_path):
    with raises(ArgumentError, 20):
        fitted(images, tmp_path, held_out=20)
    with raises(ArgumentError, "size=16", 32):
        fitted(images, tmp_path, widths=(8,) * 6)
    with raises(ConfigMismatchError, "config.kl", 1e-06, 0.1):
        fitted(images, whole[0], kl=0.1)
