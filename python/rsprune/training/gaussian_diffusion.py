"""The diffusion process: noise, the loss, and the way back.

Gaussian diffusion with linear betas (Ho et al. 2020, arXiv 2006.11239: DDPM), variances learned between their bounds
and the hybrid loss (Nichol and Dhariwal 2021, arXiv 2102.09672), as DiT is trained. Time steps run from 0 to 999.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from rsprune.errors import ArgumentError

if TYPE_CHECKING:
    from torch._prims_common import DeviceLikeType

__all__ = ["BETAS", "STEPS", "Denoiser", "Diffusion", "Losses", "Sampler", "guided", "make_scheduler", "sample"]

#: Time steps, and the first and last beta.
STEPS = 1000
BETAS = (1e-4, 0.02)

#: Half the distance of two 8-bit levels in [-1, 1], and how near a pixel must be to an end to be taken for it.
HALF_LEVEL = 1 / 255
NEARLY_ONE = 0.999

#: A network under fixed conditions: noisy inputs (n, C, H, W) and time steps (n,) to noise, or noise and variances.
Denoiser = Callable[[Tensor, Tensor], Tensor]

#: "ddpm" takes the steps of the process; the others see fewer, and leave the learned variances out.
Sampler = Literal["ddpm", "ddim", "dpm++"]


@dataclass(frozen=True)
class Losses:
    """The losses of a batch, float32 (n,) each.

    Attributes
    ----------
    mse
        Mean squared error of the noise.
    vb
        One term of the variational bound, in bits per dimension; zero where no variances are learned. It does not move
        the noise.
    """

    mse: Tensor
    vb: Tensor

    @property
    def total(self) -> Tensor:
        """What is minimised: their sum."""
        return self.mse + self.vb


class Diffusion:
    """The forward process on a device, and the loss of what undoes it.

    Constants are computed in float64 and stored in float32.

    Parameters
    ----------
    device
        Where the inputs are.
    """

    def __init__(self, device: DeviceLikeType = "cpu") -> None:
        betas = np.linspace(*BETAS, STEPS)
        alphas = np.cumprod(1 - betas)
        before = np.append(1.0, alphas[:-1])
        variance = betas * (1 - before) / (1 - alphas)  # of q(x_{t-1} | x_t, x_0): DDPM eq. 7
        # At t = 0 it is zero and has no logarithm; the next one stands in.
        lowest = np.log(np.append(variance[1], variance[1:]))

        def stored(values: NDArray[np.float64]) -> Tensor:
            return torch.tensor(values, dtype=torch.float32, device=device)

        self.signal = stored(np.sqrt(alphas))
        self.noise = stored(np.sqrt(1 - alphas))
        self.log_lowest, self.log_highest = stored(lowest), stored(np.log(betas))
        self.mean_start = stored(betas * np.sqrt(before) / (1 - alphas))
        self.mean_now = stored((1 - before) * np.sqrt(1 - betas) / (1 - alphas))

    def q_sample(self, x: Tensor, t: Tensor, noise: Tensor) -> Tensor:
        """Draw from ``q(x_t | x_0)``: ``x`` (n, C, H, W) at time steps ``t`` (n,). DDPM eq. 4."""
        return at(self.signal, t) * x + at(self.noise, t) * noise

    def losses(self, output: Tensor, x: Tensor, noisy: Tensor, t: Tensor, noise: Tensor) -> Losses:
        """Score a prediction, in float32.

        Parameters
        ----------
        output : Tensor
            (n, C or 2C, H, W): what the network says of ``noisy``.
        x, noisy, noise : Tensor
            (n, C, H, W): the clean input, what :meth:`q_sample` made of it, and the noise that it took.
        t : Tensor
            int64 (n,).
        """
        output, x, noisy, noise = (value.float() for value in (output, x, noisy, noise))
        predicted, spread = output[:, : x.shape[1]], output[:, x.shape[1] :]
        mse = (predicted - noise).square().flatten(1).mean(1)
        if not spread.shape[1]:
            return Losses(mse, torch.zeros_like(mse))
        return Losses(mse, self.bound(predicted.detach(), spread, x, noisy, t))

    def bound(self, predicted: Tensor, spread: Tensor, x: Tensor, noisy: Tensor, t: Tensor) -> Tensor:
        """One term of the variational bound, bits per dimension, (n,): DDPM eq. 5.

        A divergence of ``q(x_{t-1} | x_t, x_0)`` from the model; at t = 0 the likelihood of ``x``, in the levels of
        8-bit pixels from -1 to 1. Latents are scored by the same formula.
        """
        low, high = at(self.log_lowest, t), at(self.log_highest, t)
        fraction = (spread + 1) / 2
        log_variance = fraction * high + (1 - fraction) * low
        start = (noisy - at(self.noise, t) * predicted) / at(self.signal, t)
        mean = at(self.mean_start, t) * start + at(self.mean_now, t) * noisy
        true_mean = at(self.mean_start, t) * x + at(self.mean_now, t) * noisy
        divergence = 0.5 * (
            log_variance
            - low
            - 1
            + torch.exp(low - log_variance)
            + (true_mean - mean).square() * torch.exp(-log_variance)
        )
        likelihood = -log_likelihood(x, mean, 0.5 * log_variance)
        terms = torch.where(t[:, None, None, None] == 0, likelihood, divergence)
        return terms.flatten(1).mean(1) / math.log(2)


def at(values: Tensor, t: Tensor) -> Tensor:
    """The constants of time steps (n,), to multiply images with."""
    return values[t][:, None, None, None]


def log_likelihood(x: Tensor, mean: Tensor, log_deviation: Tensor) -> Tensor:
    """The logarithm of a Gaussian's mass on the level that ``x`` is at, 256 levels from -1 to 1: DDPM eq. 13.

    The lowest and highest level reach to infinity.
    """
    scale = torch.exp(-log_deviation)
    above, below = normal_cdf((x - mean + HALF_LEVEL) * scale), normal_cdf((x - mean - HALF_LEVEL) * scale)
    mass = torch.where(x < -NEARLY_ONE, above, torch.where(x > NEARLY_ONE, 1 - below, above - below))
    return mass.clamp(min=1e-12).log()


def normal_cdf(z: Tensor) -> Tensor:
    """The distribution function of the standard normal, by tanh (Page 1977), as DDPM and DiT have it."""
    return 0.5 * (1 + torch.tanh(math.sqrt(2 / math.pi) * (z + 0.044715 * z**3)))


# --- the way back -----------------------------------------------------------------------------------------------------


def make_scheduler(sampler: Sampler, steps: int) -> Any:
    """The scheduler of diffusers for a sampler, set to ``steps`` steps.

    ``"ddpm"``: the time steps and variances of DiT's own sampler, 250 in the paper. ``"ddim"`` (Song et al. 2021) and
    ``"dpm++"`` (DPM-Solver++, Lu et al. 2022) need some 50 and 20.

    Raises
    ------
    ArgumentError
        If there is no such sampler, or not so many steps.
    """
    if not 1 <= steps <= STEPS:
        message = f"a sampler takes 1 to {STEPS} steps, got {steps}"
        raise ArgumentError(message)
    from diffusers import DDIMScheduler, DDPMScheduler, DPMSolverMultistepScheduler

    process = {"num_train_timesteps": STEPS, "beta_start": BETAS[0], "beta_end": BETAS[1], "beta_schedule": "linear"}
    spacing = {"timestep_spacing": "linspace"}
    if sampler == "ddpm":
        scheduler: Any = DDPMScheduler(**process, **spacing, variance_type="learned_range", clip_sample=False)
    elif sampler == "ddim":
        scheduler = DDIMScheduler(**process, timestep_spacing="trailing", clip_sample=False)
    elif sampler == "dpm++":
        scheduler = DPMSolverMultistepScheduler(**process, **spacing)
    else:
        message = f"sampler={sampler!r} is unknown: it is ddpm, ddim or dpm++"
        raise ArgumentError(message)
    scheduler.set_timesteps(steps)
    return scheduler


@torch.inference_mode()
def sample(
    denoise: Denoiser,
    start: Tensor,
    sampler: Sampler = "ddpm",
    steps: int = 250,
    generator: torch.Generator | list[torch.Generator] | None = None,
) -> Tensor:
    """Turn noise into samples.

    Parameters
    ----------
    denoise : callable
        The network. Where it does not learn variances, ``"ddpm"`` takes the lower of their bounds.
    start : Tensor
        float32 (n, C, H, W): standard normal noise.
    sampler, steps
        See :func:`make_scheduler`.
    generator : torch.Generator or list of them, optional
        Of the noise that ``"ddpm"`` adds at each step: one for all, or one for each sample.

    Returns
    -------
    Tensor
        float32 (n, C, H, W), not clipped.
    """
    scheduler = make_scheduler(sampler, steps)
    x = start
    for t in scheduler.timesteps:
        output = denoise(x, t.to(x.device).expand(len(x))).float()
        if sampler != "ddpm":
            output = output[:, : x.shape[1]]
        elif output.shape[1] == x.shape[1]:
            output = torch.cat([output, -torch.ones_like(output)], dim=1)  # the lower bound
        extra = {"generator": generator} if sampler == "ddpm" else {}
        x = scheduler.step(output, t, x, **extra).prev_sample
    return x


def guided(
    denoise: Callable[[Tensor, Tensor, Tensor], Tensor], y: Tensor, null: int, scale: float, channels: int
) -> Denoiser:
    """Classifier-free guidance (Ho and Salimans 2022): away from "no class", towards classes ``y``.

    Parameters
    ----------
    denoise : callable
        The network: noisy inputs, time steps, classes.
    y : Tensor
        int64 (n,).
    null : int
        The label for "no class".
    scale : float
        1 is no guidance.
    channels : int
        How many of the first channels are guided: those of the noise. (The published sampler guides 3 of 4.)
    """
    if scale == 1:
        return lambda x, t: denoise(x, t, y)

    def both(x: Tensor, t: Tensor) -> Tensor:
        labels = torch.cat([y, torch.full_like(y, null)])
        with_class, without = denoise(torch.cat([x, x]), torch.cat([t, t]), labels).chunk(2)
        noise = without[:, :channels] + scale * (with_class[:, :channels] - without[:, :channels])
        return torch.cat([noise, with_class[:, channels:]], dim=1)

    return both
