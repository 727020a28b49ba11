"""A training whose time is up: Slurm ends it, Snakemake submits it again, and it goes on where it was."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.cluster.archive import RUN, archive, start
from tests.cluster.sandbox import Slurm

pytestmark = pytest.mark.slurm

MODEL = f"results/{RUN}/d/measured/n2v/seed-0"
TARGET = f"{MODEL}/model.safetensors"

#: Too few for a checkpoint but for that of a training which is told to end.
STEPS = 32

#: Seconds added to each, so that they take longer than the minute which the first job gets; the second gets two.
SECONDS = 3

LONGEST = 600


def test_a_training_goes_on_when_its_time_was_up(slurm: Slurm, tmp_path: Path) -> None:
    workflow, log = archive(tmp_path / "study"), tmp_path / "snakemake.log"
    workflow.configure(methods={"n2v": {"name": "n2v", "steps": STEPS, "batch": 2, "patch": [4, 32, 32]}})
    (workflow.folder / "datasets.tsv").write_text("dataset\tnoisy\taxes\nd\td.tif\tZYX\n")
    workflow.run(TARGET)
    expected = (workflow.folder / TARGET).read_bytes()
    for name, old, new in (
        (
            "workflow/profiles/slurm/config.yaml",
            "  train:\n    gpu: 1\n",
            "  train:\n    gpu: 1\n    runtime: attempt\n",
        ),
        (
            "ssdenoise/train/loop.py",
            "            losses.append(loss.item())\n",
            f"            losses.append(loss.item())\n            __import__('time').sleep({SECONDS})\n",
        ),
    ):
        path = workflow.folder / name
        assert path.read_text().count(old) == 1, name
        path.write_text(path.read_text().replace(old, new))

    process = start(workflow, slurm, log, TARGET)
    try:
        code = process.wait(LONGEST)
    finally:
        process.kill()
    mine = [job for job in slurm.jobs() if job["WorkDir"] == str(workflow.folder)]
    states = [job["JobState"] for job in mine]
    assert code == 0, log.read_text()
    assert states[-1] == "COMPLETED"
    assert set(states[:-1]) == {"TIMEOUT"}
    told = (workflow.folder / MODEL / "logs" / "train.log").read_text()
    assert re.search(rf"resuming at step [1-9]\d* of {STEPS}", told), told
    assert (workflow.folder / TARGET).read_bytes() == expected
