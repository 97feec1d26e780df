"""What holds for every registered family of encoders, one of another package among them."""

import hashlib
import io
import json
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import timm
import torch
from PIL import Image

import small_encoders as small
from failures import raises
from rsprune import errors
from rsprune.encoders import FAMILIES, Encoder, load_encoder
from rsprune.encoders.loader import embed_items
from rsprune.sources import Item

# --- an encoder of each family, small and with random weights: its name, and its weights if they are not its own ------


def siglip(folder):
    """Git-RSCLIP in the architecture that `registered` makes small."""
    return "git-rsclip", small.saved(small.siglip_model(), folder, 32)


def open_clip(folder):
    settings = {"size": 32, "mean": [0.5] * 3, "std": [0.25] * 3, "interpolation": "bicubic", "resize_mode": "squash"}
    small.open_clip_folder(folder, small.clip_config(), **settings)
    return f"open_clip:local-dir:{folder}", None


def timm_file(folder):
    torch.manual_seed(0)
    torch.save(timm.create_model("test_vit", num_classes=10).state_dict(), folder / "vit.pth")
    return f"timm:test_vit:{folder / 'vit.pth'}", None


def transformers(folder):
    return f"hf:{small.saved(small.siglip_model(), folder, 32)}", None


def efficientnet(folder):
    return "efficientnet-lite0", None


def moments(folder):
    return "moments:3", None


EXAMPLES = {
    "siglip": siglip,
    "open_clip": open_clip,
    "timm": timm_file,
    "hf": transformers,
    "efficientnet-lite0": efficientnet,
    "moments": moments,
}

# What makes `git-rsclip` small, in this process and in another.
REGISTER = """
from rsprune.encoders import ZOO, EncoderSpec, siglip
siglip.SHAPES["small"] = siglip.SiglipShape(32, 8, 64, 160, 2, 4)
ZOO["git-rsclip"] = EncoderSpec("siglip", "small", 64, 32, "lcybuaa/Git-RSCLIP", "model.safetensors", "")
"""

IMAGES = [np.random.default_rng(i).integers(0, 256, (20 + 3 * i, 40 - i, 3), np.uint8) for i in range(7)]


@pytest.fixture
def registered(plugin_package, monkeypatch):
    """The small Git-RSCLIP, and the encoder that the documentation shows, as a package of its own."""
    from rsprune.encoders import ZOO, siglip

    page = (Path(__file__).parents[1] / "docs" / "encoders.md").read_text()
    code = re.search(r"```python\n(# rsprune_moments\.py\n.*?)```", page, re.DOTALL)[1]
    plugin_package("rsprune_moments", code, {"rsprune.encoders": {"moments": "build"}})
    monkeypatch.setattr(siglip, "SHAPES", dict(siglip.SHAPES))
    monkeypatch.setitem(ZOO, "git-rsclip", ZOO["git-rsclip"])
    exec(REGISTER, {})


@pytest.fixture(scope="module")
def specs(tmp_path_factory):
    """Each family's example, made once."""
    return {family: make(tmp_path_factory.mktemp(family)) for family, make in EXAMPLES.items()}


@pytest.fixture(scope="module")
def loaded():
    return {}


@pytest.fixture(params=EXAMPLES)
def encoder(request, specs, loaded, registered):
    if request.param not in loaded:
        loaded[request.param] = load(*specs[request.param])
    return loaded[request.param]


def load(name, weights):
    return load_encoder(name, weights=weights, device="cpu", precision="float32")


def png(image):
    stream = io.BytesIO()
    Image.fromarray(image).save(stream, "PNG")
    return stream.getvalue()


def test_every_registered_family_has_an_example(registered):
    assert list(EXAMPLES) == FAMILIES.names() == list(FAMILIES)
    with raises(errors.EncoderError, "'no_such_family:x'", "git-rsclip", "moments"):
        load_encoder("no_such_family:x")


def test_embeddings_are_unit_rows_of_the_named_dimension(encoder):
    rows = encoder.encode(IMAGES)
    assert isinstance(encoder, Encoder)
    assert (rows.dtype, rows.shape) == (np.float32, (len(IMAGES), encoder.dim))
    np.testing.assert_allclose(np.linalg.norm(rows.astype(np.float64), axis=1), 1, rtol=0, atol=1e-6)
    assert encoder.encode([]).shape == (0, encoder.dim)
    assert len(np.unique(rows, axis=0)) == len(IMAGES)


def test_embedding_again_gives_the_same_bytes(encoder):
    assert encoder.encode(IMAGES).tobytes() == encoder.encode(IMAGES).tobytes()


def test_the_other_images_of_a_batch_show_in_rounding_alone(encoder):
    """As `Encoder.forward` promises: 1e-5 in float32."""
    alone = np.concatenate([encoder.encode([image]) for image in IMAGES])
    np.testing.assert_allclose(encoder.encode(IMAGES), alone, rtol=0, atol=1e-5)
    backwards = encoder.encode(IMAGES[::-1])[::-1]
    np.testing.assert_allclose(backwards, alone, rtol=0, atol=1e-5)


def test_every_form_of_an_image_gives_the_same(encoder, tmp_path):
    for i, image in enumerate(IMAGES):
        (tmp_path / f"{i}.png").write_bytes(png(image))
    paths = [tmp_path / f"{i}.png" for i in range(len(IMAGES))]
    want = encoder.encode(IMAGES).tobytes()
    for images in (paths, list(map(str, paths)), list(map(png, IMAGES)), list(map(Image.fromarray, IMAGES))):
        assert encoder.encode(images).tobytes() == want
    with pytest.raises(errors.ImageError):
        encoder.encode([b"no image"])


def test_a_stream_of_items_gives_the_same_and_reports_what_fails(encoder):
    items = [Item(str(i), png(image)) for i, image in enumerate(IMAGES)]
    items.insert(3, Item("broken", b"no image"))
    blocks = list(embed_items(encoder, items, batch_size=3, threads=2))
    assert np.concatenate([block.positions for block in blocks]).tolist() == [0, 1, 2, 4, 5, 6, 7]
    assert [failure[:2] for block in blocks for failure in block.failures] == [(3, "unknown_format")]
    rows = np.concatenate([block.embeddings for block in blocks])
    np.testing.assert_allclose(rows, encoder.encode(IMAGES), rtol=0, atol=1e-5)


def test_provenance_is_json_and_names_the_weights(encoder):
    provenance = encoder.provenance()
    assert json.loads(json.dumps(provenance, allow_nan=False)) == json.loads(json.dumps(provenance))
    assert provenance.keys() >= {"name", "architecture", "dim", "weights", "preprocessing", "runtime"}
    assert (provenance["name"], provenance["dim"]) == (encoder.name, encoder.dim)
    assert provenance["weights"].keys() == {"file", "sha256"}
    assert provenance["preprocessing"] == encoder.preprocessing.provenance()


def test_another_process_opens_each_by_its_specification(specs, registered):
    """A stage that is run elsewhere carries the name, the weights and the options."""
    code = f"""{REGISTER}
import hashlib, json, sys
import numpy as np
from rsprune.encoders import load_encoder
images = [np.random.default_rng(i).integers(0, 256, (20 + 3 * i, 40 - i, 3), np.uint8) for i in range(7)]
for name, weights in json.loads(sys.argv[1]):
    encoder = load_encoder(name, weights=weights, device="cpu", precision="float32")
    rows = encoder.encode(images)
    print(json.dumps([encoder.provenance(), hashlib.sha256(rows.tobytes()).hexdigest()]))
"""
    listed = json.dumps([(name, weights and str(weights)) for name, weights in specs.values()])
    out = subprocess.run([sys.executable, "-c", code, listed], capture_output=True, text=True, check=True)
    for line, (name, weights) in zip(out.stdout.splitlines(), specs.values(), strict=True):
        encoder = load(name, weights)
        digest = hashlib.sha256(encoder.encode(IMAGES).tobytes()).hexdigest()
        assert json.loads(line) == [json.loads(json.dumps(encoder.provenance())), digest]
