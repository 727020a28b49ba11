"""`make bench-quality PEER=VENV DATA=FOLDER`: PSNR after equal time of training, ours and CAREamics'.

The protocol: training on BSD400 (400 planes of 180x180), test on every fourth image of BSD68, Gaussian noise of
sigma 25, neither clipped nor rounded; PSNR against 255 of each image, denoised values clipped to 0..255, then the mean.
Each training runs by itself, one after the other, with the same threads and the same settings of malloc, until its
budget of wall time is spent. CAREamics' clock counts its steps only; ours all that the stage `train` does. As our
learning rate follows a course over a number of steps, that number is chosen beforehand, from the time that some take;
a training that took longer than its budget, as it may on a busy machine, does not count and is done again with fewer.
`BUDGETS` (minutes), `SEEDS` (a number) and `ONLY` (methods, all if not given) are read from the environment. Exits
with 1 if a bar is missed.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import torch

from ssdenoise.__main__ import MALLOC
from ssdenoise.calibrate import calibrate
from ssdenoise.config.models import TrainSpec
from ssdenoise.config.specs import CalibrateSpec, Storage, dump
from ssdenoise.device import Device
from ssdenoise.intensity import Normalization
from ssdenoise.methods import METHODS, TrainedMethod
from ssdenoise.model import load_model
from ssdenoise.noise import noise_models
from ssdenoise.pieces import estimate
from ssdenoise.provenance import read_json
from ssdenoise.store import Volume
from ssdenoise.train.sampling import Sampler
from tests.conftest import make_store

SIGMA, PEAK = 25.0, 255.0

#: PSNR of BM3D on this protocol.
BM3D = 28.55

#: Our method entries, with their defaults but for the likelihood, which the protocol states; N2V also with replacements
#: as its authors set them for these images.
ENTRIES: dict[str, dict[str, Any]] = {
    "n2n": {"name": "n2n"},
    "n2v": {"name": "n2v"},
    "n2v-bsd68": {"name": "n2v", "radius": 2, "replacement": "uniform_with_centre"},
    "hqssl": {"name": "hqssl", "likelihood": "gaussian"},
}
PEERS = ("n2n", "n2v")

#: What must hold between our entry and the peer's, in decibels, by budget in minutes.
BARS: dict[tuple[str, str], dict[float, float]] = {
    ("n2n", "n2n"): {2: 0.5, 8: 0.5},
    ("n2v", "n2v"): {2: 0.4, 8: 0.4},
    ("n2v-bsd68", "n2v"): {2: 0.4, 8: 0.4},
    ("hqssl", "n2v"): {2: 1.5, 8: 2.0},
}

#: Share of the budget that steps are planned to take: the start, validation and checkpoints take some, too, and a
#: machine is not always equally fast. Trainings that are tried before the benchmark gives up.
PLANNED, TRIES = 0.88, 4

#: Largest lead of our n2n over our hqssl after eight minutes.
BEHIND = 0.3

Images = list[npt.NDArray[np.float32]]


def protocol(data: Path, folder: Path) -> tuple[Images, Images]:
    """Draw the noise; write the peer's file and our stores; return the noisy and the clean test images."""
    import imageio.v3 as iio

    def read(name: str) -> Images:
        paths = sorted((data / name).glob("*.png"))
        assert paths, f"no images in {data / name}"
        return [iio.imread(path).astype(np.float32) for path in paths]

    train, clean = np.stack(read("bsd400_train_gray180")), read("bsd68_gray")[::4]
    rng = np.random.default_rng(1)
    noisy = [(image + rng.normal(0, SIGMA, image.shape)).astype(np.float32) for image in clean]
    pair = [(train + rng.normal(0, SIGMA, train.shape)).astype(np.float32) for _ in range(2)]
    images = {f"test_{i}": image for i, image in enumerate(noisy)}
    np.savez(folder / "protocol.npz", train=pair[0], target=pair[1], **images)
    for name, realization in zip(("noisy", "target"), pair, strict=True):
        make_store(folder, name, realization[None, None], Storage())
    calibrate(CalibrateSpec(), folder / "noisy.ome.zarr", folder / "calibration.json")
    return noisy, clean


def seconds_per_step(spec: TrainSpec, folder: Path) -> float:
    """Mean over some steps, sampling included."""
    assert isinstance(spec.method, TrainedMethod)
    volumes = [Volume(folder / f"{name}.ome.zarr") for name in ("noisy", "target")]
    normalization = Normalization.of(volumes[0].intensities())
    noise = noise_models(read_json(folder / "calibration.json"))[0]
    net = spec.method.build(1, 2, [noise.normalized(normalization.offset[0], normalization.scale[0])])
    sampler = Sampler(spec, spec.method, [volumes], normalization, net.stride)
    Device.granted(0, len(os.sched_getaffinity(0))).place(net)
    optimiser = torch.optim.Adam(net.parameters())
    times = []
    for step in range(80):
        start = time.perf_counter()
        batch, rng = sampler.batch(step)
        optimiser.zero_grad()
        spec.method.loss(net, batch, rng, 0.5).backward()
        torch.nn.utils.clip_grad_norm_(net.parameters(), 1.0)
        optimiser.step()
        times.append(time.perf_counter() - start)
    return float(np.mean(times[20:]))


def trained(entry: str, minutes: float, seed: int, folder: Path) -> Path:
    """Train one of our entries for a budget by the command that the workflow runs, anew if that took longer."""
    options, threads, budget = ENTRIES[entry], len(os.sched_getaffinity(0)), 60 * minutes

    def spec_of(steps: int) -> TrainSpec:
        method = METHODS[options["name"]](**options, steps=steps)
        return TrainSpec(dataset="bsd400", noise="sigma25", seed=seed, ndim=2, method=method)  # type: ignore[arg-type]

    pace = seconds_per_step(spec_of(1), folder)
    for attempt in range(TRIES):
        model, steps = folder / f"{entry}-{minutes:g}-{seed}-{attempt}", int(PLANNED * budget / pace)
        command = [sys.executable, "-m", "ssdenoise", "train", "--spec", dump(spec_of(steps)), "--output", model]
        command += ["--noisy", folder / "noisy.ome.zarr", "--calibration", folder / "calibration.json"]
        if METHODS[options["name"]].target:
            command += ["--target", folder / "target.ome.zarr"]
        subprocess.run([*map(str, command), "--threads", str(threads)], check=True, stderr=subprocess.DEVNULL)
        seconds = read_json(model / "model.json")["provenance"]["seconds"]
        if seconds <= budget:
            return model
        print(f"{entry}: {seconds:.0f} s, done again with fewer steps", file=sys.stderr, flush=True)
        pace = seconds / steps
    raise RuntimeError(f"{entry} took longer than {budget:.0f} s in {TRIES} trainings; the machine is too busy to tell")


def ours(entry: str, minutes: float, seed: int, folder: Path, noisy: Images, clean: Images) -> dict[str, float]:
    """Train one of our entries for a budget and score it."""
    model = trained(entry, minutes, seed, folder)
    device = Device.granted(0, len(os.sched_getaffinity(0)))
    loaded, denoised = load_model(model), []
    device.place_for_inference(loaded.net)
    for image in noisy:
        height, width = image.shape
        pad = [0, 0, 0, *(-n % s for n, s in zip(image.shape, loaded.net.stride, strict=True))]
        mean, *_ = estimate(loaded, image[None, None, None], pad, device)
        denoised.append(mean[0, 0, 0, :height, :width].numpy())
    seconds, steps = read_json(model / "model.json")["provenance"]["seconds"], loaded.method.steps
    return {"steps": steps, "seconds": seconds, "psnr": mean_psnr(denoised, clean)}


def mean_psnr(denoised: Images, clean: Images) -> float:
    """Mean over images, clipped to the range of clean ones."""
    errors = [np.mean((np.clip(found, 0, PEAK) - truth) ** 2) for found, truth in zip(denoised, clean, strict=True)]
    return float(np.mean(10 * np.log10(PEAK**2 / np.array(errors))))


def peer(kind: str, minutes: float, seed: int, images: Path, python: Path) -> tuple[Images, dict[str, float]]:
    """Train the peer in its own environment; its denoised images, its steps and seconds."""
    script, output = Path(__file__).with_name("peer_quality.py"), images.with_name("denoised.npz")
    command = [python, script, kind, minutes, seed, images, output]
    threads = {"THREADS": str(len(os.sched_getaffinity(0)))}
    done = subprocess.run([*map(str, command)], check=True, stdout=subprocess.PIPE, text=True, env=os.environ | threads)
    found: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    with np.load(output) as denoised:
        return [denoised[f"denoised_{i}"] for i in range(len(denoised))], found


def main() -> None:
    """Print the table and the bars."""
    if sys.platform == "linux" and not MALLOC.keys() <= os.environ.keys():
        os.environ.update(MALLOC)
        os.execv(sys.executable, [sys.executable, "-m", "tests.benchmarks.quality", *sys.argv[1:]])
    data, python = Path(sys.argv[1]), Path(sys.argv[2]) / "bin" / "python"
    budgets = [float(minutes) for minutes in os.environ.get("BUDGETS", "2 8").split()]
    torch.set_num_threads(len(os.sched_getaffinity(0)))
    only = os.environ.get("ONLY", "").split()
    rows: list[dict[str, object]] = []

    def note(who: str, method: str, minutes: float, seed: int, found: dict[str, float]) -> None:
        rows.append({"who": who, "method": method, "minutes": minutes, "seed": seed, **found})
        print(rows[-1], file=sys.stderr, flush=True)

    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        noisy, clean = protocol(data, folder)
        for minutes in budgets:
            for seed in range(int(os.environ.get("SEEDS", "1"))):
                for kind in [kind for kind in PEERS if not only or kind in only]:
                    denoised, spent = peer(kind, minutes, seed, folder / "protocol.npz", python)
                    note("CAREamics", kind, minutes, seed, spent | {"psnr": mean_psnr(denoised, clean)})
                for entry in [entry for entry in ENTRIES if not only or entry in only]:
                    note("ssdenoise", entry, minutes, seed, ours(entry, minutes, seed, folder, noisy, clean))
    table = pd.DataFrame(rows)
    medians = table.groupby(["minutes", "who", "method"], sort=False)[["steps", "seconds", "psnr"]].median()
    print(medians.reset_index().to_markdown(index=False, floatfmt=".5g"), end="\n\n")
    print(f"BM3D {BM3D} dB; medians over the seeds\n")
    psnr, missed = medians["psnr"], False
    for minutes in budgets:
        for (mine, theirs), bars in BARS.items():
            if only and not {mine, theirs} <= set(only):
                continue
            lead = psnr[minutes, "ssdenoise", mine] - psnr[minutes, "CAREamics", theirs]
            bar = bars.get(minutes, -np.inf)
            missed |= lead < bar
            verdict = "" if np.isinf(bar) else f", bar {bar:+.1f}: {'ok' if lead >= bar else 'MISSED'}"
            print(f"{minutes:g} min: our {mine} - their {theirs}: {lead:+.2f} dB{verdict}")
        if only and not {"n2n", "hqssl"} <= set(only):
            continue
        behind = psnr[minutes, "ssdenoise", "n2n"] - psnr[minutes, "ssdenoise", "hqssl"]
        verdict = f", bar {BEHIND}: {'ok' if behind <= BEHIND else 'MISSED'}" if minutes == 8 else ""
        missed |= minutes == 8 and behind > BEHIND
        print(f"{minutes:g} min: our n2n - our hqssl: {behind:+.2f} dB{verdict}")
    sys.exit(bool(missed))


if __name__ == "__main__":
    main()
