"""What no node of a Slurm cluster's partitions could ever run, told before it is submitted and waits for ever."""

from __future__ import annotations

import math
import shutil
import subprocess
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from ssdenoise.needs import SNAKEMAKE_MB, Need, gpus_of
from ssdenoise.plan.jobs import PlannedJob
from ssdenoise.plan.profile import Profile

#: Partition (the default one's name ends in `*`), its state, its limit of time; CPUs, MB, GPUs and state of nodes that
#: are alike: these columns are as old as `sinfo`, while the fields of its JSON change with its plugins.
SINFO = ("sinfo", "--noheader", "--exact", "--format", "%P|%a|%l|%c|%m|%G|%T")

#: States of nodes that run nothing, whatever flag follows; and seconds until `sinfo` has to answer.
AWAY, PATIENCE = ("down", "drained", "fail", "unknown"), 60


@dataclass(frozen=True)
class Nodes:
    """Nodes of a partition that are alike.

    Attributes
    ----------
    partition : str
    default : bool
        Whether jobs that name no partition go there.
    up : bool
        Whether partition and nodes are.
    minutes : float
        That the partition grants a job at most.
    threads, memory_mb : float
        Of each node.
    gpus : tuple of (str, int)
        Kind of GPU, empty where it is not told, and how many each node has.
    """

    partition: str
    default: bool
    up: bool
    minutes: float
    threads: float
    memory_mb: float
    gpus: tuple[tuple[str, int], ...]

    def gpus_of(self, kind: str) -> float:
        """How many GPUs of a kind, or of any, a node has."""
        return sum(number for name, number in self.gpus if kind in ("", name))


@dataclass(frozen=True)
class Asked:
    """What a job asks Slurm for, at one of its attempts."""

    attempt: int
    minutes: float
    threads: float
    memory_mb: float
    gpus: float
    kind: str


def ask_sinfo() -> list[Nodes] | str:
    """The cluster's nodes by partition, or why they are not known."""
    if shutil.which(SINFO[0]) is None:
        return "there is no `sinfo` here; plan on a machine that submits"
    try:
        done = subprocess.run(SINFO, capture_output=True, text=True, timeout=PATIENCE)
    except subprocess.TimeoutExpired:
        return f"`sinfo` did not answer within {PATIENCE} s"
    if done.returncode:
        *_, last = ["nothing", *done.stderr.strip().splitlines()]
        return f"`sinfo` says: {last}"
    return parsed(done.stdout)


def parsed(text: str) -> list[Nodes]:
    """Nodes from what `sinfo` prints."""
    nodes = []
    for line in text.splitlines():
        name, state, limit, threads, memory_mb, gres, of_nodes = line.strip().split("|")
        up = state == "up" and not of_nodes.startswith(AWAY)
        size = (float(threads.rstrip("+")), float(memory_mb.rstrip("+")))
        nodes.append(Nodes(name.rstrip("*"), name.endswith("*"), up, _minutes(limit), *size, gpus_of(gres)))
    return nodes


def _minutes(limit: str) -> float:
    """Of a limit as `days-hours:minutes:seconds`, from minutes on, or a word where there is none."""
    days, _, clock = limit.rpartition("-")
    parts = clock.split(":")
    if not all(part.isdigit() for part in parts):
        return math.inf
    hours, minutes, seconds = [0] * (3 - len(parts)) + [int(part) for part in parts]
    return int(days or 0) * 1440 + hours * 60 + minutes + seconds / 60


def impossible(
    jobs: Sequence[PlannedJob], asked: Sequence[Need | None], profile: Profile, nodes: Sequence[Nodes]
) -> list[str]:
    """A line for each rule, dataset and method entry whose jobs would wait for ever.

    Parameters
    ----------
    jobs, asked
        Jobs, and what the rule of each asks for at the first attempt, which takes the place of what is not known yet.
    profile : Profile
    nodes : sequence of Nodes
        All of the cluster. Nodes that are away are counted on to come back, unless all of a partition's are away.
    """
    lines: dict[str, str] = {}
    seen = set()
    for job, need in zip(jobs, asked, strict=True):
        if job.local or (shape := (job.name, job.threads, tuple(job.resources.items()), need)) in seen:
            continue  # slabs are alike
        seen.add(shape)
        for attempt in range(1, profile.attempts + 1):
            if why := _refused(job, _asked(job, need, profile, attempt), nodes):
                tries = f" at attempt {attempt} of {profile.attempts}" if attempt > 1 else ""
                lines.setdefault(job.name, f"can never run{tries}: {job.name} {why}")
                break
    return list(lines.values())


def _asked(job: PlannedJob, need: Need | None, profile: Profile, attempt: int) -> Asked:
    """What a job asks for: of what its rule computes, more at each attempt, and in memory Snakemake's own."""

    def amount(name: str, first: float, more: float = 0.0) -> float:
        given = job.granted(name)
        if (job.rule, name) in profile.fixed:
            return given
        return attempt * (math.ceil(first) if given == math.inf else given) + more

    gres = gpus_of(job.resources.get("gres", ""))
    kind, gpus = gres[0] if gres else (job.resources.get("gpu_model", ""), job.granted("gpu"))
    memory_mb = amount("mem_mb", need.memory_mb if need else 0.0, SNAKEMAKE_MB)
    return Asked(attempt, amount("runtime", need.minutes if need else 0.0), job.threads, memory_mb, gpus, kind)


def _refused(job: PlannedJob, asked: Asked, nodes: Sequence[Nodes]) -> str | None:
    """Why no node can run a job, and what to do; None if one can."""
    names = job.resources.get("slurm_partition", "").split(",")
    where = [one for one in nodes if (one.default if names == [""] else one.partition in names)]
    partition = f"partition {','.join(names)}" if names != [""] else "the default partition"
    setting, slabs = f"`set-resources: {job.rule}:", ", or more `slabs`" if job.rule == "denoise" else ""
    if not where:
        there = ", ".join(dict.fromkeys(one.partition for one in nodes))
        return f"goes to {partition}, and the cluster has {there or 'none'} ({setting} slurm_partition=`)"
    if not any(one.up for one in where):
        return f"goes to {partition}, which is down, or all of whose nodes are"
    with_gpus = [one for one in where if one.gpus_of(asked.kind) >= asked.gpus]
    if not with_gpus:
        most = max(one.gpus_of(asked.kind) for one in where)
        kinds = ", ".join(sorted({kind for one in where for kind, _ in one.gpus if kind}))
        return (
            f"asks for {asked.gpus:.0f} GPUs{f' {asked.kind}' if asked.kind else ''}, and no node of {partition} has "
            f"more than {most:.0f}{f' (its kinds: {kinds})' if kinds else ''} ({setting} gpu=`, `gpu_model=`)"
        )
    node = f"a node of {partition}{' with such GPUs' if asked.gpus else ''} has at most"
    limits: list[tuple[str, str, Callable[[Nodes], float], float, str]] = [
        ("MB", node, lambda one: one.memory_mb, asked.memory_mb, f"{setting} mem_mb=`, fewer `retries`"),
        ("threads", node, lambda one: one.threads, asked.threads, f"`set-threads: {job.rule}=`"),
        (
            "minutes",
            f"{partition} grants at most",
            lambda one: one.minutes,
            asked.minutes,
            f"{setting} runtime=`{slabs}",
        ),
    ]
    for unit, has, of, needed, cure in limits:
        if needed > (most := max(map(of, with_gpus))):
            return f"asks for {needed:.0f} {unit}, and {has} {most:.0f} ({cure})"
    if any(all(of(one) >= needed for _, _, of, needed, _ in limits) for one in with_gpus):
        return None
    return (
        f"asks for {asked.memory_mb:.0f} MB, {asked.threads:.0f} threads and {asked.minutes:.0f} minutes, each of "
        f"which a node of {partition} has, but none all of them ({setting}`)"
    )
