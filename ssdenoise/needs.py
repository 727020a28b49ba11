"""Needs: the memory and the time that jobs ask their scheduler for, from volumes, options and networks.

Nothing is read but commit records, and no network runs: a training step is traced on tensors without values.
"""

from __future__ import annotations

import json
import math
import os
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import astuple, dataclass
from functools import cache

import numpy as np
import torch
from torch._subclasses import FakeTensorMode
from torch.utils.flop_counter import FlopCounterMode

from ssdenoise.denoise import LEAST_VOXELS, PIECE_VOXELS, PIECES_MB, PROCESS_MB, tile_bytes, tiles_of
from ssdenoise.device import Device, fuse
from ssdenoise.grid import ceil_to, extent
from ssdenoise.methods import Batch, Method, TrainedMethod
from ssdenoise.model import placeholder_noise
from ssdenoise.pieces import SAMPLE as TRACED
from ssdenoise.pieces import footprint
from ssdenoise.probe import PIECE_VOXELS as PROBE_VOXELS
from ssdenoise.probe import SAMPLE, SAMPLES
from ssdenoise.provenance import ZARR_METADATA
from ssdenoise.store import Layout, Volume
from ssdenoise.train.pool import POOL_BYTES

#: What `calibrate` might have found, for methods that take options from it.
CALIBRATION = {"channels": [{"correlation": {"offsets": [[0, 0, 1]]}}]}

#: Bytes and arithmetic of a filter for each voxel, as NumPy arrays are not traced: those of non-local means in 3-D, the
#: slowest but for BM3D.
FILTER_BYTES, FILTER_FLOP = 24.0, 1e6

#: Memory of a process with torch for CUDA, in MB: its libraries are larger.
CUDA_PROCESS_MB = 4000

#: Arithmetic that is counted on, in FLOP/s, of a thread and of a GPU: a fraction of what they do, as a scheduler ends a
#: job whose time by it is up.
THREAD_FLOPS, GPU_FLOPS = 4e9, 1e12

#: Voxels per second that stages without a network are counted on to do, whatever their threads.
VOXELS_PER_SECOND = 2e6

#: Passes of the network over what `probe` samples.
RUNS = 8

#: Stages that read no volume, or crops of it, which take as long of any.
SAMPLED = ("choose", "compare", "figures", "report")

#: Generic resources of Slurm that are GPUs: kind, which need not be told and may be all digits, and number.
GRES = re.compile(r"(?:^|,)gpu(?::([^:,()]+(?=:\d)|[^:,()]*[^:,()\d][^:,()]*))?(?::(\d+))?(?=[:,(]|$)")

#: Of each stage without a network, MB of its process and bytes for each byte of its volumes, while these are small:
#: over the peaks of the demo's jobs (`make bench ONLY=resources`); and MB at most, on volumes of any size: over those
#: on 4 GiB (`make bench ONLY=memory`), but for `synthesize` and the last four, which were seen on small volumes only.
STAGES = {
    "ingest": (250, 3, 1100),
    "synthesize": (130, 3, 500),
    "calibrate": (160, 15, 1350),
    "commit": (100, 3, 550),
    "score": (300, 3, 650),
    "choose": (300, 0, 300),
    "compare": (500, 3, 1000),
    "figures": (400, 3, 1000),
    "report": (400, 3, 1000),
}

#: How often larger what is read may be than its file, by its suffix: histograms of photons are mostly zeros, and what
#: is not named here may be compressed.
UNPACKED = {".npy": 1, ".mrc": 1, ".nii": 1, ".sdt": 10}
PACKED = 4

#: Memory of a training without what it reads and computes, in MB.
TRAIN_MB = 600

#: Memory of Snakemake itself, in MB, which an executor starts twice around a job on another machine.
SNAKEMAKE_MB = 1200

#: Minutes for what is to be read from elsewhere, whose size is not known.
UNKNOWN_MINUTES = 600

#: Minutes that any job gets: to start on a busy machine.
START_MINUTES = 10


@dataclass(frozen=True)
class Traced:
    """What a method's network takes, by its layers.

    Attributes
    ----------
    step_bytes, step_flop : float
        Of one training step; 0 for methods that do not train.
    voxel_bytes, voxel_flop : float
        Of inference on a voxel, all its channels together.
    halo, stride : tuple of int
        Of the network, [Z,] Y, X.
    """

    step_bytes: float
    step_flop: float
    voxel_bytes: float
    voxel_flop: float
    halo: tuple[int, ...]
    stride: tuple[int, ...]


@dataclass(frozen=True)
class Need:
    """What a job asks for: MB of memory, minutes until it is ended, and MB of a GPU's memory, if it has one."""

    memory_mb: float
    minutes: float
    gpu_memory_mb: float = 0.0


def gpus_of(gres: str) -> tuple[tuple[str, int], ...]:
    """Kind, empty where it is not told, and number of the GPUs among generic resources, as in `gpu:a100:2,shard:4`."""
    return tuple((kind, int(number or 1)) for kind, number in GRES.findall(gres))


def layout_of(path: str) -> Layout:
    """Layout of a finished store, from its root `zarr.json`.

    Raises
    ------
    FileNotFoundError
        While there is none; Snakemake then asks again before the job runs.
    """
    return _layout(path, os.stat(path).st_mtime_ns)


@cache
def _layout(path: str, changed: int) -> Layout:
    with open(path) as file:
        record = json.load(file)["attributes"]["ssdenoise"]
    # stores of earlier versions do not have it there
    return Layout.from_json(record["layout"]) if "layout" in record else Volume(path).layout


@cache
def traced(method: Method, ndim: int, channels: int) -> Traced:
    """What a method takes on images of so many dimensions and channels."""
    method = method.calibrated(json.loads(json.dumps(CALIBRATION)))
    noise = [placeholder_noise()] * channels
    if not isinstance(method, TrainedMethod):
        net = method.build(channels, ndim, noise)
        return Traced(0.0, 0.0, FILTER_BYTES, FILTER_FLOP, tuple(net.halo), tuple(net.stride))
    with FakeTensorMode(allow_non_fake_inputs=True):
        net = method.build(channels, ndim, noise)
        batch = batch_of(method, ndim, channels, net.stride)
        optimiser = torch.optim.Adam(net.parameters())

        def step() -> None:
            loss = method.loss(net, batch, torch.Generator().manual_seed(0), 0.5)
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()

        net.train()
        step_bytes, step_flop = footprint(step), _flop(step)
        net.eval()
        size = [ceil_to(n, s) for n, s in zip(TRACED[3 - ndim :], net.stride, strict=True)]
        noisy = torch.zeros(1, channels, *size)

        @torch.no_grad()
        def estimate() -> None:
            method.estimate(net, noisy)

        flop = _flop(estimate)  # before layers are fused, which then are none that is counted
        fuse(net)  # as it will run
        voxels = math.prod(size)
        per_voxel = footprint(estimate) / voxels, flop / voxels
    return Traced(step_bytes, step_flop, *per_voxel, tuple(net.halo), tuple(net.stride))


def batch_of(method: TrainedMethod, ndim: int, channels: int, stride: Sequence[int]) -> Batch:
    """A batch of the size that a step takes, of patches that the network's stride divides."""
    factor = [1] * (ndim - 2) + [method.patch_factor] * 2
    patch = [
        max(1, p // (s * f)) * s * f
        for p, s, f in zip(method.patch_size(ndim)[3 - ndim :], stride, factor, strict=True)
    ]
    noisy = torch.randn(method.patches_per_step(ndim), channels, *patch)
    return Batch(noisy, noisy.flip(0) if method.target else None)


def _flop(call: Callable[[], None]) -> float:
    with FlopCounterMode(display=False) as counted:
        call()
    return float(counted.get_total_flops())


def train(method: Method, ndim: int, layouts: Sequence[Layout], *, paired: bool, threads: int, gpu: bool) -> Need:
    """Of training on volumes; `paired`: with as many second realizations or clean volumes beside them."""
    takes = traced(method, ndim, layouts[0].shape[1])
    held = sum(size_of(layout) for layout in layouts) * (1 + paired)
    if held > POOL_BYTES:  # and what is being read
        held = POOL_BYTES + max(math.prod(layout.shard) * layout.shape[1] * 4 for layout in layouts)
    seconds = getattr(method, "steps", 0) * takes.step_flop / speed(threads, gpu=gpu)
    host, own = (0.0, takes.step_bytes) if gpu else (takes.step_bytes, 0.0)
    process = CUDA_PROCESS_MB if gpu else TRAIN_MB
    return Need(process + (held + host) / 1e6, START_MINUTES + seconds / 60, own / 1e6)


def denoise(method: Method, ndim: int, layout: Layout, *, passes: int, slabs: int, threads: int, gpu: bool) -> Need:
    """Of inference on one of a volume's slabs; `passes`: how many realizations are denoised."""
    takes = traced(method, ndim, layout.shape[1])
    halo, stride = (0,) * (5 - ndim) + takes.halo, (1,) * (5 - ndim) + takes.stride
    device = Device.elsewhere(int(gpu))
    tiles = tiles_of(layout.shape, layout.shard, halo, stride)
    held = tile_bytes(tiles, passes * np.dtype(layout.dtype).itemsize, method, device)
    read = max(math.prod(extent(one.read)[2:]) for one in tiles)
    piece = takes.voxel_bytes * min(read, PIECE_VOXELS)
    host = 0.0 if gpu else max(min(piece, PIECES_MB * 1e6), takes.voxel_bytes * min(read, LEAST_VOXELS))
    # as if halos were as large as what is kept: they seldom are
    voxels = 2 * passes * math.ceil(len(tiles) / slabs) * read
    seconds = voxels * (takes.voxel_flop / speed(threads, gpu=gpu and takes.step_flop > 0) + 1 / VOXELS_PER_SECOND)
    return Need(process_mb(gpu=gpu) + (held + host) / 1e6, START_MINUTES + seconds / 60, piece / 1e6 if gpu else 0.0)


def probe(method: Method, ndim: int, layout: Layout, *, threads: int, gpu: bool) -> Need:
    """Of scoring a model without a reference, on a sample of a volume."""
    takes = traced(method, ndim, layout.shape[1])
    sample = min(SAMPLES[ndim] * math.prod(SAMPLE[ndim]), math.prod(layout.shape) // layout.shape[1])
    piece = takes.voxel_bytes * min(sample, PROBE_VOXELS)
    seconds = (
        4 * RUNS * sample * (takes.voxel_flop / speed(threads, gpu=gpu and takes.step_flop > 0) + 1 / VOXELS_PER_SECOND)
    )
    return Need(process_mb(gpu=gpu) + (0.0 if gpu else piece / 1e6), START_MINUTES + seconds / 60, piece / 1e6 * gpu)


def largest(needs: Iterable[Need]) -> Need:
    """Enough for any of some jobs."""
    return Need(*map(max, zip(*map(astuple, needs), strict=True)))


def ingest(files: Sequence[str]) -> Need:
    """Of reading a source's files; of a Zarr, of which there is what describes it, and of a URL, for which are none."""
    known = files and not any(os.path.basename(file) in ZARR_METADATA for file in files)
    sizes = [os.path.getsize(file) * UNPACKED.get(os.path.splitext(file)[1].lower(), PACKED) for file in files]
    return stage("ingest", sum(sizes) if known else None)


def stage(name: str, held: float | None = None) -> Need:
    """Of a stage without a network, on volumes of so many bytes together; None: not known."""
    base, share, most = STAGES[name]
    voxels = (held or 0.0) / 2
    if name in SAMPLED:
        minutes: float = START_MINUTES
    else:
        minutes = START_MINUTES + voxels / VOXELS_PER_SECOND / 60 if held is not None else UNKNOWN_MINUTES
    return Need(most if held is None else min(most, base + share * held / 1e6), minutes)


def size_of(layout: Layout) -> int:
    """Bytes of a volume at full resolution."""
    return math.prod(layout.shape) * np.dtype(layout.dtype).itemsize


def process_mb(*, gpu: bool) -> float:
    """Memory of a process without voxels."""
    return CUDA_PROCESS_MB if gpu else PROCESS_MB


def speed(threads: int, *, gpu: bool) -> float:
    """Arithmetic that is counted on, FLOP/s; that of filters is done by the processor, whatever they are granted."""
    return GPU_FLOPS if gpu else THREAD_FLOPS * threads
