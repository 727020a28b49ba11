"""The README's Python examples run as they stand."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
import tifffile

from ssdenoise.calibrate import calibrate
from ssdenoise.config.models import TrainSpec
from ssdenoise.config.specs import CalibrateSpec
from ssdenoise.methods import METHODS
from ssdenoise.store import Volume
from ssdenoise.train import Scene, train
from tests.conftest import ROOT, make_store


def test_the_examples_run(counts: Volume, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    to_tiff, verbs = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)
    monkeypatch.chdir(tmp_path)
    run = Path("results/demo/hazelnut/measured")
    run.mkdir(parents=True)
    (run / "noisy-0.ome.zarr").symlink_to(counts.path)
    calibrate(CalibrateSpec(), counts.path, tmp_path / "c.json")
    method = METHODS["hqssl"](steps=2, batch=1, patch=(1, 16, 16))  # type: ignore[call-arg]
    spec = TrainSpec(dataset="d", noise="n", seed=0, ndim=2, method=method)  # type: ignore[arg-type]
    train(spec, [Scene(counts.path, tmp_path / "c.json")], run / "hqssl" / "seed-0")
    exec(verbs, {})
    denoised = Volume("again/denoised.ome.zarr")
    assert denoised.shape == counts.shape
    (run / "hqssl" / "seed-0" / "denoised.ome.zarr").symlink_to(denoised.path.resolve())
    exec(to_tiff, {})
    np.testing.assert_array_equal(tifffile.imread("hazelnut.tif"), denoised.to_xarray().values.squeeze())
    half = make_store(tmp_path, "half", denoised.to_xarray().values.astype(np.float16)).path
    exec(to_tiff.replace("results/demo/hazelnut/measured/hqssl/seed-0/denoised.ome.zarr", str(half)), {})
    np.testing.assert_array_equal(tifffile.imread("hazelnut.tif"), Volume(half).to_xarray().values.squeeze())
