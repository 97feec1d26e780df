"""Generated against real images: FID and LPIPS against their libraries, and what metrics say of themselves."""

import contextlib
import io
import json
import warnings

import numpy as np
import pytest
import torch
from PIL import Image

from failures import raises
from rsprune import errors
from rsprune.evaluation import (
    EncoderExtractor,
    Inception,
    Lpips,
    Statistics,
    evaluate,
    evaluate_pairs,
    export_npz,
    frechet_distance,
    open_images,
)
from rsprune.training.transforms import ImageTransform
from scenes import tiles
from small_runs import Colours, write_tar


@pytest.fixture(scope="module")
def inception_file(tmp_path_factory):
    """FID's network with random weights: its real architecture, as torch-fidelity builds it."""
    from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3

    class Untrained(FeatureExtractorInceptionV3):
        def load_state_dict(self, state):
            del state

    path = tmp_path_factory.mktemp("weights") / "inception.pth"
    torch.save({}, path)
    torch.manual_seed(0)
    network = Untrained("untrained", ["2048"], feature_extractor_weights_path=str(path))
    for layer in network.modules():
        if isinstance(layer, torch.nn.Conv2d):
            torch.nn.init.kaiming_normal_(layer.weight)  # by default activations fade, and differences with them
    torch.save(network.state_dict(), path)
    return path


@pytest.fixture(scope="module")
def alexnet_file(tmp_path_factory):
    from torchvision.models import alexnet

    torch.manual_seed(1)
    path = tmp_path_factory.mktemp("weights") / "alexnet.pth"
    torch.save(alexnet(weights=None).state_dict(), path)
    return path


@pytest.fixture(scope="module")
def images():
    """Twelve real tiles, and the same with noise: uint8 (12, 64, 64, 3)."""
    real = np.stack(tiles(12, 64))
    noise = np.random.default_rng(0).normal(0, 12, real.shape)
    return real, (real + noise).clip(0, 255).astype(np.uint8)


class TensorSet(torch.utils.data.Dataset):
    def __init__(self, images):
        self.images = torch.from_numpy(images).permute(0, 3, 1, 2)

    def __len__(self):
        return len(self.images)

    def __getitem__(self, row):
        return self.images[row]


# --- Inception --------------------------------------------------------------------------------------------------------


def by_torch_fidelity(generated, real, weights, **metrics):
    import torch_fidelity

    return torch_fidelity.calculate_metrics(
        input1=TensorSet(generated),
        input2=TensorSet(real),
        feature_extractor_weights_path=str(weights),
        cuda=False,
        kid_subsets=1,
        kid_subset_size=len(real),
        verbose=False,
        cache=False,
        batch_size=6,
        save_cpu_ram=True,
        **metrics,
    )


def test_kid_is_torch_fidelitys(inception_file, images):
    real, noisy = (each[:6] for each in images)
    theirs = by_torch_fidelity(noisy, real, inception_file, kid=True)
    ours = evaluate(noisy, real, [Inception(inception_file, batch_size=6)], subsets=1, k=3)
    assert ours["KID"] == pytest.approx(theirs["kernel_inception_distance_mean"], rel=1e-4)
    fid = ours.metrics[0]
    assert fid.extractor["weights"]["file"] == "inception.pth"
    assert len(fid.extractor["weights"]["sha256"]) == 64
    assert "TensorFlow 1" in fid.extractor["resize"]
    assert (fid.n_real, fid.n_gen, fid.seed, fid.metric) == (6, 6, 0, "FID")


@pytest.mark.slow  # the eigenvalues of a product of 2,048 x 2,048, which torch-fidelity takes
def test_fid_is_torch_fidelitys(inception_file, images):
    real, noisy = images
    theirs = by_torch_fidelity(noisy, real, inception_file, fid=True)
    ours = evaluate(noisy, real, [Inception(inception_file, batch_size=6)], subsets=1, k=3)
    assert ours["FID"] == pytest.approx(theirs["frechet_inception_distance"], rel=1e-4)


def test_each_image_is_resized_by_itself(inception_file, images):
    real, _ = images
    extractor = Inception(inception_file)
    mixed = [real[0], real[1], real[2][:40, :50]]
    alone = np.concatenate([extractor.features([image]) for image in mixed])
    np.testing.assert_allclose(extractor.features(iter(mixed)), alone, rtol=1e-4, atol=1e-5)


def test_inception_weights_are_named_and_right(inception_file, tmp_path):
    with raises(errors.WeightsError, "weights-inception-2015-12-05-6726825d.pth"):
        Inception(tmp_path / "nowhere.pth")
    state = torch.load(inception_file)
    del state["fc.weight"]
    torch.save(state, tmp_path / "short.pth")
    with raises(errors.WeightsError, "fc.weight"):
        Inception(tmp_path / "short.pth")
    (tmp_path / "code.pth").write_bytes(b"cos\nsystem\n(S'true'\ntR.")
    with raises(errors.WeightsError):
        Inception(tmp_path / "code.pth")


# --- LPIPS, PSNR, SSIM ------------------------------------------------------------------------------------------------


def test_lpips_is_its_library(alexnet_file, images):
    import lpips
    from torchvision.models import alexnet

    real, noisy = images
    measure = Lpips(alexnet_file)
    with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
        warnings.simplefilter("ignore")
        theirs = lpips.LPIPS(net="alex", pnet_rand=True, verbose=False)
    backbone = alexnet(weights=None)
    backbone.load_state_dict(torch.load(alexnet_file))
    for part in (theirs.net.slice1, theirs.net.slice2, theirs.net.slice3, theirs.net.slice4, theirs.net.slice5):
        for place, layer in part.named_children():
            layer.load_state_dict(backbone.features[int(place)].state_dict())
    pair = [lpips.im2tensor(image) for image in (real[0], noisy[0])]
    assert measure(real[0], noisy[0]) == pytest.approx(float(theirs(*pair).detach()), rel=1e-5)
    assert measure(real[0], real[0]) == 0
    assert set(measure.provenance()["weights"]) == {"backbone", "heads"}


def test_lpips_weights_are_named_and_right(alexnet_file, tmp_path):
    with raises(errors.WeightsError, "vgg16-397923af.pth"):
        Lpips(tmp_path / "nowhere.pth", net="vgg")
    with raises(errors.WeightsError, "vgg"):
        Lpips(alexnet_file, net="vgg")


def test_pairs_are_the_definitions(images, alexnet_file):
    real, noisy = images
    measure = Lpips(alexnet_file)
    found = evaluate_pairs(noisy, real, lpips=measure)
    errors_of = ((noisy.astype(float) - real) ** 2).mean(axis=(1, 2, 3))
    psnr = 10 * np.log10(255**2 / errors_of)
    assert found["PSNR"] == pytest.approx(psnr.mean())
    assert found.metrics[0].spread == pytest.approx(psnr.std())
    assert 0 < found["SSIM"] < 1
    assert found["LPIPS"] == pytest.approx(np.mean([measure(a, b) for a, b in zip(noisy, real, strict=True)]))
    assert found.metrics[2].extractor["name"] == "lpips-alex"
    same = evaluate_pairs(real, real)
    assert (same["PSNR"], same["SSIM"]) == (np.inf, 1)
    with pytest.raises(KeyError):
        same["LPIPS"]


def test_ssim_is_the_formula(images):
    from scipy.ndimage import gaussian_filter

    real, noisy = images

    def ssim(a, b):
        # Wang et al. (2004): Gaussian moments over a window of 11, without the border that the window does not fit in.
        def blur(x):
            return gaussian_filter(x, 1.5, truncate=3.5)

        a, b = a.astype(float), b.astype(float)
        mean_a, mean_b = blur(a), blur(b)
        var_a, var_b, both = blur(a * a) - mean_a**2, blur(b * b) - mean_b**2, blur(a * b) - mean_a * mean_b
        c1, c2 = (0.01 * 255) ** 2, (0.03 * 255) ** 2
        likeness = (2 * mean_a * mean_b + c1) * (2 * both + c2) / ((mean_a**2 + mean_b**2 + c1) * (var_a + var_b + c2))
        return likeness[5:-5, 5:-5].mean()

    expected = np.mean([[ssim(a[..., c], b[..., c]) for c in range(3)] for a, b in zip(noisy, real, strict=True)])
    assert evaluate_pairs(noisy, real)["SSIM"] == pytest.approx(expected, rel=1e-9)


def test_pairs_that_are_none_are_refused(images, tmp_path):
    real, noisy = images
    with raises(errors.ArgumentError, "pairs"):
        evaluate_pairs(noisy, real[:-1])
    with raises(errors.ShapeError, "(32, 64, 3)"):
        evaluate_pairs(noisy, np.ascontiguousarray(real[:, :32]))
    with raises(errors.ShapeError, 11, "pixels"):
        evaluate_pairs(np.zeros((1, 10, 30, 3), np.uint8), np.zeros((1, 10, 30, 3), np.uint8))
    for name, shift in (("a", 0), ("b", 1)):
        (tmp_path / name).mkdir()
        for i in range(3):
            Image.fromarray(real[i]).save(tmp_path / name / f"{i + shift}.png")
    with raises(errors.ArgumentError):
        evaluate_pairs(tmp_path / "a", tmp_path / "b")


def saved(folder, pictures, names):
    folder.mkdir()
    for picture, name in zip(pictures, names, strict=True):
        (folder / name).parent.mkdir(exist_ok=True)
        Image.fromarray(picture).save(folder / name)
    return folder


def test_pairs_are_matched_by_name_and_an_array_in_natural_order(tmp_path):
    rng = np.random.default_rng(3)
    real = rng.integers(0, 256, (12, 16, 16, 3), np.uint8)
    made = (real.astype(int) + rng.integers(-20, 21, real.shape)).clip(0, 255).astype(np.uint8)
    expected = evaluate_pairs(made, real)["PSNR"]
    np.savez(tmp_path / "made.npz", made)
    numbers = [f"{i}.png" for i in range(12)]
    folder = saved(tmp_path / "numbers", real, numbers)
    assert evaluate_pairs(tmp_path / "made.npz", folder)["PSNR"] == expected
    assert evaluate_pairs(folder, tmp_path / "made.npz")["PSNR"] == expected
    # The order of a list is its author's: it is not put into another one.
    for name, order in (("natural", numbers), ("other", sorted(numbers))):
        (tmp_path / f"{name}.txt").write_text("\n".join(f"numbers/{one}" for one in order))
    assert evaluate_pairs(made, tmp_path / "natural.txt")["PSNR"] == expected
    for pair in ((made, tmp_path / "other.txt"), (tmp_path / "other.txt", made)):
        with raises(errors.ArgumentError, "'numbers/2.png'", "'numbers/10.png'"):
            evaluate_pairs(*pair)
    for name in ("natural", "other"):  # both have names
        assert evaluate_pairs(tmp_path / f"{name}.txt", folder)["PSNR"] == np.inf
    # "a-1" is after "a" and before it, with its ending.
    names = ["a", "a-1", *(f"lat3.{i}_x" for i in range(10))]
    one = saved(tmp_path / "one", made, [f"{name}.png" for name in names])
    two = saved(tmp_path / "two", real, [f"{name}.TIFF" for name in names])
    write_tar(tmp_path / "two.tar", {f"x/{name}.tiff": (two / f"{name}.TIFF").read_bytes() for name in reversed(names)})
    assert evaluate_pairs(one, two)["PSNR"] == pytest.approx(expected)
    assert evaluate_pairs(one, tmp_path / "two.tar")["PSNR"] == pytest.approx(expected)
    # Folders tell images of one name apart.
    parts = [f"{'ab'[i % 2]}/{i // 2}" for i in range(12)]
    one = saved(tmp_path / "one parts", made, [f"{name}.png" for name in parts])
    (tmp_path / "list.txt").write_text("\n".join(f"one parts/{name}.png" for name in parts))
    two = saved(tmp_path / "two parts", real, [f"{name}.tiff" for name in parts])
    assert evaluate_pairs(tmp_path / "list.txt", two)["PSNR"] == pytest.approx(expected)
    with raises(errors.ArgumentError, "'one parts/a/0.png'"):
        evaluate_pairs(tmp_path / "list.txt", folder)


# --- sets -------------------------------------------------------------------------------------------------------------


class Counting(EncoderExtractor):
    """Counts the images that it is asked for."""

    seen = 0

    def features(self, images):
        images = list(images)
        self.seen += len(images)
        return super().features(images)


def test_the_distance_of_an_encoder_is_never_called_fid(images):
    real, noisy = images
    found = evaluate(noisy, real, [EncoderExtractor(Colours())], k=3)
    assert [figure.metric for figure in found.metrics] == [
        "FD (colours)",
        "KD (colours)",
        "precision",
        "recall",
        "density",
        "coverage",
    ]
    encoder = Colours()
    expected = frechet_distance(encoder.encode(list(real)), encoder.encode(list(noisy)))
    assert found["FD (colours)"] == pytest.approx(expected)
    assert found.metrics[0].extractor["weights"]["sha256"] == "1"
    assert found.metrics[1].options["subset_size"] == 12
    assert "12 real, 12 generated, seed 0" in found.describe()


def test_statistics_of_the_real_set_are_kept(images, tmp_path):
    real, noisy = images
    extractor = Counting(Colours())
    first = evaluate(noisy, real, [extractor], cache=tmp_path, k=3)
    assert extractor.seen == 24
    again = evaluate(noisy, real, [extractor], cache=tmp_path, k=3)
    assert extractor.seen == 36
    assert again == first
    (path,) = tmp_path.glob("*.safetensors")
    kept = Statistics.load(path)
    assert kept.meta["extractor"]["name"] == "colours"
    assert (kept.n, kept.meta["n"]) == (12, 12)
    # Other weights, another draw, other images: other statistics.
    for changed in (
        {"extractors": [EncoderExtractor(Colours(version="2"))]},
        {"count": 8},
        {"real": real[::-1].copy()},
    ):
        evaluate(**{"generated": noisy, "real": real, "extractors": [extractor], "cache": tmp_path, "k": 3} | changed)
    assert len(list(tmp_path.glob("*.safetensors"))) == 4


def test_a_draw_is_by_seed(images):
    real, noisy = images
    options = {"extractors": [EncoderExtractor(Colours())], "k": 3, "count": 8}
    assert evaluate(noisy, real, seed=1, **options) == evaluate(noisy, real, seed=1, **options)
    assert evaluate(noisy, real, seed=1, **options) != evaluate(noisy, real, seed=2, **options)
    assert evaluate(noisy, real, seed=1, **options).metrics[0].n_gen == 8


def test_sets_that_cannot_be_compared_are_refused(images, tmp_path):
    real, noisy = images
    extractor = EncoderExtractor(Colours())
    with raises(errors.ArgumentError, "extractors"):
        evaluate(noisy, real, [])
    with raises(errors.ArgumentError, "count", 13):
        evaluate(noisy, real, [extractor], count=13)
    with raises(errors.ShapeError, "uint8"):
        evaluate(noisy.astype(float), real, [extractor])
    (tmp_path / "x.npz").write_bytes(b"no archive")
    with raises(errors.FormatError, "x"):
        open_images(tmp_path / "x.npz")
    folder = tmp_path / "images"
    folder.mkdir()
    Image.fromarray(real[0]).save(folder / "good.png")
    (folder / "bad.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    with raises(errors.ImageError):
        evaluate(noisy, folder, [extractor])


# --- files and the command --------------------------------------------------------------------------------------------


def test_samples_are_written_for_the_adm_suite(images, tmp_path):
    real, _ = images
    (tmp_path / "images").mkdir()
    for i, image in enumerate(real):
        Image.fromarray(image).save(tmp_path / "images" / f"{i:02d}.png")
    assert export_npz(tmp_path / "images", tmp_path / "samples.npz") == 12
    with np.load(tmp_path / "samples.npz") as file:
        assert list(file) == ["arr_0"]
        np.testing.assert_array_equal(file["arr_0"], real)
    pictures = open_images(tmp_path / "samples.npz")
    np.testing.assert_array_equal(np.stack(list(pictures.read(np.array([1, 5])))), real[[1, 5]])
    Image.fromarray(real[0][:9]).save(tmp_path / "images" / "99.png")
    with raises(errors.ShapeError):
        export_npz(tmp_path / "images", tmp_path / "other.npz")
    assert not (tmp_path / "other.npz").exists()


def test_collections_are_brought_to_the_size_of_what_was_generated(tmp_path):
    rng = np.random.default_rng(0)
    found = [rng.integers(0, 256, shape, np.uint8) for shape in ((20, 30, 3), (16, 16, 3), (41, 17, 3))]
    for i, image in enumerate(found):
        Image.fromarray(image).save(tmp_path / f"{i}.png")
    brought = list(open_images(tmp_path, 8).read(np.arange(3)))
    pixels, failures = ImageTransform(8)([(tmp_path / f"{i}.png").read_bytes() for i in range(3)])
    assert failures == []
    np.testing.assert_array_equal(np.stack(brought), pixels)
    assert [image.shape for image in open_images(tmp_path).read(np.arange(3))] == [image.shape for image in found]
    assert open_images(tmp_path, 8).fingerprint() != open_images(tmp_path).fingerprint()
    (tmp_path / "3.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    with raises(errors.ImageError, 3):
        list(open_images(tmp_path, 8).read(np.arange(4)))


def test_the_command_prints_and_writes_what_was_found(command, images, tmp_path, alexnet_file):
    real, noisy = images
    for name, each in (("real", real), ("made", noisy)):
        (tmp_path / name).mkdir()
        for i, image in enumerate(each):
            Image.fromarray(image).save(tmp_path / name / f"{i:02d}.png")
    words = ["evaluate", tmp_path / "made", "--real", tmp_path / "real", "--pairs", tmp_path / "real"]
    done = command(
        *words,
        "-e",
        "efficientnet-lite0",
        "--lpips",
        alexnet_file,
        "-o",
        tmp_path / "f.json",
        "--npz",
        tmp_path / "s.npz",
    )
    assert done.returncode == 0, done.stderr
    metrics = {one["metric"]: one for one in json.loads((tmp_path / "f.json").read_text())["metrics"]}
    assert list(metrics)[:2] == ["FD (efficientnet-lite0)", "KD (efficientnet-lite0)"]
    assert metrics["FD (efficientnet-lite0)"]["value"] > 0
    assert metrics["LPIPS"]["extractor"]["name"] == "lpips-alex"
    assert "FID" not in done.stdout
    assert (tmp_path / "s.npz").is_file()
    nothing = command("evaluate", tmp_path / "made")
    assert (nothing.returncode, "nothing to compare with" in nothing.stderr) == (1, True)
    bare = command("evaluate", tmp_path / "made", "--real", tmp_path / "real")
    assert "--inception" in bare.stderr
