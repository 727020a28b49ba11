from __future__ import annotations

import numpy as np
import pytest
from skimage.metrics import peak_signal_noise_ratio, structural_similarity

from ssdenoise.metrics import block_bootstrap, psnr, squared_error, ssim_map


def test_ssim_and_psnr_are_those_of_scikit_image() -> None:
    rng = np.random.default_rng(0)
    clean = rng.random((53, 41)) * 1000
    noisy = clean + rng.normal(0, 80, clean.shape)
    expected = structural_similarity(clean, noisy, data_range=1000.0)
    assert ssim_map(clean, noisy, data_range=1000.0).mean() == pytest.approx(expected, abs=1e-9)
    value = psnr(squared_error(clean, noisy) / clean.size, 1000.0)
    assert value == pytest.approx(peak_signal_noise_ratio(clean, noisy, data_range=1000.0), abs=1e-9)


def test_psnr_of_no_error_is_infinite() -> None:
    assert psnr(0.0, 1.0) == np.inf


def test_block_bootstrap_is_wider_for_correlated_planes() -> None:
    rng = np.random.default_rng(0)
    planes = np.repeat(rng.random(30), 4)  # four neighbours alike
    independent = block_bootstrap(planes, np.random.default_rng(1), block=1).std()
    runs = block_bootstrap(planes, np.random.default_rng(1), block=8).std()
    assert independent == pytest.approx(planes.std() / np.sqrt(len(planes)), rel=0.1)
    assert runs > 1.5 * independent
