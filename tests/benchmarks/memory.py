"""Peak memory of each stage on volumes of a quarter, one and four GiB, each stage in a process of its own."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import tifffile

from ssdenoise.__main__ import MALLOC
from ssdenoise.config.models import TrainSpec
from ssdenoise.config.specs import CalibrateSpec, DenoiseSpec, IngestSpec, ScoreSpec, Storage, dump
from ssdenoise.methods import METHODS
from tests.benchmarks.measure import THREADS

#: Planes of 1024x1024 pixels of two bytes.
PLANES = {"0.25 GiB": 128, "1 GiB": 512, "4 GiB": 2048}

#: What `denoise` is granted.
GRANTED_MB = 2000

HEAD = """
import sys
from pathlib import Path
from ssdenoise.config.models import TrainSpec
from ssdenoise.config.specs import *
from ssdenoise.device import Device
from ssdenoise.methods import METHODS
from ssdenoise.networks import Plain, UNet

def narrow(self, inputs, channels, ndim, beside=()):
    return Plain(UNet(ndim, inputs, width=2, depth=2, head=(2, 2), skips="features"), channels)

METHODS["n2v"].architecture = narrow  # two channels wide: the largest volume would else take an hour
noisy, model, out = Path("noisy.ome.zarr"), Path("model"), Path("out")
"""


def peak_mb(code: str, folder: Path) -> float:
    """Largest resident memory of a process that runs some code."""
    code += "\nfrom ssdenoise.provenance import peak_memory_mb\nprint(peak_memory_mb())"
    done = subprocess.run(
        [sys.executable, "-c", HEAD + code], cwd=folder, env=os.environ | MALLOC, capture_output=True, text=True
    )
    if done.returncode:
        raise RuntimeError(done.stderr)
    return float(done.stdout.splitlines()[-1])


def write_tiff(path: Path, planes: int) -> None:
    """Photon counts in one piece, as ImageJ and many cameras write them."""
    rng = np.random.default_rng(0)
    some = [rng.poisson(rng.uniform(20, 200), (1024, 1024)).astype(np.uint16) for _ in range(16)]
    with tifffile.TiffWriter(path, bigtiff=True) as tiff:
        for plane in range(planes):
            tiff.write(np.roll(some[plane % 16], plane, axis=0), contiguous=True)


def memory(folder: Path) -> pd.DataFrame:
    """Megabytes of each stage by the size of the volume."""
    ingest = IngestSpec(name="v", source="v.tif", axes="ZYX", voxel_size_um=None, storage=Storage())
    method = METHODS["n2v"](steps=200, batch=8)  # type: ignore[call-arg]
    train = TrainSpec(dataset="d", noise="n", seed=0, ndim=2, method=method)  # type: ignore[arg-type]
    score = ScoreSpec(dataset="d", situation="reference", noise="n", method="n2v", seed=0, data_range=500.0)
    device = f"Device.granted(0, {THREADS})"
    calibration = f"from ssdenoise.calibrate import calibrate\ncalibrate({CalibrateSpec()!r}, noisy, Path('c.json'))"
    stages = {
        "ingest": "from ssdenoise.ingest import ingest\n"
        f"ingest(parse_spec(IngestSpec, {dump(ingest)!r}), noisy, threads={THREADS})",
        "calibrate": calibration,
        "train": "from ssdenoise.train import Scene, train\n"
        f"train(parse_spec(TrainSpec, {dump(train)!r}), [Scene(noisy, Path('c.json'))], model, {device})",
        "denoise": "from ssdenoise.denoise import denoise\n"
        f"denoise(parse_spec(DenoiseSpec, {dump(DenoiseSpec(denoised_dtype='same'))!r}), noisy, model, out, "
        f"{device}, memory_mb={GRANTED_MB})",
        "commit (pyramid)": "from ssdenoise.commit import commit\n"
        f"commit(noisy, [out / 'slabs' / '0-of-1.json'], 'denoised', out, {THREADS})",
        "score": "from ssdenoise.score import score\n"
        f"score(parse_spec(ScoreSpec, {dump(score)!r}), noisy, out / 'denoised.ome.zarr', Path('c.json'), "
        f"model, noisy, Path('scores.parquet'), {THREADS})",
    }
    peaks: dict[str, dict[str, float]] = {stage: {} for stage in stages}
    for name, planes in PLANES.items():
        place = folder / name.replace(" ", "-")
        place.mkdir()
        write_tiff(place / "v.tif", planes)
        for stage, code in stages.items():
            peaks[stage][name] = peak_mb(code, place)
        subprocess.run(["rm", "-r", str(place)], check=True)
    return pd.DataFrame(
        {"peak memory, MB": stage} | found | {"largest by smallest": max(found.values()) / min(found.values())}
        for stage, found in peaks.items()
    )
