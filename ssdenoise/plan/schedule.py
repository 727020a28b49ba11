"""When the jobs of a plan would run, on how many GPUs: the simulation of a run, as text."""

from __future__ import annotations

import math
import os
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace

import pandas as pd

from ssdenoise.plan.jobs import PlannedJob
from ssdenoise.plan.profile import Profile
from ssdenoise.plan.simulation import Job, Machine, critical_path, simulate

#: Seconds for which a job on another machine holds its share before it works: its Snakemake starts twice, one within
#: the other, each of which takes some 3 s of a processor.
START_SECONDS = 6.0


@dataclass(frozen=True)
class Simulated:
    """What of a run is to be simulated.

    Attributes
    ----------
    gpus : tuple of int
        Numbers of GPUs.
    like : str, optional
        Name or folder of a finished run, whose jobs tell how long these take.
    cores : int, optional
        Of all machines; on a cluster, of those whose jobs have no GPU. The default is the profile's `cores` or those of
        this machine; on a cluster, no limit.
    start_seconds : float, optional
        For which each job holds its share before it works. The default is 0 where jobs run on this machine, else
        `START_SECONDS`.
    failing : float
        Share of the jobs that fail half-way and are repeated.
    """

    gpus: tuple[int, ...]
    like: str | None = None
    cores: int | None = None
    start_seconds: float | None = None
    failing: float = 0.0


def machine_of(profile: Profile, simulated: Simulated) -> Machine:
    """What jobs share, but for the number of GPUs."""
    start, cores = simulated.start_seconds, simulated.cores
    if profile.local:
        most = cores or min(profile.cores, float(len(os.sched_getaffinity(0))))
        return Machine(0, most, start=start or 0.0)
    return Machine(
        0,
        cores or math.inf,
        apart=True,
        submitted=profile.jobs,
        start=START_SECONDS if start is None else start,
        looks=profile.looks,
        growth=profile.growth,
    )


def simulated_jobs(jobs: Sequence[PlannedJob], seconds: Sequence[float]) -> list[Job]:
    """Planned jobs as the simulation takes them: each after those that write what it reads."""
    writer = {path: index for index, job in enumerate(jobs) for path in job.outputs}
    return [
        Job(
            job.rule,
            work,
            job.gpus,
            job.threads,
            tuple(dict.fromkeys(writer[path] for path in job.inputs if path in writer)),
        )
        for job, work in zip(jobs, seconds, strict=True)
    ]


def schedule(jobs: Sequence[Job], machine: Machine, simulated: Simulated) -> list[str]:
    """A table of numbers of GPUs, one of the critical path, and what both say."""
    rows = []
    for gpus in simulated.gpus:
        outcome = simulate(jobs, replace(machine, gpus=gpus), simulated.failing)
        rows.append(
            {
                "GPUs": str(gpus),
                "makespan": clock(outcome.makespan),
                "GPU utilisation": f"{outcome.gpu_share:.0%}",
                "core utilisation": f"{outcome.core_share:.0%}" if machine.cores < math.inf else "",
                "jobs repeated": str(outcome.repeated),
            }
        )
    path = [jobs[index] for index in critical_path(jobs, machine.start)]
    seconds: dict[str, float] = defaultdict(float)
    for job in path:
        seconds[job.rule] += machine.start + job.work
    counts = Counter(job.rule for job in path)
    of_path = [{"critical path": rule, "jobs": counts[rule], "time": clock(seconds[rule])} for rule in seconds]
    return [
        pd.DataFrame(rows).to_markdown(index=False, disable_numparse=True),
        _shares(machine),
        pd.DataFrame(of_path).to_markdown(index=False, disable_numparse=True),
        _bound(jobs, math.fsum(seconds.values()), machine, max(simulated.gpus)),
    ]


def _shares(machine: Machine) -> str:
    """What was assumed of the machines."""
    cores = "as many cores as jobs ask for" if machine.cores == math.inf else f"{machine.cores:.0f} cores"
    apart = ", and of their own to jobs with a GPU" if machine.apart else ""
    looks = f"; ends are seen by looks {machine.looks:g} s apart" if machine.looks else ""
    longer = f", {machine.growth:g} s more after each that sees none" if machine.growth else ""
    most = "" if machine.submitted == math.inf else f"; {machine.submitted:.0f} jobs are submitted at once"
    start = f"each job starts for {machine.start:g} s{looks}{longer}{most}"
    return f"There are {cores}{apart}; {start}. Memory is not simulated."


def _bound(jobs: Sequence[Job], longest: float, machine: Machine, most_gpus: int) -> str:
    """What no number of GPUs betters, and how many are worth it."""
    work = math.fsum(job.gpus * (machine.start + job.work) for job in jobs)
    bound = f"No number of GPUs makes it shorter than {clock(longest)}, the chain of jobs that wait for one another."
    if not work:
        return f"{bound} No job asks for a GPU: their number changes nothing."
    enough = math.ceil(work / longest)
    lines = [f"{bound} Jobs hold GPUs for {clock(work)} together: beyond {enough}, more of them gain little."]
    if machine.submitted < most_gpus:
        lines.append(
            f"beware: `jobs: {machine.submitted:.0f}` of the profile submits fewer jobs than {most_gpus} GPUs could run"
        )
    return "\n".join(lines)


def clock(seconds: float) -> str:
    """Three digits for people."""
    for unit, length in (("d", 86400.0), ("h", 3600.0), ("min", 60.0)):
        if seconds >= 1.5 * length:
            return f"{seconds / length:.3g} {unit}"
    return f"{seconds:.3g} s"
