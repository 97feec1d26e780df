"""Training: exact after a kill, the same however it is shared out, and with everything in the checkpoint."""

import errno
import json
import multiprocessing
import os
import shutil
import socket
import subprocess
import sys
import time
from hashlib import sha256
from typing import NamedTuple
from xml.etree import ElementTree

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

import scenes
from failures import raises
from rsprune.errors import ArgumentError, ConfigMismatchError, DivergedError, OutputError, WeightsError
from rsprune.runners import NoProgress
from rsprune.temporaries import TEMPORARY
from rsprune.training.autoencoder import Identity
from rsprune.training.checkpoint import TrainingFolder, keep_checkpoint, load_dit, read_checkpoint
from rsprune.training.config import OptimizerConfig, TrainConfig
from rsprune.training.distributed import DistributedContext, join_processes
from rsprune.training.gaussian_diffusion import GaussianDiffusion
from rsprune.training.latent_loader import Batch, LatentLoader
from rsprune.training.metrics import LossLog, plot_losses
from rsprune.training.pretrain import pretrain
from rsprune.training.rng import EpochPermutation, batch_noise, sampler_seed
from rsprune.training.trainer import train
from small_dits import small_dit

ALONE = DistributedContext(0, 1, torch.device("cpu"))
RECIPE = {"task": "test", "network": small_dit(num_classes=5).config}
FAST = OptimizerConfig(batch=6, lr=3e-3, ema=0.9, precision="float32", seed=3)


class Drawn(NamedTuple):
    """The random numbers of one sample, from Philox's key and counter."""

    mirror: float
    drop: float
    t: int
    posterior: torch.Tensor
    noise: torch.Tensor


def draw_sample(seed, step, position, shape):
    rng = np.random.Generator(np.random.Philox(key=[seed, 0], counter=[0, 0, position, step]))
    mirror, drop = rng.random(2)
    t = int(rng.integers(1000))
    posterior, noise = torch.from_numpy(rng.standard_normal((2, *shape), np.float32))
    return Drawn(mirror, drop, t, posterior, noise)


def feed(step, positions):
    """Samples of a fixed pattern, all of what draws them from their place."""
    draws = [draw_sample(3, step, position, (4, 8, 8)) for position in positions]
    pattern = torch.linspace(-1, 1, 64).view(1, 8, 8).repeat(4, 1, 1)
    x = torch.stack([pattern * (1 + one.mirror) for one in draws])
    t = torch.tensor([one.t for one in draws])
    return Batch(x, torch.stack([one.noise for one in draws]), t, t % 5)


class Killed(BaseException):
    """Stands for the end of the process: nobody catches it."""


class Killer(NoProgress):
    """Ends the process after so many steps."""

    def __init__(self, steps):
        self.steps = steps

    def advance(self, images):
        self.steps -= 1
        if not self.steps:
            raise Killed


def trained(folder, steps=12, *, schedule=None, observer=None, recipe=RECIPE, batches=feed, dist=ALONE):
    looked = []
    schedule = TrainConfig(steps, **{"checkpoint_every": 5, "keep_every": 8, "sample_every": 4} | (schedule or {}))
    taken, losses = train(
        small_dit(num_classes=5),
        batches,
        TrainingFolder(folder),
        recipe,
        FAST,
        schedule,
        dist,
        observer or NoProgress(),
        lambda model, path: looked.append(path.name),
    )
    return taken, losses, looked


def weights(folder, which="ema", step=12):
    return read_checkpoint(TrainingFolder(folder).checkpoint(step))[which]


def assert_same_weights(got, want):
    """To 1e-5, save the biases of the keys: they move no output, and Adam blows up the rounding of their gradients."""
    for name, value in want.items():
        if name.endswith("qkv.bias"):
            keys = slice(len(value) // 3, len(value) // 3 * 2)
            got[name][keys] = value[keys]
        torch.testing.assert_close(got[name], value, rtol=0, atol=1e-5)


# --- the loop ---------------------------------------------------------------------------------------------------------


def test_steps_are_those_of_a_plain_loop(tmp_path):
    """AdamW on the mean of the losses, and the average of the weights, as anyone would write them."""
    _, losses, _ = trained(tmp_path)
    model, averaged = small_dit(num_classes=5).train(), small_dit(num_classes=5)
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3, weight_decay=0)
    diffusion = GaussianDiffusion()
    for step in range(12):
        batch = feed(step, range(6))
        noisy = diffusion.q_sample(batch.x, batch.t, batch.noise)
        loss = diffusion.training_losses(
            model(noisy, batch.t, batch.y), batch.x, noisy, batch.t, batch.noise
        ).total.mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        for mean, new in zip(averaged.parameters(), model.parameters(), strict=True):
            mean.data = 0.9 * mean.data + 0.1 * new.data
        assert losses[step].sum() == pytest.approx(loss.item(), rel=1e-5)
    for name, value in averaged.state_dict().items():
        torch.testing.assert_close(weights(tmp_path)[name], value, rtol=1e-4, atol=1e-5)
    assert losses[-3:].sum(1).mean() < losses[:3].sum(1).mean()


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A training that nothing stopped."""
    folder = tmp_path_factory.mktemp("whole")
    return folder, trained(folder)[1]


@pytest.mark.parametrize("killed_after", range(1, 12))
def test_a_killed_training_ends_with_the_same_weights_and_losses(tmp_path, whole, killed_after):
    folder, want = whole
    with pytest.raises(Killed):
        trained(tmp_path / "killed", observer=Killer(killed_after))
    taken, losses, _ = trained(tmp_path / "killed")
    assert taken == 12 - max(step for step in (0, 5, 8, 10) if step < killed_after or step == 0)
    assert losses.tobytes() == want.tobytes()
    one, other = (read_checkpoint(TrainingFolder(path).checkpoint(12)) for path in (folder, tmp_path / "killed"))
    for which in ("model", "ema"):
        assert all(torch.equal(value, other[which][name]) for name, value in one[which].items())
    for number, moments in one["opt"]["state"].items():
        assert all(torch.equal(value, other["opt"]["state"][number][name]) for name, value in moments.items())
    for path in ("checkpoints/0000012.pt", "checkpoints/last.pt", "losses.csv"):
        assert (folder / path).read_bytes() == (tmp_path / "killed" / path).read_bytes()


def test_a_training_killed_three_times_has_the_same_checkpoints(tmp_path, whole):
    folder, _ = whole
    for killed_after in (6, 1, 4):
        with pytest.raises(Killed):
            trained(tmp_path / "killed", observer=Killer(killed_after))
    trained(tmp_path / "killed")
    want, got = (
        {path.name: sha256(path.read_bytes()).hexdigest() for path in (one / "checkpoints").iterdir()}
        for one in (folder, tmp_path / "killed")
    )
    assert got == want
    assert len(want) > 2


def test_what_a_killed_process_left_unfinished_is_removed(tmp_path):
    """A checkpoint of DiT-XL is 11 GB: those that were being written do not add up."""
    left = tmp_path / "checkpoints" / f".last.pt.0123{TEMPORARY}"
    left.parent.mkdir()
    left.write_bytes(b"half")
    trained(tmp_path, 1)
    assert not left.exists()


def test_fewer_steps_than_were_taken_leave_the_checkpoint_that_there_is(tmp_path):
    with pytest.raises(Killed):
        trained(tmp_path, observer=Killer(11))
    taken, losses, _ = trained(tmp_path, 9)
    assert (taken, len(losses)) == (0, 10)
    assert read_checkpoint(TrainingFolder(tmp_path).checkpoint(10))["step"] == 10


def test_a_file_system_without_links_holds_copies(tmp_path, whole, monkeypatch):
    def refuse(path, name):
        raise OSError(errno.EOPNOTSUPP, "Operation not supported")

    monkeypatch.setattr("os.link", refuse)
    trained(tmp_path)
    for path in (TrainingFolder(tmp_path).last, TrainingFolder(tmp_path).checkpoint(12)):
        assert all(torch.equal(value, read_checkpoint(path)["ema"][name]) for name, value in weights(whole[0]).items())


@pytest.mark.parametrize("keeping", [1, 2])
def test_what_is_kept_is_there_wherever_the_process_ends(tmp_path, whole, monkeypatch, keeping):
    """Between a checkpoint that is kept and last.pt, whichever is written first."""
    calls = []

    def dying(path, name):
        calls.append(name)
        if len(calls) == keeping:
            raise Killed
        keep_checkpoint(path, name)

    with monkeypatch.context() as patch:
        patch.setattr("rsprune.training.trainer.keep_checkpoint", dying)
        with pytest.raises(Killed):
            trained(tmp_path)
    trained(tmp_path)
    for step in (8, 12):
        assert all(
            torch.equal(value, weights(tmp_path, step=step)[name])
            for name, value in weights(whole[0], step=step).items()
        )
    assert TrainingFolder(tmp_path).losses.read_bytes() == TrainingFolder(whole[0]).losses.read_bytes()


def test_a_longer_budget_goes_on_and_a_finished_one_does_nothing(tmp_path):
    trained(tmp_path / "a", 12)
    taken, losses, _ = trained(tmp_path / "a", 15)
    _, want, _ = trained(tmp_path / "b", 15)
    assert taken == 3
    assert losses.tobytes() == want.tobytes()
    assert trained(tmp_path / "a", 15)[0] == 0


@pytest.mark.parametrize("micro", [1, 4])
def test_accumulated_batches_are_the_same_batch(tmp_path, whole, micro):
    _, losses, _ = trained(tmp_path, 6, schedule={"micro_batch": micro})
    np.testing.assert_allclose(losses, whole[1][:6], rtol=1e-5)


def place_of(rank, port):
    """What torchrun says to one of two processes."""
    return {"RANK": str(rank), "WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}


def join(folder, port):
    """The second of two processes."""
    os.environ |= place_of(1, port)
    with join_processes("cpu") as dist:
        trained(folder, dist=dist, schedule={"micro_batch": 2})


def test_two_processes_train_as_one_does(tmp_path, whole, monkeypatch):
    folder, want = whole
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    other = multiprocessing.get_context("spawn").Process(target=join, args=(tmp_path, port))
    other.start()
    for name, value in place_of(0, port).items():
        monkeypatch.setenv(name, value)
    with join_processes("cpu") as dist:
        trained(tmp_path, dist=dist, schedule={"micro_batch": 2})
    other.join(120)
    assert other.exitcode == 0
    shared = read_checkpoint(TrainingFolder(tmp_path).checkpoint(12))
    np.testing.assert_allclose(shared["losses"].numpy(), want, rtol=1e-5)
    assert_same_weights(shared["ema"], weights(folder))


def test_what_is_written_when(tmp_path, monkeypatch):
    drawn = []
    monkeypatch.setattr("rsprune.training.metrics.plot_losses", lambda losses, path: drawn.append((len(losses), path)))
    _, losses, looked = trained(tmp_path)
    assert drawn[-1] == (12, tmp_path / "losses.svg")
    assert looked == ["0000004.png", "0000008.png", "0000012.png"]
    names = sorted(path.name for path in (tmp_path / "checkpoints").iterdir())
    assert names == ["0000008.pt", "0000012.pt", "last.pt"]
    assert read_checkpoint(tmp_path / "checkpoints" / "0000008.pt")["step"] == 8
    rows = (tmp_path / "losses.csv").read_text().splitlines()
    assert rows[0] == "step,mse,vb"
    assert [float(value) for value in rows[-1].split(",")] == [12, *losses[-1]]
    assert not [path for path in tmp_path.rglob(".*") if path.is_file()]


def test_the_curve_is_drawn_and_may_be_of_one_step(tmp_path):
    for steps in (1, 250):
        plot_losses(np.random.default_rng(0).normal(size=(steps, 2)), tmp_path / "losses.svg")
        root = ElementTree.parse(tmp_path / "losses.svg").getroot()
        curves = [len(one.get("points").split()) for one in root.iter("{http://www.w3.org/2000/svg}polyline")]
        assert curves == [min(steps, 125)] * 2


def test_the_curve_is_logarithmic_where_the_losses_are_positive(tmp_path):
    plot_losses(np.array([[0.1, -1.0], [0.01, 1.0]]), tmp_path / "losses.svg")
    text = (tmp_path / "losses.svg").read_text()
    assert "noise, mean squared error (log10)" in text
    assert "bound, bits/dim</text>" in text


def test_a_training_without_a_folder_takes_the_same_steps_and_writes_nothing(tmp_path, whole, monkeypatch):
    monkeypatch.chdir(tmp_path)
    network, schedule = small_dit(num_classes=5), TrainConfig(12)
    _, losses = train(network, feed, None, RECIPE, FAST, schedule, ALONE, NoProgress(), None)
    assert losses.tobytes() == whole[1].tobytes()
    assert not list(tmp_path.iterdir())


def test_the_checkpoint_is_a_network_that_loads(tmp_path):
    trained(tmp_path)
    model = load_dit(TrainingFolder(tmp_path).checkpoint(12))
    assert model.config == RECIPE["network"]
    assert torch.equal(model.state_dict()["blocks.1.mlp.fc1.bias"], weights(tmp_path)["blocks.1.mlp.fc1.bias"])


def test_another_recipe_is_refused(tmp_path):
    trained(tmp_path, 5)
    with raises(ConfigMismatchError, "task", '"test"', '"other"'):
        trained(tmp_path, 5, recipe=RECIPE | {"task": "other"})


def test_a_loss_that_is_no_number_ends_the_training_before_its_checkpoint(tmp_path):
    def broken(step, positions):
        batch = feed(step, positions)
        return Batch(batch.x * (float("nan") if step == 6 else 1), batch.noise, batch.t, batch.y)

    with raises(DivergedError, 8, "nan", tmp_path / "checkpoints" / "last.pt"):
        trained(tmp_path, batches=broken)
    assert read_checkpoint(tmp_path / "checkpoints" / "last.pt")["step"] == 5


@pytest.mark.parametrize(
    ("change", "values"),
    [
        ({"batch": 0}, (0, 1)),
        ({"seed": -1}, ("seed", -1, 0)),
        ({"seed": 2**63}, ("seed", 2**63)),
        ({"lr": 0.0}, ("lr",)),
        ({"weight_decay": -1.0}, ("weight_decay",)),
        ({"ema": 1.5}, ("ema", 0, 1)),
        ({"lr": float("nan")}, ("nan",)),
    ],
)
def test_optimisation_that_cannot_be_is_refused(change, values):
    with raises(ArgumentError, *values):
        OptimizerConfig(**change)


def test_batches_that_cannot_be_shared_are_refused(tmp_path):
    with raises(ArgumentError, 6, 4):
        train(
            None,
            feed,
            None,
            {},
            FAST,
            TrainConfig(1),
            DistributedContext(0, 4, torch.device("cpu")),
            NoProgress(),
            None,
        )
    with raises(ArgumentError, "micro_batch"):
        TrainConfig(1, micro_batch=0)


# --- draws ------------------------------------------------------------------------------------------------------------


def test_an_epoch_takes_every_image_once_in_an_order_of_its_own():
    order = EpochPermutation(7, images=10, batch=4)
    drawn = [order(step, position) for step in range(5) for position in range(4)]
    assert sorted(drawn[:10]) == sorted(drawn[10:]) == list(range(10))
    assert drawn[:10] != drawn[10:]
    assert [EpochPermutation(8, 10, 4)(0, position) for position in range(4)] != drawn[:4]


def test_draws_depend_on_their_place_alone_and_are_what_they_should_be():
    a, b = draw_sample(1, 5, 2, (4, 8, 8)), draw_sample(1, 5, 2, (4, 8, 8))
    assert torch.equal(a.noise, b.noise)
    others = [draw_sample(*place, (4, 8, 8)) for place in ((2, 5, 2), (1, 6, 2), (1, 5, 3), (1, 2, 5))]
    assert all(not torch.equal(a.noise, other.noise) for other in others)
    assert not torch.equal(a.noise, a.posterior)
    many = [draw_sample(0, step, position, (2, 4, 4)) for step in range(50) for position in range(40)]
    noise = torch.stack([one.noise for one in many])
    assert noise.mean().item() == pytest.approx(0, abs=0.02)
    assert noise.std().item() == pytest.approx(1, abs=0.01)
    t = np.array([one.t for one in many])
    assert (t.min(), t.max()) <= (10, 999)
    assert t.mean() == pytest.approx(499.5, abs=25)
    assert np.mean([one.mirror < 0.5 for one in many]) == pytest.approx(0.5, abs=0.05)
    assert np.mean([one.drop < 0.1 for one in many]) == pytest.approx(0.1, abs=0.03)


@given(
    seed=st.integers(0, 2**63),
    step=st.integers(0, 2**40),
    first=st.integers(0, 2**20),
    count=st.integers(0, 5),
    shape=st.tuples(st.integers(1, 5), st.integers(1, 5), st.integers(1, 5)),
)
def test_a_batch_draws_what_its_samples_draw(seed, step, first, count, shape):
    positions = range(first, first + count)
    batch = batch_noise(seed, step, positions, shape)
    assert batch.noise.shape == batch.posterior.shape == (count, *shape)
    for i, position in enumerate(positions):
        one = draw_sample(seed, step, position, shape)
        assert (batch.mirror[i], batch.drop[i], batch.t[i]) == (one.mirror, one.drop, one.t)
        assert torch.equal(batch.posterior[i], one.posterior)
        assert torch.equal(batch.noise[i], one.noise)


class Latents:
    """Stands for a latent cache: shows which images were asked for, mirrored or not, and with what noise."""

    latents, side, labels = 2, 4, ["a", "b", "c"] * 4

    def __len__(self):
        return 12

    def sample(self, ids, mirrored, noise):
        return noise + torch.from_numpy(10.0 * ids + 1000 * mirrored)[:, None, None, None].float()


@pytest.mark.parametrize("mirror", [True, False])
def test_a_batch_is_made_of_what_each_of_its_places_draws(mirror):
    network = small_dit(num_classes=3, class_dropout_prob=0.5)
    feed = LatentLoader(Latents(), Identity(2), network, FAST, mirror=mirror, classes=["a", "b", "c"])
    order = EpochPermutation(FAST.seed, 12, FAST.batch)
    for step in range(3):
        made = feed(step, range(1, 6))
        for i, position in enumerate(range(1, 6)):
            one, number = draw_sample(FAST.seed, step, position, (2, 4, 4)), order(step, position)
            x = one.posterior + (10 * number + 1000 * (mirror and one.mirror < 0.5))
            assert torch.equal(made.x[i], x)
            assert torch.equal(made.noise[i], one.noise)
            assert (made.t[i], made.y[i]) == (one.t, 3 if one.drop < 0.5 else number % 3)


def test_the_noise_on_the_way_has_a_stream_of_its_own():
    assert sampler_seed(5, 7) == 4478880687102234160 >> 1
    assert len({sampler_seed(seed, number) for seed in range(9) for number in range(9)}) == 81


# --- from images to a checkpoint --------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    folder = tmp_path_factory.mktemp("images")
    for i, tile in enumerate(scenes.tiles(12, 16)):
        path = folder / "abc"[i % 3] / f"{i:02d}.png"
        path.parent.mkdir(exist_ok=True)
        Image.fromarray(tile).save(path)
    return folder


SMALL = {"size": 8, "model": "32x2x2/2", "batch": 4, "sample_every": 4, "samples": 5, "progress": False}


def test_training_from_images_records_all_that_it_is_made_of(images, tmp_path):
    done = pretrain(images, out=tmp_path / "a", iterations=4, conditional=True, device="cpu", **SMALL)
    assert done.metrics["steps"] == 4
    assert str(done.checkpoint) in done.describe()
    recipe = read_checkpoint(done.checkpoint)["recipe"]
    assert recipe["classes"] == ["a", "b", "c"]
    assert recipe["network"]["num_classes"] == 3
    assert recipe["iterations"] == 4
    assert recipe["optimisation"] == {
        "batch": 4, "lr": 1e-4, "weight_decay": 0.0, "ema": 0.9999, "precision": "float32", "seed": 0
    }  # fmt: skip
    assert recipe["data"]["source"]["images"] == 12
    assert recipe["data"]["autoencoder"]["autoencoder"] == "identity"
    assert recipe["data"]["selection"] is None
    with Image.open(tmp_path / "a" / "samples" / "0000004.png") as grid:
        assert grid.size == (24, 16)
    # Another training shares the latents; its own choices show.
    shared = pretrain(images, out=tmp_path / "b", latents=tmp_path / "a" / "latents", iterations=4, **SMALL)
    assert load_dit(shared.checkpoint).num_classes is None
    with raises(ConfigMismatchError, 4, 2):
        pretrain(images, out=tmp_path / "b", latents=tmp_path / "a" / "latents", iterations=5, **SMALL | {"batch": 2})


def test_a_new_training_begins_with_the_weights_of_a_checkpoint(images, tmp_path):
    options = {**SMALL, "device": "cpu", "latents": tmp_path / "latents", "conditional": True}
    first = pretrain(images, out=tmp_path / "first", iterations=4, lr=1e-2, ema=0.5, **options)
    # No step changes anything: what the training began with is what it ends with.
    still = options | {"iterations": 1, "lr": 1e-30, "ema": 1.0, "seed": 9}
    second = pretrain(images, out=tmp_path / "second", init_from=first.checkpoint, **still)
    for which in ("model", "ema"):
        start, end = (read_checkpoint(done.checkpoint)[which] for done in (first, second))
        assert all(torch.equal(value, end[name]) for name, value in start.items())
    assert second.metrics["steps"] == 1
    recipe = read_checkpoint(second.checkpoint)["recipe"]
    assert recipe["init_from"]["file"] == first.checkpoint.name
    assert "init_from" not in read_checkpoint(first.checkpoint)["recipe"]
    # It resumes from its own checkpoints, and with no other beginning.
    going_on = still | {"iterations": 2}
    assert pretrain(images, out=tmp_path / "second", init_from=first.checkpoint, **going_on).metrics["steps"] == 2
    with raises(ConfigMismatchError, "init_from.sha256"):
        pretrain(images, out=tmp_path / "second", init_from=second.checkpoint, **going_on)


def test_after_divergence_another_training_begins_with_the_last_checkpoint(images, tmp_path, command, monkeypatch):
    words = ["train", images, "--size", 8, "--model", "32x2x2/2", "--batch", 4, "-n", 4, "--sample-every", 4]
    words += ["--checkpoint-every", 2, "--device", "cpu", "--samples", 1]
    flush = LossLog.flush
    monkeypatch.setattr(LossLog, "flush", lambda log: float("nan") if len(log.losses) > 1 else flush(log))
    done = command(*words, "-o", tmp_path / "diverged")
    last = tmp_path / "diverged" / "checkpoints" / "last.pt"
    assert last.exists()
    assert (done.returncode, f"--init-from {last}" in done.stderr) == (1, True), done.stderr
    monkeypatch.undo()
    done = command(*words, "--lr", "1e-5", "--init-from", last, "-o", tmp_path / "begun")
    assert done.returncode == 0, done.stderr


def test_without_a_checkpoint_divergence_names_none(images, tmp_path):
    with raises(DivergedError) as caught:
        pretrain(images, out=tmp_path / "out", iterations=60, lr=1e30, device="cpu", **SMALL | {"sample_every": 60})
    assert "last.pt" not in str(caught.value)


@pytest.mark.parametrize(
    ("change", "error"),
    [
        ({"model": "16x2x2/2"}, WeightsError),
        ({"size": 16}, WeightsError),
        ({"conditional": True}, WeightsError),
        ({"init_from": "nothing.pt"}, WeightsError),
    ],
)
def test_a_checkpoint_of_another_network_is_refused_before_images_are_encoded(images, tmp_path, change, error):
    first = pretrain(images, out=tmp_path / "first", iterations=1, device="cpu", **SMALL)
    options = {**SMALL, "iterations": 1, "device": "cpu", "init_from": first.checkpoint} | change
    with raises(error):
        pretrain(images, out=tmp_path / "out", **options)
    assert not (tmp_path / "out").exists()


def test_weights_that_are_not_finite_begin_no_training(images, tmp_path):
    first = pretrain(images, out=tmp_path / "first", iterations=1, device="cpu", **SMALL)
    content = read_checkpoint(first.checkpoint)
    content["ema"]["pos_embed"][0, 0, 0] = float("nan")
    torch.save(content, tmp_path / "nan.pt")
    with raises(WeightsError, tmp_path / "nan.pt", "pos_embed"):
        pretrain(images, out=tmp_path / "out", iterations=1, device="cpu", init_from=tmp_path / "nan.pt", **SMALL)


def test_classes_of_other_names_are_refused(images, tmp_path):
    options = {**SMALL, "iterations": 1, "device": "cpu", "conditional": True}
    first = pretrain(images, out=tmp_path / "first", **options)
    shutil.copytree(images, tmp_path / "renamed")
    (tmp_path / "renamed" / "a").rename(tmp_path / "renamed" / "d")
    with raises(ArgumentError, first.checkpoint, "'a'", "'d'"):
        pretrain(tmp_path / "renamed", out=tmp_path / "out", init_from=first.checkpoint, **options)


def test_nothing_is_written_among_the_images(images, tmp_path):
    shutil.copytree(images, tmp_path / "images")
    images = tmp_path / "images"
    for options in ({"out": images / "training"}, {"out": images}, {"out": tmp_path / "t", "latents": images / "l"}):
        with raises(OutputError, images):
            pretrain(images, iterations=1, device="cpu", **SMALL | options)
    assert not (images / "training").exists()
    assert not (images / "l").exists()


def test_what_cannot_be_trained_is_refused_before_images_are_encoded(images, tmp_path):
    for change, values in (
        ({"model": "DiT-M/2"}, ("model", "DiT-M/2", "DiT-S/2")),
        ({"lr": -1.0}, ("lr",)),
        ({"seed": -1}, ("seed",)),
        ({"iterations": 0}, ("iterations",)),
    ):
        with raises(ArgumentError, *values):
            pretrain(images, out=tmp_path / "out", **{"iterations": 1, **SMALL, **change})
    assert not (tmp_path / "out").exists()


def launch(*words, processes=0):
    """Run the installed command, on its own or by torchrun."""
    start = [sys.executable, "-m"]
    start += ["torch.distributed.run", "--nproc-per-node", str(processes), "-m"] if processes else []
    return subprocess.Popen(
        [*start, "rsprune", *map(str, words)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
    )


@pytest.mark.slow
def test_a_killed_command_goes_on_and_torchrun_shares_it(images, tmp_path):
    words = [images, "--size", 8, "--model", "32x2x2/2", "--batch", 4, "-n", 9, "--lr", "1e-3", "--ema", "0.9"]
    words += ["--sample-every", 9, "--checkpoint-every", 1, "--conditional", "--json", "--device", "cpu"]
    killed = launch("train", *words, "-o", tmp_path / "killed", "--micro-batch", 1)
    two = launch("train", *words, "-o", tmp_path / "two", processes=2)
    while killed.poll() is None and not (tmp_path / "killed" / "checkpoints" / "last.pt").exists():
        time.sleep(0.05)
    killed.kill()
    killed.communicate()
    step = read_checkpoint(tmp_path / "killed" / "checkpoints" / "last.pt")["step"]
    assert 1 <= step <= 9

    options = {**SMALL, "lr": 1e-3, "ema": 0.9, "iterations": 9, "sample_every": 9, "checkpoint_every": 1}
    options |= {"conditional": True, "device": "cpu", "samples": 16}
    one = pretrain(images, out=tmp_path / "one", **options, micro_batch=1)
    resumed = pretrain(images, out=tmp_path / "killed", **options, micro_batch=1)
    assert resumed.losses.tobytes() == one.losses.tobytes()
    mine, theirs = (read_checkpoint(done.checkpoint)["ema"] for done in (one, resumed))
    assert all(torch.equal(value, theirs[name]) for name, value in mine.items())

    out, errors = two.communicate()
    assert two.returncode == 0, errors
    results = [json.loads(line) for line in out.splitlines() if '"result"' in line]
    assert results[0]["steps"] == 9
    both = read_checkpoint(tmp_path / "two" / "checkpoints" / "last.pt")
    np.testing.assert_allclose(both["losses"].numpy(), one.losses, rtol=1e-5)
    assert_same_weights(both["ema"], mine)
