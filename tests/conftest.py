"""Small volumes and stores for all tests."""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import settings

from ssdenoise.config.models import TrainSpec
from ssdenoise.config.specs import IngestSpec, Storage
from ssdenoise.device import Device
from ssdenoise.ingest import ingest
from ssdenoise.methods import METHODS
from ssdenoise.noise import ImpulseModel, NoiseModel, NoiseModels
from ssdenoise.store import Volume

ROOT = Path(__file__).parent.parent

# no deadline: how long an example takes depends on what else the machine does
settings.register_profile("suite", deadline=None)
settings.load_profile("suite")

# Tests run side by side, one thread each: two-threaded jobs on shared cores slow each other several-fold.
torch.set_num_threads(1)

CPU = Device("cpu", "cpu, 1 threads")

#: Shards small enough that a test volume has several.
STORAGE = Storage(chunk=(2, 16, 16), shard=(4, 32, 32))

NOISE = NoiseModels(
    gaussian=NoiseModel(0.0, 0.0, 0.5),
    poisson=NoiseModel(0.3, -2.0, 0.0),
    poisson_gaussian=NoiseModel(0.2, -2.0, 0.3),
    impulse=ImpulseModel(0.3, -2.0, 3.0),
)


NEEDS_BM3D = pytest.mark.skipif(importlib.util.find_spec("bm3d") is None, reason="bm3d is not installed: noncommercial")

#: Names of all methods; those whose package is not installed are skipped.
EVERY_METHOD = [pytest.param(name, marks=NEEDS_BM3D if name == "bm3d" else ()) for name in METHODS]


class Identity(torch.nn.Module):
    """Stands for a network: returns fixed outputs, or its input."""

    halo, stride = (0, 0), (1, 1)

    def __init__(self, output: torch.Tensor | None = None) -> None:
        super().__init__()
        self.output = output

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x if self.output is None else self.output


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def scene(shape: tuple[int, ...], seed: int = 0) -> np.ndarray:
    """Smooth blobs between 100 and about 1000, float64, with the last three axes ZYX."""
    from scipy.ndimage import gaussian_filter

    rng = np.random.default_rng(seed)
    blobs = gaussian_filter(rng.random(shape), (0,) * (len(shape) - 3) + (1.0, 3.0, 3.0), mode="wrap")
    blobs = (blobs - blobs.min()) / np.ptp(blobs)
    return 100 + 900 * blobs**2


def spec_for(name: str, ndim: int = 2, pairing: str = "thinning", **options: object) -> TrainSpec:
    """A few small steps of a method."""
    options = {"steps": 6, "batch": 2, "patch": (4, 16, 16)} | options if METHODS[name].trainable else options
    if name == "nlm":
        options = {"patch_distance": 2} | options
    method = METHODS[name](**options)
    return TrainSpec(dataset="d", noise="n", seed=3, ndim=ndim, pairing=pairing, method=method)  # type: ignore[arg-type]


def make_store(folder: Path, name: str, voxels: np.ndarray, storage: Storage = STORAGE) -> Volume:
    """Ingest an array (up to five axes, TCZYX) as a store."""
    source = folder / f"{name}.npy"
    np.save(source, voxels)
    spec = IngestSpec(name=name, source=str(source), axes=None, voxel_size_um=None, storage=storage)
    ingest(spec, folder / f"{name}.ome.zarr", root=Path("/"))
    return Volume(folder / f"{name}.ome.zarr")


def make_run(
    run: Path, dataset: str, noise: str, volumes: Mapping[str, np.ndarray], storage: Storage = STORAGE
) -> None:
    """Finished stores of a dataset as the workflow lays them out.

    `volumes` are named ``noisy``, ``clean`` or ``reference``, and ``ENTRY/denoised`` or ``ENTRY/uncertainty``.
    """
    for name, voxels in volumes.items():
        entry, _, product = name.rpartition("/")
        scene = run / dataset / noise
        folder = scene / entry / "seed-0" if entry else scene if product == "noisy" else run / dataset
        folder.mkdir(parents=True, exist_ok=True)
        make_store(folder, "noisy-0" if name == "noisy" else product, voxels, storage)


@pytest.fixture
def counts(tmp_path: Path) -> Volume:
    """Photon counts, uint16, an odd-sized volume of several shards."""
    clean = scene((1, 1, 6, 70, 45)) / 20
    return make_store(tmp_path, "counts", np.random.default_rng(1).poisson(clean).astype(np.uint16))


@pytest.fixture(autouse=True)
def _no_leftover_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """Snakemake jobs inside the tests must not inherit the settings of an outer one."""
    for name in [name for name in os.environ if name.startswith("SNAKEMAKE_")]:
        monkeypatch.delenv(name)
