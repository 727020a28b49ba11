"""Calibrate: the noise's parameters from one noisy volume, without a clean image or repeats.

In each plane a second-difference filter removes what is smooth and leaves noise of the same variance; its spread, by
local brightness, is the photon transfer curve, and a line through the curve gives gain and read noise. One volume
cannot tell the detector's offset from its read noise: the line is anchored at the darkest brightness that occurs.
"""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.ndimage import convolve, uniform_filter

from ssdenoise.noise import FloatArray, NoiseModel, NoiseModels
from ssdenoise.provenance import Clock, code_hash, record, write_json
from ssdenoise.store import Volume

#: Zero on planes that are locally linear in X or in Y; divided by its norm (Immerkaer 1996).
DIFFERENCE = np.outer([1, -2, 1], [1, -2, 1]) / 6.0

#: Planes looked at, evenly spaced, and pixels a side of what is read of each.
PLANES, SIDE = 32, 1024

#: Points of the photon transfer curve.
BINS = 24


def calibrate(noisy: Path, output: Path) -> dict[str, Any]:
    """Estimate the noise of a volume and write it as JSON.

    Parameters
    ----------
    noisy : Path
        Store of the noisy volume.
    output : Path
        JSON file: the photon transfer curve and the fit of each likelihood.

    Returns
    -------
    dict
        What was written.
    """
    clock = Clock()
    volume = Volume(noisy)
    brightness, variance = transfer_curve(_sample(volume))
    models = fit(brightness, variance)
    result = {
        "models": asdict(models),
        "transfer_curve": {"brightness": brightness.tolist(), "variance": variance.tolist()},
        "provenance": record(
            "calibrate", spec={}, inputs={"noisy": volume.digest}, code=code_hash("calibrate"), clock=clock
        ),
    }
    write_json(output, result)
    return result


def _sample(volume: Volume) -> list[npt.NDArray[np.float64]]:
    """Central crops of evenly spaced planes."""
    t, c, z, y, x = volume.shape
    planes = np.unique(np.linspace(0, t * c * z - 1, PLANES).round().astype(int))
    rows, columns = (slice(max(0, (n - SIDE) // 2), max(0, (n - SIDE) // 2) + min(n, SIDE)) for n in (y, x))
    crops = []
    for plane in planes:
        at = np.unravel_index(plane, (t, c, z))
        region = (*(slice(int(i), int(i) + 1) for i in at), rows, columns)
        crops.append(volume.read(region)[0, 0, 0].astype(np.float64))
    return crops


def transfer_curve(
    planes: list[npt.NDArray[np.float64]],
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """Variance of the noise by local brightness.

    Parameters
    ----------
    planes : list of array of shape (Y, X)

    Returns
    -------
    brightness, variance : array of shape (n,)
        At most `BINS` points with equally many pixels each, darkest first.
    """
    inner = (slice(2, -2), slice(2, -2))
    local = np.concatenate([uniform_filter(plane, 5)[inner].ravel() for plane in planes])
    noise = np.concatenate([convolve(plane, DIFFERENCE)[inner].ravel() for plane in planes])
    groups = np.array_split(np.argsort(local, kind="stable"), min(BINS, max(1, len(local) // 64)))
    brightness = np.array([local[group].mean() for group in groups])
    variance = np.array([_spread(noise[group]) for group in groups])
    return brightness, variance


def _spread(noise: npt.NDArray[np.float64]) -> float:
    """Variance, without the few values far out that edges and hot pixels leave.

    Values beyond three standard deviations are set aside until none is left; of a normal distribution that takes
    2.7 % of the variance away, which the factor puts back.
    """
    kept = noise
    for _ in range(10):
        inside = np.abs(kept) <= 3 * np.sqrt(np.mean(kept**2))
        if inside.all():
            break
        kept = kept[inside]
    return float(np.mean(kept**2) / 0.973 if len(kept) < len(noise) else np.mean(kept**2))


def _line(x: FloatArray, y: FloatArray, weight: FloatArray) -> tuple[float, float]:
    """Weighted least squares: slope and intercept; slope 0 where all x are alike."""
    squares = weight**2 / np.sum(weight**2)
    mean_x, mean_y = np.sum(squares * x), np.sum(squares * y)
    spread = np.sum(squares * (x - mean_x) ** 2)
    slope = np.sum(squares * (x - mean_x) * (y - mean_y)) / spread if spread > 0 else 0.0
    return float(slope), float(mean_y - slope * mean_x)


def fit(brightness: npt.NDArray[np.float64], variance: npt.NDArray[np.float64]) -> NoiseModels:
    """Fit each likelihood to a photon transfer curve.

    Points weigh by the inverse of their own variance (a variance estimate is as uncertain as it is large), with two
    rounds of reweighting from the fitted line.
    """
    # without a floor, an empty background of variance zero would outweigh every other point
    floor = 0.01 * float(variance.max()) or 1.0
    weight = 1 / np.maximum(variance, floor)
    gain, intercept = 0.0, float(variance.mean())
    for _ in range(3):
        gain, intercept = _line(brightness, variance, weight)
        if gain <= 0:
            gain, intercept = 0.0, float(np.average(variance, weights=weight**2))
        weight = 1 / np.maximum(gain * brightness + intercept, floor)
    dark = float(brightness.min())
    at_dark = gain * dark + intercept
    if at_dark < 0:  # the line meets zero inside the data: no read noise, and an offset above the darkest point
        dark, at_dark = -intercept / gain, 0.0
    poisson = float(np.sum(weight**2 * variance * brightness) / np.sum(weight**2 * brightness**2))
    return NoiseModels(
        gaussian=NoiseModel(0.0, 0.0, float(np.sqrt(variance.mean()))),
        poisson=NoiseModel(max(poisson, 0.0), 0.0, 0.0),
        poisson_gaussian=NoiseModel(float(gain), dark, float(np.sqrt(at_dark))),
    )
