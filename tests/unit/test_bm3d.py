"""BM3D: the transform that makes photon noise Gaussian, and the package where it is installed."""

from __future__ import annotations

import importlib.util
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from ssdenoise import denoise as stage
from ssdenoise.config.specs import Storage
from ssdenoise.errors import ConfigError
from ssdenoise.methods.bm3d import BM3D, HALO, stabilized, unstabilized
from ssdenoise.noise import NoiseModel
from tests.conftest import NOISE, make_store, scene
from tests.unit.test_denoise import FLOAT, make_model, run, whole

installed = pytest.mark.skipif(importlib.util.find_spec("bm3d") is None, reason="bm3d is not installed: noncommercial")

MODEL = NoiseModel(gain=2.0, offset=100.0, read_noise=3.0)


def test_the_transform_makes_the_variance_one() -> None:
    rng = np.random.default_rng(0)
    for photons in (5, 20, 100):
        noisy = 100 + 2.0 * rng.poisson(photons, 200_000) + rng.normal(0, 3, 200_000)
        assert stabilized(noisy, MODEL).var() == pytest.approx(1, abs=0.05)


def test_the_inverse_is_unbiased_where_the_square_is_not() -> None:
    rng = np.random.default_rng(0)
    for photons in (3, 5, 20, 100):
        noisy = 100 + 2.0 * rng.poisson(photons, 1_000_000) + rng.normal(0, 3, 1_000_000)
        mean = stabilized(noisy, MODEL).mean()
        assert unstabilized(np.array(mean), MODEL) == pytest.approx(100 + 2 * photons, abs=0.15)


@pytest.mark.skipif(importlib.util.find_spec("bm3d") is not None, reason="bm3d is installed")
def test_without_the_package_the_error_says_how_to_get_it() -> None:
    method = BM3D()
    with pytest.raises(ConfigError, match=r"pip install ssdenoise\[bm3d\]"):
        method.fit(method.build(1, 2, [NOISE]), torch.zeros(1, 1, 16, 16))


@installed
@pytest.mark.parametrize("stabilize", [False, True])
@pytest.mark.parametrize("shape", [(96, 96), (16, 64, 64)])
def test_noise_is_removed(shape: tuple[int, ...], stabilize: bool) -> None:
    clean = torch.from_numpy(scene((16, 96, 96))[..., :64, :64] if len(shape) == 3 else scene((1, 96, 96))[0])
    clean = ((clean - clean.mean()) / clean.std())[None, None].float()
    model = NoiseModel(0.1, float(clean.min()) - 0.1, 0.1) if stabilize else NoiseModel(0.0, 0.0, 0.4)
    noise = replace(NOISE, gaussian=NoiseModel(0.0, 0.0, 0.4), poisson_gaussian=model)
    spread = torch.from_numpy(np.sqrt(model.variance(clean.numpy()))).float()
    noisy = clean + spread * torch.randn(clean.shape, generator=torch.Generator().manual_seed(0))
    method = BM3D(stabilize=stabilize)
    found = method.denoise(method.build(1, len(shape), [noise]), noisy).mean
    assert (found - clean).square().mean() < 0.15 * (noisy - clean).square().mean()


@installed
@pytest.mark.parametrize(("ndim", "shape"), [(2, (1, 1, 1, 150, 330)), (3, (1, 1, 4, 24, 150))])
def test_tiles_equal_the_whole_to_a_twentieth_of_the_noise(
    ndim: int, shape: tuple[int, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Volumes several halos wide, so that a tile does not see all of them."""
    monkeypatch.setattr(stage, "TILE_VOXELS", 1)
    noisy = np.random.default_rng(0).poisson(scene(shape) / 20).astype(np.uint16)
    volume = make_store(tmp_path, "noisy", noisy, Storage(chunk=(2, 16, 16), shard=(4, 64, 64)))
    model = make_model(tmp_path, volume, "bm3d", ndim)
    assert (shape[-1] - 1) // 64 * 64 > HALO[ndim], "the last tile must not see all"
    tiled = run(FLOAT, volume, model, tmp_path / "out").read((slice(None),) * 5)
    noise = np.sqrt(noisy.mean())  # photons
    assert np.sqrt(np.mean((tiled - whole(volume, model)) ** 2)) < 5e-2 * noise
