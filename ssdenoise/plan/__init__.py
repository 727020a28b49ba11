"""Plan: what a run will take before anything runs: jobs, hours, storage, memory, and what does not fit the profile."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

import numpy as np
import pandas as pd

from ssdenoise import needs
from ssdenoise.config.models import Auto
from ssdenoise.config.project import Project
from ssdenoise.config.read import read_project
from ssdenoise.denoise import piece_voxels, tile_bytes, tiles_of
from ssdenoise.device import Device
from ssdenoise.grid import Region, extent
from ssdenoise.methods import Method
from ssdenoise.pieces import pieces_of
from ssdenoise.plan.jobs import PlannedJob, dry_run
from ssdenoise.plan.rates import Rates
from ssdenoise.plan.volumes import noisy_layout, volumes
from ssdenoise.store import Layout

#: Rules without a network, and the stage that each runs.
STAGE_OF = {"ingest_noisy": "ingest", "ingest_truth": "ingest", "score_noisy": "score"}


#: Of what a job is granted that is asked for when its input is there.
ASKED = "as needed"


@dataclass(frozen=True)
class Takes:
    """What a job takes: hours of its network, by the rates of what kind of device, and MB; 0 where it is not known.

    Of inference also the tiles of its volume, which slabs share out.
    """

    hours: float = 0.0
    memory_mb: float = 0.0
    kind: str = ""
    tiles: int = 0


@dataclass
class Estimate:
    """Volumes and rates of a project, from which the what its jobs take follows."""

    project: Project
    rates: Rates
    layouts: dict[str, Layout | None] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name in self.project.datasets:
            self.layouts[name] = noisy_layout(self.project, name)

    def of(self, job: PlannedJob) -> Takes:
        """What a job takes."""
        gpu, threads = job.granted("gpu") > 0, job.threads
        if job.rule == "train":
            return self._train(job, gpu=gpu, threads=threads)
        if (layout := self.layouts.get(job.wildcards.get("dataset", ""))) is None:
            return Takes()
        if job.rule == "denoise":
            return self._denoise(job, layout, gpu=gpu, threads=threads)
        if job.rule == "probe":
            method, ndim = self._method(job), self.project.datasets[job.wildcards["dataset"]].ndim
            return Takes(memory_mb=needs.probe(method, ndim, layout, threads=threads, gpu=gpu).memory_mb)
        if (stage := STAGE_OF.get(job.rule, job.rule)) in needs.STAGES:
            return Takes(memory_mb=needs.stage(stage, needs.size_of(layout)).memory_mb)
        return Takes()

    def _method(self, job: PlannedJob) -> Method:
        method = self.project.config.methods[job.wildcards["entry"]]
        # which it will be is not known
        return self.project.config.methods[method.among[0]] if isinstance(method, Auto) else method

    def _train(self, job: PlannedJob, *, gpu: bool, threads: int) -> Takes:
        rows = self.project.members(job.wildcards["trained"])
        layouts = [layout for row in rows if (layout := self.layouts[row.dataset])]
        if not layouts:
            return Takes()
        method, ndim = self._method(job), rows[0].ndim
        rate = self.rates.of(method, ndim, layouts[0].shape[1])
        paired = bool(method.target) and rows[0].pairing == "volume"
        asked = needs.train(method, ndim, layouts, paired=paired, threads=threads, gpu=gpu)
        hours = getattr(method, "steps", 0) * rate.step_seconds / 3600
        return Takes(hours, asked.memory_mb, rate.kind)

    def _denoise(self, job: PlannedJob, layout: Layout, *, gpu: bool, threads: int) -> Takes:
        ndim, method = self.project.datasets[job.wildcards["dataset"]].ndim, self._method(job)
        slabs, passes = int(job.wildcards["slabs"]), 1 + method.averages_pair
        rate = self.rates.of(method, ndim, layout.shape[1])
        asked = needs.denoise(method, ndim, layout, passes=passes, slabs=slabs, threads=threads, gpu=gpu)
        takes = needs.traced(method, ndim, layout.shape[1])
        halo, stride = (0,) * (5 - ndim) + takes.halo, (1,) * (5 - ndim) + takes.stride
        device = Device.elsewhere(int(gpu))
        held, tiles, (core, read) = _tiles(layout, halo, stride, method, passes, device)
        most = piece_voxels(held, min(job.granted("mem_mb"), asked.memory_mb), takes.voxel_bytes, device)
        pieces = [math.prod(extent(piece.read)[2:]) for piece in pieces_of(core, read, halo, stride, most)]
        overhead = sum(pieces) / math.prod(extent(core)[2:])
        voxels = math.prod(layout.shape) / layout.shape[1] / slabs
        hours = passes * voxels * overhead / rate.voxels_per_second / 3600
        network = 0.0 if gpu else max(pieces) * takes.voxel_bytes
        return Takes(hours, needs.process_mb(gpu=gpu) + (held + network) / 1e6, rate.kind, tiles)


def plan(
    configfile: Path,
    profile: Path,
    device: Device,
    *,
    config: Sequence[str] = (),
    rates: Path | None = None,
    elsewhere: str | None = None,
    root: Path = Path(),
) -> str:
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
    root : Path
        Folder of the project.

    Returns
    -------
    str
        Tables of volumes and of jobs, and a line for each thing that does not fit.

    Raises
    ------
    SsdenoiseError
        If the configuration is wrong, or a source cannot be read.
    """
    project = read_project(root / configfile, config, root)
    jobs = dry_run(configfile, profile, root, config)
    estimate = Estimate(project, Rates(device, rates, elsewhere))
    found = [estimate.of(job) for job in jobs]
    sections = [
        volumes(project, estimate.layouts).fillna("").to_markdown(index=False),
        _jobs(jobs, found).to_markdown(index=False, floatfmt=".3g", missingval="")
        if jobs
        else "Nothing is left to be done.",
        _totals(jobs, found, estimate.rates.name),
        *_other_device(jobs, found, estimate.rates.name),
        *_misfits(jobs, found),
    ]
    return "\n\n".join(sections) + "\n"


@cache
def _tiles(
    layout: Layout, halo: tuple[int, ...], stride: tuple[int, ...], method: Method, passes: int, device: Device
) -> tuple[int, int, tuple[Region, tuple[int, ...]]]:
    """Bytes of the tiles in flight; how many there are; the largest: its core in what is read of it, its shape."""
    tiles = tiles_of(layout.shape, layout.shard, halo, stride)
    largest = max(tiles, key=lambda one: math.prod(extent(one.read)))
    itemsize = passes * np.dtype(layout.dtype).itemsize
    core = tuple(slice(c.start - r.start, c.stop - r.start) for c, r in zip(largest.core, largest.read, strict=True))
    return tile_bytes(tiles, itemsize, method, device), len(tiles), (core, extent(largest.read))


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
            "GPUs": f"{max(job.granted('gpu') for job, _ in of_rule):.0f}",
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
        kind: math.fsum(need.hours for job, need in zip(jobs, found, strict=True) if (job.granted("gpu") > 0) == on_gpu)
        for kind, on_gpu in (("GPUs", True), ("processors", False))
    }
    told = " and ".join(f"{_duration(value)} of {kind}" for kind, value in hours.items() if value)
    told = f"{told}, by the rates of {device}" if told else "none"
    return (
        f"{len(jobs)} jobs; training and inference: {told}. Sizes are before compression, which halves most microscopy."
    )


def _other_device(jobs: Sequence[PlannedJob], found: Sequence[Takes], device: str) -> list[str]:
    """A line if the rates are those of processors and the jobs get GPUs, or the other way round."""
    timed = [(job.granted("gpu") > 0, need.kind == "cuda") for job, need in zip(jobs, found, strict=True) if need.hours]
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
        who = job.wildcards.get("trained") or job.wildcards.get("dataset", "")
        what = f"{job.rule} of {who}" + (f" by {job.wildcards['entry']}" if "entry" in job.wildcards else "")
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
