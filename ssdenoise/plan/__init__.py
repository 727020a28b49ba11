"""Plan: what a run will take before anything runs: jobs, hours, storage, memory, and what does not fit the profile."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from ssdenoise.config.read import read_project
from ssdenoise.device import Device
from ssdenoise.plan.durations import Durations
from ssdenoise.plan.estimate import Estimate, Takes
from ssdenoise.plan.jobs import PlannedJob, dry_run
from ssdenoise.plan.partitions import ask_sinfo, impossible
from ssdenoise.plan.profile import Profile
from ssdenoise.plan.rates import Rates
from ssdenoise.plan.schedule import Simulated, machine_of, schedule, simulated_jobs
from ssdenoise.plan.volumes import volumes

#: Of what a job is granted that is asked for when its input is there.
ASKED = "as needed"

#: What lines begin with that tell of jobs that cannot run as they are.
UNFIT = ("does not fit", "can never run")


@dataclass(frozen=True)
class Plan:
    """What a run will take, as text, and whether its jobs can run as the profile has them."""

    sections: tuple[str, ...]
    fits: bool

    def __str__(self) -> str:
        return "\n\n".join(self.sections) + "\n"


def plan(
    configfile: Path,
    profile: Path,
    device: Device,
    *,
    config: Sequence[str] = (),
    rates: Path | None = None,
    elsewhere: str | None = None,
    simulated: Simulated | None = None,
    root: Path = Path(),
) -> Plan:
    """Describe what a run will take.

    Parameters
    ----------
    configfile : Path
        The configuration.
    profile : Path
        Folder of the Snakemake profile.
    device : Device
        What the rates of training and inference are measured on.
    config : sequence of str
        `key=value`, as for Snakemake's `--config`: what takes the place of keys of the configuration.
    rates : Path, optional
        JSON file of rates that were measured before, of each device by itself; those that it lacks are measured and
        written to it.
    elsewhere : str, optional
        Part of the name of another device in that file, which the jobs are for: no rates are measured.
    simulated : Simulated, optional
        What of the run to simulate.
    root : Path
        Folder of the project.

    Returns
    -------
    Plan
        Tables of volumes, of jobs and of what was simulated, and a line for each thing that does not fit.

    Raises
    ------
    SsdenoiseError
        If the configuration is wrong, or a source cannot be read.
    """
    project = read_project(root / configfile, config, root)
    settings = Profile.read(root / profile)
    jobs = dry_run(configfile, profile, root, config, local=settings.local)
    estimate = Estimate(project, Rates(device, rates, elsewhere))
    found = [estimate.of(job) for job in jobs]
    misfits = [*_misfits(jobs, found), *_partitions(jobs, found, settings)]
    sections = [
        volumes(project, estimate.layouts).fillna("").to_markdown(index=False),
        _jobs(jobs, found).to_markdown(index=False, floatfmt=".3g", missingval="")
        if jobs
        else "Nothing is left to be done.",
        _totals(jobs, found, estimate.rates.name),
        *_other_device(jobs, found, estimate.rates.name),
        *misfits,
    ]
    if simulated and jobs:
        durations = Durations(estimate, simulated.like, networks=elsewhere is None)
        seconds = [durations.of(job, takes) for job, takes in zip(jobs, found, strict=True)]
        machine = machine_of(settings, simulated)
        sections += [str(durations), *schedule(simulated_jobs(jobs, seconds), machine, simulated)]
    return Plan(tuple(sections), not any(line.startswith(UNFIT) for line in misfits))


def _partitions(jobs: Sequence[PlannedJob], found: Sequence[Takes], profile: Profile) -> list[str]:
    """A line for each thing that no node of a Slurm cluster can run, or that this was not checked."""
    if profile.executor != "slurm" or not jobs:
        return []
    nodes = ask_sinfo()
    if isinstance(nodes, str):
        return [f"not checked: whether the cluster's partitions can run these jobs, as {nodes}"]
    return impossible(jobs, [takes.asked for takes in found], profile, nodes)


def _jobs(jobs: Sequence[PlannedJob], found: Sequence[Takes]) -> pd.DataFrame:
    """Each rule: jobs, hours of all and of the longest, and what they are granted and need."""
    by_rule: dict[str, list[tuple[PlannedJob, Takes]]] = defaultdict(list)
    for job, need in zip(jobs, found, strict=True):
        by_rule[job.rule].append((job, need))
    return pd.DataFrame(
        {
            "rule": rule,
            "jobs": len(of_rule),
            "time of all": _duration(math.fsum(need.hours for _, need in of_rule)),
            "of the longest": _duration(max(need.hours for _, need in of_rule)),
            "granted": _duration(max(job.granted("runtime") for job, _ in of_rule) / 60),
            "threads": max(job.threads for job, _ in of_rule),
            "GPUs": f"{max(job.gpus for job, _ in of_rule)}",
            "MB granted": f"{max(job.granted('mem_mb') for job, _ in of_rule):.0f}".replace("inf", ASKED),
            "MB needed": f"{max(need.memory_mb for _, need in of_rule):.0f}".removeprefix("0"),
        }
        for rule, of_rule in by_rule.items()
    )


def _duration(hours: float) -> str:
    """For people; nothing if it is not known."""
    if hours == math.inf:
        return ASKED
    for unit, length in (("h", 1.0), ("min", 1 / 60), ("s", 1 / 3600)):
        if hours >= length:
            return f"{hours / length:.3g} {unit}"
    return "" if hours == 0 else "< 1 s"


def _totals(jobs: Sequence[PlannedJob], found: Sequence[Takes], device: str) -> str:
    hours = {
        kind: math.fsum(need.hours for job, need in zip(jobs, found, strict=True) if (job.gpus > 0) == on_gpu)
        for kind, on_gpu in (("GPUs", True), ("processors", False))
    }
    told = " and ".join(f"{_duration(value)} of {kind}" for kind, value in hours.items() if value)
    told = f"{told}, by the rates of {device}" if told else "none"
    return (
        f"{len(jobs)} jobs; training and inference: {told}. Sizes are before compression, which halves most microscopy."
    )


def _other_device(jobs: Sequence[PlannedJob], found: Sequence[Takes], device: str) -> list[str]:
    """A line if the rates are those of processors and the jobs get GPUs, or the other way round."""
    timed = [(job.gpus > 0, need.kind == "cuda") for job, need in zip(jobs, found, strict=True) if need.hours]
    if all(granted == measured for granted, measured in timed):
        return []
    rates, granted = ("a GPU's", "none") if timed[0][1] else ("a processor's, not a GPU's", "GPUs")
    return [
        f"beware: these rates, of {device}, are {rates}, and the profile grants {granted}; plan on a machine like that "
        "of the jobs (`--gpu 1` where it has a GPU), or by rates that were kept there (`--rates FILE --device NAME`)"
    ]


def _misfits(jobs: Sequence[PlannedJob], found: Sequence[Takes]) -> list[str]:
    """A line for each rule and dataset whose jobs need more than they are granted, or have nothing to do."""
    lines = {}
    for job, need in zip(jobs, found, strict=True):
        what = job.name
        if need.memory_mb > job.granted("mem_mb"):
            lines[what, "memory"] = (
                f"does not fit: {what} needs about {need.memory_mb:.0f} MB, the profile grants "
                f"{job.granted('mem_mb'):.0f} (`set-resources: {job.rule}: mem_mb=`)"
            )
        if job.rule == "denoise" and 0 < need.tiles < int(job.wildcards["slabs"]):
            lines[what, "slabs"] = (
                f"of no use: {what} has tiles for {need.tiles} of its {job.wildcards['slabs']} slabs, the others do "
                f"nothing (set `slabs` to {need.tiles})"
            )
        if need.hours * 60 > job.granted("runtime"):
            slabs = math.ceil(need.hours * 60 / job.granted("runtime")) * int(job.wildcards.get("slabs", 1))
            more = (
                f"set `slabs` to {slabs} or more" if job.rule == "denoise" else f"`set-resources: {job.rule}: runtime=`"
            )
            lines[what, "time"] = (
                f"does not fit: {what} takes about {need.hours:.3g} hours, the profile grants "
                f"{job.granted('runtime') / 60:.3g} ({more})"
            )
    return list(lines.values())
