"""Autoencoders and the cache of what they make of images."""

import json
import os
import shutil
import tarfile
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import scenes
from failures import raises
from rsprune.errors import ArgumentError, ConfigMismatchError, FormatError, UnfinishedRunError, WeightsError
from rsprune.io import read_table, write_table
from rsprune.runs.folder import RunFolder
from rsprune.runs.stages import entropy_run
from rsprune.sources import open_source
from rsprune.training.autoencoder import (
    Autoencoder,
    expected_moments,
    load_autoencoder,
    sample_posterior,
    tiny_decoder,
    tiny_encoder,
)
from rsprune.training.latent_cache import LatentCache, cache_latents
from rsprune.training.transforms import ImageTransform


@pytest.fixture(scope="module")
def kl(tmp_path_factory):
    """A small AutoencoderKL of random weights, four times down."""
    from diffusers import AutoencoderKL

    torch.manual_seed(0)
    blocks = {"down_block_types": ["DownEncoderBlock2D"] * 3, "up_block_types": ["UpDecoderBlock2D"] * 3}
    model = AutoencoderKL(block_out_channels=[8, 8, 8], norm_num_groups=4, latent_channels=4, **blocks)
    folder = tmp_path_factory.mktemp("kl")
    model.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    """Eleven scenes in class folders, one of them broken."""
    folder = tmp_path_factory.mktemp("images")
    for i, tile in enumerate(scenes.tiles(11, 24)):
        path = folder / ("sea" if i % 2 else "land") / f"{i:02d}.png"
        path.parent.mkdir(exist_ok=True)
        Image.fromarray(tile).save(path)
    (folder / "land" / "04.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    return folder


def random_images(n=2, channels=3, size=16):
    return torch.rand(n, channels, size, size, generator=torch.Generator().manual_seed(0)) * 2 - 1


# --- autoencoders -----------------------------------------------------------------------------------------------------


def test_a_folder_of_diffusers_gives_its_own_latents(kl):
    from diffusers import AutoencoderKL

    theirs, ours = AutoencoderKL.from_pretrained(kl).eval(), load_autoencoder(kl)
    assert (ours.latents, ours.moments, ours.factor, ours.scale, ours.shift) == (4, 8, 4, 0.18215, 0.0)
    x = random_images()
    with torch.inference_mode():
        posterior = theirs.encode(x).latent_dist
        torch.testing.assert_close(ours.encode(x), posterior.parameters)
        torch.manual_seed(7)
        want = posterior.sample()
        torch.manual_seed(7)
        assert torch.equal(sample_posterior(posterior.parameters, 4, torch.randn(want.shape)), want)
        z = ours.normalize(want)
        torch.testing.assert_close(z, want * 0.18215)
        torch.testing.assert_close(ours.decode(z), theirs.decode(want).sample.clamp(-1, 1), rtol=1e-4, atol=1e-4)


def test_old_names_of_the_attention_load(kl, tmp_path):
    """As in the published sd-vae files: query, key, value, proj_attn, one more dimension away, pickled."""
    from safetensors.torch import load_file

    names = {"to_q": "query", "to_k": "key", "to_v": "value", "to_out.0": "proj_attn"}
    state = load_file(kl / "diffusion_pytorch_model.safetensors")
    old = {}
    for name, value in state.items():
        for new, former in names.items():
            name = name.replace(f".{new}.", f".{former}.")
        old[name] = value
    assert old.keys() != state.keys()
    config = json.loads((kl / "config.json").read_text())
    del config["scaling_factor"], config["_diffusers_version"]
    (tmp_path / "config.json").write_text(json.dumps(config))
    torch.save(old, tmp_path / "diffusion_pytorch_model.bin")
    ours = load_autoencoder(tmp_path)
    assert ours.scale == 0.18215
    with torch.inference_mode():
        assert torch.equal(ours.encode(random_images()), load_autoencoder(kl).encode(random_images()))


def test_four_channels_have_an_autoencoder_of_four_channels(tmp_path):
    from diffusers import AutoencoderKL

    AutoencoderKL(4, 4, block_out_channels=[8], norm_num_groups=4, scaling_factor=0.5).save_pretrained(tmp_path / "vae")
    ours = load_autoencoder(tmp_path, channels=4)
    assert (ours.channels, ours.factor, ours.scale) == (4, 1, 0.5)
    with raises(ArgumentError, 4, 3):
        load_autoencoder(tmp_path)


def write_tiny(folder, latents, pooled, seed=0):
    """A tiny autoencoder of random weights, in half precision as the published ones."""
    torch.manual_seed(seed)
    shape = {"0.weight": torch.zeros(64, 3, 3, 3), "14.weight": torch.zeros(latents, 64, 3, 3)}
    shape |= {f"{i}.pool.0.weight": torch.zeros(1) for i in (11, 12, 13) if pooled}
    encoder = tiny_encoder(shape)
    shape = {"1.weight": torch.zeros(64, latents, 3, 3), "19.weight": torch.zeros(3, 64, 3, 3)}
    shape |= {f"{i}.pool.0.weight": torch.zeros(1) for i in (3, 4, 5) if pooled}
    decoder = tiny_decoder(shape)
    for half, module in (("encoder", encoder), ("decoder", decoder)):
        torch.save(module.half().state_dict(), folder / f"tae_{half}.pth")


@pytest.mark.parametrize(("latents", "pooled"), [(4, False), (16, False), (32, True)])
def test_tiny_autoencoders_are_told_by_their_weights(tmp_path, latents, pooled):
    write_tiny(tmp_path, latents, pooled)
    ours = load_autoencoder(tmp_path)
    assert (ours.latents, ours.moments, ours.factor, ours.scale) == (latents, latents, 8, 1.0)
    with torch.inference_mode():
        z = ours.encode(random_images())
        assert z.shape == (2, latents, 2, 2)
        assert ours.decode(z).shape == (2, 3, 16, 16)


def test_tiny_autoencoder_agrees_with_diffusers(tmp_path):
    from diffusers import AutoencoderTiny

    write_tiny(tmp_path, 4, pooled=False)
    theirs = AutoencoderTiny()
    for half in ("encoder", "decoder"):
        state = torch.load(tmp_path / f"tae_{half}.pth")
        # diffusers leaves the bend before the decoder out of its layers, and so counts from one less.
        shift = half == "decoder"
        renamed = {f"layers.{int(k.split('.')[0]) - shift}.{k.partition('.')[2]}": v for k, v in state.items()}
        getattr(theirs, half).load_state_dict(renamed)
    theirs.float().eval().save_pretrained(tmp_path / "diffusers")
    ours, wrapped = load_autoencoder(tmp_path), load_autoencoder(tmp_path / "diffusers")
    x = random_images()
    with torch.inference_mode():
        z = theirs.encode(x).latents
        for loaded in (ours, wrapped):
            torch.testing.assert_close(loaded.encode(x), z)
            torch.testing.assert_close(loaded.decode(z), theirs.decode(z).sample.clamp(-1, 1), rtol=0, atol=1e-5)


def test_pixels_are_their_own_latents():
    ours = load_autoencoder("identity", channels=5)
    x = random_images(channels=5)
    assert torch.equal(ours.decode(ours.normalize(ours.encode(x))), x)
    assert (ours.factor, ours.latents, ours.moments) == (1, 5, 5)


def test_what_is_no_autoencoder_is_refused(tmp_path, kl):
    with raises(ArgumentError, tmp_path):
        load_autoencoder(tmp_path)
    shutil.copy(kl / "config.json", tmp_path)
    with raises(WeightsError, tmp_path):
        load_autoencoder(tmp_path)
    (tmp_path / "config.json").write_text('{"_class_name": "UNet2DModel"}')
    with raises(FormatError, "UNet2DModel"):
        load_autoencoder(tmp_path)
    (tmp_path / "config.json").unlink()
    write_tiny(tmp_path, 4, pooled=False)
    torch.save({"0.weight": torch.zeros(8, 3, 3, 3)}, tmp_path / "tae_encoder.pth")
    with raises(WeightsError, 8):
        load_autoencoder(tmp_path)
    write_tiny(tmp_path, 4, pooled=False)
    decoder = (tmp_path / "tae_decoder.pth").read_bytes()
    write_tiny(tmp_path, 16, pooled=False)
    (tmp_path / "tae_decoder.pth").write_bytes(decoder)
    with raises(WeightsError, 4):
        load_autoencoder(tmp_path)


@pytest.mark.skipif("RSPRUNE_DATA" not in os.environ, reason="needs the published weights: set RSPRUNE_DATA")
def test_published_taef2_reconstructs_aerial_scenes():
    data = Path(os.environ["RSPRUNE_DATA"])
    ours = load_autoencoder(data / "taef2")
    with tarfile.open(data / "reference_aid_128.tar") as tar:
        members = [member for member in tar if member.isfile()][::300]
        pixels, failures = ImageTransform(128)([tar.extractfile(member).read() for member in members])
    assert not failures
    x = torch.from_numpy(pixels).permute(0, 3, 1, 2).float() / 127.5 - 1
    with torch.inference_mode():
        z = ours.encode(x)
        errors = (ours.decode(z) - x).square().flatten(1).mean(1)
    assert z.shape[1:] == (32, 16, 16)
    assert (10 * torch.log10(4 / errors)).mean() > 24


# --- pixels -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("bands", [None, (1,), (2, 0), (2, 1, 0), (0, 1, 2, 0), (0, 0, 1, 1, 2, 2, 0)])
def test_pixels_are_cut_from_the_middle(tmp_path, bands):
    planes = np.random.default_rng(0).integers(0, 256, (20, 31, 3), np.uint8)
    Image.fromarray(planes).save(tmp_path / "a.png")
    taken = (0, 1, 2) if bands is None else bands
    pixels, failures = ImageTransform(10, len(taken), bands)([str(tmp_path / "a.png"), str(tmp_path / "b.png")])
    for place, band in enumerate(taken):
        whole = Image.fromarray(np.ascontiguousarray(planes[:, :, band])).resize((15, 10), Image.Resampling.BICUBIC)
        np.testing.assert_array_equal(pixels[0, :, :, place], np.asarray(whole)[:, 2:12])
    assert [(number, kind) for number, kind, _ in failures] == [(1, "not_found")]
    assert not pixels[1].any()


def test_images_without_the_bands_are_failures(tmp_path):
    Image.fromarray(np.zeros((8, 8, 3), np.uint8)).save(tmp_path / "a.png")
    _, failures = ImageTransform(8, 4)([str(tmp_path / "a.png")])
    assert [(number, kind) for number, kind, _ in failures] == [(0, "bands")]
    with raises(ArgumentError, "bands", 3):
        ImageTransform(8, 3, (0, 1))


# --- the cache --------------------------------------------------------------------------------------------------------


def make(images, kl, out, **options):
    return cache_latents(
        images, load_autoencoder(kl), ImageTransform(24), out=out, batch_size=4, progress=False, **options
    )


def files_of(folder):
    """The content of every visible file."""
    paths = sorted(p for p in folder.rglob("*") if p.is_file() and not p.name.startswith("."))
    return {str(p.relative_to(folder)): p.read_bytes() for p in paths}


def test_the_cache_draws_what_the_posterior_draws(images, kl, tmp_path):
    from diffusers import AutoencoderKL
    from diffusers.models.autoencoders.vae import DiagonalGaussianDistribution

    cache = make(images, kl, tmp_path / "cache")
    assert len(cache) == 10
    assert (cache.latents, cache.side, cache.views) == (4, 6, 2)
    assert cache.labels == ["land"] * 5 + ["sea"] * 5
    assert cache.keys[:3] == ["land/00.png", "land/02.png", "land/06.png"]
    ids, mirrored = np.array([7, 0, 7]), np.array([True, False, False])
    noise = torch.randn(3, 4, 6, 6)
    got = cache.sample(ids, mirrored, noise)

    model = AutoencoderKL.from_pretrained(kl).eval()
    x = torch.from_numpy(np.stack([np.asarray(Image.open(images / cache.keys[i])) for i in ids]))
    x = x.permute(0, 3, 1, 2) / 127.5 - 1
    x[0] = x[0].flip(2)
    with torch.inference_mode():
        moments = model.encode(x).latent_dist.parameters
    torch.testing.assert_close(cache.moments(ids, mirrored), moments, rtol=1e-3, atol=1e-3)
    # From the moments as stored, exactly.
    posterior = DiagonalGaussianDistribution(cache.moments(ids, mirrored))
    assert torch.equal(got, posterior.mean + posterior.std * noise)


def test_an_image_that_cannot_be_read_is_named_and_left_out(images, kl, tmp_path):
    cache = make(images, kl, tmp_path / "cache")
    assert cache.summary["images"] == 10
    assert cache.summary["quarantined"] == 1
    rows = read_table(next((tmp_path / "cache" / "latents").glob("*.parquet"))).to_pylist()
    assert [(row["key"], row["kind"]) for row in rows if row["kind"]] == [("land/04.png", "truncated")]
    assert not np.load(next((tmp_path / "cache" / "latents").glob("*.npy")))[2].any()


def test_measured_scale_brings_draws_to_unit_variance(images, kl, tmp_path):
    cache = make(images, kl, tmp_path / "cache")
    scale, shift = cache.measured()
    ids = np.tile(np.arange(10), 40)
    draws = [cache.sample(ids, np.full(400, view), torch.randn(400, 4, 6, 6)) for view in (False, True)]
    z = (torch.cat(draws) - shift) * scale
    assert z.mean().item() == pytest.approx(0, abs=0.02)
    assert z.std().item() == pytest.approx(1, abs=0.02)


def test_what_draws_sum_to_is_clamped_as_they_are():
    """An encoder that is very unsure of a pixel: draws hold the variance below e^20, and so do the sums."""
    moments = torch.zeros(1, 2, 1, 2)
    moments[0, :, 0] = torch.tensor([[3.0, -1.0], [40.0, 0.0]])
    mean, deviation = expected_moments([moments.half()], 1)
    square = deviation**2 + mean**2
    assert (mean, square) == (1.0, pytest.approx((10 + np.exp(20.0) + 1) / 2, rel=1e-12))
    draws = sample_posterior(moments.repeat(20000, 1, 1, 1), 1, torch.randn(20000, 1, 1, 2))
    assert draws.square().mean().item() == pytest.approx(square, rel=0.05)


def test_the_figures_of_a_cache_do_not_depend_on_how_many_rows_are_summed_at_once(images, kl, tmp_path, monkeypatch):
    cache = make(images, kl, tmp_path / "cache")
    monkeypatch.setattr("rsprune.training.latent_cache.BLOCK", 1)
    found = LatentCache.scan(cache.folder)
    assert found == pytest.approx({name: cache.summary[name] for name in found}, rel=1e-12)


class Killed(BaseException):
    """Stands for the end of the process: nobody catches it."""


def test_a_killed_cache_goes_on_and_ends_with_the_same_bytes(kl, tmp_path, monkeypatch):
    for shard in range(3):
        with tarfile.open(tmp_path / f"pool-{shard}.tar", "w") as tar:
            for i, tile in enumerate(scenes.tiles(12, 24)[shard::3]):
                Image.fromarray(tile).save(tmp_path / "tile.png")
                tar.add(tmp_path / "tile.png", f"{shard}{i}.png")
    pool = str(tmp_path / "pool-{0..2}.tar")
    want = make(pool, kl, tmp_path / "whole").folder.path

    calls = []
    encode = Autoencoder.__subclasses__()[1].encode

    def dying(self, x):
        calls.append(1)
        if len(calls) == 7:
            raise Killed
        return encode(self, x)

    monkeypatch.setattr("rsprune.training.autoencoder.DiffusersAutoencoder.encode", dying)
    with pytest.raises(Killed):
        make(pool, kl, tmp_path / "killed")
    with raises(UnfinishedRunError, tmp_path / "killed"):
        LatentCache(tmp_path / "killed")
    done = len(calls)
    make(pool, kl, tmp_path / "killed")
    assert (
        len(calls) - done == 4
    )  # two views of what is tried out, and of the only batch of the shard that was not done
    assert files_of(tmp_path / "killed") == files_of(want)


def test_another_configuration_is_refused(images, kl, tmp_path):
    make(images, kl, tmp_path / "cache")
    with raises(ConfigMismatchError, "mirror"):
        make(images, kl, tmp_path / "cache", mirror=False)
    with raises(ArgumentError, "size=25", 4):
        cache_latents(images, load_autoencoder(kl), ImageTransform(25), out=tmp_path / "other")
    with raises(ArgumentError, 3, 1):
        cache_latents(images, load_autoencoder(kl), ImageTransform(24, 1), out=tmp_path / "other")


def test_a_run_s_selection_is_what_is_encoded(images, kl, tmp_path):
    import pyarrow as pa

    source = open_source(images)
    folder = RunFolder(tmp_path / "run")
    entropy_run(source, out=folder.path, progress=False)
    with raises(UnfinishedRunError, "selection.parquet"):
        make(images, kl, tmp_path / "cache", run=folder.path)
    shard = source.shards[0].name
    rows = {"key": ["sea/05.png", "land/00.png"], "shard": [shard] * 2, "row": [8, 0]}
    write_table(folder.selection, pa.table(rows), {})
    folder.complete(folder.summary, [folder.selection])
    cache = make(images, kl, tmp_path / "cache", run=folder.path)
    assert cache.keys == ["land/00.png", "sea/05.png"]
    assert len(cache.config["selection"]) == 32
    RunFolder(tmp_path / "another").start({"source": {"kind": "folder", "images": 3, "digest": "0"}})
    with raises(ConfigMismatchError):
        make(images, kl, tmp_path / "other", run=tmp_path / "another")


def test_samples_that_are_not_there_are_refused(images, kl, tmp_path):
    cache = make(images, kl, tmp_path / "cache", mirror=False)
    with raises(ArgumentError, 0, 9, 3, 10):
        cache.moments(np.array([3, 10]), np.zeros(2, bool))
    with raises(ArgumentError, "mirror"):
        cache.moments(np.array([3]), np.ones(1, bool))


# --- latents that cannot be kept --------------------------------------------------------------------------------------


class Faulty(Autoencoder):
    """Pixels as latents; those of images brighter than ``above`` are multiplied by ``times``."""

    def __init__(self, above, times):
        super().__init__()
        self.channels = self.latents = self.moments = 3
        self.factor, self.above, self.times, self.seen = 1, above, times, 0
        self.source = {"autoencoder": "faulty", "files": [{"file": "faulty.safetensors", "sha256": ""}]}

    def encode(self, images):
        self.seen += len(images)
        bright = images.mean((1, 2, 3), keepdim=True) > self.above
        return torch.where(bright, images * self.times, images)

    def invert(self, latents):
        return latents


@pytest.mark.parametrize(("times", "value"), [(float("nan"), "NaN"), (1e6, 65504)])
def test_latents_that_cannot_be_kept_are_found_before_the_first_image(images, tmp_path, times, value):
    model = Faulty(-1, times)
    with raises(WeightsError, "faulty.safetensors", value):
        cache_latents(images, model, ImageTransform(16), out=tmp_path / "cache", progress=False)
    assert model.seen == 2  # noise and its mirror image
    assert not (tmp_path / "cache").exists()


@pytest.mark.parametrize(("times", "value"), [(float("nan"), "NaN"), (1e6, 65504)])
def test_latents_that_cannot_be_kept_end_the_cache_at_their_image(tmp_path, times, value):
    folder = tmp_path / "images"
    folder.mkdir()
    for i in range(12):
        Image.new("RGB", (16, 16), (250,) * 3 if i == 5 else (9 * i,) * 3).save(folder / f"{i:02d}.png")
    model = Faulty(0.9, times)
    with raises(WeightsError, "faulty.safetensors", "05.png", value):
        cache_latents(folder, model, ImageTransform(16), out=tmp_path / "cache", batch_size=2, progress=False)
    assert model.seen == 2 * (1 + 6)  # the third batch is the last
