"""Scores by blocks are those of the whole array, whatever the blocks."""

from __future__ import annotations

from functools import reduce
from operator import add

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from skimage.metrics import normalized_root_mse, peak_signal_noise_ratio, structural_similarity

from ssdenoise.grid import blocks
from ssdenoise.metrics import BETAS, Moments, MultiScale, Window, ms_ssim, psnr, similarity_maps


@st.composite
def cases(draw: st.DrawFn) -> tuple[np.ndarray, np.ndarray, tuple[int, ...]]:
    ndim = draw(st.sampled_from([2, 3]))
    shape = tuple(draw(st.integers(22, 90 if ndim == 2 else 34)) for _ in range(ndim))
    block = tuple(draw(st.integers(1, 24)) * 2 for _ in range(ndim))
    rng = np.random.default_rng(draw(st.integers(0, 99)))
    clean = rng.random(shape) * 200 + draw(st.sampled_from([0, 1e4]))
    return clean, clean * 0.9 + rng.normal(0, 30, shape), block


@settings(max_examples=30, deadline=None)
@given(cases(), st.sampled_from(["uniform", "gaussian"]))
def test_blocks_of_any_size(case: tuple[np.ndarray, np.ndarray, tuple[int, ...]], kind: str) -> None:
    clean, noisy, block = case
    window, data_range = Window(kind), 200.0  # type: ignore[arg-type]

    def with_halo(core: tuple[slice, ...], halo: int) -> tuple[np.ndarray, np.ndarray, tuple[slice, ...]]:
        reach = tuple(slice(max(0, s.start - halo), s.stop + halo) for s in core)
        inside = tuple(slice(s.start - r.start, s.stop - r.start) for s, r in zip(core, reach, strict=True))
        return clean[reach], noisy[reach], inside

    cores = [core for _, core in blocks(clean.shape, block)]
    moments = reduce(add, [Moments.of(clean[core], noisy[core]) for core in cores])
    maps = [
        similarity_maps(*with_halo(core, window.halo), data_range=data_range, window=window)[0].ravel()
        for core in cores
    ]
    assert psnr(moments.error / moments.count, data_range) == pytest.approx(
        peak_signal_noise_ratio(clean, noisy, data_range=data_range), abs=1e-6
    )
    assert np.sqrt(moments.error / moments.reference_square) == pytest.approx(
        normalized_root_mse(clean, noisy), abs=1e-6
    )
    gaussian = {"gaussian_weights": True, "use_sample_covariance": False} if kind == "gaussian" else {}
    expected = structural_similarity(clean, noisy, data_range=data_range, **gaussian)
    assert np.concatenate(maps).mean() == pytest.approx(expected, abs=1e-6)
    parts = [MultiScale.of(*with_halo(core, MultiScale.halo(2)), data_range=data_range, scales=2) for core in cores]
    whole = ms_ssim(clean, noisy, data_range=data_range, betas=BETAS[:2])
    assert reduce(add, parts).value(BETAS[:2]) == pytest.approx(whole, abs=1e-9)
