"""Published weights: every layout loads into the right network, and what is nearly right is refused."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import open_clip
import pytest
import timm
import torch
from safetensors.torch import load_file, save_file

import small_encoders as small
from failures import raises
from rsprune import errors
from rsprune.encoders import DeviceOptions, checkpoints, encoder_names, load_encoder, registry, siglip
from rsprune.encoders.convert import CONVERTIBLE, convert
from rsprune.encoders.loader import embed_items
from rsprune.encoders.preprocess import Preprocessing
from rsprune.encoders.registry import ZOO, EncoderSpec
from rsprune.encoders.torch_encoder import TorchEncoder
from rsprune.sources import Item


@pytest.fixture(autouse=True)
def offline(monkeypatch, tmp_path):
    """No test looks at what the user has, or asks the network."""
    monkeypatch.setenv("RSPRUNE_WEIGHTS", str(tmp_path / "weights"))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))


@pytest.fixture(scope="module")
def published(tmp_path_factory):
    """Git-RSCLIP as it is published, but small: both towers of a SiglipModel in half precision."""
    folder = tmp_path_factory.mktemp("git-rsclip")
    return small.saved(small.siglip_model(), folder, 32, dtype=torch.float16)


@pytest.fixture
def small_git_rsclip(monkeypatch):
    """``git-rsclip`` as the small tower."""
    monkeypatch.setitem(siglip.SHAPES, "small", small.SHAPE)
    entry = EncoderSpec("siglip", "small", 64, 32, "lcybuaa/Git-RSCLIP", "model.safetensors", "")
    monkeypatch.setitem(registry.ZOO, "git-rsclip", entry)


def load(name, **options):
    return load_encoder(name, device="cpu", **{"precision": "float32"} | options)


def agrees(encoder, features, atol=2e-7):
    """Whether an encoder's rows are the reference's features, normalised."""
    images = small.noise(3, encoder.preprocessing.resize_to or encoder.size)
    pixels = encoder.preprocess(list(images)).transpose(0, 2, 3, 1)  # nothing but the cut, if there is one
    want = small.unit(features(small.scaled(pixels, encoder.preprocessing)))
    np.testing.assert_allclose(encoder.encode(list(images)), want, rtol=0, atol=atol)


# --- SigLIP as the transformers library publishes it ------------------------------------------------------------------


def test_git_rsclip_agrees_with_transformers(small_git_rsclip, published):
    from transformers import SiglipModel

    model = SiglipModel.from_pretrained(published, dtype=torch.float32).eval()
    encoder = load("git-rsclip", weights=published)
    assert (encoder.name, encoder.dim, encoder.size) == ("git-rsclip", 64, 32)
    assert encoder.preprocessing.mean == encoder.preprocessing.std == (127.5, 127.5, 127.5)
    agrees(encoder, lambda pixels: small.pooled(model, pixels))


def test_pooled_output_itself_agrees_to_5e_6(published):
    """Before it is normalised, which would hide a factor."""
    from transformers import SiglipModel

    model = SiglipModel.from_pretrained(published, dtype=torch.float32).eval()
    tower = siglip.load_tower(small.SHAPE, published / "model.safetensors")
    pixels = torch.randn(4, 3, 32, 32)
    with torch.inference_mode():
        assert (tower(pixels) - small.pooled(model, pixels)).abs().max() <= 5e-6


def flat(folder, out):
    """The vision half alone, in the names of transformers 5's SiglipVisionModel."""
    state = load_file(folder / "model.safetensors")
    vision = {k.removeprefix("vision_model."): v for k, v in state.items() if k.startswith("vision_model.")}
    save_file(vision, out)


def wrapped(folder, out):
    """What a training script leaves: wrapped, of a data-parallel module, with the old buffer of positions."""
    state = load_file(folder / "model.safetensors")
    state["vision_model.embeddings.position_ids"] = torch.arange(16)[None]
    torch.save({"state_dict": {f"module.{key}": value for key, value in state.items()}, "epoch": 3}, out)


def timm_names(folder, out):
    tower = siglip.load_tower(small.SHAPE, folder / "model.safetensors")
    torch.save(tower.state_dict(), out)


def trunk(folder, out):
    """open_clip's names."""
    tower = siglip.load_tower(small.SHAPE, folder / "model.safetensors")
    state = {f"visual.trunk.{key}": value for key, value in tower.state_dict().items()}
    torch.save(state | {"logit_scale": torch.ones(()), "text.ln_final.weight": torch.ones(3)}, out)


@pytest.mark.parametrize(
    ("write", "file"), [(flat, "a.safetensors"), (wrapped, "a.pt"), (timm_names, "a.pth"), (trunk, "a.bin")]
)
def test_every_layout_of_the_same_weights_gives_the_same_bytes(small_git_rsclip, published, tmp_path, write, file):
    write(published, tmp_path / file)
    images = list(small.noise(3, 32))
    want = load("git-rsclip", weights=published).encode(images)
    assert load("git-rsclip", weights=tmp_path / file).encode(images).tobytes() == want.tobytes()


def test_bfloat16_keeps_the_direction(small_git_rsclip, published):
    images = list(small.noise(16, 32))
    exact = load("git-rsclip", weights=published).encode(images)
    rounded = load("git-rsclip", weights=published, precision="bfloat16").encode(images)
    assert rounded.dtype == np.float32
    assert np.abs(rounded - exact).max() > 0
    assert (rounded * exact).sum(1).min() >= 0.9999


def test_erf_gelu_would_show(published):
    """The test above can tell the two forms of GELU apart: it is no looser than what it is to catch."""
    exact = siglip.load_tower(small.SHAPE, published / "model.safetensors")
    other = siglip.load_tower(siglip.SiglipShape(*SHAPE_VALUES[:-1], "gelu"), published / "model.safetensors")
    pixels = torch.randn(4, 3, 32, 32)
    with torch.inference_mode():
        assert (exact(pixels) - other(pixels)).abs().max() > 2e-5


SHAPE_VALUES = [getattr(small.SHAPE, name) for name in siglip.SiglipShape.__slots__]


def test_hf_folder_of_siglip(published):
    from transformers import SiglipModel

    model = SiglipModel.from_pretrained(published, dtype=torch.float32).eval()
    agrees(load(f"hf:{published}"), lambda pixels: small.pooled(model, pixels))


def clip_model():
    from transformers import CLIPConfig, CLIPModel

    vision = {key: value for key, value in small.VISION.items() if key not in ("hidden_act", "layer_norm_eps")}
    return CLIPModel(CLIPConfig(vision_config=vision, text_config=small.TEXT, projection_dim=48)), 32, 48


def dinov2_model(**changes):
    from transformers import Dinov2Config, Dinov2Model

    config = Dinov2Config(hidden_size=64, num_hidden_layers=2, num_attention_heads=4, image_size=224, **changes)
    return Dinov2Model(config), 224, 64


@pytest.mark.parametrize(
    "make", [clip_model, dinov2_model, lambda: dinov2_model(use_swiglu_ffn=True)], ids=["clip", "dinov2", "dinov2-g"]
)
def test_hf_folder_of_clip_and_dinov2(make, tmp_path):
    torch.manual_seed(0)
    model, size, dim = make()
    processor = {
        "size": {"shortest_edge": size},
        "crop_size": {"height": size, "width": size},
        "resample": 3,
        "image_mean": [0.48145466, 0.4578275, 0.40821073],
        "image_std": [0.26862954, 0.26130258, 0.27577711],
    }
    small.saved(small.perturbed(model), tmp_path, size, processor=processor)
    encoder = load(f"hf:{tmp_path}")
    assert (encoder.dim, encoder.size, encoder.preprocessing.mode) == (dim, size, "crop")
    agrees(encoder, lambda pixels: small.pooled(model, pixels))


def test_hf_folder_in_shards(published, tmp_path):
    state = load_file(published / "model.safetensors")
    keys = sorted(state)
    files = {key: f"model-0000{i % 2 + 1}-of-00002.safetensors" for i, key in enumerate(keys)}
    for file in set(files.values()):
        save_file({key: state[key] for key in keys if files[key] == file}, tmp_path / file)
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps({"weight_map": files}))
    for file in ("config.json", "preprocessor_config.json"):
        (tmp_path / file).write_bytes((published / file).read_bytes())
    images = list(small.noise(2, 32))
    assert load(f"hf:{tmp_path}").encode(images).tobytes() == load(f"hf:{published}").encode(images).tobytes()


# --- what is nearly right ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "values"),
    [
        ({"hidden_act": "gelu"}, ("config.json", "hidden_act", "'gelu'", "'gelu_pytorch_tanh'")),
        ({"hidden_act": "relu6"}, ("hidden_act", "'relu6'")),
        ({"num_hidden_layers": 3}, ("num_hidden_layers", 3, 2)),
        ({"vision_use_head": False}, ("vision_use_head",)),
    ],
)
def test_configuration_of_another_network(small_git_rsclip, published, tmp_path, change, values):
    config = json.loads((published / "config.json").read_text())
    config["vision_config"] |= change
    (tmp_path / "config.json").write_text(json.dumps(config))
    (tmp_path / "model.safetensors").write_bytes((published / "model.safetensors").read_bytes())
    with raises(errors.WeightsError, *values):
        load("git-rsclip", weights=tmp_path)


@pytest.mark.parametrize(
    ("change", "values"),
    [
        (
            lambda s: s.pop("vision_model.encoder.layers.1.self_attn.k_proj.bias"),
            (1, "encoder.layers.1.self_attn.k_proj.bias"),
        ),
        (lambda s: s.pop("vision_model.head.probe"), (1, "head.probe")),
        (lambda s: s.update({"vision_model.more": torch.ones(1)}), (1,)),
        (lambda s: s.update({"lora.a": torch.ones(1)}), (1, "lora.a")),
        (
            lambda s: s.update({"vision_model.head.probe": torch.ones(1, 1, 65)}),
            ("head.probe", "(1, 1, 65)", "(1, 1, 64)"),
        ),
    ],
)
def test_weights_must_fit_to_the_key(small_git_rsclip, published, tmp_path, change, values):
    state = load_file(published / "model.safetensors")
    change(state)
    save_file(state, tmp_path / "model.safetensors")
    with raises(errors.WeightsError, *values):
        load("git-rsclip", weights=tmp_path / "model.safetensors")


def test_weights_of_another_encoder(small_git_rsclip, tmp_path):
    model = small.open_clip_folder(tmp_path / "clip", small.clip_config())
    torch.save(model.state_dict(), tmp_path / "clip.pt")
    with raises(errors.WeightsError, "clip.pt"):
        load("git-rsclip", weights=tmp_path / "clip.pt")


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04 no archive", b"\x08\0\0\0\0\0\0\0{broken"])
@pytest.mark.parametrize("file", ["model.safetensors", "model.pt"])
def test_damaged_file(small_git_rsclip, tmp_path, content, file):
    (tmp_path / file).write_bytes(content)
    with raises(errors.WeightsError, tmp_path / file):
        load("git-rsclip", weights=tmp_path / file)


def test_folder_without_weights(small_git_rsclip, tmp_path):
    with raises(errors.WeightsError):
        load("git-rsclip", weights=tmp_path)
    with raises(errors.WeightsError, "config.json"):
        load(f"hf:{tmp_path}")
    (tmp_path / "config.json").write_text('{"model_type": "bert"}')
    with raises(errors.WeightsError, "'bert'", "siglip", "clip", "dinov2"):
        load(f"hf:{tmp_path}")


@pytest.mark.parametrize("name", ["/nowhere", "./nowhere", "nowhere", "/no/where", "a/b/c"])
def test_folder_that_is_not_there(name):
    with raises(errors.WeightsError, Path(name)):
        load(f"hf:{name}")


def test_processor_that_is_not_known(published, tmp_path):
    small.saved(small.siglip_model(), tmp_path, 32, processor={"size": {"longest_edge": 3}, "resample": 0})
    with raises(errors.WeightsError, "preprocessor_config.json"):
        load(f"hf:{tmp_path}")


# --- open_clip's layout: RemoteCLIP, GeoRSCLIP ------------------------------------------------------------------------

NAMES = {"remoteclip-b32": "ViT-B-32", "georsclip-b32": "ViT-B-32-quickgelu", "georsclip-h14": "ViT-H-14"}


@pytest.fixture
def small_clip(monkeypatch, tmp_path):
    """Small architectures by the names of the real ones, and a checkpoint as their authors save it."""
    for architecture, config in (
        ("ViT-B-32", small.clip_config()),
        ("ViT-B-32-quickgelu", small.clip_config(quick_gelu=True)),
        ("ViT-H-14", small.clip_config()),
        ("RN50", RESNET),
    ):
        monkeypatch.setitem(open_clip.factory._MODEL_CONFIGS, architecture, config)

    def write(architecture):
        torch.manual_seed(1)
        model = small.perturbed(open_clip.create_model(architecture, load_weights=False))
        torch.save(model.state_dict(), tmp_path / "checkpoint.pt")
        return model, tmp_path / "checkpoint.pt"

    return write


RESNET = small.clip_config(vision_cfg={"image_size": 64, "layers": [1, 1, 1, 1], "width": 8, "patch_size": None})


@pytest.mark.parametrize(("name", "architecture"), [*NAMES.items(), ("remoteclip-rn50", "RN50")])
def test_clip_towers_agree_with_open_clip(small_clip, name, architecture):
    model, path = small_clip(architecture)
    encoder = load(name, weights=path)
    assert (encoder.name, encoder.dim, encoder.preprocessing.mode) == (name, 48, "crop")

    def features(pixels):
        with torch.inference_mode():
            return model.encode_image(pixels)

    agrees(encoder, features)


def test_georsclip_has_quickgelu_and_remoteclip_as_documented(small_clip):
    """Both load the other's file, and nothing but the activation differs."""
    _, path = small_clip("ViT-B-32")
    images = list(small.noise(3, 32))
    plain, quick = (load(name, weights=path).encode(images) for name in ("remoteclip-b32", "georsclip-b32"))
    assert np.abs(plain - quick).max() > 1e-5
    assert load("remoteclip-b32-quickgelu", weights=path).encode(images).tobytes() == quick.tobytes()


def test_every_known_clip_names_an_architecture_of_open_clip():
    for name, known in ZOO.items():
        if known.family == "open_clip":
            config = open_clip.get_model_config(known.architecture)
            assert config["embed_dim"] == known.dim
            assert config["vision_cfg"]["image_size"] == known.size
            assert bool(config.get("quick_gelu")) == (
                "quickgelu" in name or name.startswith(("georsclip-b", "georsclip-l"))
            )


def test_file_by_name(small_clip):
    _, path = small_clip("ViT-B-32")
    images = list(small.noise(3, 32))
    by_name, by_option = (
        load(n, **o) for n, o in ((f"open_clip:ViT-B-32:{path}", {}), ("open_clip:ViT-B-32", {"weights": path}))
    )
    assert by_name.encode(images).tobytes() == by_option.encode(images).tobytes()
    assert by_name.provenance() == by_option.provenance()
    assert by_name.name == "open_clip:ViT-B-32"


@pytest.mark.parametrize(
    ("name", "values"),
    [
        (
            "open_clip:ViT-B-32:openai",
            ("'openai'", "open_clip:ViT-B-32-quickgelu:openai"),
        ),
        ("open_clip:ViT-B-32-quickgelu:laion2b_s34b_b79k", ("laion2b_s34b_b79k",)),
        ("open_clip:ViT-B-32:no_such_tag", ("ViT-B-32", "laion2b_s34b_b79k")),
        ("open_clip:ViT-Z-99:openai", ("'ViT-Z-99'",)),
        ("open_clip:ViT-B-32", ("ViT-B-32",)),
        ("timm:resnet_none", ("'resnet_none'",)),
        ("timm:resnet26t", ("resnet26t",)),
        ("hf:own er/na me", ("own er/na me",)),
        ("git-rsclip-huge", ("'git-rsclip-huge'", "hf:<folder or id>")),
        ("siglip", ("'siglip'",)),
    ],
)
def test_names_that_lead_nowhere(name, values):
    with raises(errors.EncoderError, *values):
        load(name)


def test_local_folder_of_open_clip(tmp_path):
    settings = {"size": 32, "mean": [0.5] * 3, "std": [0.25] * 3, "interpolation": "bilinear", "resize_mode": "squash"}
    model = small.open_clip_folder(tmp_path / "f", small.clip_config(), **settings)
    encoder = load(f"open_clip:local-dir:{tmp_path / 'f'}")
    assert (encoder.preprocessing.mode, encoder.preprocessing.interpolation) == ("squash", "bilinear")

    def features(pixels):
        with torch.inference_mode():
            return model.encode_image(pixels)

    agrees(encoder, features)
    with raises(errors.WeightsError, "open_clip_config.json"):
        load(f"open_clip:local-dir:{tmp_path}")


@pytest.mark.parametrize(
    ("change", "want"),
    [
        ({"interpolation": "random"}, {"interpolation": "bicubic"}),
        ({"mean": 0.25, "std": 0.5}, {"mean": (63.75,) * 3, "std": (127.5,) * 3}),
        ({"size": [64, 64]}, {"size": 32}),  # that of the tower counts, as for open_clip
        ({"resize_mode": None}, {"mode": "crop"}),
    ],
)
def test_preprocessing_of_open_clip(tmp_path, change, want):
    small.open_clip_folder(tmp_path, small.clip_config(), **change)
    preprocessing = load(f"open_clip:local-dir:{tmp_path}").preprocessing
    assert {key: getattr(preprocessing, key) for key in want} == want


@pytest.mark.parametrize(
    ("change", "values"),
    [
        ({"resize_mode": "longest"}, ("resize_mode", "'longest'")),
        ({"interpolation": "lanczos"}, ("interpolation", "'lanczos'")),
    ],
)
def test_preprocessing_of_open_clip_that_is_not_followed(tmp_path, change, values):
    small.open_clip_folder(tmp_path, small.clip_config(), **change)
    with raises(errors.EncoderError, f"local-dir:{tmp_path}", *values):
        load(f"open_clip:local-dir:{tmp_path}")


# --- timm's: DINOv2, and any ------------------------------------------------------------------------------------------


def test_timm_file_agrees_with_timm(tmp_path):
    torch.manual_seed(0)
    model = small.perturbed(timm.create_model("resnet18", num_classes=10))
    torch.save(model.state_dict(), tmp_path / "r.pth")
    encoder = load(f"timm:resnet18:{tmp_path / 'r.pth'}")
    assert (encoder.dim, encoder.size, encoder.preprocessing.resize_to) == (512, 224, 235)

    def features(pixels):
        with torch.inference_mode():
            return model.forward_head(model.forward_features(pixels), pre_logits=True)

    agrees(encoder, features)


@pytest.fixture
def timm_settings(monkeypatch, tmp_path):
    """Load a small network of timm's whose settings are changed."""
    create = timm.create_model
    torch.save(create("test_vit", num_classes=0).state_dict(), tmp_path / "vit.pth")

    def load_with(**changes):
        def changed(*args, **options):
            model = create(*args, **options)
            model.pretrained_cfg = model.pretrained_cfg | changes
            return model

        monkeypatch.setattr("timm.create_model", changed)
        return load(f"timm:test_vit:{tmp_path / 'vit.pth'}")

    return load_with


def test_settings_of_timm_are_followed(timm_settings):
    for mode, crop_pct, side in (("squash", 0.5, 320), ("center", 0.91, 175), ("squash", 1.0, 160)):
        settings = timm_settings(crop_mode=mode, crop_pct=crop_pct, interpolation="bilinear").preprocessing
        assert (settings.size, settings.resize_to, settings.interpolation) == (160, side, "bilinear")
        assert settings.mode == {"squash": "squash", "center": "crop"}[mode]


@pytest.mark.parametrize(
    ("change", "values"),
    [
        ({"crop_mode": "border"}, ("crop_mode", "'border'")),
        ({"interpolation": "lanczos"}, ("interpolation", "'lanczos'")),
        ({"input_size": (3, 160, 128)}, ("input_size", (3, 160, 128))),
        ({"input_size": (1, 160, 160)}, ("input_size", (1, 160, 160))),
    ],
)
def test_settings_of_timm_that_are_not_followed(timm_settings, change, values):
    with raises(errors.EncoderError, "test_vit", *values):
        timm_settings(**change)


def test_dinov2_sees_224_px_with_interpolated_positions(tmp_path):
    torch.manual_seed(0)
    model = small.perturbed(timm.create_model("vit_small_patch14_dinov2", num_classes=0))
    torch.save(model.state_dict(), tmp_path / "d.pth")
    encoder = load("dinov2-s", weights=tmp_path / "d.pth")
    assert (encoder.dim, encoder.size) == (384, 224)
    model.set_input_size((224, 224))

    def features(pixels):
        with torch.inference_mode():
            return model(pixels)

    agrees(encoder, features)


# --- where weights are found ------------------------------------------------------------------------------------------


def test_missing_weights_are_named_with_their_place_and_origin(tmp_path):
    with pytest.raises(errors.WeightsError) as caught:
        load("git-rsclip")
    message = str(caught.value)
    for part in ("model.safetensors", "lcybuaa/Git-RSCLIP", "--weights", str(tmp_path / "weights" / "git-rsclip")):
        assert part in message
    assert "\n" not in message


def test_weights_are_found_where_the_message_says(small_git_rsclip, published, tmp_path):
    place = tmp_path / "weights" / "git-rsclip"
    place.mkdir(parents=True)
    (place / "model.safetensors").write_bytes((published / "model.safetensors").read_bytes())
    assert load("git-rsclip").provenance() == load("git-rsclip", weights=published).provenance()


def test_weights_are_fetched_from_the_hub(small_git_rsclip, published, monkeypatch):
    asked = []

    def download(repository, file):
        asked.append((repository, file))
        return str(published / file)

    monkeypatch.setattr("huggingface_hub.hf_hub_download", download)
    assert load("git-rsclip").dim == 64
    assert asked == [("lcybuaa/Git-RSCLIP", "model.safetensors")]


def test_without_the_hub_library(monkeypatch):
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with raises(errors.MissingDependencyError, "rsprune[embed]"):
        checkpoints.fetch("git-rsclip", "lcybuaa/Git-RSCLIP", "model.safetensors")


def test_precision_that_is_none():
    with raises(errors.ArgumentError, "precision", "'int8'", "auto", "float32"):
        load("git-rsclip", precision="int8")


@pytest.mark.parametrize("name", sorted(ZOO))
def test_known_encoders_are_all_named(name):
    assert name in encoder_names()


def test_loading_needs_no_transformers(published, small_git_rsclip):
    code = f"""
import sys
sys.modules["transformers"] = None
from rsprune.encoders import load_encoder
print(load_encoder("hf:{published}", device="cpu").dim)
"""
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout.strip() == "64"


# --- the conversion ---------------------------------------------------------------------------------------------------


def test_only_git_rsclip_is_converted(tmp_path):
    with raises(errors.EncoderError, "remoteclip-b32", "git-rsclip"):
        convert("remoteclip-b32", tmp_path)


def test_conversion_refuses_a_file_without_the_text_tower(small_git_rsclip, published, tmp_path):
    flat(published, tmp_path / "v.safetensors")
    with raises(errors.WeightsError):
        convert("git-rsclip", tmp_path / "out", weights=tmp_path / "v.safetensors")
    assert not (tmp_path / "out").exists()


# --- the real sizes ---------------------------------------------------------------------------------------------------

LARGE = {"hidden_size": 1024, "intermediate_size": 4096, "num_hidden_layers": 24, "num_attention_heads": 16}
BASE = {"hidden_size": 768, "intermediate_size": 3072, "num_hidden_layers": 12, "num_attention_heads": 12}


@pytest.fixture(
    scope="module", params=[("git-rsclip", LARGE, 256), ("git-rsclip-base", BASE, 224)], ids=["large", "base"]
)
def full_size(request, tmp_path_factory):
    """Git-RSCLIP in its real size as published: name, folder."""
    name, shape, size = request.param
    folder = tmp_path_factory.mktemp(name)
    model = small.siglip_model(vision=shape | {"image_size": size, "patch_size": 16}, text=shape)
    return name, small.saved(model, folder, size, dtype=torch.float16)


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_full_size_git_rsclip_agrees_with_transformers(full_size):
    from transformers import SiglipModel

    name, folder = full_size
    model = SiglipModel.from_pretrained(folder, dtype=torch.float32).eval()
    shape = siglip.SHAPES[ZOO[name].architecture]
    tower = siglip.load_tower(shape, folder / "model.safetensors")
    images = small.noise(4, shape.image_size)
    encoder = load(name, weights=folder)
    assert (encoder.dim, encoder.size) == (ZOO[name].dim, ZOO[name].size)
    pixels = small.scaled(images, encoder.preprocessing)
    want = small.pooled(model, pixels)
    with torch.inference_mode():
        worst = (tower(pixels) - want).abs().max()
    exact = encoder.encode(list(images))
    rounded = load(name, weights=folder, precision="bfloat16").encode(list(images))
    cosine = (rounded * small.unit(want)).sum(1).min()
    print(
        f"{name}: pooled output {worst:.2e}, unit rows {np.abs(exact - small.unit(want)).max():.2e}, bf16 {cosine:.6f}"
    )
    assert worst <= 5e-6
    assert cosine >= 0.9999


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_full_size_conversion_loads_in_open_clip(full_size, tmp_path):
    name, folder = full_size
    convert(name, tmp_path / "o", weights=folder)
    model = open_clip.create_model(f"local-dir:{tmp_path / 'o'}").eval()
    encoder = load(f"open_clip:local-dir:{tmp_path / 'o'}")
    images = small.noise(2, encoder.size)
    want = load(name, weights=folder).encode(list(images))
    np.testing.assert_allclose(encoder.encode(list(images)), want, rtol=0, atol=2e-7)
    for module in model.visual.modules():  # as the folder's README says
        if isinstance(module, torch.nn.GELU):
            module.approximate = "tanh"
    with torch.inference_mode():
        features = model.encode_image(small.scaled(images, encoder.preprocessing), normalize=True)
    np.testing.assert_allclose(features.numpy(), want, rtol=0, atol=2e-7)
    from transformers import SiglipModel

    theirs = SiglipModel.from_pretrained(folder, dtype=torch.float32).eval()
    tokens = torch.randint(0, 50, (2, 64))
    with torch.inference_mode():
        out = theirs.get_text_features(input_ids=tokens)
        text = model.encode_text(tokens)
    assert (text - (out if torch.is_tensor(out) else out.pooler_output)).abs().max() <= 1e-5
    assert CONVERTIBLE[name].startswith("ViT-")


@pytest.mark.slow
@pytest.mark.timeout(1200)
@pytest.mark.parametrize("name", [n for n in ZOO if ZOO[n].family == "open_clip" and not n.endswith("-quickgelu")])
def test_full_size_clip_agrees_with_open_clip(name, tmp_path):
    known = ZOO[name]
    torch.manual_seed(0)
    model = small.perturbed(open_clip.create_model(known.architecture, load_weights=False))
    path = tmp_path / Path(known.file).name
    torch.save(model.state_dict(), path)
    encoder = load(name, weights=path)
    assert (encoder.dim, encoder.size) == (known.dim, known.size)
    images = small.noise(2, known.size)
    with torch.inference_mode():
        want = model.encode_image(small.scaled(images, encoder.preprocessing))
    assert np.abs(encoder.encode(list(images)) - small.unit(want)).max() <= 5e-6
    rounded = load(name, weights=path, precision="bfloat16").encode(list(images))
    assert (rounded * small.unit(want)).sum(1).min() >= 0.9999


def test_architecture_whose_weights_nobody_publishes(monkeypatch):
    model = timm.create_model("resnet18", num_classes=0)
    model.pretrained_cfg = model.pretrained_cfg | {"hf_hub_id": None}
    monkeypatch.setattr("timm.create_model", lambda *_, **__: model)
    with raises(errors.WeightsError, "resnet18", "timm:resnet18:<file>", "weights="):
        load("timm:resnet18")


# --- tried out before the first image ---------------------------------------------------------------------------------


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_weights_that_are_no_numbers(published, tmp_path, value):
    state = load_file(published / "model.safetensors")
    state["vision_model.post_layernorm.weight"][3] = value
    save_file(state, tmp_path / "model.safetensors")
    for file in ("config.json", "preprocessor_config.json"):
        (tmp_path / file).write_bytes((published / file).read_bytes())
    with raises(errors.WeightsError, "model.safetensors", "NaN"):
        load(f"hf:{tmp_path}")


def encoder_of(module, dim=None):
    return TorchEncoder(
        "mine",
        "linear",
        module,
        dim=dim,
        preprocessing=Preprocessing(size=8, mean=(0, 0, 0), std=(1, 1, 1)),
        weights={"file": "mine.pt", "sha256": ""},
        options=DeviceOptions(device="cpu", precision="float32"),
        versions={},
    )


def test_network_that_does_not_take_its_images():
    flat = torch.nn.Flatten()
    with raises(errors.EncoderError, "mine.pt", 8):
        encoder_of(torch.nn.Sequential(flat, torch.nn.Linear(7, 4)))
    with raises(errors.EncoderError, "mine.pt", 4, 5):
        encoder_of(torch.nn.Sequential(flat, torch.nn.Linear(192, 4)), dim=5)
    with raises(errors.EncoderError, "mine.pt"):
        encoder_of(torch.nn.Conv2d(3, 3, 1))
    assert encoder_of(torch.nn.Sequential(flat, torch.nn.Linear(192, 4))).dim == 4


class Dark(torch.nn.Module):
    """NaN for images that are black."""

    def forward(self, x):
        x = x.flatten(1)
        return torch.where(x.sum(1, keepdim=True) == 0, torch.nan, x[:, :5])


def test_image_without_an_embedding_is_a_failure_of_its_own():
    encoder = encoder_of(Dark())
    images = list(small.noise(6, 8))
    images[2] = np.zeros_like(images[2])
    blocks = list(embed_items(encoder, [Item(str(i), image) for i, image in enumerate(images)], batch_size=4))
    assert np.concatenate([block.positions for block in blocks]).tolist() == [0, 1, 3, 4, 5]
    assert [failure[:2] for block in blocks for failure in block.failures] == [(2, "not_finite")]
    assert np.isfinite(np.concatenate([block.embeddings for block in blocks])).all()
    with raises(errors.NotFiniteError, "images[2]"):
        encoder.encode(images)
