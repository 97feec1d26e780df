"""The diffusion transformer: the published structure, checkpoints that come and go safely, diffusers' folder."""

import argparse
import json
import pickle

import pytest
import torch

from failures import raises
from rsprune.errors import ArgumentError, ShapeError, WeightsError
from rsprune.training.checkpoint import load_dit, start_from
from rsprune.training.dit import SIZES, DiT, DiT_models
from rsprune.training.export import export_pipeline, to_diffusers
from small_dits import SHAPE, inputs, small_dit


def parameters(name, **options):
    with torch.device("meta"):
        return sum(parameter.numel() for parameter in DiT_models[name](**options).parameters())


# Table 1 of the paper, and what the published code counts (with the frozen positions and the row for "no class").
PUBLISHED = {"DiT-XL/2": 675.13, "DiT-L/2": 458.10, "DiT-B/2": 130.51, "DiT-S/2": 32.96, "DiT-B/4": 130.5}


@pytest.mark.parametrize("name", DiT_models)
def test_parameters_are_as_many_as_the_architecture_says(name):
    size, patch = name.removeprefix("DiT-").split("/")
    depth, width, _ = SIZES[size]
    patch = int(patch)
    linear = lambda inputs, outputs: (inputs + 1) * outputs  # noqa: E731
    block = (
        linear(width, 3 * width)
        + linear(width, width)
        + linear(width, 4 * width)
        + linear(4 * width, width)
        + linear(width, 6 * width)
    )
    want = depth * block + linear(4 * patch**2, width) + linear(256, width) + linear(width, width) + 1001 * width
    want += (32 // patch) ** 2 * width + linear(width, 2 * width) + linear(width, patch**2 * 8)
    assert parameters(name) == want
    if name in PUBLISHED:
        assert want / 1e6 == pytest.approx(PUBLISHED[name], abs=0.06)


def test_xl_2_has_the_published_parameters_and_names():
    assert parameters("DiT-XL/2", input_size=32, in_channels=4, num_classes=1000) == 675_129_632
    with torch.device("meta"):
        state = DiT_models["DiT-XL/2"]().state_dict()
    block = [
        "attn.qkv.weight", "attn.qkv.bias", "attn.proj.weight", "attn.proj.bias", "mlp.fc1.weight", "mlp.fc1.bias",
        "mlp.fc2.weight", "mlp.fc2.bias", "adaLN_modulation.1.weight", "adaLN_modulation.1.bias",
    ]  # fmt: skip
    names = {
        "pos_embed", "x_embedder.proj.weight", "x_embedder.proj.bias",
        "t_embedder.mlp.0.weight", "t_embedder.mlp.0.bias",
        "t_embedder.mlp.2.weight", "t_embedder.mlp.2.bias", "y_embedder.embedding_table.weight",
        "final_layer.linear.weight", "final_layer.linear.bias", "final_layer.adaLN_modulation.1.weight",
        "final_layer.adaLN_modulation.1.bias", *(f"blocks.{i}.{name}" for i in range(28) for name in block),
    }  # fmt: skip
    assert state.keys() == names
    assert state["pos_embed"].shape == (1, 256, 1152)
    assert state["x_embedder.proj.weight"].shape == (1152, 4, 2, 2)
    assert state["y_embedder.embedding_table.weight"].shape == (1001, 1152)
    assert state["final_layer.linear.weight"].shape == (32, 1152)


@pytest.mark.parametrize("channels", [1, 3, 4, 32])
@pytest.mark.parametrize("patch", [2, 4, 8])
def test_any_channels_and_patches_give_twice_the_channels(channels, patch):
    model = small_dit(in_channels=channels, patch_size=patch)
    x, t, _, _ = inputs(model)
    assert model(x, t).shape == (3, 2 * channels, 8, 8)
    assert small_dit(in_channels=channels, learn_sigma=False)(x, t).shape == x.shape


def test_a_fresh_network_is_blocks_of_identity_and_predicts_zero():
    model = small_dit(perturb=0, num_classes=5)
    assert not model(*inputs(model)).any()
    assert not model.pos_embed.requires_grad
    tokens = torch.randn(1, 16, 48)
    assert torch.equal(model.blocks[0](tokens, torch.randn(1, 48)), tokens)
    bound = (6 / (48 + 3 * 48)) ** 0.5
    qkv = model.blocks[0].attn.qkv.weight
    assert 0.9 * bound < qkv.abs().max() <= bound
    assert model.t_embedder.mlp[0].weight.std().item() == pytest.approx(0.02, rel=0.05)


def test_every_input_matters_and_positions_tell_places_apart():
    model = small_dit(num_classes=5)
    x, t, y, _ = inputs(model)
    out = model(x, t, y)
    assert not torch.allclose(out, model(x, t.flip(0), y))
    assert not torch.allclose(out, model(x, t, (y + 1) % 5))
    assert not torch.allclose(out, model(x, t, torch.full_like(y, model.null_label)))
    turned = model(x.transpose(2, 3), t, y).transpose(2, 3)
    assert not torch.allclose(out, turned)


def test_what_does_not_fit_is_refused():
    model = small_dit(num_classes=5, cond_channels=2)
    x, t, y, cond = inputs(model)
    with raises(ShapeError, "x", "('n', 4, 8, 8)", "(3, 4, 8, 7)"):
        model(x[..., :7], t, y, cond)
    with raises(ArgumentError, 5, "y"):
        model(x, t, None, cond)
    with raises(ArgumentError, 2, "cond"):
        model(x, t, y)
    with raises(ShapeError, "cond"):
        model(x, t, y, cond[:, :1])
    with raises(ArgumentError, "y"):
        small_dit()(x, t, y)
    with raises(ArgumentError, "patch_size=3"):
        DiT(**SHAPE | {"patch_size": 3})
    with raises(ArgumentError, "num_heads=5"):
        DiT(**SHAPE | {"num_heads": 5})


# --- checkpoints ------------------------------------------------------------------------------------------------------

WIDE = {"hidden_size": 384, "num_heads": 6}  # of a published width, whose heads are known


@pytest.mark.parametrize("classes", [None, 7])
def test_published_checkpoints_load(tmp_path, classes):
    model, averaged = small_dit(num_classes=classes, **WIDE), small_dit(1, num_classes=classes, **WIDE)
    args = argparse.Namespace(model="DiT-XL/2", image_size=256, data_path="/data")
    content = {"model": model.state_dict(), "ema": averaged.state_dict(), "opt": {"state": {}}, "args": args}
    torch.save(content, tmp_path / "0400000.pt")
    torch.save(averaged.state_dict(), tmp_path / "DiT.pt")
    call = inputs(model)
    for path, which, want in [
        ("0400000.pt", "ema", averaged),
        ("0400000.pt", "model", model),
        ("DiT.pt", "ema", averaged),
    ]:
        loaded = load_dit(tmp_path / path, which)
        assert loaded.config == model.config
        assert torch.equal(loaded(*call), want(*call))
        assert not loaded.pos_embed.requires_grad


def test_a_checkpoint_that_runs_code_is_refused(tmp_path):
    class Payload:
        def __reduce__(self):
            return (print, ("run",))

    torch.save({"model": Payload()}, tmp_path / "a.pt")
    (tmp_path / "b.pt").write_bytes(pickle.dumps(Payload()))
    (tmp_path / "c.pt").write_bytes(b"PK\x03\x04half")
    for name in ("a.pt", "b.pt", "c.pt"):
        with raises(WeightsError, tmp_path / name):
            load_dit(tmp_path / name)
    with raises(WeightsError, tmp_path / "d.pt"):
        load_dit(tmp_path / "d.pt")


def test_other_weights_are_refused_by_name(tmp_path):
    state = small_dit(**WIDE).state_dict()
    for change, values in [
        ({"blocks.0.attn.qkv.bias": None}, (1, "blocks.0.attn.qkv.bias")),
        ({"extra": torch.zeros(1)}, (1, "extra")),
        ({"blocks.1.mlp.fc2.bias": torch.zeros(3)}, ("blocks.1.mlp.fc2.bias", "(3,)", "(384,)")),
        ({"pos_embed": None}, (tmp_path / "a.pt",)),
    ]:
        torch.save({k: v for k, v in (state | change).items() if v is not None}, tmp_path / "a.pt")
        with raises(WeightsError, *values):
            load_dit(tmp_path / "a.pt")
    torch.save(small_dit().state_dict(), tmp_path / "a.pt")
    with raises(WeightsError, 48, 384):
        load_dit(tmp_path / "a.pt")
    torch.save({"model": state}, tmp_path / "a.pt")
    with raises(WeightsError, '"ema"', "model"):
        load_dit(tmp_path / "a.pt")


@pytest.mark.parametrize("classes", [None, 5])
@pytest.mark.parametrize("channels", [1, 4, 9])
def test_a_new_condition_changes_nothing_at_first_and_something_later(tmp_path, classes, channels):
    before = small_dit(num_classes=classes)
    torch.save({"ema": before.state_dict()}, tmp_path / "a.pt")
    model = DiT(**before.config | {"cond_channels": channels}).eval()
    start_from(model, tmp_path / "a.pt")
    x, t, y, cond = inputs(model)
    assert torch.equal(model(x, t, y, 100 * cond), before(x, t, y))
    assert model.out_channels == 8
    model(x, t, y, cond).square().mean().backward()
    assert model.x_embedder.proj.weight.grad[:, 4:].abs().max() > 0


def test_an_unconditional_network_starts_as_no_class(tmp_path):
    before = small_dit(num_classes=5)
    torch.save(before.state_dict(), tmp_path / "a.pt")
    model = DiT(**before.config | {"num_classes": None, "cond_channels": 1}).eval()
    start_from(model, tmp_path / "a.pt")
    x, t, _, cond = inputs(model)
    none = torch.full((3,), before.null_label)
    torch.testing.assert_close(model(x, t, None, cond), before(x, t, none), rtol=0, atol=2e-6)


# --- diffusers --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("classes", [None, 5])
def test_diffusers_class_gives_the_same_bits(classes):
    model = small_dit(num_classes=classes, perturb=0.2)
    x, t, y, _ = inputs(model)
    labels = torch.zeros(3, dtype=torch.long) if y is None else y
    theirs = to_diffusers(model)
    with torch.inference_mode():
        assert torch.equal(theirs(x, timestep=t, class_labels=labels).sample, model(x, t, y))
        if y is not None:
            null = torch.full_like(y, model.null_label)
            assert torch.equal(theirs(x, timestep=t, class_labels=null + 995).sample, model(x, t, null))
    with raises(ArgumentError):
        to_diffusers(small_dit(cond_channels=1))


@pytest.fixture
def exported(tmp_path):
    from diffusers import AutoencoderKL

    torch.manual_seed(0)
    vae = AutoencoderKL(block_out_channels=[8], norm_num_groups=4, latent_channels=4, sample_size=8)
    model = small_dit(num_classes=5, perturb=0.2)
    export_pipeline(model, vae, tmp_path / "pipe")
    return model, vae, tmp_path / "pipe"


def test_the_exported_folder_samples_as_the_network_does(exported):
    from diffusers import DDIMScheduler, DiTPipeline

    model, vae, folder = exported
    pipe = DiTPipeline.from_pretrained(folder, trust_remote_code=True)
    pipe.set_progress_bar_config(disable=True)
    call = {"class_labels": [1, 3], "num_inference_steps": 3, "guidance_scale": 2.0, "output_type": "np"}
    images = pipe(**call, generator=torch.Generator().manual_seed(0)).images

    scheduler = DDIMScheduler(1000, 1e-4, 0.02, "linear", clip_sample=False)
    scheduler.set_timesteps(3)
    x = torch.randn(2, 4, 8, 8, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        for t in scheduler.timesteps:
            batch = t.expand(2)
            one, none = (model(x, batch, torch.tensor(y))[:, :4] for y in ([1, 3], [5, 5]))
            x = scheduler.step(none + 2.0 * (one - none), t, x).prev_sample
        want = (vae.decode(x / vae.config.scaling_factor).sample / 2 + 0.5).clamp(0, 1)
    torch.testing.assert_close(torch.from_numpy(images).permute(0, 3, 1, 2), want, rtol=0, atol=1e-5)


def test_the_exported_folder_cannot_be_sampled_from_wrongly(exported):
    from diffusers import DiTPipeline

    _, _, folder = exported
    assert json.loads((folder / "transformer" / "config.json").read_text())["norm_eps"] == 1e-6
    with raises(ValueError, "trust_remote_code"):
        DiTPipeline.from_pretrained(folder)
