from __future__ import annotations

import numpy as np
import pytest
import torch
from skimage.metrics import normalized_root_mse, peak_signal_noise_ratio, structural_similarity
from torchmetrics.functional.image import multiscale_structural_similarity_index_measure as torch_ms_ssim

from ssdenoise.metrics import (
    BETAS,
    Moments,
    Rings,
    Runs,
    Window,
    micro_ssim,
    ms_ssim,
    psnr,
    ring_correlation,
    similarity_maps,
)
from tests.conftest import scene

SHAPES = [(53, 41), (19, 33, 27)]


def images(shape: tuple[int, ...]) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    clean = scene((9, *shape)[-3:])[(0,) * (3 - len(shape))].astype(float)
    return clean, 0.9 * clean + rng.normal(0, 20, shape)


@pytest.mark.parametrize("shape", SHAPES)
def test_errors_are_those_of_scikit_image(shape: tuple[int, ...]) -> None:
    clean, noisy = images(shape)
    moments = Moments.of(clean, noisy)
    value = psnr(moments.error / moments.count, 300.0)
    assert value == pytest.approx(peak_signal_noise_ratio(clean, noisy, data_range=300.0), abs=1e-9)
    nrmse = np.sqrt(moments.error / moments.reference_square)
    assert nrmse == pytest.approx(normalized_root_mse(clean, noisy), abs=1e-9)
    gain, offset = np.polyfit(noisy.ravel(), clean.ravel(), 1)
    assert moments.fit() == pytest.approx((gain, offset), rel=1e-6)
    assert moments.fitted_error == pytest.approx(np.sum((gain * noisy + offset - clean) ** 2), rel=1e-9)


@pytest.mark.parametrize("kind", ["uniform", "gaussian"])
@pytest.mark.parametrize("shape", SHAPES)
def test_ssim_is_that_of_scikit_image(kind: str, shape: tuple[int, ...]) -> None:
    clean, noisy = images(shape)
    gaussian = {"gaussian_weights": True, "use_sample_covariance": False} if kind == "gaussian" else {}
    expected = structural_similarity(clean, noisy, data_range=300.0, **gaussian)
    inside = tuple(slice(0, n) for n in shape)
    similarity, _ = similarity_maps(clean, noisy, inside, data_range=300.0, window=Window(kind))  # type: ignore[arg-type]
    assert similarity.mean() == pytest.approx(expected, abs=1e-9)


@pytest.mark.parametrize(("shape", "scales"), [((181, 190), 5), ((29, 45, 37), 2)])
def test_ms_ssim_is_that_of_torchmetrics(shape: tuple[int, ...], scales: int) -> None:
    clean, noisy = images(shape)
    betas = BETAS[:scales]
    x, y = (torch.from_numpy(image)[None, None] for image in (clean, noisy))
    expected = torch_ms_ssim(y, x, data_range=300.0, betas=betas, normalize="relu").item()
    assert ms_ssim(clean, noisy, data_range=300.0, betas=betas) == pytest.approx(expected, abs=1e-6)


def test_ms_ssim_of_too_small_an_image_is_unknown() -> None:
    assert np.isnan(ms_ssim(*images((100, 300)), data_range=300.0))


@pytest.mark.parametrize(("shape", "expected"), [((53, 41), 0.8962062), ((181, 190), 0.8902576)])
def test_micro_ssim_is_that_of_its_authors_and_in_any_unit(shape: tuple[int, ...], expected: float) -> None:
    """By `micro_structural_similarity` of microssim 0.0.5 on these images."""
    clean, noisy = images(shape)
    assert micro_ssim(clean, noisy) == pytest.approx(expected, abs=2e-7)
    assert micro_ssim(clean, 0.3 * noisy + 50) == pytest.approx(expected, abs=2e-7)
    assert micro_ssim(clean, clean) == pytest.approx(1)
    assert micro_ssim(clean, np.full(shape, 7.0)) < 0.1
    assert np.isnan(micro_ssim(clean[:10], noisy[:10]))


def test_psnr_of_no_error_is_infinite() -> None:
    assert psnr(0.0, 1.0) == np.inf


def test_moments_of_numbers_far_from_zero_do_not_cancel() -> None:
    rng = np.random.default_rng(0)
    x = 1e8 + rng.normal(0, 1, 10000)
    y = 2 * (x - 1e8) + 3
    total = Moments.of(x[:100], y[:100]) + Moments.of(x[100:], y[100:])
    assert total.fit()[0] == pytest.approx(0.5, rel=1e-6)


def test_ring_correlation_falls_where_noise_takes_over() -> None:
    rng = np.random.default_rng(0)
    frequencies = np.sqrt(sum(np.square(f) for f in np.meshgrid(np.fft.fftfreq(256), np.fft.fftfreq(256))))
    blurred = np.fft.ifft2(np.fft.fft2(rng.normal(0, 1, (256, 256))) * (frequencies < 0.25)).real
    pair = [blurred + rng.normal(0, 0.02, blurred.shape) for _ in range(2)]
    found = ring_correlation(Rings.of(*pair))
    assert (found[2:30] > 0.99).all()
    assert np.abs(found[34:]).max() < 0.2
    # white noise of variance v beneath a signal of power s: s / (s + v)
    white = rng.normal(0, 1, (256, 256))
    found = ring_correlation(Rings.of(*(white + rng.normal(0, 1, white.shape) for _ in range(2))))
    assert np.nanmean(found[8:]) == pytest.approx(0.5, abs=0.02)


def test_rings_count_every_coefficient_once() -> None:
    rng = np.random.default_rng(0)
    for shape in [(32, 32), (31, 33), (9, 16, 15)]:
        a = rng.normal(0, 1, shape)
        windows = [np.sin(np.pi * (np.arange(n) + 0.5) / n) ** 2 for n in shape]
        tapered = (
            (a - a.mean()) * np.einsum("a,b,c->abc", *windows)
            if len(shape) == 3
            else (a - a.mean()) * np.outer(*windows)
        )
        power = np.abs(np.fft.fftn(tapered)) ** 2
        radius = np.sqrt(sum(np.square(f) for f in np.meshgrid(*map(np.fft.fftfreq, shape), indexing="ij")))
        assert Rings.of(a, a).cross.sum() == pytest.approx(power[radius < 0.5].sum(), rel=1e-9)


def test_runs_are_wider_for_correlated_planes() -> None:
    rng = np.random.default_rng(0)
    planes = np.repeat(rng.random(30), 4)  # four neighbours alike
    independent = Runs(len(planes), 1).means(planes, np.random.default_rng(1)).std()
    runs = Runs(len(planes), 8).means(planes, np.random.default_rng(1)).std()
    assert independent == pytest.approx(planes.std() / np.sqrt(len(planes)), rel=0.1)
    assert runs > 1.5 * independent


@pytest.mark.parametrize(
    ("planes", "correlation"), [(8, 0.0), (17, 0.0), (68, 0.0), (24, 0.5), (60, 0.5), (60, 0.7), (120, 0.8)]
)
def test_intervals_hold_what_they_say(planes: int, correlation: float) -> None:
    """Of simulated runs 90 to 98 % contain the true PSNR: log-normal errors, neighbours correlated (AR(1))."""
    rng = np.random.default_rng(3)
    true, simulated, contained = float(psnr(np.exp(0.125), 255.0)), 500, 0
    for _ in range(simulated):
        series = np.empty(planes)
        series[0] = rng.normal()
        for i, step in enumerate(rng.normal(0, np.sqrt(1 - correlation**2), planes - 1)):
            series[i + 1] = correlation * series[i] + step
        errors = np.exp(0.5 * series)
        runs = Runs.of(errors)
        drawn = psnr(runs.means(errors, rng, draws=400), 255.0)
        low, high = runs.interval(float(psnr(errors.mean(), 255.0)), drawn)
        contained += low <= true <= high
    assert 0.90 <= contained / simulated <= 0.98


def test_a_single_run_has_no_interval() -> None:
    assert np.isnan(Runs(1, 1).interval(3.0, np.full(10, 3.0))).all()
