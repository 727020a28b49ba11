"""On a GPU: training and inference run there, and agree with the CPU."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from ssdenoise.calibrate import calibrate
from ssdenoise.commit import commit
from ssdenoise.config.models import TrainSpec
from ssdenoise.config.specs import CalibrateSpec, DenoiseSpec
from ssdenoise.denoise import denoise
from ssdenoise.device import Device
from ssdenoise.methods import METHODS
from ssdenoise.store import Volume
from ssdenoise.train import Scene, train
from tests.conftest import CPU

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device"),
]


@pytest.mark.parametrize("ndim", [2, 3])
@pytest.mark.parametrize("name", [name for name, cls in METHODS.items() if cls.trainable])
def test_training_and_inference_on_the_gpu(name: str, ndim: int, counts: Volume, tmp_path: Path) -> None:
    gpu = Device.granted(gpu=1, threads=1)
    method = METHODS[name](steps=20, batch=2, patch=(4, 16, 16))  # type: ignore[call-arg]
    spec = TrainSpec(dataset="d", noise="n", seed=0, ndim=ndim, pairing="thinning", method=method)  # type: ignore[arg-type]
    calibrate(CalibrateSpec(), counts.path, tmp_path / "c.json")
    clean = counts.path if METHODS[name].target == "clean" else None
    results = [
        train(spec, [Scene(counts.path, tmp_path / "c.json", clean)], tmp_path / f"model{i}", gpu) for i in range(2)
    ]
    assert "cpu" not in results[0]["provenance"]["device"]
    weights = [(tmp_path / f"model{i}" / "model.safetensors").read_bytes() for i in range(2)]
    assert weights[0] == weights[1]
    outputs = []
    for device in (gpu, CPU):
        output = tmp_path / device.kind
        options = DenoiseSpec(denoised_dtype="float32")
        denoise(options, counts.path, tmp_path / "model0", output, device)
        commit(counts.path, [output / "slabs" / "0-of-1.json"], "denoised", output)
        outputs.append(Volume(output / "denoised.ome.zarr").read((slice(None),) * 5))
    assert np.abs(outputs[0] - outputs[1]).max() < 1e-3 * outputs[1].std()
