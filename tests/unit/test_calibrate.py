from __future__ import annotations

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter

from ssdenoise.calibrate import fit, transfer_curve
from ssdenoise.noise import GaussianNoise, PoissonGaussianNoise
from tests.conftest import scene


@pytest.mark.parametrize(
    "noise",
    [
        GaussianNoise(kind="gaussian", sigma=60),
        PoissonGaussianNoise(kind="poisson_gaussian", gain=8, read_noise=20),
        PoissonGaussianNoise(kind="poisson_gaussian", gain=2, read_noise=0),
    ],
)
def test_the_fitted_line_is_that_of_the_synthesis(noise: GaussianNoise | PoissonGaussianNoise) -> None:
    clean = gaussian_filter(scene((8, 256, 256)), (0, 4, 4), mode="wrap")  # as finely sampled as optics ask for
    noisy = noise.draw(clean, np.random.default_rng(0))
    model = fit(*transfer_curve(list(noisy))).poisson_gaussian
    signal = np.quantile(clean, [0.1, 0.5, 0.9])
    np.testing.assert_allclose(model.variance(signal), noise.model().variance(signal), rtol=0.05)


def test_photon_counts_have_gain_one() -> None:
    counts = np.random.default_rng(0).poisson(scene((8, 256, 256)) / 50)
    models = fit(*transfer_curve(list(counts.astype(float))))
    assert models.poisson.gain == pytest.approx(1, rel=0.05)
    assert models.poisson_gaussian.gain == pytest.approx(1, rel=0.1)


def test_a_noiseless_plane_has_no_noise() -> None:
    models = fit(*transfer_curve([np.full((64, 64), 5.0)]))
    assert models.gaussian.read_noise == 0
    assert models.poisson_gaussian.variance(5.0) == 0
