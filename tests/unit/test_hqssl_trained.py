"""HQ-SSL in training: what it learns of the noise, and whether its posterior comes true."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.ndimage import gaussian_filter

from ssdenoise.calibrate import calibrate
from ssdenoise.config.models import TrainSpec
from ssdenoise.config.specs import CalibrateSpec
from ssdenoise.methods import Batch
from ssdenoise.methods.hqssl import HQSSL, variance
from ssdenoise.model import load_model
from ssdenoise.train import Scene, train
from tests.conftest import CPU, NOISE, generator, make_store
from tests.unit.test_hqssl import Fixed, make


def test_unknown_noise_is_learned() -> None:
    """On pure noise of known strength the learned read noise approaches it: the prior has nothing to explain."""
    method, noise = make("gaussian", parameters="unknown")
    prior = torch.nn.Parameter(torch.tensor([0.3, 0.5]).view(1, 2, 1, 1))
    optimiser = torch.optim.Adam([prior, *noise.parameters()], 3e-3)
    for step in range(1500):
        noisy = 0.5 * torch.randn(4, 1, 16, 16, generator=generator(step))
        optimiser.zero_grad()
        method.loss(Fixed(prior.expand(4, 2, 16, 16), noise), Batch(noisy), generator(), 0).backward()  # type: ignore[arg-type]
        optimiser.step()
    assert variance(noise(noisy), torch.zeros(1, 1, 1, 1)).sqrt().item() == pytest.approx(0.5, rel=0.05)


@pytest.mark.parametrize("parameters", ["unknown", "unknown_per_image"])
@pytest.mark.parametrize("channels", ["joint", "independent"])
def test_each_channel_has_unknown_noise_of_its_own(parameters: str, channels: str) -> None:
    """The same noise is another one in the units of each channel."""
    method = HQSSL(likelihood="poisson_gaussian", parameters=parameters, channels=channels)  # type: ignore[arg-type]
    net = method.build(2, 2, [NOISE, NOISE])
    y = torch.randn(1, 2, 64, 64, generator=generator())
    optimiser = torch.optim.Adam(net.noise.parameters(), 1e-3)  # type: ignore[union-attr]
    for _ in range(60):
        found = net.noise(y)["read_noise"]  # type: ignore[operator]
        optimiser.zero_grad()
        (found - torch.tensor([0.1, 0.3]).view(1, 2, 1, 1)).square().mean().backward()
        optimiser.step()
    assert found.shape[1] == 2
    first, second = found.detach().mean(dim=(0, 2, 3))
    assert second > first + 0.05


def test_noise_is_estimated_for_each_image_where_it_varies() -> None:
    method, noise = make("gaussian", parameters="unknown_per_image")
    optimiser = torch.optim.Adam(noise.parameters(), 3e-3)
    prior = torch.tensor([0.0, 1e-2]).view(1, 2, 1, 1).expand(2, 2, 64, 64)
    strengths = torch.tensor([0.3, 0.7]).view(2, 1, 1, 1)
    for step in range(121):
        noisy = strengths * torch.randn(2, 1, 64, 64, generator=generator(step))
        optimiser.zero_grad()
        method.loss(Fixed(prior, noise), Batch(noisy), generator(), 0).backward()  # type: ignore[arg-type]
        if step < 120:
            optimiser.step()
    found = variance(noise(noisy), torch.zeros(2, 1, 64, 64)).sqrt()
    assert (found == found[..., :1, :1]).all()  # one value for a block
    np.testing.assert_allclose(found[:, 0, 0, 0].detach(), strengths.flatten(), rtol=0.1)


@pytest.mark.slow
def test_a_trained_posterior_is_calibrated(tmp_path: Path) -> None:
    """On synthetic data, half smooth and half fine, z-scores are standard normal and stated errors come true.

    The noise is calibrated and the model trained by the stages, on 40 planes; the test is on eight others. It
    holds for a short training: after 400 steps on so few planes errors where the image is smoothest are
    twice what is stated.
    """
    rng, sigma = np.random.default_rng(1), 30.0

    def field(width: float) -> np.ndarray:
        values = gaussian_filter(rng.normal(size=(48, 64, 64)), (0, width, width), mode="wrap")
        return values / values.std()

    clean = 1000 + 100 * np.where(np.arange(64) < 32, field(5.0), field(1.2))
    noisy = (clean + rng.normal(0, sigma, clean.shape)).astype(np.float32)
    volume = make_store(tmp_path, "noisy", noisy[:40])
    calibrate(CalibrateSpec(), volume.path, tmp_path / "c.json")
    method = HQSSL(likelihood="gaussian", steps=250)
    train(
        TrainSpec(dataset="d", noise="n", seed=1, ndim=2, method=method),
        [Scene(volume.path, tmp_path / "c.json")],
        tmp_path / "m",
        CPU,
    )
    model = load_model(tmp_path / "m")
    y, scale = torch.from_numpy(model.normalization.apply(noisy[40:, None, None])[:, 0]), model.normalization.scale[0]
    with torch.no_grad():
        mu, a = model.net(y).double().chunk(2, dim=1)
        var_n = variance(model.net.noise(y), mu)  # type: ignore[operator]
        z = (y - mu) / (a.square() + var_n).sqrt()
        mean, std = model.method.denoise(model.net, y)
    assert var_n.sqrt().mean().item() * scale == pytest.approx(sigma, rel=0.05)
    assert abs(z.mean().item()) < 0.05
    assert z.std().item() == pytest.approx(1, abs=0.05)
    assert std is not None
    error = mean.numpy()[:, 0] * scale + model.normalization.offset[0] - clean[40:]
    error, stated = error.ravel(), std.numpy().ravel() * scale
    fifths = np.array_split(np.argsort(stated), 5)
    true = np.array([np.sqrt(np.mean(error[part] ** 2)) for part in fifths])
    promised = np.array([np.sqrt(np.mean(stated[part] ** 2)) for part in fifths])
    assert (np.diff(true) > 0).all()
    np.testing.assert_allclose(true, promised, rtol=0.15)
    assert np.sqrt(np.mean(error**2)) == pytest.approx(np.sqrt(np.mean(stated**2)), rel=0.1)
