"""Image processors of the transformers library: each setting is followed to the bit, or refused by name."""

import json

import numpy as np
import pytest
import torch
from PIL import Image

import small_encoders as small
from failures import raises
from rsprune import errors
from rsprune.encoders import load_encoder
from rsprune.encoders.processors import preprocessing

#: Images whose margins, after a resize to 37, are of every remainder by four.
IMAGES = [
    np.random.default_rng(i).integers(0, 256, (h, w, 3), np.uint8)
    for i, (h, w) in enumerate([(37, 40), (61, 38), (40, 43), (90, 41), (37, 37), (20, 300), (45, 39)])
]

CLIP, SIGLIP, BIT, VIT = (f"{name}ImageProcessor" for name in ("CLIP", "Siglip", "Bit", "ViT"))

FOLLOWED = [
    {},
    {"do_normalize": False},
    {"do_rescale": False},
    {"do_normalize": False, "do_rescale": False},
    {"rescale_factor": 1 / 127.5, "image_mean": [1.0, 0.9, 1.1], "image_std": [1, 2, 0.5]},
    {"image_mean": 0.25, "image_std": 0.5},
    {"image_mean": None, "image_std": None, "do_normalize": None, "do_rescale": None, "do_pad": None, "x": None},
    {"resample": 2},
    {"resample": 3, "do_convert_rgb": False},
    {"size": {"height": 37, "width": 37}, "do_center_crop": False},
    {"size": [37, 37], "do_center_crop": False},
    {"size": {"height": 37, "width": 37}, "do_center_crop": True, "crop_size": 32},
    {"size": {"height": 36, "width": 36}, "do_center_crop": True, "crop_size": {"height": 31, "width": 31}},
    {"size": {"shortest_edge": 37}, "do_center_crop": True, "crop_size": {"height": 32, "width": 32}},
    {"size": {"shortest_edge": 37, "longest_edge": None}, "do_center_crop": True, "crop_size": [30, 30]},
    {"size": 37, "do_center_crop": True, "crop_size": 32},
    {"size": 37, "default_to_square": True, "do_center_crop": True, "crop_size": 37},
    {"do_pad": False, "do_reduce_labels": False, "data_format": "channels_first", "processor_class": "CLIPProcessor"},
]


def theirs(config, name):
    import transformers

    module = {CLIP: "clip", SIGLIP: "siglip", BIT: "bit", VIT: "vit"}[name]
    processors = getattr(transformers.models, module)
    pil = getattr(getattr(processors, f"image_processing_pil_{module}"), f"{name}Pil")
    return pil(**config)([Image.fromarray(image) for image in IMAGES], return_tensors="np").pixel_values


def ours(ready):
    pixels, failures = ready.apply(IMAGES)
    assert failures == []
    mean, std = np.float32(ready.mean), np.float32(ready.std)
    return ((pixels - mean) / std).transpose(0, 3, 1, 2)


@pytest.mark.parametrize("name", [CLIP, SIGLIP, BIT, VIT])
@pytest.mark.parametrize("config", FOLLOWED, ids=lambda config: ",".join(config) or "defaults")
def test_pixels_are_those_of_the_processor(tmp_path, name, config):
    ready = preprocessing(config | {"image_processor_type": name}, tmp_path / "p.json", "clip")
    np.testing.assert_allclose(ours(ready), theirs(config, name), rtol=2e-6, atol=2e-6)


@pytest.mark.parametrize(
    ("kind", "config", "name"),
    [
        ("siglip", {}, SIGLIP),
        ("clip", {}, CLIP),
        ("dinov2", {}, BIT),
        ("clip", {"feature_extractor_type": "CLIPFeatureExtractor"}, CLIP),
        ("siglip", {"image_processor_type": "SiglipImageProcessorFast"}, SIGLIP),
        ("dinov2", {"image_processor_type": "BitImageProcessorPil"}, BIT),
    ],
)
def test_class_of_a_processor(tmp_path, kind, config, name):
    ready = preprocessing(config, tmp_path / "p.json", kind)
    np.testing.assert_allclose(ours(ready), theirs({}, name), rtol=2e-6, atol=2e-6)


@pytest.mark.parametrize(
    ("config", "values"),
    [
        ({"do_resize": False}, ("do_resize", False)),
        ({"do_pad": True}, ("do_pad", True)),
        ({"do_flip_channel_order": True}, ("do_flip_channel_order", True)),
        ({"do_rescale_and_offset": 1}, ("do_rescale_and_offset", 1)),
        ({"use_square_size": True}, ("use_square_size",)),
        ({"crop_pct": 0.9}, ("crop_pct", 0.9)),
        ({"auto_map": {"AutoImageProcessor": "a.B"}}, ("auto_map",)),
        ({"video_processor_type": "InternVideoProcessor"}, ("video_processor_type",)),
        ({"image_processor_type": "ConvNextImageProcessor"}, ("ConvNext",)),
        ({"resample": 1}, ("resample", 1)),
        ({"resample": None}, ("resample", None)),
        ({"size": None}, ("size", None)),
        ({"image_mean": None}, ("image_mean", None)),
        ({"size": {"longest_edge": 224}}, ("size", "longest_edge")),
        ({"size": {"shortest_edge": 224, "longest_edge": 300}}, ("size", "longest_edge", 300)),
        ({"size": {"height": 224, "width": 256}}, ("size", 256)),
        ({"size": {"max_height": 224, "max_width": 224}}, ("size", "max_height")),
        ({"size": {"shortest_edge": 0}}, ("size",)),
        ({"size": "224"}, ("size", "'224'")),
        ({"do_center_crop": False}, ("do_center_crop", False)),
        ({"crop_size": {"height": 224, "width": 192}}, ("crop_size", 192)),
        ({"crop_size": {"shortest_edge": 224}}, ("crop_size",)),
        ({"crop_size": 225}, ("crop_size", 225)),
        ({"image_mean": [0.5]}, ("image_mean", "[0.5]")),
        ({"image_std": [0.5, 0, 0.5]}, ("image_std",)),
        ({"image_std": [0.5, "a", 0.5]}, ("image_std",)),
        ({"rescale_factor": 0}, ("rescale_factor", 0)),
    ],
)
def test_setting_that_is_not_followed(tmp_path, config, values):
    with raises(errors.WeightsError, tmp_path / "p.json", *values):
        preprocessing(config, tmp_path / "p.json", "clip")


# --- folders ----------------------------------------------------------------------------------------------------------


def load(folder):
    return load_encoder(f"hf:{folder}", device="cpu", precision="float32")


@pytest.mark.parametrize("off", [["do_normalize"], ["do_rescale"], ["do_normalize", "do_rescale"]])
def test_embeddings_without_a_step_are_those_of_transformers(tmp_path, off):
    model = small.siglip_model()
    config = {"size": {"height": 32, "width": 32}} | dict.fromkeys(off, False)
    small.saved(model, tmp_path, 32, processor=config)
    want = small.unit(small.pooled(model, torch.from_numpy(theirs(config, SIGLIP))))
    np.testing.assert_allclose(load(tmp_path).encode(IMAGES), want, rtol=0, atol=1e-6)


def test_nested_configuration_goes_before_the_other(tmp_path):
    model = small.siglip_model()
    small.saved(model, tmp_path, 32)
    want = load(tmp_path).encode(IMAGES)
    nested = json.loads((tmp_path / "preprocessor_config.json").read_text())
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(nested | {"do_normalize": False}))
    (tmp_path / "processor_config.json").write_text(json.dumps({"processor_class": "SiglipProcessor"}))
    assert not np.array_equal(load(tmp_path).encode(IMAGES), want)
    (tmp_path / "processor_config.json").write_text(json.dumps({"image_processor": nested}))
    assert np.array_equal(load(tmp_path).encode(IMAGES), want)
    (tmp_path / "preprocessor_config.json").unlink()
    assert np.array_equal(load(tmp_path).encode(IMAGES), want)
    (tmp_path / "processor_config.json").unlink()
    with raises(errors.WeightsError, tmp_path / "preprocessor_config.json"):
        load(tmp_path)


@pytest.mark.parametrize("size", [98, 224, 230, 518])
def test_dinov2_sees_any_size_as_transformers_does(tmp_path, size):
    from transformers import Dinov2Config, Dinov2Model

    torch.manual_seed(0)
    config = Dinov2Config(hidden_size=32, num_hidden_layers=2, num_attention_heads=4, image_size=518)
    model = small.perturbed(Dinov2Model(config))
    processor = {"size": {"shortest_edge": size + 5}, "crop_size": {"height": size, "width": size}}
    small.saved(model, tmp_path, size, processor=processor)
    encoder = load(tmp_path)
    want = small.unit(small.pooled(model, torch.from_numpy(theirs(processor, BIT))))
    assert encoder.size == size
    np.testing.assert_allclose(encoder.encode(IMAGES), want, rtol=0, atol=2e-6)


def test_images_of_another_size_than_the_network_takes(tmp_path):
    small.saved(small.siglip_model(), tmp_path, 40)
    with raises(errors.WeightsError, tmp_path / "config.json", 32, 40):
        load(tmp_path)
