"""An archive on a real Slurm: partitions, arrays, GPUs that nobody shares, cancelled jobs, and a node that is lost."""

from __future__ import annotations

import re
import threading
from collections import defaultdict
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path

import pytest

from ssdenoise.run import Worker
from tests.cluster.archive import DAMAGED, RUN, archive, start
from tests.cluster.sandbox import Slurm
from tests.workflow.conftest import Workflow

pytestmark = pytest.mark.slurm

#: Seconds that the run may take on two busy processors.
LONGEST = 1500


@dataclass
class Watch:
    """What is seen of the cluster while it runs: which job has which GPU, and what was done to whom.

    Attributes
    ----------
    gpus : dict
        By moment, the jobs that hold each GPU.
    cancelled : dict
        Rule, and the job that was cancelled.
    """

    slurm: Slurm
    workflow: Workflow
    gpus: list[dict[str, list[str]]] = field(default_factory=list)
    cancelled: dict[str, str] = field(default_factory=dict)
    down: bool = False

    def look(self) -> None:
        """Look once, and do what is due."""
        running = [job for job in self.slurm.jobs() if job["JobState"] == "RUNNING"]
        held: dict[str, list[str]] = defaultdict(list)
        for job in running:
            for index in re.findall(r"IDX:([\d,-]+)", job.get("GRES", "")):
                held[index].append(job["JobId"])
        self.gpus.append(held)
        folder = self.workflow.folder / "results" / RUN
        begun = {"train": "d/measured/n2v/seed-0/logs/train.log", "denoise": "*/*/*/*/logs/denoise-*.log"}
        for rule, logs in begun.items():
            at_work = [its for log in folder.glob(logs) if _lines(log) > 2 and (its := _job_of(log))]
            if at_work and rule not in self.cancelled:
                self.slurm.run("scancel", at_work[0])
                self.cancelled[rule] = at_work[0]
        on_nodes = [job["NodeList"] for job in running if job.get("NodeList", "").startswith("cpu")]
        if on_nodes and len(self.cancelled) == 2 and not self.down:
            self.slurm.run("scontrol", "update", f"nodename={on_nodes[0]}", "state=down", "reason=test")
            self.down = True


def _lines(log: Path) -> int:
    return len(log.read_text().splitlines())


def _job_of(log: Path) -> str | None:
    """The job of Slurm whose process writes a log, if it is at work; a task of an array by the array's number."""
    worker = Worker.named_in(log)
    if worker is None or not worker.alive:
        return None
    try:
        words = Path(f"/proc/{worker.process}/environ").read_text().split("\0")
    except OSError:
        return None
    known = dict(word.partition("=")[::2] for word in words)
    if "SLURM_ARRAY_TASK_ID" in known:
        return f"{known['SLURM_ARRAY_JOB_ID']}_{known['SLURM_ARRAY_TASK_ID']}"
    return known.get("SLURM_JOB_ID")


@dataclass
class Ran:
    """The archive after its run on the cluster, and without one."""

    watch: Watch
    workflow: Workflow
    local: Workflow
    code: int
    log: str
    jobs: list[dict[str, str]]


@pytest.fixture(scope="module")
def ran(slurm: Slurm, tmp_path_factory: pytest.TempPathFactory) -> Ran:
    folder = tmp_path_factory.mktemp("archive")
    local = archive(folder / "local")
    local.run("--keep-going", check=False)
    workflow, log = archive(folder / "cluster"), folder / "snakemake.log"
    watch, ended = Watch(slurm, workflow), threading.Event()
    process = start(workflow, slurm, log)

    def look() -> None:
        while not ended.wait(0.5):
            watch.look()

    thread = threading.Thread(target=look)
    thread.start()
    try:
        code = process.wait(LONGEST)
    finally:
        process.kill()
        ended.set()
        thread.join()
    return Ran(watch, workflow, local, code, log.read_text(), slurm.jobs())


def test_all_but_the_damaged_one_are_denoised_to_the_bits_of_a_run_without_slurm(ran: Ran) -> None:
    found = ran.workflow.digests(RUN)
    assert {path.split("/")[0] for path in found if "denoised" in path} == set("abcd"), ran.log
    assert found == ran.local.digests(RUN)
    assert (ran.workflow.folder / "results" / RUN / "d/measured/n2v/seed-0/scores.parquet").exists()


def test_the_damaged_one_is_told_with_its_reason(ran: Ran) -> None:
    assert ran.code == 1
    page = (ran.workflow.folder / "results" / RUN / "report.html").read_text()
    assert f"{DAMAGED}.tif" in page.partition('<section id="missing">')[2].partition("</section>")[0]
    assert ran.local.run("--keep-going", check=False).returncode == 1


def test_jobs_run_where_they_belong_and_slabs_as_arrays(ran: Ran) -> None:
    by_rule = defaultdict(list)
    for job in ran.jobs:
        by_rule[re.match(r"rule_([a-z_]+?)(_wildcards|$)", job["Comment"])[1]].append(job)  # type: ignore[index]
    assert {job["Partition"] for rule in ("train", "denoise") for job in by_rule[rule]} == {"gpu"}
    assert {job["Partition"] for rule in ("ingest_noisy", "calibrate", "score") for job in by_rule[rule]} == {"cpu"}
    assert all("gres:gpu:1" in job["TresPerJob"] for job in by_rule["train"])
    arrays = defaultdict(set)
    for job in by_rule["denoise"]:
        if "ArrayTaskId" in job:
            arrays[job["ArrayJobId"]].add(job["ArrayTaskId"])
    assert max(map(len, arrays.values()), default=0) >= 3


def test_no_two_jobs_have_one_gpu(ran: Ran) -> None:
    assert all(len(jobs) == 1 for held in ran.watch.gpus for jobs in held.values())
    assert max(len(held) for held in ran.watch.gpus) == 2  # both are in use
    # nor between two looks, by the records of when jobs began and ended; which GPU one had, they tell while it runs
    spans = {job["JobId"]: (job["StartTime"], job["EndTime"]) for job in ran.jobs}
    by_gpu = defaultdict(set)
    for held in ran.watch.gpus:
        for index, jobs in held.items():
            by_gpu[index].update(spans[job] for job in jobs)
    assert by_gpu.keys() == {"0", "1"}
    for of_gpu in by_gpu.values():
        assert all(end <= start for (_, end), (start, _) in pairwise(sorted(of_gpu)))


def test_a_cancelled_training_goes_on_where_it_was(ran: Ran) -> None:
    assert set(ran.watch.cancelled) == {"train", "denoise"}
    told = (ran.workflow.folder / "results" / RUN / "d/measured/n2v/seed-0/logs/train.log").read_text()
    assert "resuming at step" in told
    states = {job["JobId"]: job["JobState"] for job in ran.jobs}
    states |= {f"{job['ArrayJobId']}_{job['ArrayTaskId']}": job["JobState"] for job in ran.jobs if "ArrayTaskId" in job}
    assert {states[job] for job in ran.watch.cancelled.values()} == {"CANCELLED"}


def test_a_node_that_goes_down_does_not_end_the_run(ran: Ran) -> None:
    assert ran.watch.down
    # Slurm itself puts the jobs of such a node into its queue again
    assert any(job["JobState"] == "NODE_FAIL" or job.get("Restarts", "0") != "0" for job in ran.jobs)
