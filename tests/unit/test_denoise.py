"""Inference: tiles equal the whole, slabs and resumes give the same bits, dtypes and metadata are kept."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from ssdenoise import denoise as stage
from ssdenoise.calibrate import calibrate
from ssdenoise.commit import commit
from ssdenoise.config.models import TrainSpec
from ssdenoise.config.specs import CalibrateSpec, DenoiseSpec, Storage
from ssdenoise.denoise import crew, denoise
from ssdenoise.errors import FormatError, InUseError, MissingInputError
from ssdenoise.methods import METHODS
from ssdenoise.model import load_model
from ssdenoise.pieces import estimate
from ssdenoise.store import ShardWriter, Volume, claims
from ssdenoise.train import Scene, train
from tests.conftest import CPU, ROOT, make_store, scene

SPEC = DenoiseSpec(denoised_dtype="same")
FLOAT = DenoiseSpec(denoised_dtype="float32")


def make_model(folder: Path, volume: Volume, name: str, ndim: int, **more: object) -> Path:
    """A model after a few steps: not good, but its output has the size of the signal."""
    options = {"steps": 40, "batch": 1, "patch": (4, 16, 16)} if METHODS[name].trainable else {}
    if name == "gaussian":
        options = {"sigmas": (0.8, 1.1)}
    if name == "nlm":
        options = {"patch_distance": 2}
    spec = TrainSpec(
        dataset="d", noise="n", seed=0, ndim=ndim, pairing="thinning", method=METHODS[name](**options | more)
    )  # type: ignore[arg-type]
    calibrate(CalibrateSpec(), volume.path, folder / "calibration.json")
    clean = volume.path if METHODS[name].target == "clean" else None
    train(spec, [Scene(volume.path, folder / "calibration.json", clean)], folder / "model", CPU)
    return folder / "model"


def run(spec: DenoiseSpec, volume: Volume, model: Path, output: Path, slabs: int = 1) -> Volume:
    for k in range(slabs):
        denoise(spec, volume.path, model, output, CPU, slab=k, slabs=slabs)
    records = [output / "slabs" / f"{k}-of-{slabs}.json" for k in range(slabs)]
    for product in ("denoised", "uncertainty"):
        if (output / f"{product}.ome.zarr").exists():
            commit(volume.path, records, product, output)
    return Volume(output / "denoised.ome.zarr")


def whole(volume: Volume, model: Path) -> np.ndarray:
    """The network over the whole volume at once, padded once."""
    loaded = load_model(model)
    stride = (1,) * (5 - loaded.ndim) + tuple(loaded.net.stride)
    pad = [-n % s for n, s in zip(volume.shape, stride, strict=True)]
    mean, *_ = estimate(loaded, volume.read((slice(None),) * 5), pad, CPU)
    return mean[tuple(slice(0, n) for n in volume.shape)].numpy()


SHAPES = {
    "smaller than a tile": (1, 1, 3, 21, 30),
    "several frames": (2, 1, 1, 40, 40),
}


@pytest.mark.parametrize("ndim", [2, 3])
@pytest.mark.parametrize("name", [name for name in METHODS if name != "bm3d"])
def test_tiles_equal_the_whole(name: str, ndim: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert deviation(name, ndim, (1, 1, 5, 29, 131), tmp_path, monkeypatch) < 1e-5


@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES.keys())
@pytest.mark.parametrize("ndim", [2, 3])
@pytest.mark.parametrize("name", ["nlm", "n2v", "hqssl"])
def test_tiles_equal_the_whole_of_other_shapes(
    name: str, ndim: int, shape: tuple[int, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert deviation(name, ndim, shape, tmp_path, monkeypatch) < 1e-5


def deviation(name: str, ndim: int, shape: tuple[int, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> float:
    """Largest difference between tiles and the whole, in standard deviations of the noisy volume."""
    monkeypatch.setattr(stage, "TILE_VOXELS", 1)  # the smallest tiles there can be: single shards
    noisy = np.random.default_rng(0).poisson(scene(shape) / 20).astype(np.uint16)
    volume = make_store(tmp_path, "noisy", noisy, Storage(chunk=(2, 16, 16), shard=(4, 64, 64)))
    model = make_model(tmp_path, volume, name, ndim)
    tiled = run(FLOAT, volume, model, tmp_path / "out").read((slice(None),) * 5)
    return float(np.abs(tiled - whole(volume, model)).max() / noisy.std())


def test_the_paper_s_network_with_batch_normalisation_is_tile_exact_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stage, "TILE_VOXELS", 1)
    noisy = np.random.default_rng(0).poisson(scene((1, 1, 2, 41, 157)) / 20).astype(np.uint16)
    volume = make_store(tmp_path, "noisy", noisy, Storage(chunk=(2, 16, 16), shard=(4, 64, 64)))
    model = make_model(tmp_path, volume, "n2v", 2, network="paper")
    tiled = run(FLOAT, volume, model, tmp_path / "out").read((slice(None),) * 5)
    assert np.abs(tiled - whole(volume, model)).max() < 1e-5 * noisy.std()


@pytest.mark.parametrize("name", ["n2v", "hqssl"])
def test_slabs_give_the_same_bits(name: str, counts: Volume, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stage, "TILE_VOXELS", 1)
    model = make_model(tmp_path, counts, name, 2)
    one, three = (run(SPEC, counts, model, tmp_path / f"out{n}", n) for n in (1, 3))
    assert one.digest == three.digest
    if name == "hqssl":
        assert (
            Volume(tmp_path / "out1" / "uncertainty.ome.zarr").digest
            == Volume(tmp_path / "out3" / "uncertainty.ome.zarr").digest
        )


def test_jobs_that_would_write_into_each_other_are_refused(
    counts: Volume, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first is a process that waits at its first shard until it is let go."""
    monkeypatch.setattr(claims, "PATIENCE", 0.1)
    model, output = make_model(tmp_path, counts, "n2v", 2), tmp_path / "out"
    denoise(SPEC, counts.path, model, output, CPU, slab=1, slabs=2)
    code = (
        "import time; from pathlib import Path; from ssdenoise.config.specs import DenoiseSpec\n"
        "from ssdenoise.denoise import denoise\nfrom ssdenoise.store import ShardWriter\n"
        "go, write = Path('go'), ShardWriter.write\n"
        "def wait(*a, **k):\n  Path('here').touch()\n  while not go.exists(): time.sleep(0.01)\n  write(*a, **k)\n"
        "ShardWriter.write = wait\n"
        f"arguments = DenoiseSpec(denoised_dtype='same'), Path({str(counts.path)!r}), Path('model'), Path('out')\n"
        "denoise(*arguments, slab=0, slabs=2)\n"
    )
    first = subprocess.Popen([sys.executable, "-c", code], cwd=tmp_path, env=os.environ | {"PYTHONPATH": str(ROOT)})
    while not (tmp_path / "here").exists():
        assert first.poll() is None
        time.sleep(0.05)
    with pytest.raises(InUseError, match=rf"by process {first.pid} on"):
        denoise(SPEC, counts.path, model, output, CPU, slab=0, slabs=2)
    with pytest.raises(InUseError, match="by jobs that denoise by 2 slabs"):
        denoise(SPEC, counts.path, model, output, CPU, slab=0, slabs=1)
    with pytest.raises(InUseError, match="by jobs that denoise by 2 slabs"):
        denoise(FLOAT, counts.path, model, output, CPU, slab=1, slabs=2)
    with pytest.raises(InUseError, match="by jobs that denoise by 2 slabs"):
        commit(counts.path, [output / "slabs" / f"{k}-of-2.json" for k in (1, 1)], "denoised", output)
    denoise(SPEC, counts.path, model, output, CPU, slab=1, slabs=2)
    (tmp_path / "go").touch()
    assert first.wait() == 0
    assert commit(counts.path, [output / "slabs" / f"{k}-of-2.json" for k in (0, 1)], "denoised", output)


def test_a_killed_job_keeps_its_finished_shards(
    counts: Volume, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stage, "TILE_VOXELS", 1)
    model = make_model(tmp_path, counts, "n2v", 2)
    expected = run(SPEC, counts, model, tmp_path / "whole").digest

    monkeypatch.setattr(crew, "IN_FLIGHT", 1)  # as other threads outlive the exception that stands for a kill

    class Killed(BaseException):
        pass

    real, written = ShardWriter.write, []

    def dies_after_five(self: ShardWriter, index: tuple[int, ...], voxels: np.ndarray, **facts: float) -> None:
        if len(written) == 5:
            raise Killed
        real(self, index, voxels, **facts)
        written.append((index, self.store.joinpath("0", "c", *map(str, index))))

    monkeypatch.setattr(ShardWriter, "write", dies_after_five)
    with pytest.raises(Killed):
        run(SPEC, counts, model, tmp_path / "killed")
    monkeypatch.setattr(ShardWriter, "write", real)
    with pytest.raises(MissingInputError, match="finish the job"):
        Volume(tmp_path / "killed" / "denoised.ome.zarr")
    before = {path: path.stat().st_mtime_ns for _, path in written if path.exists()}
    finished = run(SPEC, counts, model, tmp_path / "killed")
    record = json.loads((tmp_path / "killed" / "slabs" / "0-of-1.json").read_text())
    assert record["shards_kept"] == 5
    assert {path: path.stat().st_mtime_ns for path in before} == before
    assert finished.digest == expected


def test_shards_of_another_model_are_not_kept(counts: Volume, tmp_path: Path) -> None:
    model = make_model(tmp_path, counts, "gaussian", 2)
    run(SPEC, counts, model, tmp_path / "out")
    text = (model / "model.json").read_text()
    value = json.loads(text)
    value["normalization"]["scale"][0] *= 2
    (model / "model.json").write_text(json.dumps(value))
    assert denoise(SPEC, counts.path, model, tmp_path / "out", CPU)["shards_kept"] == 0


def test_commit_refuses_while_a_slab_is_missing(
    counts: Volume, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stage, "TILE_VOXELS", 1)
    model = make_model(tmp_path, counts, "gaussian", 2)
    denoise(SPEC, counts.path, model, tmp_path / "out", CPU, slab=0, slabs=2)
    record = tmp_path / "out" / "slabs" / "0-of-2.json"
    with pytest.raises(MissingInputError, match="1 of 2 slabs"):
        commit(counts.path, [record], "denoised", tmp_path / "out")
    denoise(SPEC, counts.path, model, tmp_path / "out", CPU, slab=1, slabs=2)
    records = [record, tmp_path / "out" / "slabs" / "1-of-2.json"]
    next(p for p in (tmp_path / "out" / "denoised.ome.zarr" / "0" / "c").rglob("*") if p.is_file()).unlink()
    with pytest.raises(MissingInputError, match="not written"):
        commit(counts.path, records, "denoised", tmp_path / "out")
    with pytest.raises(MissingInputError, match="no product 'uncertainty'"):
        commit(counts.path, records, "uncertainty", tmp_path / "out")
    assert not (tmp_path / "out" / "denoised.ome.zarr" / "zarr.json").exists()


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "int16", "float32"])
def test_dtype_shape_and_metadata_are_kept(dtype: str, tmp_path: Path) -> None:
    noisy = scene((1, 2, 3, 40, 41)) / 8
    noisy = (np.random.default_rng(0).normal(noisy, 30) - (60 if dtype == "int16" else 0)).clip(-120, 255).astype(dtype)
    volume = make_store(tmp_path, "noisy", noisy)
    out = run(SPEC, volume, make_model(tmp_path, volume, "n2v", 2), tmp_path / "out")
    assert out.array.dtype == dtype
    assert out.shape == volume.shape
    assert out.metadata == replace(volume.metadata, name="noisy, denoised")
    assert out.record["voxels"] == noisy.size


def test_clipped_voxels_are_counted(tmp_path: Path) -> None:
    noisy = (200 * (np.random.default_rng(0).random((1, 1, 2, 40, 40)) > 0.5)).astype(np.uint8)
    volume = make_store(tmp_path, "noisy", noisy)
    model = make_model(tmp_path, volume, "n2v", 2)
    value = json.loads((model / "model.json").read_text())
    value["normalization"]["offset"] = [-1000.0]  # everything the network says lands below zero
    value["normalization"]["scale"] = [1.0]
    (model / "model.json").write_text(json.dumps(value))
    out = run(SPEC, volume, model, tmp_path / "out")
    restored = run(FLOAT, volume, model, tmp_path / "float")
    share = np.mean(
        (np.rint(restored.read((slice(None),) * 5)) < 0) | (np.rint(restored.read((slice(None),) * 5)) > 255)
    )
    assert out.record["clipped_voxels"] == pytest.approx(share * noisy.size)
    assert share > 0.1


def test_a_model_for_other_channels_is_refused(counts: Volume, tmp_path: Path) -> None:
    two = make_store(tmp_path, "two", np.repeat(counts.read((slice(None),) * 5), 2, axis=1))
    with pytest.raises(FormatError, match="2 channels"):
        denoise(SPEC, two.path, make_model(tmp_path, counts, "n2v", 2), tmp_path / "out", CPU)
