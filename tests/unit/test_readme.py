"""The README's Python example runs as it stands."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from ssdenoise.calibrate import calibrate
from ssdenoise.config.models import TrainSpec
from ssdenoise.config.specs import CalibrateSpec
from ssdenoise.methods import METHODS
from ssdenoise.store import Volume
from ssdenoise.train import train
from tests.conftest import ROOT


def test_the_example_denoises(counts: Volume, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    blocks = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)
    assert len(blocks) == 1
    monkeypatch.chdir(tmp_path)
    run = Path("results/demo/hazelnut/measured")
    run.mkdir(parents=True)
    (run / "noisy-0.ome.zarr").symlink_to(counts.path)
    calibrate(CalibrateSpec(), counts.path, tmp_path / "c.json")
    method = METHODS["hqssl"](steps=2, batch=1, patch=(1, 16, 16))  # type: ignore[call-arg]
    spec = TrainSpec(dataset="d", noise="n", seed=0, ndim=2, method=method)  # type: ignore[arg-type]
    train(spec, counts.path, None, tmp_path / "c.json", run / "hqssl" / "seed-0")
    exec(blocks[0], {})
    assert Volume("again/denoised.ome.zarr").shape == counts.shape
