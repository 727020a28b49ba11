"""`make bench PEER=VENV`: speed and memory, ours and of peers, in tables; asserts nothing.

Figures are medians of interleaved rounds; on a machine that is not idle, compare ratios only. Without `PEER`, an
environment with CAREamics, tensorstore, ngff-zarr and bioio-conversion, tables that compare with these are left out.
"""

from __future__ import annotations

import os
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pandas as pd
import torch

from ssdenoise.__main__ import MALLOC
from ssdenoise.config.models import TrainSpec
from ssdenoise.config.specs import Storage
from ssdenoise.device import Device
from ssdenoise.intensity import Normalization
from ssdenoise.methods import METHODS, TrainedMethod
from ssdenoise.model import Model
from ssdenoise.pieces import estimate
from ssdenoise.store import Layout, Metadata, ShardWriter, Volume, commit
from ssdenoise.train.sampling import Sampler
from tests.benchmarks.ingestion import ingestion
from tests.benchmarks.measure import THREADS, Peer, flops, peak_convolution, timed
from tests.benchmarks.memory import memory
from tests.benchmarks.prediction import blind_spot, prediction, scaling, training
from tests.benchmarks.resources import resources
from tests.benchmarks.scores import estimators, scores
from tests.conftest import NOISE, make_store, scene


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
        device.place(net)
        optimiser = torch.optim.Adam(net.parameters())
        batch, rng = sampler.batch(0)

        def step(method=method, net=net, optimiser=optimiser, batch=batch, rng=rng) -> None:  # type: ignore[no-untyped-def]
            optimiser.zero_grad()
            method.loss(net, batch, rng, 0.5).backward()
            optimiser.step()

        seconds = timed(step)
        sampling = timed(lambda sampler=sampler: sampler.batch(1))  # type: ignore[misc]
        image = volume.read((slice(None),) * 5)[:, :, :4]
        work = flops(net.eval(), torch.zeros(1, 1, 64, 64))  # of the published form; the fused one is not counted
        device.place_for_inference(net)
        model = Model(method, net, 1, 2, normalization, "")
        inference = timed(lambda model=model, image=image: estimate(model, image, [0] * 5, device))  # type: ignore[misc]
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


def tables(folder: Path) -> Iterator[tuple[str, Callable[[], pd.DataFrame]]]:
    """Name of each table and who makes it; those that need a peer only if there is one."""

    def place(name: str) -> Path:
        (folder / name).mkdir()
        return folder / name

    yield "methods", lambda: methods(place("methods"), Device.granted(0, THREADS))
    yield "storage", lambda: storage(place("storage"))
    yield "blind-spot", lambda: blind_spot(rounds=3)
    yield "scaling", lambda: scaling(place("scaling"), rounds=3)
    yield "scores", lambda: scores(place("scores"), rounds=3)
    yield "estimators", estimators
    yield "memory", lambda: memory(place("memory"))
    if Path("results/demo/report.html").exists():  # `make demo` is done
        yield "resources", lambda: resources(Path.cwd())
    if environment := os.environ.get("PEER"):
        python = Path(environment).absolute() / "bin" / "python"
        peer = Peer(python)
        yield "prediction", lambda: prediction(place("prediction"), peer, rounds=3)
        yield "training", lambda: training(place("training"), peer, rounds=3)
        yield "ingest", lambda: ingestion(place("ingest"), peer, python, rounds=2)
        peer.close()


def main() -> None:
    """Print the tables; `ONLY` names some, comma-separated."""
    if sys.platform == "linux" and not MALLOC.keys() <= os.environ.keys():
        os.environ.update(MALLOC)  # the peer gets the same settings
        os.execv(sys.executable, [sys.executable, "-m", "tests.benchmarks"])
    torch.set_num_threads(THREADS)
    print(f"{THREADS} threads, best convolution {peak_convolution():.0f} GFLOP/s\n", flush=True)
    wanted = os.environ.get("ONLY", "").split(",")
    with tempfile.TemporaryDirectory() as folder:
        for name, make in tables(Path(folder)):
            if wanted == [""] or name in wanted:
                table = make()
                table = table.astype(object).where(table.notna(), "")
                print(table.to_markdown(index=False, floatfmt=".3g"), end="\n\n", flush=True)


if __name__ == "__main__":
    main()
