from __future__ import annotations

import json

import numpy as np
import pytest

from ssdenoise.intensity import Intensities


@pytest.mark.parametrize("dtype", [np.uint16, np.int16, np.float32])
def test_parts_add_up_to_the_whole(dtype: type) -> None:
    values = np.random.default_rng(0).normal(0, 500, 10_000).clip(0 if dtype is np.uint16 else None).astype(dtype)
    whole, parts = Intensities.of(values), Intensities.of(values[:3000]) + Intensities.of(values[3000:])
    assert json.dumps(whole.to_json()) == json.dumps(parts.to_json())
    restored = Intensities.from_json(json.loads(json.dumps(whole.to_json())))
    assert restored.normalization() == whole.normalization()
    assert (whole.minimum, whole.maximum) == (values.min(), values.max())
    for q in (0.01, 0.3, 0.5, 0.9):
        assert whole.quantile(q) == pytest.approx(np.quantile(values, q), rel=0.02, abs=3)


def test_normalization_ignores_the_brightness_of_hot_pixels() -> None:
    values = np.random.default_rng(0).normal(1000, 50, 100_000)
    clean = Intensities.of(values).normalization()
    values[:50] = 60_000
    hot = Intensities.of(values).normalization()
    assert hot.offset == pytest.approx(clean.offset, rel=1e-3)
    assert hot.scale == pytest.approx(clean.scale, rel=0.02)
    assert clean.scale == pytest.approx(50, rel=0.03)
    assert clean.invert(clean.apply(values)) == pytest.approx(values, rel=1e-3)


def test_a_constant_volume_can_be_normalised() -> None:
    normalization = Intensities.of(np.full(10, 7, np.uint8)).normalization()
    assert (normalization.offset, normalization.scale) == (7.0, 1.0)
