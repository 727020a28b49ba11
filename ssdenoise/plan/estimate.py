"""What the jobs of a plan take: hours by the rates of a device, memory by their volumes, options and networks."""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from functools import cache, partial
from pathlib import Path

import numpy as np

from ssdenoise import needs
from ssdenoise.config.models import MEASURED, Auto
from ssdenoise.config.project import Project
from ssdenoise.denoise import piece_voxels, tile_bytes, tiles_of
from ssdenoise.denoise.crew import DENOISED, UNCERTAINTY
from ssdenoise.device import Device
from ssdenoise.grid import Region, extent
from ssdenoise.methods import Method
from ssdenoise.needs import Need
from ssdenoise.pieces import pieces_of
from ssdenoise.plan.jobs import PlannedJob
from ssdenoise.plan.rates import Rates
from ssdenoise.plan.volumes import ingested, noisy_layout
from ssdenoise.store import Layout

#: Rules without a network, and the stage that each runs, where it has another name.
STAGE_OF = {
    "ingest_noisy": "ingest",
    "ingest_truth": "ingest",
    "score_noisy": "score",
    "figures_uncertain": "figures",
}


@dataclass(frozen=True)
class Takes:
    """What a job takes: hours of its network, by the rates of what kind of device, and MB; 0 where it is not known.

    Of inference also the tiles of its volume, which slabs share out; and what the rule asks for at its first attempt,
    where that follows from volumes.
    """

    hours: float = 0.0
    memory_mb: float = 0.0
    kind: str = ""
    tiles: int = 0
    asked: Need | None = None


@dataclass
class Estimate:
    """Volumes and rates of a project, from which what its jobs take follows."""

    project: Project
    rates: Rates
    layouts: dict[str, Layout | None] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name in self.project.datasets:
            self.layouts[name] = noisy_layout(self.project, name)
        self._denoise = cache(self._denoise_once)
        self._ingested = cache(partial(ingested, self.project))

    def of(self, job: PlannedJob) -> Takes:
        """What a job takes."""
        gpu, threads = job.gpus > 0, job.threads
        if job.rule == "train":
            return self._train(job, gpu=gpu, threads=threads)
        if job.rule in ("denoise", "probe"):
            dataset = job.wildcards["dataset"]
            if (layout := self.layouts[dataset]) is None:
                return Takes()
            method, ndim = self.method(job), self.project.datasets[dataset].ndim
            if job.rule == "probe":
                asked = needs.probe(method, ndim, layout, threads=threads, gpu=gpu)
                return Takes(memory_mb=asked.memory_mb, asked=asked)
            slabs, memory_mb = int(job.wildcards["slabs"]), job.granted("mem_mb")
            takes = [
                self._denoise(one, ndim, layout, slabs, memory_mb, gpu=gpu, threads=threads)
                for one in self._methods(job)
            ]
            return replace(takes[0], asked=needs.largest(one.asked for one in takes if one.asked))
        if (stage := STAGE_OF.get(job.rule, job.rule)) in needs.STAGES:
            asked = self._ingest(job) if stage == "ingest" else needs.stage(stage, self._read(job))
            return Takes(memory_mb=asked.memory_mb, asked=asked)
        return Takes()

    def method(self, job: PlannedJob) -> Method:
        """The method that a job runs; of an entry that chooses, the first that it may be."""
        return self._methods(job)[0]

    def _methods(self, job: PlannedJob) -> list[Method]:
        """The method that a job runs, or all that it may be."""
        methods = self.project.config.methods
        method = methods[job.wildcards["entry"]]
        return [methods[one] for one in method.among] if isinstance(method, Auto) else [method]

    def _read(self, job: PlannedJob) -> float | None:
        """Bytes of the volumes that a job without a network reads; None if one of them is not known."""
        read = [self._stored(Path(path).parent) for path in job.inputs if path.endswith(".ome.zarr/zarr.json")]
        return None if None in read else math.fsum(needs.size_of(layout) for layout in read if layout)

    def _ingest(self, job: PlannedJob) -> Need:
        """As the rule asks, by the source's files, of which a noisy volume of the run is none."""
        files = [
            self.project.root / path
            for path in job.inputs
            if not path.startswith(f"results/{self.project.config.run}/")
        ]
        return needs.ingest([str(file) for file in files] if all(file.is_file() for file in files) else [])

    def _source(self, dataset: str, column: str) -> Layout | None:
        """Layout of the volume under a column of the sheet."""
        return self.layouts[dataset] if column == "noisy" else self._ingested(dataset, column)

    def _stored(self, store: Path) -> Layout | None:
        """Layout of a store of the run, which need not be there yet."""
        (_, _, dataset, *folders), name = store.parts, store.name.removesuffix(".ome.zarr")
        if name in ("clean", "reference"):
            return self._source(dataset, name)
        if name == "noisy-1" and folders[0] == MEASURED:
            return self._source(dataset, "pair")
        layout, dtype = self.layouts[dataset], self.project.datasets[dataset].denoised_dtype
        if layout is None or name.startswith("noisy") or (name == DENOISED and dtype == "same"):
            return layout
        return replace(layout, dtype="float32" if name == UNCERTAINTY else dtype)

    def _train(self, job: PlannedJob, *, gpu: bool, threads: int) -> Takes:
        rows = self.project.members(job.wildcards["trained"])
        layouts = [layout for row in rows if (layout := self.layouts[row.dataset])]
        if not layouts:
            return Takes()
        method, ndim = self.method(job), rows[0].ndim
        rate = self.rates.of(method, ndim, layouts[0].shape[1])
        paired = bool(method.target) and rows[0].pairing == "volume"
        asked = needs.train(method, ndim, layouts, paired=paired, threads=threads, gpu=gpu)
        hours = getattr(method, "steps", 0) * rate.step_seconds / 3600
        return Takes(hours, asked.memory_mb, rate.kind, asked=asked)

    def _denoise_once(
        self, method: Method, ndim: int, layout: Layout, slabs: int, memory_mb: float, *, gpu: bool, threads: int
    ) -> Takes:
        """Of one of a volume's slabs; its others, and volumes that are alike, take as much."""
        passes = 1 + method.averages_pair
        rate = self.rates.of(method, ndim, layout.shape[1])
        asked = needs.denoise(method, ndim, layout, passes=passes, slabs=slabs, threads=threads, gpu=gpu)
        takes = needs.traced(method, ndim, layout.shape[1])
        halo, stride = (0,) * (5 - ndim) + takes.halo, (1,) * (5 - ndim) + takes.stride
        device = Device.elsewhere(int(gpu))
        held, tiles, (core, read) = _tiles(layout, halo, stride, method, passes, device)
        most = piece_voxels(held, min(memory_mb, asked.memory_mb), takes.voxel_bytes, device)
        pieces = [math.prod(extent(piece.read)[2:]) for piece in pieces_of(core, read, halo, stride, most)]
        overhead = sum(pieces) / math.prod(extent(core)[2:])
        voxels = math.prod(layout.shape) / layout.shape[1] / slabs
        hours = passes * voxels * overhead / rate.voxels_per_second / 3600
        network = 0.0 if gpu else max(pieces) * takes.voxel_bytes
        return Takes(hours, needs.process_mb(gpu=gpu) + (held + network) / 1e6, rate.kind, tiles, asked)


def _tiles(
    layout: Layout, halo: tuple[int, ...], stride: tuple[int, ...], method: Method, passes: int, device: Device
) -> tuple[int, int, tuple[Region, tuple[int, ...]]]:
    """Bytes of the tiles in flight; how many there are; the largest: its core in what is read of it, its shape."""
    tiles = tiles_of(layout.shape, layout.shard, halo, stride)
    largest = max(tiles, key=lambda one: math.prod(extent(one.read)))
    itemsize = passes * np.dtype(layout.dtype).itemsize
    core = tuple(slice(c.start - r.start, c.stop - r.start) for c, r in zip(largest.core, largest.read, strict=True))
    return tile_bytes(tiles, itemsize, method, device), len(tiles), (core, extent(largest.read))
