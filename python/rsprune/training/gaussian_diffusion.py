"""Gaussian diffusion: the forward process, the loss, and sampling.

Linear betas (DDPM: Ho et al. 2020, arXiv 2006.11239), variances learned between their bounds and the hybrid loss
(Nichol and Dhariwal 2021, arXiv 2102.09672), as DiT is trained. Time steps run from 0 to 999.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from rsprune.training.config import TIMESTEPS, Sampler
from rsprune.validation import check_choice, check_integer

if TYPE_CHECKING:
    from torch._prims_common import DeviceLikeType

__all__ = [
    "BETAS",
    "Denoiser",
    "GaussianDiffusion",
    "Losses",
    "make_scheduler",
    "p_sample",
    "p_sample_loop",
    "with_guidance",
]

#: The first and the last beta.
BETAS = (1e-4, 0.02)

#: Half the distance of two 8-bit levels in [-1, 1], and the magnitude from which a pixel counts as an extreme level.
HALF_LEVEL = 1 / 255
NEARLY_ONE = 0.999

#: A network under fixed conditions: maps noisy inputs (n, C, H, W) and time steps (n,) to noise (and variances).
Denoiser = Callable[[Tensor, Tensor], Tensor]


@dataclass(frozen=True)
class Losses:
    """The losses of a batch, float32 (n,) each.

    ``mse`` is the mean squared error of the noise. ``vb`` is one term of the variational lower bound, in bits per
    dimension, zero if no variances are learned; it has no gradient with respect to the predicted noise.
    """

    mse: Tensor
    vb: Tensor

    @property
    def total(self) -> Tensor:
        """The hybrid loss, which is minimized: their sum."""
        return self.mse + self.vb


class GaussianDiffusion:
    """The forward process and the training loss.

    Constants are computed in float64 and stored in float32, (1000,) each, on the device of the inputs.
    """

    def __init__(self, device: DeviceLikeType = "cpu") -> None:
        betas = np.linspace(*BETAS, TIMESTEPS)
        alphas_cumprod = np.cumprod(1 - betas)
        previous = np.append(1.0, alphas_cumprod[:-1])
        variance = betas * (1 - previous) / (1 - alphas_cumprod)  # of q(x_{t-1} | x_t, x_0): DDPM eq. 7
        # At t = 0 the variance is zero and has no logarithm; that of t = 1 stands in.
        clipped = np.append(variance[1], variance[1:])

        def stored(values: NDArray[np.float64]) -> Tensor:
            return torch.tensor(values, dtype=torch.float32, device=device)

        self.sqrt_alphas_cumprod = stored(np.sqrt(alphas_cumprod))
        self.sqrt_one_minus_alphas_cumprod = stored(np.sqrt(1 - alphas_cumprod))
        self.log_betas = stored(np.log(betas))
        self.posterior_log_variance = stored(np.log(clipped))
        self.posterior_mean_x0 = stored(betas * np.sqrt(previous) / (1 - alphas_cumprod))
        self.posterior_mean_xt = stored((1 - previous) * np.sqrt(1 - betas) / (1 - alphas_cumprod))

    def q_sample(self, x: Tensor, t: Tensor, noise: Tensor) -> Tensor:
        """Draw from ``q(x_t | x_0)``: ``x`` (n, C, H, W) at time steps ``t`` (n,). DDPM eq. 4."""
        return extract(self.sqrt_alphas_cumprod, t) * x + extract(self.sqrt_one_minus_alphas_cumprod, t) * noise

    def training_losses(self, output: Tensor, x: Tensor, noisy: Tensor, t: Tensor, noise: Tensor) -> Losses:
        """Compute the losses of a prediction, in float32.

        ``output``, (n, C or 2C, H, W), is the output of the network for ``noisy``; that is what :meth:`q_sample` makes
        of the clean input ``x`` and ``noise``, (n, C, H, W) each; ``t`` is int64 (n,).
        """
        output, x, noisy, noise = (value.float() for value in (output, x, noisy, noise))
        predicted, variances = output[:, : x.shape[1]], output[:, x.shape[1] :]
        mse = (predicted - noise).square().flatten(1).mean(1)
        if not variances.shape[1]:
            return Losses(mse, torch.zeros_like(mse))
        return Losses(mse, self.vlb_terms(predicted.detach(), variances, x, noisy, t))

    def vlb_terms(self, predicted: Tensor, variances: Tensor, x: Tensor, noisy: Tensor, t: Tensor) -> Tensor:
        """Compute one term of the variational lower bound, in bits per dimension, (n,): DDPM eq. 5.

        This is the divergence of ``q(x_{t-1} | x_t, x_0)`` from the model; at t = 0 it is the negative log-likelihood
        of ``x`` as 8-bit levels from -1 to 1. Latents are scored by the same formula.
        """
        low, high = extract(self.posterior_log_variance, t), extract(self.log_betas, t)
        fraction = (variances + 1) / 2
        log_variance = fraction * high + (1 - fraction) * low
        start = (noisy - extract(self.sqrt_one_minus_alphas_cumprod, t) * predicted) / extract(
            self.sqrt_alphas_cumprod, t
        )
        from_x0, from_xt = extract(self.posterior_mean_x0, t), extract(self.posterior_mean_xt, t)
        mean = from_x0 * start + from_xt * noisy
        true_mean = from_x0 * x + from_xt * noisy
        divergence = 0.5 * (
            log_variance
            - low
            - 1
            + torch.exp(low - log_variance)
            + (true_mean - mean).square() * torch.exp(-log_variance)
        )
        nll = -discretized_gaussian_log_likelihood(x, mean, 0.5 * log_variance)
        terms = torch.where(t[:, None, None, None] == 0, nll, divergence)
        return terms.flatten(1).mean(1) / math.log(2)


def extract(values: Tensor, t: Tensor) -> Tensor:
    """Take the constants (1000,) of time steps (n,), to be broadcast over images: (n, 1, 1, 1)."""
    return values[t][:, None, None, None]


def discretized_gaussian_log_likelihood(x: Tensor, mean: Tensor, log_std: Tensor) -> Tensor:
    """Compute the log of the Gaussian mass on the level of ``x``, one of 256 from -1 to 1: DDPM eq. 13.

    The bins of the lowest and the highest level extend to infinity.
    """
    scale = torch.exp(-log_std)
    above, below = normal_cdf((x - mean + HALF_LEVEL) * scale), normal_cdf((x - mean - HALF_LEVEL) * scale)
    mass = torch.where(x < -NEARLY_ONE, above, torch.where(x > NEARLY_ONE, 1 - below, above - below))
    return mass.clamp(min=1e-12).log()


def normal_cdf(z: Tensor) -> Tensor:
    """Approximate the standard normal CDF by tanh (Page 1977), as DDPM and DiT do."""
    return 0.5 * (1 + torch.tanh(math.sqrt(2 / math.pi) * (z + 0.044715 * z**3)))


# --- sampling ---------------------------------------------------------------------------------------------------------


def make_scheduler(sampler: Sampler, steps: int) -> Any:
    """Make diffusers' scheduler for a sampler.

    ``"ddpm"`` takes the time steps and variances of DiT's own sampler, 250 in the paper. ``"ddim"`` (Song et al. 2021)
    and ``"dpm++"`` (DPM-Solver++, Lu et al. 2022) need about 50 and 20.
    """
    check_choice("sampler", sampler, Sampler)
    check_integer("steps", steps, maximum=TIMESTEPS)
    from diffusers import DDIMScheduler, DDPMScheduler, DPMSolverMultistepScheduler

    process = (TIMESTEPS, *BETAS, "linear")
    if sampler == "ddpm":
        scheduler: Any = DDPMScheduler(
            *process, timestep_spacing="linspace", variance_type="learned_range", clip_sample=False
        )
    elif sampler == "ddim":
        scheduler = DDIMScheduler(*process, timestep_spacing="trailing", clip_sample=False)
    else:
        scheduler = DPMSolverMultistepScheduler(*process, timestep_spacing="linspace")
    scheduler.set_timesteps(steps)
    return scheduler


def p_sample(
    scheduler: Any, output: Tensor, x: Tensor, t: Tensor, generator: torch.Generator | list[torch.Generator] | None
) -> Tensor:
    """Take one reverse step from ``x`` (n, C, H, W) at time step ``t``, given the ``output`` of the network for it.

    Schedulers other than DDPM's leave the learned variances out. Where there are none, DDPM's takes their lower bounds.
    """
    from diffusers import DDPMScheduler

    if not isinstance(scheduler, DDPMScheduler):
        out: Tensor = scheduler.step(output[:, : x.shape[1]], t, x).prev_sample
        return out
    if output.shape[1] == x.shape[1]:
        output = torch.cat([output, -torch.ones_like(output)], dim=1)
    out = scheduler.step(output, t, x, generator=generator).prev_sample
    return out


@torch.inference_mode()
def p_sample_loop(
    denoise: Denoiser,
    noise: Tensor,
    sampler: Sampler = "ddpm",
    steps: int = 250,
    generator: torch.Generator | list[torch.Generator] | None = None,
) -> Tensor:
    """Turn ``noise``, float32 (n, C, H, W), standard normal, into samples of the same shape, not clipped.

    ``denoise`` is the network under fixed conditions. ``generator`` makes the noise that ``"ddpm"`` adds at each step:
    one generator for all samples, or one per sample.
    """
    scheduler = make_scheduler(sampler, steps)
    x = noise
    for t in scheduler.timesteps:
        output = denoise(x, t.to(x.device).expand(len(x))).float()
        x = p_sample(scheduler, output, x, t, generator)
    return x


def with_guidance(
    denoise: Callable[[Tensor, Tensor, Tensor], Tensor], y: Tensor, null_label: int, scale: float, channels: int
) -> Denoiser:
    """Apply classifier-free guidance (Ho and Salimans 2022): extrapolate from "no class" towards the classes ``y``.

    ``denoise`` maps noisy inputs, time steps and classes to the output of the network; ``y`` is int64 (n,), and a
    ``scale`` of 1 is no guidance. The leading ``channels`` are guided: those of the noise. (The published sampler
    guides 3 of 4.)
    """
    if scale == 1:
        return lambda x, t: denoise(x, t, y)

    def guided(x: Tensor, t: Tensor) -> Tensor:
        labels = torch.cat([y, torch.full_like(y, null_label)])
        conditional, unconditional = denoise(torch.cat([x, x]), torch.cat([t, t]), labels).chunk(2)
        noise = unconditional[:, :channels] + scale * (conditional[:, :channels] - unconditional[:, :channels])
        return torch.cat([noise, conditional[:, channels:]], dim=1)

    return guided
