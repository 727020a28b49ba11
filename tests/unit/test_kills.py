"""Jobs killed at any moment: the next run ends with the same digest and keeps every shard that has its record.

`KILLS` in the environment says how many moments are tried of each stage.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from ssdenoise.config.specs import DenoiseSpec, IngestSpec, Storage, dump
from ssdenoise.store import Volume, records_of
from tests.conftest import make_store, scene
from tests.unit.test_denoise import make_model

KILLS = int(os.environ.get("KILLS", "4"))

#: 512 shards, and 160 more in the pyramid.
SHAPE, STORAGE = (1, 1, 4, 1024, 1024), Storage(chunk=(2, 32, 32), shard=(2, 64, 64))


@dataclass
class Job:
    """Code that makes a store in `folder`, and what has to be there before."""

    code: str
    store: str
    prepare: Callable[[Path], None] = lambda folder: None

    def start(self, folder: Path) -> subprocess.Popen[bytes]:
        head = f"from pathlib import Path\nfrom ssdenoise.config.specs import *\nfolder = Path({str(folder)!r})\n"
        return subprocess.Popen([sys.executable, "-c", head + self.code])

    def run(self, folder: Path) -> None:
        """Run it to its end."""
        assert self.start(folder).wait() == 0

    def kill(self, folder: Path, shards: int, seconds: float) -> None:
        """Kill it some time after it has written so many shards; how long it takes to begin is another each time."""
        process, before = self.start(folder), recorded(folder / self.store)
        while process.poll() is None and recorded(folder / self.store) < before + shards:
            time.sleep(0.001)
        time.sleep(seconds)
        process.kill()
        process.wait()


def recorded(store: Path) -> int:
    """How many shards have a record."""
    return len(list(records_of(store).glob("[0-9]*/[0-9]*.json")))


def written(store: Path) -> dict[str, int]:
    """Shards that have a record, and when their files were written."""
    found = {}
    for record in records_of(store).glob("[0-9]*/[0-9]*.json"):
        shard = store / record.parent.name / "c" / Path(*record.stem.split("."))
        found[str(shard)] = shard.stat().st_mtime_ns
    return found


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("inputs")
    noisy = np.random.default_rng(0).poisson(scene(SHAPE) / 20).astype(np.uint16)
    np.save(folder / "noisy.npy", noisy)
    make_model(folder, make_store(folder, "noisy", noisy, STORAGE), "gaussian", 2)
    return folder


def commit_of(inputs: Path) -> str:
    return (
        "from ssdenoise.commit import commit\n"
        f"commit(Path('{inputs}/noisy.ome.zarr'), [folder / 'slabs' / '0-of-1.json'], 'denoised', folder)\n"
    )


def ingest(inputs: Path) -> Job:
    spec = IngestSpec(name="v", source=f"{inputs}/noisy.npy", axes="TCZYX", voxel_size_um=None, storage=STORAGE)
    code = (
        "import ssdenoise.ingest as stage\nstage.BAND_BYTES = 2**20\n"
        f"stage.ingest(IngestSpec.model_validate_json({dump(spec)!r}), folder / 'v.ome.zarr')"
    )
    return Job(code, "v.ome.zarr")


def denoise(inputs: Path) -> Job:
    spec = dump(DenoiseSpec(denoised_dtype="same"))
    code = (
        "from ssdenoise import denoise as stage\nstage.TILE_VOXELS = 1\n"
        f"spec = DenoiseSpec.model_validate_json({spec!r})\n"
        f"stage.denoise(spec, Path('{inputs}/noisy.ome.zarr'), Path('{inputs}/model'), folder)\n"
    )
    return Job(code + commit_of(inputs), "denoised.ome.zarr")


def pyramid(inputs: Path) -> Job:
    """Begins with all shards of full resolution."""

    def prepare(folder: Path) -> None:
        if not (inputs / "denoised").exists():
            denoise(inputs).run(inputs / "denoised")
            for level in ("1", "2"):
                shutil.rmtree(inputs / "denoised" / "denoised.ome.zarr" / level)
                shutil.rmtree(inputs / "denoised" / "denoised.ome.zarr.shards" / level)
            (inputs / "denoised" / "denoised.ome.zarr" / "zarr.json").unlink()
        shutil.copytree(inputs / "denoised", folder)

    return Job(commit_of(inputs), "denoised.ome.zarr", prepare)


@pytest.mark.slow
@pytest.mark.parametrize("make", [ingest, denoise, pyramid])
def test_a_kill_at_any_moment_loses_no_finished_shard(
    make: Callable[[Path], Job], inputs: Path, tmp_path: Path
) -> None:
    job = make(inputs)
    job.prepare(tmp_path / "whole")
    before = recorded(tmp_path / "whole" / job.store)
    started = time.time()
    job.run(tmp_path / "whole")
    expected = Volume(tmp_path / "whole" / job.store).digest
    records = records_of(tmp_path / "whole" / job.store).glob("[0-9]*/[0-9]*.json")
    times = [wrote for record in records if (wrote := record.stat().st_mtime - started) > 0]
    # most of a job is its start: kills fall into the time in which it writes
    each, number = (max(times) - min(times)) / len(times), recorded(tmp_path / "whole" / job.store) - before
    rng, kept = np.random.default_rng(0), []
    for k in range(KILLS):
        folder = tmp_path / str(k)
        job.prepare(folder)
        job.kill(folder, int(rng.integers(number)), rng.uniform(0, 2 * each))
        done = written(folder / job.store)
        job.run(folder)
        assert Volume(folder / job.store).digest == expected
        after = written(folder / job.store)
        assert done.items() <= after.items(), "a finished shard was written again"
        kept.append(len(done))
        shutil.rmtree(folder)
    assert len(set(kept)) > 2, f"the kills were all before or after the work: {kept}"
