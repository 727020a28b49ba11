"""Probe: run a model on altered copies of a sample of its input, to score it without a reference."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import reduce
from operator import add
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pandas as pd

from ssdenoise.config.specs import ProbeSpec
from ssdenoise.device import CPU, Device
from ssdenoise.errors import FormatError
from ssdenoise.grid import Region, blocks, extent, tile
from ssdenoise.metrics.fourier import Rings
from ssdenoise.metrics.risk import risk, unbiased_variance
from ssdenoise.model import Model, load_model
from ssdenoise.noise import NoiseModel, noise_models, stream, thin
from ssdenoise.pieces import Pieces, spatial
from ssdenoise.provenance import Clock, code_hash, file_digest, read_json, record
from ssdenoise.store import Volume

#: Samples: so many, of so many voxels ZYX at most, spread over the volume. Planes that are denoised one by one are
#: sampled one by one.
SAMPLES, SAMPLE = {2: 16, 3: 4}, {2: (1, 512, 512), 3: (16, 192, 192)}

#: Voxels a side, in Y and X, of the parts that differences between methods are tested over.
PART = 64

#: Voxels that pass the network at once.
PIECE_VOXELS = 2**19

#: Step of the numeric derivative, in standard deviations of the noise: far under the structure of a network's response,
#: far over the rounding of float32.
STEP = 0.05

#: Hidden voxels lie on a grid of this width in Y and X, and so many of its places are tried.
GRID, PLACES = 4, 2

#: Share of the photons that the model sees of thinned counts.
KEPT = 0.8

#: Columns of the sums of Fourier rings, where there are none.
NO_RINGS: dict[str, list[float]] = {f"rings_thinned_{part}": [] for part in ("cross", "first", "second")}

Array = npt.NDArray[np.float64]


def probe(
    spec: ProbeSpec,
    noisy: Path,
    calibration: Path,
    model: Path,
    output: Path,
    device: Device = CPU,
    *,
    repeat: Path | None = None,
) -> pd.DataFrame:
    """Score a model without a reference, on a sample of its input, and write the rows as Parquet.

    Parameters
    ----------
    spec : ProbeSpec
    noisy : Path
        Store of the noisy volume.
    calibration : Path
        Its noise parameters.
    model : Path
        Folder of the model.
    output : Path
        Parquet file.
    device : Device
    repeat : Path, optional
        Store of another realization.

    Returns
    -------
    DataFrame
        A row for each channel of each part of `PART` x `PART` voxels, the same parts for all methods: sums over its
        `voxels` of

        - `risk`: unbiased estimate of the squared error (`ssdenoise.metrics.risk`), given that the calibrated noise is
          right and independent between voxels;
        - `blind_error`: squared difference between noisy voxels and what the model makes of them when they are hidden
          from it, replaced by the mean of their four neighbours, over `blind_voxels`, less the noise's variance; the
          same voxels for all methods. It tells how well a method predicts what it has not seen, which is less than it
          knows where it sees the voxel, and assumes noise that is independent between voxels;
        - `thinned_error`: of counts that are photons, squared error of what the model makes of a share `KEPT` of them,
          against the others, less the variance of these. NaN where the noise is not that of photons;
        - `repeat_variance`: half the squared difference between what the same model makes of both realizations, which
          is the variance of the estimate over repeats of the noise; the rest of its squared error is the square of its
          bias. NaN without another realization.

        And the sums of Fourier rings (`rings_thinned_*`) of what the model makes of that share with the others; empty
        where the noise is not that of photons.
    """
    clock = Clock()
    volume, loaded = Volume(noisy), load_model(model)
    repeated = Volume(repeat) if repeat else None
    if repeated and repeated.shape != volume.shape:
        raise FormatError(f"{repeated.path} has shape {repeated.shape} (TCZYX), {volume.path} {volume.shape}")
    if loaded.channels != volume.shape[1]:
        raise FormatError(
            f"{volume.path} has {volume.shape[1]} channels, the model {model} was trained on {loaded.channels}"
        )
    device.place_for_inference(loaded.net)
    calibrated = read_json(calibration)
    noise = [models.poisson_gaussian for models in noise_models(calibrated)]
    run = _Runner(loaded, volume.shape, device)
    cores = samples(volume.shape, loaded)
    rows = [row for core in cores for row in _sample(spec, volume, repeated, run, noise, core)]
    table = pd.DataFrame(rows).assign(dataset=spec.dataset, noise=spec.noise, method=spec.method, seed=spec.seed)
    inputs = {"noisy": volume.digest, "model": loaded.digest, "calibration": file_digest(calibration)}
    inputs |= {"repeat": repeated.digest} if repeated else {}
    options = spec.model_dump(mode="json")
    table.attrs["provenance"] = record(
        "probe", spec=options, inputs=inputs, code=code_hash("probe", loaded.method.name), clock=clock
    )
    output.parent.mkdir(parents=True, exist_ok=True)
    table.to_parquet(output, index=False)
    return table


def samples(shape: Sequence[int], model: Model) -> Iterator[Region]:
    """Regions (TCZYX) that are probed: all channels, spread over time points and planes, in the middle of Y and X.

    They begin at multiples of 64, where those of any network's stride are: the same for all methods of as many
    dimensions.
    """
    size = [min(n, s) for n, s in zip(shape[2:], SAMPLE[model.ndim], strict=True)]
    y, x = (
        slice((n - s) // 2 // 64 * 64, (n - s) // 2 // 64 * 64 + s) for n, s in zip(shape[3:], size[1:], strict=True)
    )
    places = [(t, z) for t in range(shape[0]) for z in range(0, shape[2] - size[0] + 1, size[0])]
    chosen = np.unique(np.linspace(0, len(places) - 1, SAMPLES[model.ndim]).round().astype(int))
    for t, z in (places[i] for i in chosen):
        yield (slice(t, t + 1), slice(0, shape[1]), slice(z, z + size[0]), y, x)


class _Runner:
    """Runs a model on what is read for a region."""

    def __init__(self, model: Model, shape: Sequence[int], device: Device) -> None:
        self.shape, self.pieces = shape, Pieces(model, device, PIECE_VOXELS)

    def read(self, core: Region) -> tuple[Region, Region]:
        """What is read for a region, and where that lies in it."""
        one = tile(core, self.shape, *spatial(self.pieces.model.net))
        return one.read, tuple(slice(c.start - r.start, c.stop - r.start) for c, r in zip(core, one.read, strict=True))

    def __call__(self, noisy: npt.NDArray[np.floating], inside: Region) -> Array:
        """The estimate of a region from what was read for it."""
        return self.pieces.run(noisy.astype(np.float32), inside)[0].astype(np.float64)


def _sample(
    spec: ProbeSpec, volume: Volume, repeated: Volume | None, run: _Runner, noise: Sequence[NoiseModel], core: Region
) -> list[dict[str, float]]:
    """Rows of one sample."""
    region, inside = run.read(core)
    noisy = volume.read(region)
    voxels = noisy.astype(np.float64)
    key = ("probe", spec.dataset, spec.noise, *(s.start for s in core))
    unknown, estimate = np.full(extent(inside), np.nan), run(voxels, inside)
    maps = {"risk": _risk(voxels, estimate, inside, run, noise, key)} | _blind(voxels, region, inside, run, noise, key)
    thinned = _thinned(noisy, inside, run, noise, key)
    maps["thinned_error"] = thinned.error if thinned else unknown
    maps["repeat_variance"] = np.square(estimate - run(repeated.read(region), inside)) / 2 if repeated else unknown
    return [
        {
            "c": c,
            "t": core[0].start,
            "z": core[2].start,
            "y": core[3].start + y.start,
            "x": core[4].start + x.start,
            "voxels": extent(core)[2] * math.prod(extent((y, x))),
        }
        | {name: float(values[:, c, :, y, x].sum()) for name, values in maps.items()}
        | (thinned.rings(c, y, x) if thinned and extent((y, x)) == (PART, PART) else NO_RINGS)
        for _, (y, x) in blocks(extent(core)[3:], (PART, PART))
        for c in range(volume.shape[1])
    ]


def _variance(noise: Sequence[NoiseModel], values: Array) -> Array:
    """Variance of each channel's noise (axis 1), from the noisy voxels themselves."""
    return np.stack([unbiased_variance(values[:, c], one) for c, one in enumerate(noise)], axis=1)


def _risk(
    y: Array, estimate: Array, inside: Region, run: _Runner, noise: Sequence[NoiseModel], key: tuple[str | int, ...]
) -> Array:
    """Unbiased squared error at each voxel of the sample."""
    signs = stream(*key, "signs").choice([-1.0, 1.0], y.shape)
    # as strong as the noise is where a plane is as bright as on average
    level = np.sqrt(np.maximum(_variance(noise, y.mean(axis=(3, 4), keepdims=True)), 1e-30))
    direction = signs * level
    difference = (run(y + STEP * direction, inside) - run(y - STEP * direction, inside)) / (2 * STEP)
    parts = [
        risk(y[inside][:, c], estimate[:, c], difference[:, c], direction[inside][:, c], one)
        for c, one in enumerate(noise)
    ]
    return np.stack(parts, axis=1)


def _blind(
    y: Array, region: Region, inside: Region, run: _Runner, noise: Sequence[NoiseModel], key: tuple[str | int, ...]
) -> dict[str, Array]:
    """Squared error at hidden voxels, less the noise's variance; zero at the others.

    The grid is the volume's, as how much is read around a sample hangs on the network.
    """
    padded = np.pad(y, [(0, 0)] * 3 + [(1, 1)] * 2, mode="reflect")
    around = (padded[..., :-2, 1:-1] + padded[..., 2:, 1:-1] + padded[..., 1:-1, :-2] + padded[..., 1:-1, 2:]) / 4
    error, count = np.zeros(extent(inside)), np.zeros(extent(inside))
    variance = _variance(noise, y[inside])
    for place in stream(*key, "places").choice(GRID**2, PLACES, replace=False):
        hidden = np.zeros(y.shape, bool)
        row, column = ((at - axis.start) % GRID for at, axis in zip(divmod(place, GRID), region[3:], strict=True))
        hidden[..., row::GRID, column::GRID] = True
        found = run(np.where(hidden, around, y), inside)
        shown = hidden[inside]
        error += np.where(shown, np.square(found - y[inside]) - variance, 0)
        count += shown
    return {"blind_error": error, "blind_voxels": count}


@dataclass(frozen=True)
class _Thinned:
    """What a model makes of some of the photons, the others (TCZYX, same unit), and the squared error but for noise."""

    estimate: Array
    others: Array
    error: Array

    def rings(self, c: int, y: slice, x: slice) -> dict[str, list[float]]:
        """Sums of Fourier rings over the planes of a part."""
        planes = zip(self.estimate[0, c, :, y, x], self.others[0, c, :, y, x], strict=True)
        total = reduce(add, (Rings.of(*plane) for plane in planes))
        return {name: getattr(total, name.rpartition("_")[2]).tolist() for name in NO_RINGS}


def _thinned(
    noisy: npt.NDArray[np.generic],
    inside: Region,
    run: _Runner,
    noise: Sequence[NoiseModel],
    key: tuple[str | int, ...],
) -> _Thinned | None:
    """What the model makes of some of the photons, against the others; None where the noise is not that of photons."""
    y = noisy.astype(np.float64)
    # where the variance is proportional to the intensity, voxels are photons times the gain; offset and read noise, of
    # which one can stand for the other in the calibration, then cancel
    zero = [one.offset - one.read_noise**2 / one.gain if one.gain > 0 else np.inf for one in noise]
    if any(abs(where) > 0.1 * y[:, c].mean() for c, where in enumerate(zero)):
        return None
    gain = np.array([one.gain for one in noise]).reshape(1, -1, 1, 1, 1)
    kept, others = thin(y, KEPT, stream(*key, "thinning"), gain)
    rest = others[inside].astype(np.float64)
    variance = gain * rest / (1 - KEPT)
    estimate = run(kept, inside)
    return _Thinned(estimate, rest, np.square(estimate - rest) - variance)
