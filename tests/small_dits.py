"""Diffusion transformers with the real structure, small, whose every weight matters."""

import torch

from rsprune.training.dit import DiT

SHAPE = {"input_size": 8, "patch_size": 2, "in_channels": 4, "hidden_size": 48, "depth": 2, "num_heads": 3}


def small_dit(seed=0, perturb=0.05, **changes):
    """A small DiT; `perturb` moves every weight, as a fresh one predicts zero whatever it is given."""
    torch.manual_seed(seed)
    model = DiT(**SHAPE | {"num_classes": None} | changes)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.add_(perturb * torch.randn_like(parameter))
    return model.eval()


def inputs(model, n=3, seed=1):
    """What a network is called with: x, t, y, cond."""
    generator = torch.Generator().manual_seed(seed)
    x, cond = (
        torch.randn(n, channels, model.input_size, model.input_size, generator=generator)
        for channels in (model.in_channels, model.cond_channels)
    )
    t = torch.tensor([0, 999, 517, 31, 4][:n])
    y = None if model.num_classes is None else torch.arange(n) % model.num_classes
    return x, t, y, cond if model.cond_channels else None
