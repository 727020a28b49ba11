"""`python -m tests.benchmarks.simulation`: a simulated run beside a real one, on a Slurm on this machine.

Two acquisitions of the archive of `tests/cluster/`, whose inference sleeps instead of computing, run on one pretend
GPU. From that run's benchmarks, and from how long Slurm held its jobs and their GPU beyond them, it is simulated, and a
run on two GPUs, which is then done. Jobs share the processors of this machine, however many Slurm hands out: what they
wait for one another in the first run is taken to be the same in the second. Asserts nothing.
"""

from __future__ import annotations

import datetime
import signal
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path

import pandas as pd
import yaml

from ssdenoise.config.read import read_project
from ssdenoise.device import Device
from ssdenoise.plan.durations import Durations, Run
from ssdenoise.plan.estimate import Estimate
from ssdenoise.plan.jobs import dry_run
from ssdenoise.plan.profile import Profile
from ssdenoise.plan.rates import Rates
from ssdenoise.plan.schedule import Simulated, machine_of, simulated_jobs
from ssdenoise.plan.simulation import critical_path, simulate
from tests.cluster.archive import CONFIG, RUN, SHEET, archive, start
from tests.cluster.sandbox import NODES, Slurm, missing
from tests.workflow.conftest import Workflow

#: CPUs that each node advertises, and seconds between looks, as `tests.cluster.archive.start` sets them.
CPUS, LOOKS = 2, 2.0

#: Acquisitions of the archive: one filtered, one with a network.
DATASETS = ("a", "d")

#: Seconds that a run may take.
LONGEST = 1500


@dataclass(frozen=True)
class Real:
    """A run on the cluster, in seconds.

    Attributes
    ----------
    makespan : float
        From the first submission.
    held : float
        For which Slurm ran a job, on average.
    gap : float
        Until Slurm gives a GPU that is wanted to the next job, on average.
    """

    makespan: float
    held: float
    gap: float
    jobs: int


def project(folder: Path) -> Workflow:
    """The archive, of which two acquisitions are left, with a short training."""
    workflow = archive(folder)
    head, *rows = SHEET.splitlines(keepends=True)
    (folder / "datasets.tsv").write_text("".join([head, *(row for row in rows if row[0] in DATASETS)]))
    methods = {name: dict(method) for name, method in CONFIG["methods"].items()}  # type: ignore[attr-defined]
    methods["n2v"]["steps"] = 60
    (folder / "config.yaml").write_text(yaml.safe_dump(CONFIG | {"methods": methods}, sort_keys=False))
    return workflow


def run(workflow: Workflow, gpus: int) -> Real:
    """Run a project on so many pretend GPUs."""
    with tempfile.TemporaryDirectory(prefix="slurm-") as folder:
        slurm = Slurm(Path(folder), cpus=CPUS, gpus=gpus)
        try:
            slurm.start()
            log = workflow.folder / "snakemake.log"
            process = start(workflow, slurm, log)
            try:
                code = process.wait(LONGEST)
            finally:
                process.kill()
            end, jobs = time.time(), slurm.jobs()
        finally:
            slurm.stop()
    assert code == 0, log.read_text()[-3000:]
    submits, starts, ends = ([_seconds(job[f"{what}Time"]) for job in jobs] for what in ("Submit", "Start", "End"))
    on_gpu = sorted((starts[i], ends[i], submits[i]) for i, job in enumerate(jobs) if job["Partition"] == "gpu")
    gaps = [then[0] - now[1] for now, then in pairwise(on_gpu) if then[2] < now[1] <= then[0]]
    held = [last - first for first, last in zip(starts, ends, strict=True)]
    return Real(end - min(submits), statistics.mean(held), statistics.mean(gaps or [0.0]), len(jobs))


def _seconds(moment: str) -> float:
    return datetime.datetime.fromisoformat(moment).timestamp()


def simulation(folder: Path) -> Iterator[pd.DataFrame]:
    """Makespans of simulated and of real runs on one and two GPUs, all by durations of the real one on one."""
    first, second = project(folder / "first"), project(folder / "second")
    profile = Profile.read(second.folder / "workflow" / "profiles" / "slurm")
    planned = [
        replace(job, threads=1)  # as `start` sets them
        for job in dry_run(Path("config.yaml"), Path("workflow/profiles/slurm"), second.folder, local=False)
    ]
    real = run(first, 1)
    like = first.folder / "results" / RUN
    worked = statistics.mean(seconds for points in Run(like).points.values() for _, seconds in points)
    estimate = Estimate(read_project(second.folder / "config.yaml", (), second.folder), Rates(Device.granted(0, 1)))
    durations = Durations(estimate, str(like), networks=True)
    jobs = simulated_jobs(planned, [durations.of(job, estimate.of(job)) for job in planned])
    cpus = CPUS * sum(not gres for gres in NODES.values())
    simulated = Simulated((1, 2), cores=cpus, start_seconds=real.held - worked + real.gap)
    machine = machine_of(replace(profile, looks=LOOKS), simulated)
    for gpus in simulated.gpus:
        outcome = simulate(jobs, replace(machine, gpus=gpus))
        real = real if gpus == 1 else run(second, gpus)
        yield pd.DataFrame(
            {
                "GPUs": [gpus],
                "jobs": real.jobs,
                "simulated, s": outcome.makespan,
                "real, s": real.makespan,
                "ratio": outcome.makespan / real.makespan,
                "GPU utilisation": outcome.gpu_share,
                "work of a job, s": worked,
                "start of a job, s": machine.start,
                "held of a job, s": real.held,
                "gap, s": real.gap,
                "critical path, s": sum(jobs[i].work + machine.start for i in critical_path(jobs, machine.start)),
            }
        )


if __name__ == "__main__":
    if lacks := missing():
        sys.exit(f"no {', '.join(lacks)}: apt-get install slurmctld slurmd slurm-client munge slurm-wlm-basic-plugins")
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # so that the cluster is stopped
    with tempfile.TemporaryDirectory() as where:
        for table in simulation(Path(where)):
            print(table.to_markdown(index=False, floatfmt=".3g"), flush=True)
