"""Weights files as people have them: read without running code, or refused in one line that names the file."""

import json
import os

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

import rsprune
import small_encoders as small
from failures import raises
from rsprune import errors
from rsprune.encoders import load_encoder
from rsprune.encoders.checkpoints import read_state
from rsprune.encoders.torchscript import is_torchscript
from rsprune.io import read_json, read_table
from rsprune.sources import open_source
from rsprune.tensors import read_tensors
from rsprune.training.autoencoder import load_autoencoder
from rsprune.training.checkpoint import read_checkpoint

pytestmark = pytest.mark.filterwarnings("ignore:`torch.jit:FutureWarning", "ignore::torch.jit.TracerWarning")

POINTER = b"""version https://git-lfs.github.com/spec/v1
oid sha256:4d7a214614ab2935c943f9e0ff69d22eadbb8f32b1258daaa5e2ca24d17e2393
size 12345
"""


def load(name, **options):
    return load_encoder(name, device="cpu", precision="float32", **options)


@pytest.fixture(scope="module")
def network():
    torch.manual_seed(0)
    return torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3), torch.nn.BatchNorm2d(4), torch.nn.ReLU()).eval()


def same(state, want):
    assert state.keys() == want.keys()
    for key, value in want.items():
        assert state[key].dtype == value.dtype
        assert torch.equal(state[key], value)


# --- TorchScript ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("make", ["script", "trace"])
def test_torchscript_is_read_by_name(network, tmp_path, dtype, make):
    path = tmp_path / "scripted.pt"
    module = network.to(dtype)
    scripted = (
        torch.jit.script(module) if make == "script" else torch.jit.trace(module, torch.ones(1, 3, 5, 5).to(dtype))
    )
    scripted.save(path)
    assert is_torchscript(path)
    same(read_state(path), module.state_dict())
    network.float()


def test_code_of_torchscript_is_not_run(network, tmp_path, monkeypatch):
    torch.jit.script(network).save(tmp_path / "scripted.pt")

    def loaded(*args, **options):
        raise AssertionError

    monkeypatch.setattr("torch.jit.load", loaded)
    assert len(read_state(tmp_path / "scripted.pt")) == 7


def test_clip_as_torchscript_gives_the_same_bytes(tmp_path):
    model = small.open_clip_folder(tmp_path / "clip", small.clip_config())
    torch.jit.trace(model.visual, torch.zeros(1, 3, 32, 32), check_trace=False).save(tmp_path / "traced.pt")
    name = f"open_clip:local-dir:{tmp_path / 'clip'}"
    images = list(small.noise(3, 32))
    state = read_state(tmp_path / "traced.pt")
    same(state, model.visual.state_dict())
    assert load(name, weights=tmp_path / "traced.pt").encode(images).tobytes() == load(name).encode(images).tobytes()


# --- wrappings, shards ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "wrap",
    [
        lambda state: {"state_dict": state, "epoch": 3},
        lambda state: {"model_state_dict": state, "optimizer": {"lr": 1}},
        lambda state: {"model": {"state_dict": state}},
        lambda state: {"module": state},
        lambda state: {f"module.{key}": value for key, value in state.items()},
        lambda state: {f"_orig_mod.module.{key}": value for key, value in state.items()},
        lambda state: {"state_dict": {f"model.{key}": value for key, value in state.items()}},
    ],
)
def test_wrappings_come_off(network, tmp_path, wrap):
    torch.save(wrap(network.state_dict()), tmp_path / "w.pt")
    same(read_state(tmp_path / "w.pt"), network.state_dict())


def in_shards(folder, name, save):
    """Split a folder's weights in two."""
    state = read_state(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    stem, ext = name.split(".")
    files = {key: f"{stem}-0000{i % 2 + 1}-of-00002.{ext}" for i, key in enumerate(sorted(state))}
    for file in set(files.values()):
        save({key: state[key] for key in state if files[key] == file}, folder / file)
    (folder / f"{name}.index.json").write_text(json.dumps({"weight_map": files}))
    return folder / f"{name}.index.json"


@pytest.mark.parametrize(("name", "save"), [("model.safetensors", save_file), ("pytorch_model.bin", torch.save)])
def test_weights_in_shards(tmp_path, name, save):
    folder = small.saved(small.siglip_model(), tmp_path, 32)
    images = list(small.noise(2, 32))
    want = load(f"hf:{folder}").encode(images)
    index = in_shards(folder, name, save)
    assert load(f"hf:{folder}").encode(images).tobytes() == want.tobytes()
    shard = next(folder.glob(f"{name.split('.')[0]}-00001*"))
    content = shard.read_bytes()
    shard.unlink()
    with raises(errors.WeightsError, index, shard.name):
        load(f"hf:{folder}")
    shard.write_bytes(POINTER)
    with raises(errors.WeightsError, shard, "git lfs pull"):
        load(f"hf:{folder}")
    shard.write_bytes(content)
    index.write_text("{}")
    with raises(errors.WeightsError, index, "weight_map"):
        load(f"hf:{folder}")


class Evil:
    def __reduce__(self):
        return (os.system, ("true",))


@pytest.mark.parametrize(
    ("content", "values"),
    [
        (Evil(), ("state_dict()",)),
        (torch.nn.Linear(2, 2), ("state_dict()",)),
        ({"epoch": 3, "lr": 0.1}, ("epoch, lr",)),
        ([torch.ones(2)], ("list",)),
        ({}, ("dict",)),
    ],
)
def test_what_is_no_state_dict(tmp_path, content, values):
    torch.save(content, tmp_path / "w.pt")
    with pytest.raises(errors.WeightsError) as caught:
        read_state(tmp_path / "w.pt")
    assert "\n" not in str(caught.value)
    with raises(errors.WeightsError, tmp_path / "w.pt", *values):
        read_state(tmp_path / "w.pt")


# --- Git LFS pointers -------------------------------------------------------------------------------------------------

READERS = {
    "weights.pt": read_state,
    "weights.safetensors": read_state,
    "checkpoint.pt": read_checkpoint,
    "config.json": read_json,
    "table.parquet": read_table,
    "rows.npy": lambda path: rsprune.select(path, np.eye(4, dtype=np.float32), 2),
    "centroids.safetensors": rsprune.Centroids.load,
    "tensors.safetensors": lambda path: read_tensors(path, "statistics", ["mean"]),
    "images.txt": open_source,
    "images.csv": open_source,
    "pool-0.tar": lambda path: [open_source(path).count(shard) for shard in open_source(path).shards],
}


@pytest.mark.parametrize("file", READERS)
def test_pointer_of_git_lfs(tmp_path, file):
    path = tmp_path / file
    path.write_bytes(POINTER)
    with raises((errors.FormatError, errors.WeightsError), path, "Git LFS pointer", "git lfs pull"):
        READERS[file](path)


@pytest.mark.parametrize("file", ["model.safetensors", "config.json", "preprocessor_config.json"])
def test_pointer_in_a_folder_of_transformers(tmp_path, file):
    small.saved(small.siglip_model(), tmp_path, 32)
    (tmp_path / file).write_bytes(POINTER)
    with raises(errors.WeightsError, tmp_path / file, "git lfs pull"):
        load(f"hf:{tmp_path}")


def test_pointer_in_a_folder_of_open_clip(tmp_path):
    small.open_clip_folder(tmp_path, small.clip_config())
    for file in ("open_clip_pytorch_model.bin", "open_clip_config.json"):
        (tmp_path / file).write_bytes(POINTER)
        with raises(errors.WeightsError, tmp_path / file, "git lfs pull"):
            load(f"open_clip:local-dir:{tmp_path}")


def test_pointer_in_a_folder_of_diffusers(tmp_path):
    (tmp_path / "config.json").write_text('{"_class_name": "AutoencoderKL"}')
    (tmp_path / "diffusion_pytorch_model.safetensors").write_bytes(POINTER)
    with raises(errors.WeightsError, tmp_path / "diffusion_pytorch_model.safetensors", "git lfs pull"):
        load_autoencoder(tmp_path)
