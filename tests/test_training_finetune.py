"""Fine-tuning: it begins at the trained network, and pairs each image with its own condition."""

import numpy as np
import pytest
import torch
from PIL import Image

import scenes
from failures import raises, warns
from rsprune.errors import ArgumentError, SourceError
from rsprune.evaluation.images import open_images
from rsprune.evaluation.pairs import pair_rows
from rsprune.runners import NoProgress
from rsprune.training.autoencoder import load_autoencoder
from rsprune.training.checkpoint import load_dit, read_checkpoint
from rsprune.training.conditioning import pair_samples
from rsprune.training.finetune import finetune_sis, finetune_sr, widened
from rsprune.training.label_maps import DATASETS, OneHot, open_pairs
from rsprune.training.latent_cache import LatentCache, cache_latents
from rsprune.training.sample import sample_run
from rsprune.training.transforms import ImageTransform, LabelTransform
from small_dits import inputs, small_dit

SECOND, OPEN = DATASETS["second"], DATASETS["openearthmap"]


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    """A trained network for pixels of 8 x 8."""
    path = tmp_path_factory.mktemp("base") / "last.pt"
    model = small_dit(in_channels=3)
    recipe = {"network": model.config, "data": {"autoencoder": load_autoencoder("identity").provenance()}}
    torch.save({"model": model.state_dict(), "ema": model.state_dict(), "recipe": recipe}, path)
    return path


def label_maps(count, classes, size=16):
    """Label maps of large patches."""
    rng = np.random.default_rng(5)
    return [
        np.kron(rng.integers(0, classes, (4, 4), np.uint8), np.ones((size // 4,) * 2, np.uint8)) for _ in range(count)
    ]


@pytest.fixture(scope="module")
def second(tmp_path_factory):
    """SECOND's layout: two dates, labels in colours, and one image without a label."""
    root = tmp_path_factory.mktemp("SECOND")
    tiles, maps = scenes.tiles(7, 16), label_maps(7, len(SECOND.names))
    for i, (tile, numbers) in enumerate(zip(tiles, maps, strict=True)):
        date = i % 2 + 1
        for folder, pixels in ((f"im{date}", tile), (f"label{date}", SECOND.paint(numbers))):
            (root / folder).mkdir(exist_ok=True)
            if not (i == 6 and folder.startswith("label")):
                Image.fromarray(pixels).save(root / folder / f"{i:05d}.png")
    return root


@pytest.fixture(scope="module")
def openearthmap(tmp_path_factory):
    """OpenEarthMap's layout: regions, labels as numbers, and one label without its image."""
    root = tmp_path_factory.mktemp("OpenEarthMap")
    tiles, maps = scenes.tiles(4, 16), label_maps(4, len(OPEN.names))
    for i, (tile, numbers) in enumerate(zip(tiles, maps, strict=True)):
        region = root / ("aachen" if i < 2 else "zanzibar")
        for folder, pixels in (("images", tile), ("labels", numbers)):
            (region / folder).mkdir(parents=True, exist_ok=True)
            if not (i == 3 and folder == "images"):
                Image.fromarray(pixels).save(region / folder / f"{region.name}_{i}.tif")
    return root


# --- data sets --------------------------------------------------------------------------------------------------------


def keys(source):
    return [item.key for shard in source.shards for item in source.read(shard)]


def test_pairs_of_both_data_sets_stand_in_the_same_rows(second, openearthmap):
    images, labels = open_pairs("second", second)
    assert keys(images) == ["im1/00000.png", "im1/00002.png", "im1/00004.png", *(f"im2/0000{i}.png" for i in (1, 3, 5))]
    assert [key.replace("label", "im") for key in keys(labels)] == keys(images)
    images, labels = open_pairs("openearthmap", openearthmap)
    assert keys(images) == [
        f"{region}/images/{region}_{i}.tif" for region, i in [("aachen", 0), ("aachen", 1), ("zanzibar", 2)]
    ]
    assert [key.replace("labels", "images") for key in keys(labels)] == keys(images)
    with raises(SourceError, "im1/", "im2/", "label1/", "label2/"):
        open_pairs("second", openearthmap)
    with raises(ArgumentError, "second", "openearthmap"):
        open_pairs("loveda", second)


@pytest.mark.parametrize("palette", [SECOND, OPEN], ids=["second", "openearthmap"])
def test_palettes_tell_every_class_and_nothing_else(palette):
    numbers = np.arange(len(palette.names), dtype=np.uint8)[None]
    stored = np.repeat(numbers[..., None], 3, axis=2) if palette.indexed else palette.paint(numbers)
    np.testing.assert_array_equal(palette.class_numbers(stored), numbers)
    assert len(set(palette.colors)) == len(palette.names) == len(palette.colors)
    assert palette.class_numbers(np.full((2, 2, 3), 77, np.uint8)) is None


def test_labels_keep_their_place_and_are_never_mixed(tmp_path):
    numbers = label_maps(1, len(SECOND.names), 32)[0]
    Image.fromarray(SECOND.paint(numbers)).save(tmp_path / "a.png")
    Image.fromarray(np.full((32, 32, 3), 77, np.uint8)).save(tmp_path / "b.png")
    paths = [str(tmp_path / name) for name in ("a.png", "b.png", "c.png")]
    read, failures = LabelTransform(16, SECOND, painted=False)(paths)
    np.testing.assert_array_equal(read[0, :, :, 0], numbers[1::2, 1::2])
    painted, _ = LabelTransform(16, SECOND, painted=True)(paths)
    np.testing.assert_array_equal(painted[0], SECOND.paint(read[0, :, :, 0]))
    assert [(number, kind) for number, kind, _ in failures] == [(1, "palette"), (2, "not_found")]


def test_a_wide_label_map_is_cut_as_its_image_is(tmp_path):
    wide = np.full((16, 41, 3), 255, np.uint8)
    wide[:, :20] = 0, 0, 255
    Image.fromarray(wide).save(tmp_path / "wide.png")
    image, _ = ImageTransform(8)([str(tmp_path / "wide.png")])
    label, _ = LabelTransform(8, SECOND, painted=True)([str(tmp_path / "wide.png")])
    assert [(pixels[0, 4, :, 0] < 128).sum() for pixels in (image, label)] == [4, 4]


def test_one_hot_gives_the_share_of_each_class():
    numbers = torch.tensor(label_maps(1, 9)[0].astype(np.float32))[None, None]
    codec = OneHot(9, 8)
    shares = codec.encode(numbers / 127.5 - 1)
    assert shares.shape == (1, 9, 2, 2)
    for row in range(2):
        for column in range(2):
            cell = numbers[0, 0, 8 * row : 8 * row + 8, 8 * column : 8 * column + 8]
            for number in range(9):
                assert shares[0, number, row, column].item() == pytest.approx((cell == number).float().mean().item())
    assert torch.equal(OneHot(9, 1).invert(OneHot(9, 1).encode(numbers / 127.5 - 1)), numbers / 127.5 - 1)


# --- tasks ------------------------------------------------------------------------------------------------------------

FEW = {"iterations": 2, "ema": 0.1, "batch": 2, "samples": 4, "device": "cpu", "progress": False}


def test_the_first_step_begins_at_the_trained_network(base):
    network, trained = widened(base, "ema", 9), load_dit(base)
    x, t, _, cond = inputs(network)
    assert torch.equal(network(x, t, None, cond), trained(x, t))


def test_super_resolution_sees_what_is_left_of_the_image(second, base, tmp_path):
    tuned = finetune_sr([second / "im1", second / "im2"], base, out=tmp_path / "sr", factor=4, **FEW)
    recipe = read_checkpoint(tuned.checkpoint)["recipe"]
    assert (recipe["task"], recipe["options"]) == ("sr", {"factor": 4})
    assert recipe["network"]["cond_channels"] == 3
    assert load_dit(tuned.checkpoint).out_channels == 6
    low = LatentCache(tmp_path / "sr" / "conditions")
    key = low.keys[2].partition("/")[2]
    with Image.open(second / "im1" / key) as image:
        small = image.resize((8, 8), Image.Resampling.BICUBIC)
    want = np.asarray(small.resize((2, 2), Image.Resampling.BICUBIC).resize((8, 8), Image.Resampling.BICUBIC))
    got = low.moments(np.array([2]), np.array([False]))[0].permute(1, 2, 0).numpy() * 127.5 + 127.5
    np.testing.assert_allclose(got, want, atol=0.1)
    again = finetune_sr([second / "im1", second / "im2"], base, out=tmp_path / "sr", **FEW | {"iterations": 3})
    assert again.metrics["steps"] == 3
    with raises(ArgumentError, "factor", 2):
        finetune_sr(second / "im1", base, out=tmp_path / "x", factor=1)
    with raises(ArgumentError, 3):
        finetune_sr(second / "im1", base, out=tmp_path / "x", factor=3)


def test_super_resolution_reads_the_bands_that_the_network_was_trained_on(second, base, tmp_path):
    content = torch.load(base, weights_only=False)
    content["recipe"]["data"] |= {"bands": [2, 1, 0], "valid_range": None}
    torch.save(content, tmp_path / "base.pt")
    tuned = finetune_sr(second / "im1", tmp_path / "base.pt", out=tmp_path / "sr", **FEW)
    recipe = read_checkpoint(tuned.checkpoint)["recipe"]
    for read in (recipe["data"], recipe["conditions"]):
        assert (read["bands"], read["valid_range"]) == ([2, 1, 0], None)
    found = LatentCache(tmp_path / "sr" / "latents")
    with Image.open(second / "im1" / found.keys[0]) as image:
        want = np.asarray(image.resize((8, 8), Image.Resampling.BICUBIC))[..., ::-1]
    got = found.moments(np.array([0]), np.array([False]))[0].permute(1, 2, 0).numpy() * 127.5 + 127.5
    np.testing.assert_allclose(got, want, atol=0.1)
    drawn = sample_run(
        tuned.checkpoint,
        out=tmp_path / "drawn",
        images=2,
        condition=second / "im1",
        sampler="ddim",
        steps=2,
        progress=False,
    )
    assert LatentCache(drawn.path.with_name("drawn-conditions")).config["bands"] == [2, 1, 0]


@pytest.mark.parametrize(("encoding", "channels"), [("onehot", 7), ("palette", 3)])
def test_synthesis_sees_the_label_map_of_its_image(second, base, tmp_path, encoding, channels):
    tuned = finetune_sis(second, base, out=tmp_path, dataset="second", encoding=encoding, **FEW)
    recipe = read_checkpoint(tuned.checkpoint)["recipe"]
    assert recipe["options"] == {"dataset": "second", "encoding": encoding}
    assert recipe["network"]["cond_channels"] == channels
    assert (tmp_path / "samples" / "0000002.png").is_file()


def test_a_fine_tuning_begins_again_with_its_own_checkpoint(second, base, tmp_path):
    """As it should after divergence, with another learning rate."""
    first = finetune_sr(second / "im1", base, out=tmp_path / "first", **FEW)
    options = FEW | {"lr": 1e-30, "weights": "model"}
    again = finetune_sr(second / "im1", first.checkpoint, out=tmp_path / "again", **options)
    start, end = (read_checkpoint(one.checkpoint)["model"] for one in (first, again))
    assert all(torch.equal(value, end[name]) for name, value in start.items())


@pytest.mark.parametrize("task", ["sr", "sis"])
def test_a_fine_tuned_network_draws_from_conditions(second, base, tmp_path, monkeypatch, task):
    if task == "sr":
        tuned = finetune_sr(second / "im1", base, out=tmp_path / "tuned", lr=0.1, **FEW)
    else:
        tuned = finetune_sis(second, base, out=tmp_path / "tuned", dataset="second", lr=0.1, **FEW)
    source = second / "im1" if task == "sr" else second
    options = {"images": 3, "sampler": "ddim", "steps": 3, "device": "cpu", "progress": False}
    sample_run(tuned.checkpoint, out=tmp_path / "drawn", condition=source, **options)
    assert np.load(tmp_path / "drawn" / "samples.npz")["arr_0"].shape == (3, 8, 8, 3)
    assert (tmp_path / "drawn" / "conditions.csv").read_text().splitlines()[1].endswith("00000.png")
    # Each drawn image has its real one, of the same name and size.
    keys = [line.partition(",")[2] for line in (tmp_path / "drawn" / "conditions.csv").read_text().splitlines()[1:]]
    for number, key in enumerate(keys):
        with (
            Image.open(source / key.replace("label", "im")) as real,
            Image.open(tmp_path / "drawn" / "originals" / f"{number:06d}.png") as original,
        ):
            assert np.array_equal(original, real.resize((8, 8), Image.Resampling.BICUBIC))
    assert len(keys) == 3
    made, found = (open_images(tmp_path / "drawn" / name) for name in ("images", "originals"))
    names, rows = pair_rows(made, found)
    assert names == ["000000.png", "000001.png", "000002.png"]
    assert list(rows) == [0, 1, 2]
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    sample_run(tuned.checkpoint, out=".", condition=source, **options)
    assert np.array_equal(np.load("samples.npz")["arr_0"], np.load(tmp_path / "drawn" / "samples.npz")["arr_0"])
    with raises(ArgumentError):
        sample_run(tuned.checkpoint, out=tmp_path / "x", **options)
    with raises(ArgumentError):
        sample_run(base, out=tmp_path / "x", condition=source, **options)
    with raises(ArgumentError, 99):
        sample_run(tuned.checkpoint, out=tmp_path / "x", condition=source, **options | {"images": 99})


def test_a_network_of_measured_scale_is_fine_tuned_and_sampled(second, base, tmp_path):
    """The recipe holds the scale that the network was trained on, whatever the autoencoder's own is."""
    content = torch.load(base, weights_only=False)
    content["recipe"] |= {"scale": 2.0, "shift": -0.5}
    torch.save(content, tmp_path / "base.pt")
    tuned = finetune_sr(second / "im1", tmp_path / "base.pt", out=tmp_path / "sr", **FEW)
    recipe = read_checkpoint(tuned.checkpoint)["recipe"]
    assert (recipe["scale"], recipe["shift"]) == (2.0, -0.5)
    options = {"images": 2, "sampler": "ddim", "steps": 2, "device": "cpu", "progress": False}
    drawn = sample_run(tuned.checkpoint, out=tmp_path / "drawn", condition=second / "im1", **options)
    assert drawn.metrics["images"] == 2


class Killed(BaseException):
    """Stands for the end of the process."""


class Killer(NoProgress):
    """Ends the process before the first image."""

    def start(self, stage, total, done):
        raise Killed


def test_an_average_that_stays_at_the_network_before_is_warned_of(second, base, tmp_path):
    """0.9999 over 5,000 steps leaves 61 % of the network before; 0.9991 would leave 1 %."""
    options = {"out": tmp_path / "out", "device": "cpu", "progress": Killer()}
    with warns(UserWarning, "5,000", "ema=0.9999", "61%", 0.9991), pytest.raises(Killed):
        finetune_sr(second / "im1", base, **options)
    with pytest.raises(Killed):  # 0.9994 leaves 5 %: no warning, which would be an error here
        finetune_sr(second / "im1", base, ema=0.9994, **options)


def test_images_whose_condition_cannot_be_read_are_left_out(tmp_path):
    for i, tile in enumerate(scenes.tiles(4, 8)):
        for folder in ("images", "labels"):
            (tmp_path / folder).mkdir(exist_ok=True)
            Image.fromarray(tile).save(tmp_path / folder / f"{i}.png")
    (tmp_path / "labels" / "1.png").write_bytes(b"")
    (tmp_path / "images" / "2.png").write_bytes(b"")
    codec = load_autoencoder("identity")
    images, labels = (
        cache_latents(tmp_path / name, codec, ImageTransform(8), out=tmp_path / f"{name}-cache", progress=False)
        for name in ("images", "labels")
    )
    numbers, partner = pair_samples(images, labels)
    assert [images.keys[number] for number in numbers] == ["0.png", "3.png"]
    for mirrored in (False, True):
        views = np.full(2, mirrored)
        assert torch.equal(labels.moments(partner[numbers], views), images.moments(numbers, views))


def test_the_command_fine_tunes_and_explains(command, openearthmap, base, tmp_path):
    words = ["finetune", "sis", openearthmap, "--dataset", "openearthmap", "-c", base, "-o", tmp_path / "out"]
    done = command(*words, "-n", 1, "--batch", 2, "--ema", 0, "--device", "cpu")
    assert done.returncode == 0, done.stderr
    assert "1 steps, loss" in done.stdout
    page = command("finetune", "--help").stdout
    assert "rsprune finetune sr" in page
    assert "sis" in page
