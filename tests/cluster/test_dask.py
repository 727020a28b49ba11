"""The documented script: tiles of one `denoise` on Dask workers that are jobs of Slurm, each with a GPU of its own."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from tests.cluster.archive import RUN, archive
from tests.cluster.sandbox import Slurm
from tests.conftest import ROOT

pytestmark = pytest.mark.slurm

SHEET = "dataset\tnoisy\tpair\taxes\tmethods\tslabs\nc\tc.tif\tc2.tif\tZYX\tn2n\t1\n"
MODEL = f"results/{RUN}/c/measured/n2n/seed-0"
STORE = f"{MODEL}/denoised.ome.zarr"

#: What the script asks for, and what there is here; a worker that comes late would find no tile left.
CHANGES = {
    "cores=4": "cores=1",
    '"16 GB"': '"2 GB"',
    "jobs=8": "jobs=2",
    "04:00:00": "00:30:00",
    "wait_for_workers(1)": "wait_for_workers(2, timeout=120)",
    '"snakemake --profile': f'"snakemake {STORE}/zarr.json --profile',
    "mine.yaml": "config.yaml",
}


def script() -> str:
    """The script, for this cluster."""
    (text,) = re.findall(r"```python\n(.*?)```", (ROOT / "workflow" / "README.md").read_text(), re.DOTALL)
    for old, new in CHANGES.items():
        assert text.count(old) == 1, old
        text = text.replace(old, new)
    return str(text)


def test_workers_of_slurm_share_the_tiles(slurm: Slurm, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("dask_jobqueue")
    from distributed import Client, get_task_stream

    workflow = archive(tmp_path / "study")
    (workflow.folder / "datasets.tsv").write_text(SHEET)
    workflow.run(f"{STORE}/zarr.json")  # threads of one process
    expected = workflow.digests(RUN)
    for path in (workflow.folder / MODEL).glob("denoised.ome.zarr*"):
        shutil.rmtree(path)
    shutil.rmtree(workflow.folder / MODEL / "slabs")

    tiles: Counter[str] = Counter()
    gpus: dict[str, str] = {}
    run = subprocess.run

    def watched(command: Any, **options: Any) -> Any:
        if command[0] != "snakemake":
            return run(command, **options)
        with Client(options["env"]["DASK_SCHEDULER_ADDRESS"]) as client:
            with get_task_stream(client) as stream:
                done = run(command, **options)
            tiles.update(task["worker"] for task in stream.data if task["key"].startswith("_on_worker"))
            gpus.update(client.run(lambda: os.environ["CUDA_VISIBLE_DEVICES"]))
        return done

    monkeypatch.setattr(subprocess, "run", watched)
    monkeypatch.chdir(workflow.folder)
    for name, value in (slurm.environment() | workflow.environment()).items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("PATH", f"{Path(sys.executable).parent}:{slurm.environment()['PATH']}")
    exec(script(), {})

    assert workflow.digests(RUN) == expected
    record = json.loads((workflow.folder / MODEL / "slabs" / "0-of-1.json").read_text())
    assert record["provenance"]["device"] == "workers of a Dask scheduler"
    assert record["shards_kept"] == 0
    assert sorted(gpus.values()) == ["0", "1"]
    assert tiles.keys() == gpus.keys()
    assert tiles.total() == 8
    jobs = [job for job in slurm.jobs() if job["JobName"] == "dask-worker"]
    assert len(jobs) == 2
    assert {job["Partition"] for job in jobs} == {"gpu"}
