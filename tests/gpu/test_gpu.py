"""On a GPU: training and inference run there, repeat their bits, and agree with the CPU."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from ssdenoise import denoise as stage
from ssdenoise.calibrate import calibrate
from ssdenoise.commit import commit
from ssdenoise.config.models import TrainSpec
from ssdenoise.config.specs import CalibrateSpec, DenoiseSpec, Storage
from ssdenoise.denoise import denoise
from ssdenoise.device import Device
from ssdenoise.methods import METHODS
from ssdenoise.store import Volume
from ssdenoise.train import Scene, train
from tests.conftest import CPU, make_store, scene
from tests.workflow.conftest import make

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device"),
]

FLOAT = DenoiseSpec(denoised_dtype="float32")


def trained(name: str, ndim: int, volume: Volume, output: Path, **options: object) -> Path:
    """A model after a few steps on the GPU."""
    method = METHODS[name](**{"steps": 20, "batch": 2, "patch": (4, 64, 64)} | options)
    spec = TrainSpec(dataset="d", noise="n", seed=0, ndim=ndim, pairing="thinning", method=method)  # type: ignore[arg-type]
    calibrate(CalibrateSpec(), volume.path, output.parent / "calibration.json")
    clean = volume.path if METHODS[name].target == "clean" else None
    gpu = Device.granted(gpu=1, threads=1)
    model = train(spec, [Scene(volume.path, output.parent / "calibration.json", clean)], output, gpu)
    assert model["provenance"]["device"] == torch.cuda.get_device_name()
    return output


def denoised(volume: Volume, model: Path, output: Path, device: Device) -> np.ndarray:
    denoise(FLOAT, volume.path, model, output, device)
    commit(volume.path, [output / "slabs" / "0-of-1.json"], "denoised", output)
    return Volume(output / "denoised.ome.zarr").read((slice(None),) * 5)


@pytest.mark.parametrize("network", ["small", "paper"])
@pytest.mark.parametrize("ndim", [2, 3])
@pytest.mark.parametrize("name", [name for name, cls in METHODS.items() if cls.trainable])
def test_training_and_inference_on_the_gpu(name: str, ndim: int, network: str, tmp_path: Path) -> None:
    noisy = np.random.default_rng(0).poisson(scene((1, 1, 6, 101, 77)) / 20).astype(np.uint16)
    counts = make_store(tmp_path, "counts", noisy)
    models = [trained(name, ndim, counts, tmp_path / f"model{i}", network=network) for i in range(2)]
    weights = [(model / "model.safetensors").read_bytes() for model in models]
    assert weights[0] == weights[1]
    gpu = denoised(counts, models[0], tmp_path / "gpu", Device.granted(gpu=1, threads=1))
    cpu = denoised(counts, models[0], tmp_path / "cpu", CPU)
    assert np.abs(gpu - cpu).max() < 1e-3 * cpu.std()


def test_pieces_that_do_not_fit_are_halved(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    noisy = np.random.default_rng(0).poisson(scene((1, 1, 1, 1024, 2048)) / 20).astype(np.uint16)
    volume = make_store(tmp_path, "noisy", noisy, Storage())
    model, gpu = trained("n2v", 2, volume, tmp_path / "model"), Device.granted(gpu=1, threads=1)
    expected = denoised(volume, model, tmp_path / "enough", gpu)
    assert "out of memory" not in caplog.text
    torch.cuda.empty_cache()
    total = torch.cuda.get_device_properties(0).total_memory
    monkeypatch.setattr(stage, "LEAST_VOXELS", 1)
    torch.cuda.set_per_process_memory_fraction((torch.cuda.memory_reserved() + 2e8) / total)
    try:
        found = denoised(volume, model, tmp_path / "scarce", gpu)
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)
    assert "out of memory on" in caplog.text
    assert np.abs(found - expected).max() < 1e-4 * expected.std()


def test_the_workflow_with_the_profile_of_a_gpu(tmp_path: Path) -> None:
    workflow = make(tmp_path / "project")
    workflow.configure(methods={"n2n": {"name": "n2n", "steps": 20}, "hqssl": {"name": "hqssl", "steps": 20}})
    command = [sys.executable, "-m", "snakemake", "--configfile", "config.yaml", "--profile", "workflow/profiles/gpu"]
    command.append("results/tiny/archive/measured/hqssl/seed-0/denoised.ome.zarr/zarr.json")
    done = subprocess.run(command, cwd=tmp_path / "project", env=workflow.environment(), capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    records = [json.loads(path.read_text()) for path in workflow.folder.glob("results/tiny/**/model.json")]
    records += [json.loads(path.read_text()) for path in workflow.folder.glob("results/tiny/**/slabs/*.json")]
    assert records
    assert {record["provenance"]["device"] for record in records} == {torch.cuda.get_device_name()}
