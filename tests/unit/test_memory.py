"""Memory does not grow with the volume: peak resident memory of stages on a small and on a large one."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import tifffile

from ssdenoise.__main__ import MALLOC
from ssdenoise.calibrate import calibrate
from ssdenoise.config.specs import CalibrateSpec, IngestSpec, Storage, dump

#: Planes of a volume of 512x512 pixels and two bytes: 25 and 268 MB. The small one has more tiles than are in flight.
SMALL, LARGE = 48, 512

#: What the large volume may take more than the small one, of the 243 MB that it has more. Between runs of one volume
#: denoise differs by up to 80 MB (holes in a heap that three threads share), and more tiles find more of these holes.
SLACK_MB = 100


def peak_mb(code: str) -> float:
    """Peak resident memory of a process of its own, with the settings of a job's, in MB."""
    code += "\nfrom ssdenoise.provenance import peak_memory_mb; print(peak_memory_mb())"
    command = [sys.executable, "-c", code]
    return float(subprocess.run(command, capture_output=True, text=True, check=True, env=os.environ | MALLOC).stdout)


def write_volume(path: Path, planes: int) -> None:
    """Compressed page by page, or in one piece, which could be mapped."""
    rng = np.random.default_rng(0)
    voxels = np.tile(rng.poisson(50, (16, 512, 512)).astype(np.uint16), (planes // 16, 1, 1))
    if path.suffix == ".npy":
        np.save(path, voxels)
    elif path.name.startswith("raw"):
        tifffile.imwrite(path, voxels, metadata={"axes": "ZYX"})
    else:
        with tifffile.TiffWriter(path) as tiff:
            for plane in voxels:
                tiff.write(plane, contiguous=False, compression="zlib")


def ingest_of(source: Path, output: Path) -> str:
    spec = IngestSpec(
        name="v", source=f"{source}", axes="ZYX", voxel_size_um=None, storage=Storage(shard=(4, 512, 512))
    )
    return (
        "import ssdenoise.ingest as stage\nfrom pathlib import Path\n"
        "from ssdenoise.config.specs import IngestSpec, parse_spec\nstage.BAND_BYTES = 2**22\n"
        f"stage.ingest(parse_spec(IngestSpec, {dump(spec)!r}), Path({str(output)!r}))"
    )


@pytest.mark.parametrize(
    "name", ["raw-{}.npy", *(pytest.param(name, marks=pytest.mark.slow) for name in ("pages-{}.tif", "raw-{}.tif"))]
)
def test_ingest_and_pyramid(name: str, tmp_path: Path) -> None:
    peaks = []
    for planes in (SMALL, LARGE):
        source = tmp_path / name.format(planes)
        write_volume(source, planes)
        peaks.append(peak_mb(ingest_of(source, tmp_path / f"{planes}.ome.zarr")))
    assert peaks[1] - peaks[0] < SLACK_MB, peaks


def stage_of(volume: Path, code: str) -> str:
    """Code of a stage on a volume, with a narrow network and little memory."""
    return (
        "from pathlib import Path\nimport torch\nfrom ssdenoise.config.models import TrainSpec\n"
        "from ssdenoise.config.specs import *\nfrom ssdenoise.device import Device\n"
        "from ssdenoise.methods import METHODS\nfrom ssdenoise.networks import Plain, UNet\n"
        "from ssdenoise.train import sampling\nsampling.POOL_BYTES = 2**24\n"
        "import ssdenoise.denoise as stage\nstage.TILE_VOXELS = stage.PIECE_VOXELS = 2**20\n"
        "METHODS['n2v'].architecture = lambda self, inputs, channels, ndim, beside=(): "
        "Plain(UNet(ndim, inputs, width=2, depth=2, head=(2, 2), skips='features'), channels)\n"
        f"noisy, folder, cpu = Path({str(volume)!r}), Path({str(volume.parent)!r}), Device.granted(0, 1)\n{code}"
    )


STAGES = {
    "train": "from ssdenoise.train import Scene, train\n"
    "method = METHODS['n2v'](steps=300, batch=2)\n"
    "spec = TrainSpec(dataset='d', noise='n', seed=0, ndim=2, method=method)\n"
    "train(spec, [Scene(noisy, folder / 'c.json')], folder / 'model', cpu)",
    "denoise": "stage.denoise(DenoiseSpec(denoised_dtype='same'), noisy, folder / 'model', folder / 'out', cpu)",
    "commit": "from ssdenoise.commit import commit\n"
    "commit(noisy, [folder / 'out' / 'slabs' / '0-of-1.json'], 'denoised', folder / 'out')",
    "score": "from ssdenoise.score import score\n"
    "spec = ScoreSpec(dataset='d', situation='archive', noise='n', method='n2v', seed=0, data_range='reference')\n"
    "denoised, model = folder / 'out' / 'denoised.ome.zarr', folder / 'model'\n"
    "score(spec, noisy, denoised, folder / 'c.json', model, None, folder / 's.parquet', 1)",
}


@pytest.mark.slow
def test_train_denoise_commit_and_score(tmp_path: Path) -> None:
    peaks: dict[str, list[float]] = {stage: [] for stage in STAGES}
    for planes in (SMALL, LARGE):
        folder = tmp_path / f"{planes}"
        folder.mkdir()
        write_volume(folder / "v.tif", planes)
        peak_mb(ingest_of(folder / "v.tif", folder / "v.ome.zarr"))
        calibrate(CalibrateSpec(), folder / "v.ome.zarr", folder / "c.json")
        for stage, code in STAGES.items():
            peaks[stage].append(peak_mb(stage_of(folder / "v.ome.zarr", code)))
    assert all(large - small < SLACK_MB for small, large in peaks.values()), peaks
