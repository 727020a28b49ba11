"""Who denoises the tiles of a slab: threads of this process, processes on this machine, or workers of a scheduler."""

from __future__ import annotations

import contextlib
import re
import threading
import uuid
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import dask
import numpy as np
import numpy.typing as npt

from ssdenoise.device import Device
from ssdenoise.errors import ConfigError
from ssdenoise.grid import Region, Tile
from ssdenoise.model import load_model
from ssdenoise.pieces import Array, Pieces
from ssdenoise.provenance import Clock, peak_memory_mb
from ssdenoise.store import Layout, ShardWriter, Volume, lock_of, share, to_dtype

#: Tiles in flight for each network that a worker runs: one being read, one in the network, one being written.
IN_FLIGHT = 3

#: Seconds that a scheduler may take to have a worker.
PATIENCE = 60

DENOISED, UNCERTAINTY = "denoised", "uncertainty"


def in_flight(device: Device) -> int:
    """Tiles in flight of a worker with such a device."""
    return IN_FLIGHT * device.networks


@dataclass(frozen=True)
class Job:
    """What a worker has to know to denoise tiles of a slab; plain values that travel between processes.

    Attributes
    ----------
    noisy : tuple of Path
        Stores of the noisy volume and, where both realizations are denoised, of the second.
    model, output : Path
    layouts : tuple of pair of str and Layout
        Of each product.
    key : str
        That the shards are recorded under.
    work : str
        That the stores are shared under.
    empty_below : float or None
        Shards that are nowhere as bright as this are copied.
    piece_voxels : int
    gpu : int
        GPUs of the worker, 0 or 1.
    threads : int
        0: as many as a scheduler's worker has.
    run : str
        Unlike that of any other job, as a worker keeps what it has opened.
    """

    noisy: tuple[Path, ...]
    model: Path
    output: Path
    layouts: tuple[tuple[str, Layout], ...]
    key: str
    work: str
    empty_below: float | None
    piece_voxels: int
    gpu: int
    threads: int
    run: str = field(default_factory=lambda: uuid.uuid4().hex)


class Worker:
    """Denoises tiles of a job, several at a time: while one is in the network, others are read and written."""

    def __init__(self, job: Job, device: Device) -> None:
        self.job = job
        self.volumes = [Volume(path) for path in job.noisy]
        self.writers = {
            product: ShardWriter(job.output / f"{product}.ome.zarr", layout, job.key, root=self.volumes[0].root)
            for product, layout in job.layouts
        }
        model = load_model(job.model)
        device.place_for_inference(model.net)
        self.pieces = Pieces(model, device, job.piece_voxels)
        self._network = ThreadPoolExecutor(device.networks, initializer=device.enter)
        self._in_flight = threading.BoundedSemaphore(in_flight(device))  # a scheduler's worker may have more threads

    def denoise(self, one: Tile) -> None:
        """Read, denoise and write a tile."""
        with self._in_flight:
            self._denoise(one)

    def _denoise(self, one: Tile) -> None:
        core = tuple(slice(c.start - r.start, c.stop - r.start) for c, r in zip(one.core, one.read, strict=True))
        noisy = [volume.read(one.read) for volume in self.volumes]
        empty = self._empty(one, noisy[0][core])
        found, cost = self._network.submit(self._estimated, noisy, core, empty).result()
        means = [parts[0] if len(parts) == 1 else np.mean(parts, axis=0) for parts in zip(*found, strict=True)]
        if empty is not None:
            # nothing was estimated there: the voxel itself, and no spread of an estimate
            means[0] = np.where(empty, noisy[0][core], means[0])
            means[1:] = [np.where(empty, np.float32(0), std) for std in means[1:]]
        for writer, values in zip(self.writers.values(), means, strict=False):  # an uncertainty that is not kept
            self._write(writer, one, values, empty, cost)

    def _estimated(
        self, noisy: Sequence[npt.NDArray[Any]], core: Region, empty: npt.NDArray[np.bool_] | None
    ) -> tuple[list[list[Array]], dict[str, float]]:
        """Mean and standard deviation of a core from each realization, and the network's seconds and joules."""
        clock = Clock()
        found = [self.pieces.run(voxels, core, None if empty is None else ~empty) for voxels in noisy]
        joules = clock.energy.joules()
        return found, {"seconds": clock.seconds()} | ({} if joules is None else {"joules": joules})

    def _empty(self, one: Tile, noisy: npt.NDArray[Any]) -> npt.NDArray[np.bool_] | None:
        """Where in a tile's core the shards are that need not be denoised, T1ZYX; None if there is no such rule."""
        if self.job.empty_below is None:
            return None
        t, _, *zyx = noisy.shape
        empty = np.zeros((t, 1, *zyx), bool)
        for index, region in self.writers[DENOISED].shards_of(one.core):
            if index[1] == 0:  # all channels together
                place = (region[0], slice(None), *region[2:])
                empty[place] = bool((noisy[place] < self.job.empty_below).all())
        return empty

    def _write(
        self,
        writer: ShardWriter,
        one: Tile,
        values: Array,
        empty: npt.NDArray[np.bool_] | None,
        cost: Mapping[str, float],
    ) -> None:
        """Write the shards of a tile; each records its share of the cost, and what was clipped or copied in it."""
        shards = list(writer.shards_of(one.core))
        for index, region in shards:
            if writer.is_done(index):
                continue
            block, clipped = to_dtype(values[region], writer.layout.dtype)
            copied = block.size if empty is not None and empty[region[0], :, *region[2:]].all() else 0
            share = {name: value / len(shards) for name, value in cost.items()}
            writer.write(index, block, **share, clipped_voxels=clipped, copied_voxels=copied)


def denoise_tiles(
    job: Job, tiles: Sequence[Tile], device: Device, workers: int = 1, scheduler: str | None = None
) -> float:
    """Denoise tiles; returns the largest peak of memory of any process that took part, in MB.

    Parameters
    ----------
    job : Job
    tiles : sequence of Tile
    device : Device
        Of this process, if it does the work.
    workers : int
        Processes on this machine that share the job's threads, each with a GPU of its own if there are any; 1: threads
        of this process.
    scheduler : str, optional
        Address of a Dask scheduler whose workers do the work, each with its own threads and GPU; they run in the same
        folder as this process.
    """
    if scheduler is None and workers == 1:
        worker = Worker(job, device)
        # a pool of its own: it ends with the job, also with one that fails
        with ThreadPoolExecutor(in_flight(device)) as pool, dask.config.set(scheduler="threads", pool=pool):
            dask.compute(*(dask.delayed(worker.denoise)(one) for one in tiles))
        return peak_memory_mb()
    from distributed import Client, LocalCluster, as_completed  # a second to import, which most jobs would waste

    job = replace(job, threads=0 if scheduler else max(1, job.threads // workers))
    with contextlib.ExitStack() as stack:
        if scheduler is None:
            options = {
                "threads_per_worker": in_flight(device),
                "memory_limit": None,
                "dashboard_address": "127.0.0.1:0",
            }
            scheduler = stack.enter_context(LocalCluster(n_workers=workers, **options)).scheduler_address
        try:
            client = stack.enter_context(Client(scheduler))
            client.wait_for_workers(1, timeout=PATIENCE)
        except (OSError, TimeoutError) as error:
            raise ConfigError(
                f"no Dask worker at {scheduler} within {PATIENCE} s ({error}); start a scheduler and its workers first"
            ) from None
        futures = client.map(_on_worker, [job] * len(tiles), tiles, pure=False)
        return max((future.result() for future in as_completed(futures)), default=0.0)


def _on_worker(job: Job, one: Tile) -> float:
    """Denoise a tile in a worker's process; returns its peak of memory so far, in MB."""
    with contextlib.ExitStack() as locks:
        # a worker of a scheduler outlives the job: nobody commits while it writes
        for product, _ in job.layouts:
            locks.enter_context(share(lock_of(job.output / f"{product}.ome.zarr"), job.work))
        _worker(job).denoise(one)
    return peak_memory_mb()


_starting = threading.Lock()


def _worker(job: Job) -> Worker:
    with _starting:  # the first tiles of a process come at once
        return _opened(job)


@lru_cache(maxsize=4)  # jobs of several volumes may share a scheduler
def _opened(job: Job) -> Worker:
    from distributed import get_worker

    worker = get_worker()
    threads = job.threads or worker.state.nthreads
    return Worker(job, Device.granted(job.gpu, threads, number_of(worker.name)))


def number_of(name: int | str) -> int:
    """Which of the workers that see a machine's GPUs one is, from 0, by its name.

    Names that `workers` gave are numbers, those of `dask worker --nworkers` and of dask-jobqueue end in one after a
    hyphen; others, such as addresses, tell nothing: 0.
    """
    number = re.fullmatch(r"(?:.*-)?(\d+)", str(name))
    return int(number[1]) if number else 0
