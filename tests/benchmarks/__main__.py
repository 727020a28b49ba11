"""`make bench`: how fast this machine trains, denoises, writes and reads. Prints a table, asserts nothing.

Every figure is the median of several interleaved rounds; on a machine that is not idle, compare ratios only.
"""

from __future__ import annotations

import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import torch

from ssdenoise.__main__ import MALLOC
from ssdenoise.config.models import TrainSpec
from ssdenoise.config.specs import Storage
from ssdenoise.denoise import estimate
from ssdenoise.device import Device
from ssdenoise.intensity import Normalization
from ssdenoise.methods import METHODS, Network, TrainedMethod
from ssdenoise.model import Model
from ssdenoise.store import Layout, Metadata, ShardWriter, Volume, commit
from ssdenoise.train.sampling import Sampler
from tests.conftest import NOISE, make_store, scene

ROUNDS = 5


def peak_convolution(threads: int) -> float:
    """GFLOP/s of the best convolution here, 96 to 96 channels: what the networks' rates are compared with."""
    layer = torch.nn.Conv2d(96, 96, 3, padding=1).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    image = torch.randn(16, 96, 64, 64).contiguous(memory_format=torch.channels_last)
    with torch.no_grad():
        seconds = timed(lambda: layer(image))
    return 2 * 96 * 96 * 9 * 16 * 64 * 64 / seconds / 1e9


def timed(call: Callable[[], object]) -> float:
    """Median seconds of a call, after a warm-up."""
    call()
    seconds = []
    for _ in range(ROUNDS):
        start = time.perf_counter()
        call()
        seconds.append(time.perf_counter() - start)
    return statistics.median(seconds)


def flops(net: Network, image: torch.Tensor) -> float:
    """Floating-point operations per pixel of one pass."""
    from torch.utils.flop_counter import FlopCounterMode

    with FlopCounterMode(display=False) as counter, torch.no_grad():
        net(image)
    return counter.get_total_flops() / image.numel()


def methods(folder: Path, device: Device) -> pd.DataFrame:
    """Steps per second, share of sampling, and denoised megapixels per second of each trained method, 2-D."""
    volume = make_store(folder, "noisy", scene((8, 512, 512)).astype(np.float32), Storage())
    normalization = Normalization.of(volume.intensities())
    rows = []
    for name, cls in METHODS.items():
        method = cls().calibrated({"channels": [{"correlation": {"offsets": [[0, 0, 1]]}}]})
        if not isinstance(method, TrainedMethod):
            continue
        spec = TrainSpec(dataset="d", noise="n", seed=0, ndim=2, method=method)  # type: ignore[arg-type]
        net = method.build(1, 2, [NOISE])
        sampler = Sampler(spec, method, [[volume, volume]], normalization, net.stride)
        optimiser = torch.optim.Adam(net.parameters())
        batch, rng = sampler.batch(0)

        def step(method=method, net=net, optimiser=optimiser, batch=batch, rng=rng) -> None:  # type: ignore[no-untyped-def]
            optimiser.zero_grad()
            method.loss(net, batch, rng, 0.5).backward()
            optimiser.step()

        seconds = timed(step)
        sampling = timed(lambda sampler=sampler: sampler.batch(1))  # type: ignore[misc]
        image = normalization.apply(volume.read((slice(None),) * 5))[:, :, :4]
        device.place_for_inference(net)
        model = Model(method, net.eval(), 1, 2, Normalization((0.0,), (1.0,)), "")
        inference = timed(lambda model=model, image=image: estimate(model, image, device))  # type: ignore[misc]
        work = flops(net, torch.zeros(1, 1, 64, 64))
        rows.append(
            {
                "method": name,
                "kFLOP/pixel": work / 1e3,
                "steps/s": 1 / seconds,
                "training GFLOP/s": 3 * work * batch.noisy.numel() / seconds / 1e9,
                "sampling/step": sampling / seconds,
                "inference Mpixel/s": image.size / inference / 1e6,
                "inference GFLOP/s": work * image.size / inference / 1e9,
            }
        )
    return pd.DataFrame(rows)


def storage(folder: Path) -> pd.DataFrame:
    """Megabytes (10^6) per second through the store, 64 MiB of uint16 with photon noise."""
    voxels = np.random.default_rng(0).poisson(scene((1, 1, 32, 1024, 1024))).astype(np.uint16)
    layout = Layout.fit(voxels.shape, "uint16", Storage().chunk, Storage().shard)
    path = folder / "speed.ome.zarr"

    def write() -> None:
        writer = ShardWriter(path, layout, str(time.perf_counter()))
        for index, region in writer.regions():
            writer.write(index, voxels[region])

    seconds = timed(write)
    key = "final"
    writer = ShardWriter(path, layout, key)
    for index, region in writer.regions():
        writer.write(index, voxels[region])
    commit(path, layout, key, Metadata("v", None, ("c",)), {})
    volume = Volume(path)
    reading = timed(lambda: volume.read((slice(None),) * 5))
    size = sum(p.stat().st_size for p in (path / "0").rglob("*") if p.is_file())
    rates = {"write MB/s": voxels.nbytes / seconds / 1e6, "read MB/s": voxels.nbytes / reading / 1e6}
    return pd.DataFrame([rates | {"compression": voxels.nbytes / size}])


def main() -> None:
    """Print the tables."""
    if sys.platform == "linux" and not MALLOC.keys() <= os.environ.keys():
        os.environ.update(MALLOC)
        os.execv(sys.executable, [sys.executable, "-m", "tests.benchmarks"])
    threads = len(os.sched_getaffinity(0))
    device = Device.granted(0, threads)
    print(f"{threads} threads, best convolution {peak_convolution(threads):.0f} GFLOP/s\n")
    with tempfile.TemporaryDirectory() as folder:
        for table in (methods(Path(folder), device), storage(Path(folder))):
            print(table.to_markdown(index=False, floatfmt=".3g"), end="\n\n")


if __name__ == "__main__":
    main()
