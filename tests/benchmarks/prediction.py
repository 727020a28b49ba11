"""Prediction and training: ours from store to store, the peer's in memory; and the blind-spot network in two forms."""

from __future__ import annotations

import copy
import itertools
import math
import shutil
import statistics
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import pandas as pd
import torch

from ssdenoise.calibrate import calibrate
from ssdenoise.config.models import TrainSpec
from ssdenoise.config.specs import CalibrateSpec, DenoiseSpec, Storage
from ssdenoise.denoise import denoise
from ssdenoise.device import Device
from ssdenoise.intensity import Normalization
from ssdenoise.methods import METHODS, Network, TrainedMethod
from ssdenoise.model import load_model
from ssdenoise.networks import BlindSpot, Plain, UNet
from ssdenoise.networks.layers import Conv
from ssdenoise.store import Volume
from ssdenoise.train import Scene, sampling, train
from ssdenoise.train.loop import CLIP
from ssdenoise.train.sampling import Sampler
from tests.benchmarks.measure import THREADS, Peer, flops, interleaved, peak_convolution, seconds_of
from tests.conftest import NOISE, make_store

SHAPES = {2: (4096, 4096), 3: (64, 512, 512)}
TILES = {2: ((256, 256), (48, 48)), 3: ((32, 128, 128), (8, 48, 48))}


def noise(shape: tuple[int, ...]) -> np.ndarray:
    """The array that the peer makes, too."""
    return np.random.default_rng(0).normal(100, 10, shape).astype(np.float32)


def of_the_peers_size(self: TrainedMethod, inputs: int, channels: int, ndim: int, beside: object = ()) -> Network:
    """166.5 kFLOP a pixel, 352 a voxel, where CAREamics' default network has 166.5 and 347.

    In 3-D it does not pool along Z, and every second convolution looks within the plane only.
    """
    unet = UNet(ndim, inputs, width=32, depth=2, head=(32, 32), skips="features", batch_norm=True, flat=ndim == 3)
    return Plain(unet, channels)


def prediction(folder: Path, peer: Peer, rounds: int) -> pd.DataFrame:
    """Megavoxels per second of whole predictions, and the share of the best convolution rate that is useful work."""
    device, rows = Device.granted(0, THREADS), []
    for ndim, shape in SHAPES.items():
        volume = make_store(folder, f"{ndim}d", noise(shape), Storage())
        calibrate(CalibrateSpec(), volume.path, folder / "calibration.json")
        with patch.object(METHODS["n2v"], "architecture", of_the_peers_size):
            method = METHODS["n2v"](steps=1, batch=1)  # type: ignore[call-arg]
            spec = TrainSpec(dataset="d", noise="n", seed=0, ndim=ndim, method=method)  # type: ignore[arg-type]
            model = folder / f"model-{ndim}"
            train(spec, [Scene(volume.path, folder / "calibration.json")], model, device)
            work = flops(load_model(model).net, torch.zeros(1, 1, *(16, 64, 64)[3 - ndim :]))

            def ours(volume: Volume = volume, model: Path = model) -> float:
                shutil.rmtree(folder / "out", ignore_errors=True)
                spec = DenoiseSpec(denoised_dtype="float32")
                return seconds_of(lambda: denoise(spec, volume.path, model, folder / "out", device))

            tile, overlap = TILES[ndim]
            theirs = partial(peer.ask, "predict", shape=shape, tile=tile, overlap=overlap)
            answers: list[dict[str, Any]] = []

            def asked(theirs: Callable[[], dict[str, Any]] = theirs, answers: list[Any] = answers) -> float:
                answers.append(theirs())
                return float(answers[-1]["seconds"])

            found = interleaved({"ours": ours, "peer": asked, "peak": peak_convolution}, rounds)
        for name, each in (("ssdenoise", "ours"), ("CAREamics", "peer")):
            per_voxel = work if each == "ours" else answers[0]["flops"]
            rate = math.prod(shape) / found[each]
            rows.append(
                {
                    "prediction": f"{ndim}-D, {'x'.join(map(str, shape))}",
                    "by": name,
                    "kFLOP/voxel": per_voxel / 1e3,
                    "Mvoxel/s": rate / 1e6,
                    "times CAREamics": found["peer"] / found[each],
                    "useful GFLOP/s": per_voxel * rate / 1e9,
                    "of the best convolution": per_voxel * rate / 1e9 / found["peak"],
                }
            )
    return pd.DataFrame(rows)


def training(folder: Path, peer: Peer, rounds: int) -> pd.DataFrame:
    """Steps per second on 16 patches of 64x64, from a store larger than the pool, and what sampling takes of them."""
    volume = make_store(folder, "stack", noise((32, 1024, 1024)), Storage())
    method = METHODS["n2v"](network="paper", batch=16, patch=(1, 64, 64))  # type: ignore[call-arg]
    assert isinstance(method, TrainedMethod)
    spec = TrainSpec(dataset="d", noise="n", seed=0, ndim=2, method=method)  # type: ignore[arg-type]
    net = method.build(1, 2, [NOISE])
    with patch.object(sampling, "POOL_BYTES", volume.array.nbytes // 4):
        sampler = Sampler(spec, method, [[volume]], Normalization.of(volume.intensities()), net.stride)
    Device.granted(0, THREADS).place(net)
    optimiser, steps, sampled = torch.optim.Adam(net.parameters()), itertools.count(), list[float]()

    def step() -> float:
        start = time.perf_counter()
        batch, rng = sampler.batch(next(steps))
        sampled.append(time.perf_counter() - start)
        optimiser.zero_grad()
        method.loss(net, batch, rng, 0.5).backward()
        torch.nn.utils.clip_grad_norm_(net.parameters(), CLIP)
        optimiser.step()
        return time.perf_counter() - start

    def ours() -> float:
        return statistics.median(step() for _ in range(40))

    def theirs() -> float:
        return float(peer.ask("train", patch=(64, 64), batch=16, steps=40)["seconds"])

    found = interleaved({"ours": ours, "peer": theirs}, rounds)
    share = statistics.mean(sampled[40:]) / found["ours"]  # the mean, as shards are waited for now and then
    return pd.DataFrame(
        {
            "training step": "n2v, 16 patches of 64x64",
            "by": name,
            "steps/s": 1 / found[each],
            "times CAREamics": found["peer"] / found[each],
            "sampling's share": share if each == "ours" else None,
        }
        for name, each in (("ssdenoise", "ours"), ("CAREamics", "peer"))
    )


def blind_spot(rounds: int) -> pd.DataFrame:
    """The network of the HQ-SSL paper, and its plain form: four rotations on the batch axis, channels first."""
    device = Device.granted(0, THREADS)
    method = METHODS["hqssl"](network="paper")  # type: ignore[call-arg]
    net = next(module for module in method.build(1, 2, [NOISE]).modules() if isinstance(module, BlindSpot))
    image, batch = torch.randn(1, 1, 256, 256), torch.randn(4, 1, 256, 256)

    published = copy.deepcopy(net)
    for module in published.modules():
        if isinstance(module, Conv):
            module.upsampled = 0

    def plain(x: torch.Tensor) -> torch.Tensor:
        seen = published._look(0, torch.cat([x.rot90(turns, (-2, -1)) for turns in range(4)])).chunk(4)
        views = [view.rot90(-turns, (-2, -1)) for turns, view in enumerate(seen)]
        return published.mix(torch.cat(views, dim=1))  # type: ignore[no-any-return]

    fused = copy.deepcopy(net).eval()
    device.place_for_inference(fused)

    @torch.no_grad()
    def inference(form: Callable[[torch.Tensor], torch.Tensor], x: torch.Tensor) -> float:
        return seconds_of(lambda: form(x))

    def step(form: Callable[[torch.Tensor], torch.Tensor]) -> float:
        return seconds_of(lambda: form(batch).square().mean().backward())

    found = interleaved(
        {
            "inference": lambda: inference(fused, device.send_for_inference(image)),
            "plain inference": lambda: inference(plain, image),
            "training step": lambda: step(net),
            "plain training step": lambda: step(plain),
        },
        rounds,
    )
    with torch.no_grad():
        expected = plain(image)
        difference = float((fused(device.send_for_inference(image)) - expected).abs().max() / expected.std())
    return pd.DataFrame(
        {
            "hqssl, network of the paper": what,
            "seconds": found[what],
            "plain form": found[f"plain {what}"],
            "times the plain form": found[f"plain {what}"] / found[what],
            "largest difference": difference if what == "inference" else None,
        }
        for what in ("inference", "training step")
    )


def scaling(folder: Path, rounds: int) -> pd.DataFrame:
    """Seconds of prediction of volumes of one to sixteen times the size; and by two workers instead of one.

    Workers are processes that start anew with each slab, which takes some seconds: the volume is one of a minute.
    """
    device, largest = Device.granted(0, THREADS), 128
    volumes = {
        n: make_store(folder, f"times-{n}", noise((4 * n, 512, 512)), Storage(shard=(4, 512, 512)))
        for n in (1, 2, 4, 8, 16, largest)
    }
    calibrate(CalibrateSpec(), volumes[1].path, folder / "calibration.json")
    method = METHODS["n2v"](network="paper", steps=1, batch=1)  # type: ignore[call-arg]
    spec = TrainSpec(dataset="d", noise="n", seed=0, ndim=2, method=method)  # type: ignore[arg-type]
    train(spec, [Scene(volumes[1].path, folder / "calibration.json")], folder / "model", device)

    def run(n: int, workers: int) -> float:
        shutil.rmtree(folder / "out", ignore_errors=True)
        spec = DenoiseSpec(denoised_dtype="float32")
        arguments = spec, volumes[n].path, folder / "model", folder / "out", device
        return seconds_of(lambda: denoise(*arguments, workers=workers, memory_mb=4000 * workers))

    found = interleaved({n: partial(run, n, 1) for n in volumes if n < largest}, rounds)
    exponent = float(np.polyfit(np.log(list(found)), np.log(list(found.values())), 1)[0])
    by = interleaved({n: partial(run, largest, n) for n in (1, 2)}, 2, warm=False)
    row = {"scaling": "n2v, 2-D"} | {f"{n}x, s": seconds for n, seconds in found.items()} | {"exponent": exponent}
    shares = {f"{largest}x by {n} workers, s": seconds for n, seconds in by.items()}
    return pd.DataFrame([row | shares | {"times as long as by 1": by[2] / by[1]}])
