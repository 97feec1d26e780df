"""Encoders of every published layout: the real architectures, small, with random weights."""

import json
import warnings

import numpy as np
import open_clip
import torch
from torch import nn

from rsprune.encoders.siglip import SiglipShape

#: A SigLIP tower that is small, and whose width, depth and heads all differ.
SHAPE = SiglipShape(32, 8, 64, 160, 2, 4)
TEXT = {"hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 2, "num_attention_heads": 4, "vocab_size": 50}
VISION = {name: getattr(SHAPE, name) for name in SiglipShape.__slots__ if name != "num_channels"}


def perturbed(model, seed=0):
    """Random biases and norms, too: those of a fresh network are zeros and ones, and hide what is swapped."""
    torch.manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.02)
    return model.eval()


def saved(model, folder, size, *, processor=None, dtype=torch.float32):
    """Save a transformers model as its authors do: the folder with its configuration and its processor's."""
    model.to(dtype).save_pretrained(folder)
    model.float()
    settings = processor or {
        "image_processor_type": "SiglipImageProcessor",
        "do_resize": True,
        "resample": 3,
        "size": {"height": size, "width": size},
        "rescale_factor": 1 / 255,
        "image_mean": [0.5, 0.5, 0.5],
        "image_std": [0.5, 0.5, 0.5],
    }
    (folder / "preprocessor_config.json").write_text(json.dumps(settings))
    return folder


def siglip_model(vision=VISION, text=TEXT, **changes):
    """transformers' SiglipModel."""
    from transformers import SiglipConfig, SiglipModel

    torch.manual_seed(0)
    return perturbed(SiglipModel(SiglipConfig(vision_config=vision | changes, text_config=text)))


def pooled(model, pixels):
    """What the authors of a transformers model take for an image's features."""
    with torch.inference_mode():
        features = model.get_image_features if hasattr(model, "get_image_features") else model
        out = features(pixel_values=pixels)
    return out if torch.is_tensor(out) else out.pooler_output


def noise(n, size, seed=0):
    """Images, uint8 (n, S, S, 3)."""
    return np.random.default_rng(seed).integers(0, 256, (n, size, size, 3), np.uint8)


def scaled(images, preprocessing):
    """What a processor hands to the network, without our code."""
    mean, std = (torch.tensor(value).view(1, 3, 1, 1) for value in (preprocessing.mean, preprocessing.std))
    return (torch.from_numpy(images).permute(0, 3, 1, 2).float() - mean) / std


def unit(features):
    """Rows of length 1."""
    return nn.functional.normalize(features, dim=1).numpy()


def clip_config(**changes):
    """An open_clip architecture of its own image tower."""
    vision = {"image_size": 32, "layers": 2, "width": 64, "patch_size": 8, "head_width": 16}
    text = {"context_length": 8, "vocab_size": 50, "width": 32, "heads": 2, "layers": 1}
    return {"embed_dim": 48, "vision_cfg": vision, "text_cfg": text} | changes


def open_clip_folder(folder, config, **preprocess):
    """A folder for `local-dir:`, and the model whose weights it holds."""
    folder.mkdir(exist_ok=True)
    (folder / "open_clip_config.json").write_text(json.dumps({"model_cfg": config, "preprocess_cfg": preprocess}))
    torch.save({}, folder / "open_clip_pytorch_model.bin")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = perturbed(open_clip.create_model(f"local-dir:{folder}", load_weights=False))
    torch.save(model.state_dict(), folder / "open_clip_pytorch_model.bin")
    return model
