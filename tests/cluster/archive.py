"""An archive of five small acquisitions, one of which is damaged, and ways to run it with and without a cluster."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import tifffile
import yaml

from tests.cluster.sandbox import Slurm
from tests.conftest import scene
from tests.workflow.conftest import Workflow, make

RUN = "archive"
SHAPE = (8, 128, 128)
DAMAGED = "e"

SHEET = """\
dataset\tnoisy\tpair\taxes\tmethods\tslabs
a\ta.tif\t\tZYX\tgaussian\t3
b\tb.tif\t\tZYX\tgaussian\t3
c\tc.tif\tc2.tif\tZYX\tn2n\t3
d\td.tif\t\tZYX\tn2v\t3
e\te.tif\t\tZYX\tgaussian\t3
"""

CONFIG = {
    "run": RUN,
    "datasets": "datasets.tsv",
    "storage": {"chunk": [2, 32, 32], "shard": [4, 64, 64]},
    "methods": {
        "gaussian": {"name": "gaussian"},
        "n2n": {"name": "n2n", "steps": 60, "batch": 2, "patch": [4, 32, 32]},
        "n2v": {"name": "n2v", "steps": 600, "batch": 2, "patch": [4, 32, 32]},
    },
}

#: Words that stand in the package, and what takes their place in a project's copy: tiles are single shards, so that
#: there are some for each slab, and take their time; and the pretend GPUs compute on the processor.
EDITS = {
    "denoise/__init__.py": {"TILE_VOXELS = 2**24": "TILE_VOXELS = 1"},
    "denoise/crew.py": {
        "IN_FLIGHT = 3": "IN_FLIGHT = 1",
        "        clock = Clock()\n": "        clock = Clock()\n        __import__('time').sleep(2)\n",
    },
    "device.py": {"        if gpu == 0:\n": "        if gpu >= 0:\n"},
}


def archive(folder: Path) -> Workflow:
    """Write the acquisitions and a copy of the workflow."""
    workflow = make(folder)
    rng = np.random.default_rng(0)
    clean = scene(SHAPE) / 20
    for name in ("a", "b", "c", "c2", "d", "e"):
        tifffile.imwrite(folder / f"{name}.tif", rng.poisson(clean).astype(np.uint16))
    damaged = folder / f"{DAMAGED}.tif"
    damaged.write_bytes(damaged.read_bytes()[:-40_000])
    (folder / "datasets.tsv").write_text(SHEET)
    (folder / "config.yaml").write_text(yaml.safe_dump(CONFIG, sort_keys=False))
    for file, words in EDITS.items():
        path = folder / "ssdenoise" / file
        text = path.read_text()
        for old, new in words.items():
            assert text.count(old) == 1, f"{file}: {old!r}"
            text = text.replace(old, new)
        path.write_text(text)
    return workflow


def start(workflow: Workflow, slurm: Slurm, log: Path, *arguments: str) -> subprocess.Popen[bytes]:
    """Snakemake with the profile for Slurm, at the pace of a test."""
    profile = str(workflow.folder / "workflow" / "profiles" / "slurm")
    pace = ["--slurm-init-seconds-before-status-checks", "2", "--latency-wait", "10"]
    site = ["--slurm-array-jobs", "denoise", "--slurm-status-command", "squeue"]
    options = [
        *arguments,
        "--configfile",
        "config.yaml",
        "--profile",
        profile,
        "--set-threads",
        "train=1",
        "denoise=1",
        *pace,
        *site,
    ]
    environment = workflow.environment()
    cluster = slurm.environment()
    environment |= {"SLURM_CONF": cluster["SLURM_CONF"], "PATH": f"{Path(sys.executable).parent}:{cluster['PATH']}"}
    with log.open("wb") as file:
        return subprocess.Popen(
            [sys.executable, "-m", "snakemake", *options],
            cwd=workflow.folder,
            env=environment,
            stdout=file,
            stderr=subprocess.STDOUT,
        )
