"""HQ-SSL: losses and posteriors against numeric integration and SciPy's densities."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
from scipy import integrate, stats

from ssdenoise.covariance import MIN_VARIANCE, covariance, entries_of
from ssdenoise.methods import Batch
from ssdenoise.methods.hqssl import HQSSL, MIN_PHOTONS, NoiseParameters, variance
from tests.conftest import NOISE, generator

LIKELIHOODS = ["gaussian", "poisson", "poisson_gaussian"]


class Fixed(torch.nn.Module):
    """Stands for a trained network: the same outputs whatever it sees, with the noise of a real one."""

    def __init__(self, output: torch.Tensor, noise: NoiseParameters) -> None:
        super().__init__()
        self.output, self.noise = output, noise

    def forward(self, noisy: torch.Tensor) -> torch.Tensor:
        return self.output


class Loss(torch.nn.Module):
    """The loss as a function of what the network has learned."""

    def __init__(self, method: HQSSL, net: Fixed) -> None:
        super().__init__()
        self.method, self.net = method, net

    def forward(self, noisy: torch.Tensor) -> torch.Tensor:
        return self.method.loss(self.net, Batch(noisy), generator(), 0)  # type: ignore[arg-type]


def make(likelihood: str, channels: int = 1, **options: object) -> tuple[HQSSL, NoiseParameters]:
    if likelihood == "impulse":
        options = {"parameters": "known"} | options
    method = HQSSL(likelihood=likelihood, **options)  # type: ignore[arg-type]
    return method, method.build(channels, 2, [NOISE] * channels).noise  # type: ignore[return-value]


def noise_variance(likelihood: str, mu: float) -> float:
    """Variance of the noise at a mean, held at that of half a photon."""
    model = getattr(NOISE, likelihood)
    return max(float(model.variance(mu)), MIN_PHOTONS * model.gain**2 + MIN_VARIANCE)


def factor(entries: np.ndarray, channels: int) -> np.ndarray:
    """Upper triangular A of the paper from the network's outputs, and A A'."""
    a = np.zeros((channels, channels))
    a[np.triu_indices(channels)] = entries
    return a @ a.T


POINTS = [(0.2, 0.7, 1.3), (-1.0, 0.05, -1.4), (1.5, 2.0, 0.0), (0.0, -0.4, 0.1)]


@pytest.mark.parametrize("likelihood", LIKELIHOODS)
@pytest.mark.parametrize(("mu", "a", "y"), POINTS)
def test_posterior_is_that_of_numeric_integration(likelihood: str, mu: float, a: float, y: float) -> None:
    method, noise = make(likelihood)
    var_n = noise_variance(likelihood, mu)
    net = Fixed(torch.tensor([mu, a]).view(1, 2, 1, 1), noise)
    mean, std = method.denoise(net, torch.full((1, 1, 1, 1), y))  # type: ignore[arg-type]

    def weight(x: float) -> float:
        return float(stats.norm.pdf(x, mu, abs(a)) * stats.norm.pdf(y, x, np.sqrt(var_n)))

    low, high = mu - 12 * abs(a), mu + 12 * abs(a)
    points = [mu, (mu * var_n + y * a * a) / (a * a + var_n)]
    total, first, second = (
        integrate.quad(lambda x, k=k: x**k * weight(x), low, high, points=points, limit=400)[0] for k in range(3)
    )
    assert mean.item() == pytest.approx(first / total, abs=1e-5)
    assert std is not None
    assert std.item() == pytest.approx(np.sqrt(second / total - (first / total) ** 2), rel=1e-4, abs=1e-6)


@pytest.mark.parametrize(("mu", "a", "y"), POINTS)
def test_impulse_posterior_is_that_of_the_mixture(mu: float, a: float, y: float) -> None:
    """Given y, the clean value is y with the likelihood that it was kept, else what the prior says."""
    method, noise = make("impulse")
    mean, std = method.denoise(Fixed(torch.tensor([mu, a]).view(1, 2, 1, 1), noise), torch.full((1, 1, 1, 1), y))  # type: ignore[arg-type]
    share, low, high = NOISE.impulse.share, NOISE.impulse.low, NOISE.impulse.high
    assert share is not None

    def lost(x: float, k: int) -> float:
        return float(x**k * stats.norm.pdf(x, mu, abs(a)) * share / (high - low))

    kept = (1 - share) * stats.norm.pdf(y, mu, np.sqrt(a * a + MIN_VARIANCE))
    total, first, second = (
        integrate.quad(lost, mu - 12 * abs(a), mu + 12 * abs(a), args=(k,), points=[mu])[0] + y**k * kept
        for k in range(3)
    )
    assert mean.item() == pytest.approx(first / total, abs=1e-5)
    assert std is not None
    assert std.item() == pytest.approx(np.sqrt(second / total - (first / total) ** 2), rel=1e-3)


@pytest.mark.parametrize("channels", [2, 3])
@pytest.mark.parametrize("likelihood", LIKELIHOODS)
def test_colour_posterior_and_loss_are_those_of_matrices(likelihood: str, channels: int) -> None:
    rng = np.random.default_rng(channels)
    method, noise = make(likelihood, channels)
    mu, entries, y = (rng.normal(size=n) for n in (channels, entries_of(channels), channels))
    prior = factor(entries, channels)
    n = np.diag([noise_variance(likelihood, m) for m in mu])
    net = Fixed(torch.tensor(np.r_[mu, entries]).view(1, -1, 1, 1), noise)
    noisy = torch.tensor(y).view(1, channels, 1, 1)
    mean, std = method.denoise(net, noisy)  # type: ignore[arg-type]
    gain = prior @ np.linalg.inv(prior + n)
    np.testing.assert_allclose(mean.flatten(), mu + gain @ (y - mu), rtol=1e-5)
    assert std is not None
    np.testing.assert_allclose(std.flatten(), np.sqrt(np.diag(prior - gain @ prior)), rtol=1e-4)
    expected = -2 * stats.multivariate_normal.logpdf(y, mu, prior + n) / channels - np.log(2 * np.pi)
    loss = method.loss(net, Batch(noisy), generator(), 0)  # type: ignore[arg-type]
    assert loss.item() == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("channels", [1, 2, 3])
def test_impulse_moments_are_those_of_draws(channels: int) -> None:
    """The loss is the normal density with the mixture's mean and covariance, which a million draws have too."""
    rng = np.random.default_rng(channels)
    method, noise = make("impulse", channels)
    mu, entries, y = (rng.normal(size=n) for n in (channels, entries_of(channels), channels))
    prior, impulse, draws = factor(entries, channels), NOISE.impulse, 1_000_000
    assert impulse.share is not None
    sample = rng.multivariate_normal(mu, prior, draws)
    lost = rng.random(draws) < impulse.share
    sample[lost] = rng.uniform(impulse.low, impulse.high, (lost.sum(), channels))
    cov = np.atleast_2d(np.cov(sample.T))
    expected = -2 * stats.multivariate_normal.logpdf(y, sample.mean(0), cov) / channels - np.log(2 * np.pi)
    net = Fixed(torch.tensor(np.r_[mu, entries]).view(1, -1, 1, 1), noise)
    loss = method.loss(net, Batch(torch.tensor(y).view(1, channels, 1, 1)), generator(), 0)  # type: ignore[arg-type]
    assert loss.item() == pytest.approx(expected, abs=0.02)


def test_colour_impulses_keep_or_lose_a_voxel_in_all_channels() -> None:
    method, noise = make("impulse", 3)
    output = torch.tensor([0.5, 0.5, 0.5, 0.1, 0, 0, 0.1, 0, 0.1]).view(1, 9, 1, 1)
    near, far = torch.full((1, 3, 1, 1), 0.52), torch.tensor([0.52, 0.52, 2.9]).view(1, 3, 1, 1)
    kept, lost = (method.denoise(Fixed(output, noise), y).mean.flatten() for y in (near, far))  # type: ignore[arg-type]
    np.testing.assert_allclose(kept, 0.52, atol=2e-3)
    np.testing.assert_allclose(lost, 0.5, atol=2e-3)


@pytest.mark.parametrize("likelihood", LIKELIHOODS)
def test_colour_and_mono_weigh_alike(likelihood: str) -> None:
    """Three channels that are alike and independent have the loss of one: no factor of two between the forms."""
    losses = []
    for channels in (1, 2, 3, 4):
        method, noise = make(likelihood, channels, parameters="unknown")
        a = np.zeros(entries_of(channels))
        diagonal = np.cumsum([0, *range(channels, 1, -1)]) if channels < 4 else np.arange(4)
        a[diagonal] = 0.6
        net = Fixed(torch.tensor(np.r_[np.full(channels, 0.3), a]).view(1, -1, 1, 1), noise)
        losses.append(method.loss(net, Batch(torch.full((1, channels, 1, 1), 1.1)), generator(), 0).item())  # type: ignore[arg-type]
    np.testing.assert_allclose(losses, losses[0], rtol=1e-6)


@pytest.mark.parametrize("channels", [1, 2, 3, 4])
@pytest.mark.parametrize("parameters", ["known", "unknown"])
@pytest.mark.parametrize("likelihood", [*LIKELIHOODS, "impulse"])
def test_gradients_are_right(likelihood: str, parameters: str, channels: int) -> None:
    method, noise = make(likelihood, channels, parameters=parameters)
    y = torch.randn(1, channels, 2, 2, dtype=torch.double, generator=generator())

    def loss(output: torch.Tensor) -> torch.Tensor:
        return method.loss(Fixed(output, noise), Batch(y), generator(), 0)  # type: ignore[arg-type]

    size = (1, channels + entries_of(channels), 2, 2)
    output = torch.randn(size, dtype=torch.double, generator=generator(1)).requires_grad_()
    assert torch.autograd.gradcheck(loss, output)
    if parameters == "unknown":
        noise.double()
        fixed = Fixed(output.detach(), noise)

        def loss_of_noise(raw: torch.Tensor) -> torch.Tensor:
            return torch.func.functional_call(Loss(method, fixed), {"net.noise.raw": raw}, (y,))

        assert torch.autograd.gradcheck(loss_of_noise, noise.raw.detach().clone().requires_grad_())


@pytest.mark.parametrize("channels", [1, 2, 3, 4])
@pytest.mark.parametrize("likelihood", [*LIKELIHOODS, "impulse"])
def test_nothing_is_infinite_at_extreme_values(likelihood: str, channels: int) -> None:
    method, noise = make(likelihood, channels)
    values = [0.0, 1e-12, -1e4, 1e4, 1e6]
    columns = torch.tensor(list(itertools.product(values, values)))
    # means, and entries of A that are all alike: a covariance that is singular but for rounding
    output = torch.cat([columns[:, :1].expand(-1, channels), columns[:, 1:].expand(-1, entries_of(channels))], dim=1)
    output = output.T.reshape(1, -1, 5, 5).clone().requires_grad_()
    for level in values:
        y = torch.full((1, channels, 5, 5), level)
        loss = method.loss(Fixed(output, noise), Batch(y), generator(), 0)  # type: ignore[arg-type]
        (gradient,) = torch.autograd.grad(loss, output)
        mean, std = method.denoise(Fixed(output, noise), y)  # type: ignore[arg-type]
        assert std is not None
        assert torch.isfinite(loss)
        assert all(torch.isfinite(t).all() for t in (gradient, mean, std))


@pytest.mark.parametrize("parameters", ["known", "unknown"])
@pytest.mark.parametrize("channels", [1, 2, 3])
@pytest.mark.parametrize("likelihood", [*LIKELIHOODS, "impulse"])
def test_nothing_is_infinite_at_random_extremes(likelihood: str, channels: int, parameters: str) -> None:
    """Covariances with entries from 1e-6 to 1e6 side by side, nearly singular ones among them."""
    method, noise = make(likelihood, channels, parameters=parameters)
    rng = np.random.default_rng(channels)
    size = (1, channels + entries_of(channels), 60, 60)
    output = torch.tensor(rng.normal(size=size) * 10 ** rng.uniform(-6, 6, size)).requires_grad_()
    y = torch.tensor(rng.normal(size=(1, channels, 60, 60)) * 10 ** rng.uniform(-3, 3, (1, channels, 60, 60)))
    loss = method.loss(Fixed(output, noise), Batch(y), generator(), 0)  # type: ignore[arg-type]
    (gradient,) = torch.autograd.grad(loss, output)
    mean, std = method.denoise(Fixed(output, noise), y)  # type: ignore[arg-type]
    assert std is not None
    assert torch.isfinite(loss)
    assert all(torch.isfinite(t).all() for t in (gradient, mean, std))


@pytest.mark.parametrize("likelihood", LIKELIHOODS)
def test_the_variance_is_the_noise_model_s(likelihood: str) -> None:
    _, noise = make(likelihood)
    mu = torch.linspace(-1.5, 5, 20, dtype=torch.double).view(1, 1, 4, 5)
    expected = getattr(NOISE, likelihood).variance(mu.numpy())
    np.testing.assert_allclose(variance(noise(mu), mu).numpy(), expected, rtol=1e-6)


def test_without_likelihood_it_is_the_mean_alone() -> None:
    method = HQSSL(likelihood="none")
    assert not method.probabilistic
    net = method.build(3, 2, [NOISE] * 3)
    noisy = torch.randn(1, 3, 16, 16, generator=generator())
    loss = method.loss(net, Batch(noisy), generator(), 0)
    assert loss.item() == pytest.approx((net(noisy) - noisy).square().mean().item())
    mean, std = method.denoise(net, noisy)
    assert mean.shape == noisy.shape
    assert std is None


def test_covariances_of_many_channels_are_diagonal() -> None:
    entries = torch.randn(1, 5, 2, 2, generator=generator())
    np.testing.assert_allclose(covariance(entries, 5).variances(), entries.double().square())
