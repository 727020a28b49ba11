from __future__ import annotations

import random

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from ssdenoise.grid import blocks, extent
from ssdenoise.noise import (
    STREAM_BLOCK,
    AnyNoise,
    CorrelatedNoise,
    GaussianNoise,
    ImpulseNoise,
    PoissonGaussianNoise,
    PoissonNoise,
    Streams,
    StripedNoise,
    synthesize,
    thin,
)

SHAPE = (1, 2, 10, 140, 150)
CLEAN = np.linspace(0, 1000, int(np.prod(SHAPE))).reshape(SHAPE)
NOISES = (
    GaussianNoise(kind="gaussian", sigma=30),
    PoissonGaussianNoise(kind="poisson_gaussian", gain=20, offset=10, read_noise=15),
    ImpulseNoise(kind="impulse", share=0.3, low=-100, high=1500),
    GaussianNoise(kind="gaussian", sigma=(10, 40)),
    PoissonNoise(kind="poisson", gain=20, offset=10),
    StripedNoise(kind="striped", lines="rows", sigma=30),
    StripedNoise(kind="striped", lines="columns", sigma=30, white=20),
    CorrelatedNoise(kind="correlated", sigma=30, radius=1.5),
    CorrelatedNoise(kind="correlated", sigma=30, radius=(0, 3), bits=8),
)


def whole(noise: AnyNoise, realization: int = 0) -> np.ndarray:
    return synthesize(CLEAN.__getitem__, SHAPE, tuple(slice(0, n) for n in SHAPE), noise, (0, "d", realization))


@pytest.mark.parametrize("noise", NOISES)
@settings(max_examples=8)
@given(block=st.tuples(*(st.integers(max(1, b // 4), b) for b in (1, 2, 10, 140, 150))), order=st.randoms())
def test_noise_does_not_depend_on_blocks_nor_on_their_order(
    noise: AnyNoise, block: tuple[int, ...], order: random.Random
) -> None:
    out = np.full(SHAPE, np.nan, np.float32)
    regions = [region for _, region in blocks(SHAPE, block)]
    order.shuffle(regions)
    for region in regions:
        out[region] = synthesize(CLEAN.__getitem__, SHAPE, region, noise, (0, "d", 0))
    np.testing.assert_array_equal(out, whole(noise))


@pytest.mark.parametrize("noise", [*NOISES[:2], NOISES[4]])
def test_noise_has_the_stated_mean_and_variance(noise: GaussianNoise) -> None:
    signal = np.repeat(np.array([50.0, 200.0, 800.0]), 200_000)
    drawn = noise.draw(signal, Streams((3,), (0,) * 5)).reshape(3, -1)
    expected = noise.model().variance(signal.reshape(3, -1)[:, 0])
    np.testing.assert_allclose(drawn.mean(axis=1), [50, 200, 800], atol=5 * np.sqrt(expected.max() / 200_000))
    np.testing.assert_allclose(drawn.var(axis=1), expected, rtol=0.02)


def test_impulses_strike_the_share_stated_and_all_channels_alike() -> None:
    noise = NOISES[2]
    drawn = whole(noise)
    struck = drawn != CLEAN.astype(np.float32)
    assert struck.mean() == pytest.approx(0.3, abs=0.005)
    np.testing.assert_array_equal(struck[:, 0], struck[:, 1])
    values = drawn[struck]
    assert stats.kstest(values, stats.uniform(-100, 1600).cdf).pvalue > 1e-3
    first, second = (drawn[:, c][struck[:, c]] for c in (0, 1))
    assert abs(np.corrcoef(first, second)[0, 1]) < 0.02


def test_each_plane_has_its_own_strength_from_a_range() -> None:
    residual = whole(NOISES[3]) - CLEAN
    strengths = residual.std(axis=(3, 4))
    assert ((strengths > 9) & (strengths < 42)).all()
    assert np.ptp(strengths[0, 0]) > 5
    np.testing.assert_allclose(strengths[:, 0], strengths[:, 1], rtol=0.05)
    assert NOISES[3].model() is None


@pytest.mark.parametrize("noise", [NOISES[0], *NOISES[4:8]])
def test_realizations_and_blocks_are_independent(noise: AnyNoise) -> None:
    first, second = (whole(noise, k) - CLEAN for k in (0, 1))
    unlike = 0.01 if noise in NOISES[:5] else 0.1  # of lines there are only some thousand
    assert abs(np.corrcoef(first.ravel(), second.ravel())[0, 1]) < unlike
    _, _, _, y, x = STREAM_BLOCK
    one, other = first[0, 0, :, : y - 20, : x - 20], first[0, 1, :, : y - 20, : x - 20]
    assert abs(np.corrcoef(one.ravel(), other.ravel())[0, 1]) < max(0.02, unlike)


def residual(noise: AnyNoise, shape: tuple[int, ...]) -> np.ndarray:
    """Noise drawn on a clean volume of zeros."""
    return synthesize(lambda r: np.zeros(extent(r)), shape, tuple(slice(0, n) for n in shape), noise, (1, "d", 0))


def covariance(drawn: np.ndarray, y: int, x: int) -> float:
    """Of voxels so far apart along Y and X."""
    first = drawn[..., : drawn.shape[3] - y, : drawn.shape[4] - x]
    return float(np.mean(first * drawn[..., y:, x:]))


def test_filtered_noise_has_the_stated_variance_and_the_correlation_of_its_filter() -> None:
    drawn = residual(CorrelatedNoise(kind="correlated", sigma=25, radius=(1, 2)), (1, 1, 16, 300, 300)).astype(float)
    assert abs(drawn.mean()) < 0.5
    for y in range(5):
        for x in range(9):
            expected = np.exp(-((y / 2) ** 2) - (x / 4) ** 2)
            assert covariance(drawn, y, x) / 25**2 == pytest.approx(expected, abs=0.012), (y, x)
    assert abs(np.mean(drawn[:, :, :-1] * drawn[:, :, 1:])) / 25**2 < 0.012  # planes are independent


def test_filtered_noise_is_the_same_at_borders_of_blocks_and_of_the_volume() -> None:
    drawn = residual(CorrelatedNoise(kind="correlated", sigma=25, radius=(1, 2)), (1, 1, 64, 300, 300)).astype(float)
    for axis in (3, 4):
        for at in (0, 127, 128, 299):
            assert np.take(drawn, at, axis).std() == pytest.approx(25, rel=0.05), (axis, at)
        left, right = (np.take(drawn, at, axis) for at in (STREAM_BLOCK[axis] - 1, STREAM_BLOCK[axis]))
        expected = np.exp(-1 / 4) if axis == 3 else np.exp(-1 / 16)
        assert np.mean(left * right) / 25**2 == pytest.approx(expected, abs=0.05)


@pytest.mark.parametrize("lines", ["rows", "columns"])
def test_lines_are_bright_as_a_whole_and_independent(lines: str) -> None:
    drawn = residual(StripedNoise(kind="striped", lines=lines, sigma=30), (1, 2, 16, 300, 300))  # type: ignore[arg-type]
    along = 4 if lines == "rows" else 3
    assert (np.ptp(drawn, axis=along) == 0).all()  # also from block to block
    offsets = np.take(drawn, 0, along).astype(float)
    assert abs(offsets.mean()) < 1.5
    assert offsets.std() == pytest.approx(30, rel=0.03)
    for first, second in (
        (offsets[..., :-1], offsets[..., 1:]),
        (offsets[:, :, :-1], offsets[:, :, 1:]),
        (offsets[:, 0], offsets[:, 1]),
    ):
        assert abs(np.mean(first * second)) / 30**2 < 0.05


def test_lines_under_white_noise_correlate_by_their_share_of_the_variance() -> None:
    drawn = residual(StripedNoise(kind="striped", sigma=30, white=40), (1, 1, 16, 300, 300)).astype(float)
    assert drawn.std() == pytest.approx(50, rel=0.01)
    for lag in (1, 5, 140):
        assert covariance(drawn, 0, lag) / 50**2 == pytest.approx(0.36, abs=0.02)
        assert covariance(drawn, lag, 0) / 50**2 == pytest.approx(0, abs=0.02)


def test_thinned_counts_are_independent_and_unbiased() -> None:
    rng = np.random.default_rng(0)
    counts = rng.poisson(9.0, 400_000)
    first, second = thin(counts, 0.3, rng)
    np.testing.assert_array_equal(np.rint(0.3 * first + 0.7 * second), counts)
    assert abs(first.mean() - 9) < 0.05
    assert abs(second.mean() - 9) < 0.05
    assert first.var() == pytest.approx(9 / 0.3, rel=0.02)
    assert abs(np.corrcoef(first, second)[0, 1]) < 0.01


def test_intensities_are_thinned_as_photons() -> None:
    """With a gain that is slightly wrong and some read noise, the parts are still nearly independent."""
    rng = np.random.default_rng(0)
    photons = rng.poisson(9.0, 400_000)
    intensities = (100 + 2.5 * photons + rng.normal(0, 0.2, photons.shape))[:, None, None, None]
    first, second = thin(intensities, 0.5, rng, np.array([2.45]), np.array([100.3]))
    for part in (first, second):
        assert part.mean() == pytest.approx(100 + 2.5 * 9, rel=0.005)
        assert part.var() == pytest.approx(2.5**2 * 9 / 0.5, rel=0.05)
    assert abs(np.corrcoef(first.ravel(), second.ravel())[0, 1]) < 0.04
