"""Scores without a reference, against the true error."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from scipy.ndimage import gaussian_filter, median_filter
from skimage.restoration import denoise_nl_means

from ssdenoise import probe as stage
from ssdenoise.calibrate import calibrate
from ssdenoise.config.specs import CalibrateSpec, ProbeSpec
from ssdenoise.errors import FormatError
from ssdenoise.grid import Region
from ssdenoise.metrics import psnr
from ssdenoise.metrics.risk import risk
from ssdenoise.noise import NoiseModel
from ssdenoise.probe import probe
from tests.conftest import make_store, scene
from tests.unit.test_denoise import make_model

NOISE = {
    "Gaussian": NoiseModel(gain=0, offset=0, read_noise=40),
    "Poisson": NoiseModel(gain=10, offset=0, read_noise=0),
    "few photons": NoiseModel(gain=100, offset=0, read_noise=0),
    "Poisson-Gaussian": NoiseModel(gain=8, offset=100, read_noise=20),
}
DENOISERS: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "Gaussian filter": lambda y: gaussian_filter(y, 1.5),
    "median": lambda y: median_filter(y, 5),
    "non-local means": lambda y: denoise_nl_means(y, patch_size=5, patch_distance=6, h=32, sigma=40, fast_mode=True),
}


def draw(clean: np.ndarray, noise: NoiseModel, rng: np.random.Generator) -> np.ndarray:
    photons = (
        noise.offset + noise.gain * rng.poisson((clean - noise.offset).clip(0) / noise.gain) if noise.gain else clean
    )
    return photons + rng.normal(0, noise.read_noise, clean.shape)


@pytest.mark.parametrize("name", NOISE)
@pytest.mark.parametrize("denoiser", DENOISERS)
def test_estimates_without_a_reference_are_the_true_psnr_on_average(name: str, denoiser: str) -> None:
    """SURE, PURE and their union, and uPSNR: mean over 20 draws within 0.3 dB."""
    clean = scene((1, 192, 192))[0].astype(float) + (100 if name == "Poisson-Gaussian" else 0)
    noise, denoise, rng = NOISE[name], DENOISERS[denoiser], np.random.default_rng(0)
    total = dict.fromkeys(("true", "risk", "upsnr"), 0.0)
    for _ in range(20):
        y, other = draw(clean, noise, rng), draw(clean, noise, rng)
        found = denoise(y)
        direction = rng.choice([-1.0, 1.0], y.shape) * np.sqrt(np.maximum(noise.variance(found), 1))
        change = (denoise(y + 0.05 * direction) - denoise(y - 0.05 * direction)) / 0.1
        total["true"] += np.square(found - clean).mean()
        total["risk"] += risk(y, found, change, direction, noise).mean()
        total["upsnr"] += np.square(found - other).mean() - np.square(y - other).mean() / 2  # as `compare` does
    level = {key: float(psnr(error / 20, 1000.0)) for key, error in total.items()}
    assert level["risk"] == pytest.approx(level["true"], abs=0.3)
    assert level["upsnr"] == pytest.approx(level["true"], abs=0.3)


def spec_for(method: str = "m") -> ProbeSpec:
    return ProbeSpec(dataset="d", noise="n", method=method, seed=0)


@pytest.mark.parametrize("ndim", [2, 3])
@pytest.mark.parametrize("method", ["gaussian", "n2v", "hqssl"])
def test_the_risk_of_a_model_is_its_error(method: str, ndim: int, tmp_path: Path) -> None:
    clean = scene((1, 1, 8, 192, 136)).astype(np.float32)
    noisy = clean + np.random.default_rng(0).normal(0, 60, clean.shape).astype(np.float32)
    volume = make_store(tmp_path, "noisy", noisy)
    model = make_model(tmp_path, volume, method, ndim)
    calibration = json.loads((tmp_path / "calibration.json").read_text())
    calibration["channels"][0]["models"]["poisson_gaussian"] = {"gain": 0, "offset": 0, "read_noise": 60}
    (tmp_path / "true.json").write_text(json.dumps(calibration))
    repeated = clean + np.random.default_rng(1).normal(0, 60, clean.shape).astype(np.float32)
    repeat = make_store(tmp_path, "repeat", repeated)
    calibrated = (volume.path, tmp_path / "true.json")
    rows = probe(spec_for(), *calibrated, model, tmp_path / "p.parquet", repeat=repeat.path)
    assert rows["voxels"].sum() == clean.size
    runner = stage._Runner(stage.load_model(model), volume.shape, stage.CPU)
    everything = tuple(slice(0, n) for n in volume.shape)
    denoised = runner(noisy, everything)
    true = np.mean((denoised - clean) ** 2)
    found = rows["risk"].sum() / rows["voxels"].sum()
    assert 10 * np.log10(found / true) == pytest.approx(0, abs=0.3)
    # over repeats, the estimate's variance and the square of its bias are its error
    other = runner(repeated, everything)
    variance, mean = np.mean((denoised - other) ** 2) / 2, (denoised + other) / 2
    assert rows["repeat_variance"].sum() / rows["voxels"].sum() == pytest.approx(variance, rel=1e-6)
    assert np.mean((mean - clean) ** 2) - variance / 2 == pytest.approx(true - variance, rel=0.1)
    blind = rows["blind_error"].sum() / rows["blind_voxels"].sum()
    assert blind > 0.5 * true
    assert rows["thinned_error"].isna().all()
    assert not any(len(rings) for rings in rows["rings_thinned_cross"])


def test_all_methods_get_the_same_parts_and_hidden_voxels(tmp_path: Path) -> None:
    noisy = np.random.default_rng(0).poisson(scene((2, 2, 3, 150, 100)) / 20).astype(np.uint16)
    volume = make_store(tmp_path, "noisy", noisy)
    tables = []
    for method in ("gaussian", "median"):
        model = make_model(tmp_path / method, volume, method, 2)
        calibration = tmp_path / method / "calibration.json"
        tables.append(probe(spec_for(method), volume.path, calibration, model, tmp_path / "p.parquet"))
    keys = ["t", "c", "z", "y", "x", "voxels", "blind_voxels"]
    pd.testing.assert_frame_equal(tables[0][keys], tables[1][keys])
    assert not np.allclose(tables[0]["risk"], tables[1]["risk"])
    again = probe(spec_for("median"), volume.path, calibration, model, tmp_path / "again.parquet")
    pd.testing.assert_frame_equal(again, tables[1])
    assert len(tables[1]["rings_thinned_cross"].iloc[0]) == stage.PART // 2
    # photons: another estimate of the error, with four fifths of them
    sums = tables[1].sum(numeric_only=True)
    assert sums["thinned_error"] == pytest.approx(sums["risk"], rel=0.5)


def test_the_same_voxels_are_hidden_however_far_a_network_looks() -> None:
    hidden = []
    for halo in (36, 3, 0):
        y, x = slice(256 - halo, 320 + halo), slice(128 - halo, 192 + halo)
        region = (slice(0, 1), slice(0, 1), slice(0, 1), y, x)
        inside = (*region[:3], slice(halo, 64 + halo), slice(halo, 64 + halo))
        voxels, seen = np.ones((1, 1, 1, 64 + 2 * halo, 64 + 2 * halo)), []

        def run(noisy: np.ndarray, inside: Region, seen: list[np.ndarray] = seen) -> np.ndarray:
            seen.append(noisy[inside])
            return noisy[inside]

        voxels[..., ::2, :] = 5  # what is hidden gets the mean of its neighbours
        noise = [NoiseModel(gain=0, offset=0, read_noise=1)]
        maps = stage._blind(voxels, region, inside, run, noise, ("d", "n"))  # type: ignore[arg-type]
        hidden.append(maps["blind_voxels"])
        assert len(seen) == stage.PLACES
    for other in hidden[1:]:
        np.testing.assert_array_equal(other, hidden[0])


def test_a_large_volume_is_sampled(tmp_path: Path) -> None:
    noisy = scene((1, 1, 40, 32, 600)).astype(np.float32)
    volume = make_store(tmp_path, "noisy", noisy)
    model = make_model(tmp_path, volume, "gaussian", 2)
    rows = probe(spec_for(), volume.path, tmp_path / "calibration.json", model, tmp_path / "p.parquet")
    assert rows["voxels"].sum() == 16 * 32 * 512
    assert sorted(rows["z"].unique())[:: len(rows["z"].unique()) - 1] == [0, 39]
    assert rows["x"].min() % 64 == 0


def test_a_realization_of_another_shape_is_refused(tmp_path: Path) -> None:
    volume = make_store(tmp_path, "noisy", scene((1, 1, 2, 64, 64)).astype(np.float32))
    other = make_store(tmp_path, "other", scene((1, 1, 3, 64, 64)).astype(np.float32))
    model = make_model(tmp_path, volume, "median", 2)
    with pytest.raises(FormatError, match=r"\(1, 1, 3, 64, 64\).*\(1, 1, 2, 64, 64\)"):
        probe(spec_for(), volume.path, tmp_path / "calibration.json", model, tmp_path / "p.parquet", repeat=other.path)


def test_a_model_of_other_channels_is_refused(tmp_path: Path) -> None:
    volume = make_store(tmp_path, "noisy", scene((1, 1, 4, 32, 32)).astype(np.float32))
    model = make_model(tmp_path, volume, "gaussian", 2)
    other = make_store(tmp_path, "other", scene((1, 2, 4, 32, 32)).astype(np.float32))
    calibrate(CalibrateSpec(), other.path, tmp_path / "c.json")
    with pytest.raises(FormatError, match="has 2 channels"):
        probe(spec_for(), other.path, tmp_path / "c.json", model, tmp_path / "p.parquet")
