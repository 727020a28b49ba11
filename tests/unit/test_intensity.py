from __future__ import annotations

import json

import numpy as np
import pytest

from ssdenoise.errors import FormatError
from ssdenoise.intensity import Intensities, Normalization


@pytest.mark.parametrize("dtype", [np.uint16, np.int16, np.float32])
def test_parts_add_up_to_the_whole(dtype: type) -> None:
    values = np.random.default_rng(0).normal(0, 500, 10_000).clip(0 if dtype is np.uint16 else None).astype(dtype)
    whole, parts = Intensities.of(values), Intensities.of(values[:3000]) + Intensities.of(values[3000:])
    assert json.dumps(whole.to_json()) == json.dumps(parts.to_json())
    restored = Intensities.from_json(json.loads(json.dumps(whole.to_json())))
    assert restored.mean_and_spread() == whole.mean_and_spread()
    assert (whole.minimum, whole.maximum) == (values.min(), values.max())
    for q in (0.01, 0.3, 0.5, 0.9):
        assert whole.quantile(q) == pytest.approx(np.quantile(values, q), rel=0.02, abs=3)


def test_normalization_ignores_the_brightness_of_hot_pixels() -> None:
    values = np.random.default_rng(0).normal(1000, 50, 100_000)
    mean, spread = Intensities.of(values).mean_and_spread()
    values[:50] = 60_000
    hot_mean, hot_spread = Intensities.of(values).mean_and_spread()
    assert hot_mean == pytest.approx(mean, rel=1e-3)
    assert hot_spread == pytest.approx(spread, rel=0.02)
    assert spread == pytest.approx(50, rel=0.03)


def test_each_channel_is_normalised_by_itself() -> None:
    rng = np.random.default_rng(0)
    values = np.stack([rng.normal(1000, 50, (4, 32, 32)), rng.normal(7, 2, (4, 32, 32))])
    normalization = Normalization.of([Intensities.of(channel) for channel in values])
    units = normalization.apply(values)
    np.testing.assert_allclose(units.mean(axis=(1, 2, 3)), 0, atol=0.05)
    np.testing.assert_allclose(units.std(axis=(1, 2, 3)), 1, rtol=0.05)
    offset, scale = (np.reshape(each, (2, 1, 1, 1)) for each in (normalization.offset, normalization.scale))
    np.testing.assert_allclose(units * scale + offset, values, rtol=1e-3)


def test_a_constant_volume_can_be_normalised() -> None:
    assert Intensities.of(np.full(10, 7, np.uint8)).mean_and_spread() == (7.0, 1.0)


@pytest.mark.parametrize("level", [100, 1000, 32_768, 60_000])
def test_a_small_spread_on_a_high_level_is_resolved(level: int) -> None:
    """As of signed images that are stored without a sign."""
    values = np.random.default_rng(0).normal(level, 50 if level > 100 else 3, 100_000).round().astype(np.uint16)
    mean, spread = Intensities.of(values).mean_and_spread()
    assert mean == pytest.approx(values.mean(), abs=0.05 * values.std())
    assert spread == pytest.approx(values.std(), rel=0.05)


@pytest.mark.parametrize(("dtype", "level", "spread"), [(np.float32, 1000, 3.0), (np.uint16, 30_000, 5.0)])
def test_a_spread_that_the_histogram_does_not_tell_is_refused(dtype: type, level: float, spread: float) -> None:
    rng = np.random.default_rng(0)
    fine, coarse = (rng.normal(level, s, 100_000).astype(dtype) for s in (spread, 10 * spread))
    with pytest.raises(FormatError, match=r"so close to \d+"):
        Normalization.of([Intensities.of(fine)])
    assert Normalization.of([Intensities.of(coarse)]).scale[0] == pytest.approx(coarse.std(), rel=0.05)
    # nothing but zeros and a few photons, and a constant: no spread, but none that is unknown
    dark = np.zeros(100_000, np.uint16)
    dark[:9] = 1
    assert Normalization.of([Intensities.of(dark), Intensities.of(np.full(9, 7, np.uint8))]).scale == (1.0, 1.0)
