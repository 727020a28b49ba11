"""A run that is only simulated: jobs that wait for others and for GPUs and cores, event by event."""

from __future__ import annotations

import heapq
import math
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from graphlib import TopologicalSorter

import numpy as np

from ssdenoise.errors import ConfigError

#: Seconds between looks at submitted jobs, at most (`snakemake-executor-plugin-slurm` 2.8).
LONGEST_LOOKS = 180.0


@dataclass(frozen=True)
class Job:
    """One job of a simulated run.

    Attributes
    ----------
    rule : str
    work : float
        Seconds that it computes.
    gpus, cores : int
        That it holds meanwhile.
    after : tuple of int
        Positions of the jobs whose products it reads.
    """

    rule: str
    work: float
    gpus: int = 0
    cores: int = 1
    after: tuple[int, ...] = ()


@dataclass(frozen=True)
class Machine:
    """What the jobs of a run share.

    Attributes
    ----------
    gpus : int
    cores : float
    apart : bool
        Whether jobs with GPUs run on nodes of their own, whose cores do not count among `cores`.
    submitted : float
        Jobs that wait or run at once; what is ready beyond them is submitted later.
    start : float
        Seconds for which a job holds its share before it computes.
    looks, growth : float
        Seconds between looks at the jobs, by which alone their end is seen, and how many more they become, up to
        `LONGEST_LOOKS`, after each look that saw none. 0: an end is seen at once.
    """

    gpus: int
    cores: float = math.inf
    apart: bool = False
    submitted: float = math.inf
    start: float = 0.0
    looks: float = 0.0
    growth: float = 0.0


@dataclass(frozen=True)
class Outcome:
    """What came of a simulated run.

    Attributes
    ----------
    makespan : float
        Seconds from its start until the end of the last job is seen.
    gpu_share, core_share : float
        Of what there is for as long, how much was computing.
    repeated : int
        Jobs that failed and were repeated.
    """

    makespan: float
    gpu_share: float
    core_share: float
    repeated: int


def simulate(jobs: Sequence[Job], machine: Machine, failing: float = 0.0, seed: int = 0) -> Outcome:
    """Run jobs, first come, first served: of those that are ready and fit, the one that was submitted first.

    Parameters
    ----------
    jobs : sequence of Job
        Of those that become ready at once, the first is submitted first.
    machine : Machine
    failing : float
        Share of the jobs that fail half-way, each once, and are repeated from the beginning.
    seed : int
        Of the draw of these.

    Raises
    ------
    ConfigError
        If a job needs more GPUs than there are.
    """
    for job in jobs:
        if job.gpus > machine.gpus:
            raise ConfigError(f"{job.rule} asks for {job.gpus} GPUs, and --simulate has {machine.gpus}; simulate more")
    return _Run(jobs, machine, failing, seed).outcome()


class _Run:
    """State of a simulated run: what is free, who waits for what, and what happens next."""

    def __init__(self, jobs: Sequence[Job], machine: Machine, failing: float, seed: int) -> None:
        self.jobs, self.machine = jobs, machine
        draw = np.random.default_rng(seed).choice(len(jobs), round(failing * len(jobs)), replace=False)
        self.fails = set(draw.tolist())
        self.repeated = len(self.fails)
        self.before = [len(job.after) for job in jobs]
        self.then: list[list[int]] = [[] for _ in jobs]
        for index, job in enumerate(jobs):
            for other in job.after:
                self.then[other].append(index)
        self.gpus, self.cores, self.places = machine.gpus, machine.cores, machine.submitted
        self.ready = deque(index for index, count in enumerate(self.before) if count == 0)
        # those that hold as much wait in one queue, so that only its first needs to be looked at
        self.queues: dict[tuple[int, float], deque[tuple[int, int]]] = {}
        self.tickets, self.left = 0, len(jobs)
        self.running: list[tuple[float, int]] = []
        self.unseen: list[int] = []
        self.gpu_seconds = self.core_seconds = 0.0

    def outcome(self) -> Outcome:
        """Run to the end."""
        now, pause, look = 0.0, self.machine.looks, self.machine.looks
        while self.left:
            self._submit()
            self._begin(now)
            now = min(self.running[0][0], look or math.inf) if self.running else look
            while self.running and self.running[0][0] <= now:
                self._end(heapq.heappop(self.running)[1])
            if now >= look:  # all ends are seen at once where looks take no time
                grown = min(pause + self.machine.growth, LONGEST_LOOKS)
                pause = self.machine.looks if self.unseen else grown
                look = now + pause if pause else 0.0
                self._see()
        cores = self.core_seconds / self.machine.cores
        gpus = self.gpu_seconds / self.machine.gpus if self.machine.gpus else 0.0
        return Outcome(now, gpus / now if now else 0.0, cores / now if now else 0.0, self.repeated)

    def _submit(self) -> None:
        while self.ready and self.places > 0:
            index = self.ready.popleft()
            self.places -= 1
            self.queues.setdefault(self._share(index), deque()).append((self.tickets, index))
            self.tickets += 1

    def _share(self, index: int) -> tuple[int, float]:
        """GPUs and cores that a job holds, of those that are counted."""
        job = self.jobs[index]
        return job.gpus, 0.0 if self.machine.apart and job.gpus else min(job.cores, self.machine.cores)

    def _begin(self, now: float) -> None:
        while fitting := [
            (queue[0], share)
            for share, queue in self.queues.items()
            if queue and share[0] <= self.gpus and share[1] <= self.cores
        ]:
            (_, index), (gpus, cores) = min(fitting)
            self.queues[gpus, cores].popleft()
            self.gpus, self.cores = self.gpus - gpus, self.cores - cores
            work = self.jobs[index].work / (2 if index in self.fails else 1)
            self.gpu_seconds, self.core_seconds = self.gpu_seconds + gpus * work, self.core_seconds + cores * work
            heapq.heappush(self.running, (now + self.machine.start + work, index))

    def _end(self, index: int) -> None:
        gpus, cores = self._share(index)
        self.gpus, self.cores = self.gpus + gpus, self.cores + cores
        self.unseen.append(index)

    def _see(self) -> None:
        for index in self.unseen:
            self.places += 1
            if index in self.fails:
                self.fails.remove(index)
                self.ready.append(index)
                continue
            self.left -= 1
            for other in self.then[index]:
                self.before[other] -= 1
                if self.before[other] == 0:
                    self.ready.append(other)
        self.unseen.clear()


def critical_path(jobs: Sequence[Job], start: float = 0.0) -> list[int]:
    """Positions of the jobs of the longest chain, each of which waits for the one before it: no run takes less.

    Parameters
    ----------
    jobs : sequence of Job
    start : float
        Seconds that each takes before it computes.
    """
    ends = [0.0] * len(jobs)
    last: list[int | None] = [None] * len(jobs)
    for index in TopologicalSorter({index: job.after for index, job in enumerate(jobs)}).static_order():
        job = jobs[index]
        last[index] = max(job.after, key=ends.__getitem__, default=None)
        ends[index] = start + job.work + (ends[before] if (before := last[index]) is not None else 0.0)
    path: list[int] = []
    following = max(range(len(jobs)), key=ends.__getitem__, default=None)
    while following is not None:
        path.append(following)
        following = last[following]
    return path[::-1]
