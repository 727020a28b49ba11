"""Plans on a machine that submits: what no node of a real Slurm can run is told, and Slurm says so, too."""

from __future__ import annotations

import subprocess
import sys
from contextlib import nullcontext
from pathlib import Path

import pytest
import yaml

from ssdenoise.plan.jobs import PlannedJob
from ssdenoise.plan.partitions import impossible, parsed
from ssdenoise.plan.profile import Profile
from tests.cluster.archive import archive
from tests.cluster.sandbox import Slurm
from tests.workflow.conftest import Workflow

pytestmark = pytest.mark.slurm

IMPOSSIBLE = {
    "train": {"mem_mb": 64000},
    "denoise": {"gpu": 3},
    "score": {"slurm_partition": "nowhere"},
    "figures": {"runtime": 500},
}


def planned(workflow: Workflow, slurm: Slurm, profile: str) -> subprocess.CompletedProcess[str]:
    environment = workflow.environment()
    cluster = slurm.environment()
    environment |= {"SLURM_CONF": cluster["SLURM_CONF"], "PATH": f"{Path(sys.executable).parent}:{cluster['PATH']}"}
    command = [sys.executable, "-m", "ssdenoise", "plan", "--configfile", "config.yaml", "--profile", profile]
    return subprocess.run(command, cwd=workflow.folder, env=environment, capture_output=True, text=True)


def test_a_profile_that_the_partitions_cannot_serve_is_told(slurm: Slurm, tmp_path: Path) -> None:
    workflow = archive(tmp_path / "archive")
    (workflow.folder / "e.tif").write_bytes((workflow.folder / "a.tif").read_bytes())  # the damaged one
    plan = planned(workflow, slurm, "workflow/profiles/slurm")
    assert plan.returncode == 0, plan.stdout + plan.stderr
    assert "can never run" not in plan.stdout
    assert "not checked" not in plan.stdout
    folder = workflow.folder / "workflow" / "profiles" / "impossible"
    profile = yaml.safe_load((folder.parent / "slurm" / "config.yaml").read_text())
    given = profile["set-resources"]
    profile["set-resources"] = given | {rule: given.get(rule, {}) | more for rule, more in IMPOSSIBLE.items()}
    folder.mkdir()
    (folder / "config.yaml").write_text(yaml.safe_dump(profile))
    plan = planned(workflow, slurm, "workflow/profiles/impossible")
    assert plan.returncode == 1, plan.stdout + plan.stderr
    lines = [line for line in plan.stdout.splitlines() if line.startswith("can never run: ")]
    for told in (
        "train of c by n2n asks for 64000 MB, and a node of partition gpu with such GPUs has at most 16000 (`set-",
        "denoise of c by n2n asks for 3 GPUs, and no node of partition gpu has more than 2 (its kinds: a100) (`set-",
        "score of c by n2n goes to partition nowhere, and the cluster has cpu, gpu (`set-resources: score: slurm_p",
        "figures of c asks for 500 minutes, and partition cpu grants at most 120 (`set-resources: figures: runtime",
    ):
        assert [line for line in lines if line.startswith(f"can never run: {told}")], plan.stdout
    assert len(lines) == 4 * 5  # five datasets


@pytest.mark.parametrize(
    ("resource", "largest"),
    [("mem_mb", 16000), ("threads", 8), ("runtime", 120), ("gpu", 2)],
)
def test_slurm_refuses_what_is_told_and_nothing_else(slurm: Slurm, resource: str, largest: int) -> None:
    nodes = parsed(slurm.run("sinfo", "--noheader", "--exact", "--format", "%P|%a|%l|%c|%m|%G|%T"))
    fixed = frozenset({("train", "mem_mb"), ("train", "runtime")})
    profile = Profile("slurm", 1, 200, 1, 40, 10, fixed)
    for amount, fits in ((largest, True), (largest + 1, False)):
        given = {"mem_mb": 100, "threads": 1, "runtime": 5, "gpu": 1} | {resource: amount}
        resources = {"slurm_partition": "gpu"} | {name: str(value) for name, value in given.items()}
        job = PlannedJob("train", {}, given["threads"], resources)
        assert (impossible([job], [None], profile, nodes) == []) == fits
        asked = ["--mem={mem_mb}", "--cpus-per-task={threads}", "--time={runtime}", "--gpus={gpu}"]
        options = ["--partition=gpu", "--ntasks=1", "--nodes=1", *(one.format(**given) for one in asked)]
        with nullcontext() if fits else pytest.raises(RuntimeError, match="allocation failure"):
            slurm.run("sbatch", "--test-only", *options, "--wrap=true")
