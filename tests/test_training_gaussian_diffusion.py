"""The diffusion process against the equations, written out in float64 with loops."""

import math

import numpy as np
import pytest
import torch

from failures import raises
from rsprune.errors import ArgumentError
from rsprune.training.gaussian_diffusion import GaussianDiffusion, make_scheduler, p_sample_loop, with_guidance
from small_dits import inputs, small_dit

BETA = np.linspace(1e-4, 0.02, 1000)
ALPHA_BAR = np.array([math.prod(1 - BETA[: t + 1]) for t in range(1000)])


def before(t):
    return ALPHA_BAR[t - 1] if t else 1.0


def posterior(x0, xt, t, alpha=None, previous=None):
    """Mean and variance of q(x_{t-1} | x_t, x_0): equations 6 and 7 of DDPM."""
    alpha = ALPHA_BAR[t] if alpha is None else alpha
    previous = before(t) if previous is None else previous
    beta = 1 - alpha / previous
    mean = (math.sqrt(previous) * beta * x0 + math.sqrt(alpha / previous) * (1 - previous) * xt) / (1 - alpha)
    return mean, beta * (1 - previous) / (1 - alpha)


def cdf(z):
    return 0.5 * (1 + math.tanh(math.sqrt(2 / math.pi) * (z + 0.044715 * z**3)))


def bits(x0, xt, t, noise, v):
    """The term of the bound for one number, in bits."""
    variance = posterior(0, 0, max(t, 1))[1]
    log_variance = (v + 1) / 2 * math.log(BETA[t]) + (1 - v) / 2 * math.log(variance)
    start = (xt - math.sqrt(1 - ALPHA_BAR[t]) * noise) / math.sqrt(ALPHA_BAR[t])
    mean, true_mean = posterior(start, xt, t)[0], posterior(x0, xt, t)[0]
    deviation = math.exp(log_variance / 2)
    if t:
        nats = 0.5 * (log_variance - math.log(variance) - 1) + (variance + (true_mean - mean) ** 2) / (2 * deviation**2)
    elif x0 < -0.999:
        nats = -math.log(max(cdf((x0 + 1 / 255 - mean) / deviation), 1e-12))
    elif x0 > 0.999:
        nats = -math.log(max(1 - cdf((x0 - 1 / 255 - mean) / deviation), 1e-12))
    else:
        mass = cdf((x0 + 1 / 255 - mean) / deviation) - cdf((x0 - 1 / 255 - mean) / deviation)
        nats = -math.log(max(mass, 1e-12))
    return nats / math.log(2)


@pytest.fixture
def batch():
    """Clean images with both ends among their levels, at the first, the last and other time steps."""
    rng = np.random.default_rng(0)
    t = np.array([0, 0, 1, 2, 500, 998, 999])
    x = rng.integers(0, 256, (len(t), 2, 4, 4)) / 127.5 - 1
    x[:, 0, 0, :2] = -1, 1
    noise = rng.standard_normal(x.shape)
    output = rng.standard_normal((len(t), 4, 4, 4))
    output[:, :2] = noise + 0.1 * output[:, :2]
    return [torch.tensor(value).float() for value in (x, noise, output)] + [torch.tensor(t)]


def test_noisy_inputs_are_those_of_the_closed_form(batch):
    x, noise, _, t = batch
    noisy = GaussianDiffusion().q_sample(x, t, noise)
    for i, step in enumerate(t.tolist()):
        want = math.sqrt(ALPHA_BAR[step]) * x[i].double() + math.sqrt(1 - ALPHA_BAR[step]) * noise[i].double()
        torch.testing.assert_close(noisy[i].double(), want, rtol=0, atol=1e-6)


def test_each_term_of_the_loss_is_that_of_the_equations(batch):
    x, noise, output, t = batch
    diffusion = GaussianDiffusion()
    noisy = diffusion.q_sample(x, t, noise)
    got = diffusion.training_losses(output, x, noisy, t, noise)
    arrays = [value.double().numpy() for value in (x, noisy, output)]
    for i, step in enumerate(t.tolist()):
        clean, dirty, said = (value[i] for value in arrays)
        terms = [
            bits(*(float(value) for value in numbers[:2]), step, *(float(value) for value in numbers[2:]))
            for numbers in zip(clean.flat, dirty.flat, said[:2].flat, said[2:].flat, strict=True)
        ]
        # At t = 0 the mass of a level is a difference of nearly equal float32 numbers.
        assert got.vb[i].item() == pytest.approx(np.mean(terms), rel=1e-3 if step == 0 else 1e-4, abs=1e-6)
        want = np.mean((said[:2] - noise[i].double().numpy()) ** 2)
        assert got.mse[i].item() == pytest.approx(want, rel=1e-5)
    torch.testing.assert_close(got.total, got.mse + got.vb)


def test_the_same_constants_in_float64_leave_nothing_unexplained(batch):
    """What differs above is float32: with the constants in float64 the bound is the equations' to 1e-9."""
    x, noise, output, t = (value.double() if value.is_floating_point() else value for value in batch)
    diffusion = GaussianDiffusion()
    alpha = torch.tensor(ALPHA_BAR)
    previous = torch.tensor([before(step) for step in range(1000)])
    beta = torch.tensor(BETA)
    variance = beta * (1 - previous) / (1 - alpha)
    variance[0] = variance[1]
    diffusion.sqrt_alphas_cumprod, diffusion.sqrt_one_minus_alphas_cumprod = alpha.sqrt(), (1 - alpha).sqrt()
    diffusion.posterior_log_variance, diffusion.log_betas = variance.log(), beta.log()
    diffusion.posterior_mean_x0 = beta * previous.sqrt() / (1 - alpha)
    diffusion.posterior_mean_xt = (1 - previous) * (1 - beta).sqrt() / (1 - alpha)
    noisy = diffusion.q_sample(x, t, noise)
    got = diffusion.vlb_terms(output[:, :2], output[:, 2:], x, noisy, t)
    for i, step in enumerate(t.tolist()):
        terms = [
            bits(float(a), float(b), step, float(c), float(d))
            for a, b, c, d in zip(
                x[i].flatten(), noisy[i].flatten(), output[i, :2].flatten(), output[i, 2:].flatten(), strict=True
            )
        ]
        assert got[i].item() == pytest.approx(np.mean(terms), rel=1e-9)


def test_the_bound_moves_the_variances_alone(batch):
    x, noise, output, t = batch
    diffusion = GaussianDiffusion()
    output.requires_grad_()
    diffusion.training_losses(output, x, diffusion.q_sample(x, t, noise), t, noise).vb.sum().backward()
    assert not output.grad[:, :2].any()
    assert output.grad[:, 2:].any()


def test_without_variances_there_is_no_bound(batch):
    x, noise, output, t = batch
    diffusion = GaussianDiffusion()
    losses = diffusion.training_losses(output[:, :2], x, diffusion.q_sample(x, t, noise), t, noise)
    assert torch.equal(losses.total, losses.mse)


# --- the way back -----------------------------------------------------------------------------------------------------


def algorithm_2(denoise, x, steps, generator):
    """DDPM's algorithm 2 on a subset of the time steps, as Nichol and Dhariwal respace them, written out in float64."""
    stride = 999 / (steps - 1)
    used = [round(i * stride) for i in range(steps)]
    x = x.double()
    for number in reversed(range(steps)):
        t = used[number]
        alpha, previous = ALPHA_BAR[t], ALPHA_BAR[used[number - 1]] if number else 1.0
        output = denoise(x.float(), torch.full((len(x),), t)).double()
        noise, v = output.chunk(2, dim=1)
        start = (x - math.sqrt(1 - alpha) * noise) / math.sqrt(alpha)
        mean, variance = posterior(start, x, t, alpha, previous)
        if number:
            drawn = torch.randn(x.shape, generator=generator).double()
            log_variance = (v + 1) / 2 * math.log(1 - alpha / previous) + (1 - v) / 2 * math.log(variance)
            x = mean + torch.exp(log_variance / 2) * drawn
        else:
            x = mean
    return x


@pytest.mark.parametrize("steps", [2, 10, 50, 250])
def test_ddpm_is_the_loop_of_the_paper(steps):
    model = small_dit(perturb=0.1, depth=1)
    x, *_ = inputs(model, n=2)
    alpha = torch.tensor(ALPHA_BAR).float()

    def denoise(x, t):
        """Nearly what is best for normal data: samples stay of the size that those of a trained network have."""
        noise, v = model(x, t).tanh().chunk(2, dim=1)
        return torch.cat([(1 - alpha[t]).sqrt()[:, None, None, None] * x + 0.3 * noise, v], dim=1)

    with torch.inference_mode():
        want = algorithm_2(denoise, x, steps, torch.Generator().manual_seed(3))
    got = p_sample_loop(denoise, x, "ddpm", steps, torch.Generator().manual_seed(3))
    assert 1 < want.abs().max() < 50
    torch.testing.assert_close(got.double(), want, rtol=0, atol=1e-4)


@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")  # within diffusers' DPM-Solver
@pytest.mark.parametrize("sampler", ["ddpm", "ddim", "dpm++"])
def test_samplers_find_the_distribution_that_the_best_network_knows(sampler):
    """Of data N(2, 0.5^2) the best prediction of the noise is known: samples must have that mean and deviation."""
    mean, deviation = 2.0, 0.5

    def best(x, t):
        alpha = torch.tensor(ALPHA_BAR)[t][:, None, None, None].float()
        noise = (1 - alpha).sqrt() * (x - alpha.sqrt() * mean) / (alpha * deviation**2 + 1 - alpha)
        return torch.cat([noise, torch.zeros_like(noise)], dim=1)

    generator = torch.Generator().manual_seed(0)
    start = torch.randn(4000, 1, 1, 1, generator=generator)
    got = p_sample_loop(best, start, sampler, {"ddpm": 250, "ddim": 50, "dpm++": 20}[sampler], generator)
    assert got.mean().item() == pytest.approx(mean, abs=0.05)
    assert got.std().item() == pytest.approx(deviation, rel=0.08)


def test_ddpm_without_learned_variances_takes_the_lower_bound():
    x = torch.randn(2, 4, 8, 8)
    with_variances = p_sample_loop(
        lambda x, _: torch.cat([0.1 * x, -torch.ones_like(x)], 1), x, "ddpm", 5, torch.Generator().manual_seed(0)
    )
    without = p_sample_loop(lambda x, _: 0.1 * x, x, "ddpm", 5, torch.Generator().manual_seed(0))
    assert torch.equal(with_variances, without)


def test_guidance_extrapolates_from_no_class():
    model = small_dit(num_classes=5)
    x, t, y, _ = inputs(model)
    with torch.inference_mode():
        plain, none = model(x, t, y), model(x, t, torch.full_like(y, 5))
        got = with_guidance(model, y, 5, 3.0, 4)(x, t)
        torch.testing.assert_close(got[:, :4], none[:, :4] + 3 * (plain[:, :4] - none[:, :4]))
        torch.testing.assert_close(got[:, 4:], plain[:, 4:])
        published = with_guidance(model, y, 5, 3.0, 3)(x, t)
        torch.testing.assert_close(published[:, 3:], plain[:, 3:])
        assert torch.equal(with_guidance(model, y, 5, 1.0, 4)(x, t), plain)


def test_unknown_samplers_and_steps_are_refused():
    with raises(ArgumentError, "ddpm", "ddim"):
        make_scheduler("euler", 10)
    with raises(ArgumentError, 1, 1000, 0):
        make_scheduler("ddim", 0)
