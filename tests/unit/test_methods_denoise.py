"""Each method that the demo does not run denoises the noise that it is made for, after a short training."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter

from ssdenoise.calibrate import calibrate
from ssdenoise.config.models import TrainSpec
from ssdenoise.config.specs import CalibrateSpec, DenoiseSpec
from ssdenoise.methods import METHODS
from ssdenoise.train import Scene, train
from tests.conftest import CPU, make_store, scene
from tests.unit.test_denoise import run

pytestmark = pytest.mark.slow

SIGMA = 150.0
CLEAN = scene((1, 1, 16, 128, 128))

#: Widths of the Gaussian along Y and X that noise is correlated by.
NOISES = {"white": (0.0, 0.0), "along x": (0.0, 1.0), "along y and x": (0.7, 0.7)}


def gained(folder: Path, noise: str, **options: object) -> float:
    """Decibels that a method entry gains over the noisy volume."""
    drawn = gaussian_filter(np.random.default_rng(0).normal(size=CLEAN.shape), (0, 0, 0, *NOISES[noise]))
    noisy = CLEAN + SIGMA * drawn / drawn.std()
    name = str(options["name"])
    clean, volume = (make_store(folder, n, v.astype(np.float32)) for n, v in (("clean", CLEAN), ("noisy", noisy)))
    calibrate(CalibrateSpec(), volume.path, folder / "c.json")
    spec = TrainSpec(dataset="d", noise="n", seed=0, ndim=2, method=METHODS[name](**options))  # type: ignore[arg-type]
    target = clean.path if spec.method.target == "clean" else None
    train(spec, [Scene(volume.path, folder / "c.json", target)], folder / name, CPU)
    denoised = run(DenoiseSpec(denoised_dtype="float32"), volume, folder / name, folder / f"{name} out")
    error = np.mean((denoised.read((slice(None),) * 5) - CLEAN) ** 2)
    return float(10 * np.log10(np.mean((noisy - CLEAN) ** 2) / error))


@pytest.mark.parametrize("name", ["n2c", "n2v2", "neighbor2neighbor"])
def test_white_noise_is_removed(name: str, tmp_path: Path) -> None:
    assert gained(tmp_path, "white", name=name, steps=200) > 8


@pytest.mark.parametrize(("name", "noise", "steps"), [("structn2v", "along x", 200), ("sasl", "along y and x", 450)])
def test_correlated_noise_is_removed_better_than_by_noise2void(
    name: str, noise: str, steps: int, tmp_path: Path
) -> None:
    n2v = gained(tmp_path, noise, name="n2v", steps=200)
    assert gained(tmp_path, noise, name=name, steps=steps) > n2v + 2
