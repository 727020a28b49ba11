"""What was removed: how it is correlated, and its mean and variance by intensity."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import numpy.typing as npt
from scipy import fft

from ssdenoise.figures.crops import spread
from ssdenoise.noise import noise_models
from ssdenoise.plotting import COLOURS, plt, save
from ssdenoise.provenance import read_json
from ssdenoise.store import Volume

#: Pixels that the autocorrelation is shown of, each way.
REACH = 8

#: Bins of the intensity.
BINS = 16


def autocorrelation(planes: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Autocorrelation of planes (N, Y, X) at shifts of up to `REACH` pixels, mean over planes; 1 in the middle."""
    centred = planes - planes.mean(axis=(1, 2), keepdims=True)
    size = [fft.next_fast_len(n + REACH) for n in planes.shape[1:]]  # room for what would come round
    power = np.abs(fft.rfft2(centred, size)) ** 2
    products = np.fft.fftshift(fft.irfft2(power.sum(axis=0), size))
    overlaps = np.fft.fftshift(fft.irfft2(np.abs(fft.rfft2(np.ones(planes.shape[1:]), size)) ** 2, size))
    y, x = (n // 2 for n in size)
    reach = [min(REACH, n - 1) for n in planes.shape[1:]]
    near = slice(y - reach[0], y + reach[0] + 1), slice(x - reach[1], x + reach[1] + 1)
    found = products[near] / overlaps[near]
    return np.asarray(found / max(found[reach[0], reach[1]], np.finfo(float).tiny))


def by_intensity(
    signal: npt.NDArray[np.float64], residual: npt.NDArray[np.float64]
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64], npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """Mean signal, mean residual and its standard error, and the residual's variance, in bins by the signal.

    Each bin holds as many voxels as the next.
    """
    parts = [one for one in np.array_split(np.argsort(signal, kind="stable"), BINS) if len(one) > 1]
    x, mean = (np.array([values[one].mean() for one in parts]) for values in (signal, residual))
    variance = np.array([residual[one].var(ddof=1) for one in parts])
    return x, mean, np.sqrt(variance / [len(one) for one in parts]), variance


def plot_residuals(title: str, noisy: Path, calibration: Path, entries: Mapping[str, Path], output: Path) -> None:
    """Draw the autocorrelation of noisy - denoised, its mean and its variance by intensity, a column for each method.

    Each channel has its colour. Its variance stands beside that of its calibrated noise, which a perfect method would
    remove.
    """
    noise = [models.poisson_gaussian for models in noise_models(read_json(calibration))]
    places = spread(Volume(noisy).shape)

    def planes(path: Path) -> npt.NDArray[np.float64]:
        volume = Volume(path)
        return np.stack([volume.read(place)[0, :, 0] for place in places], axis=1).astype(np.float64)  # (C, N, Y, X)

    observed, columns = planes(noisy), max(2, len(entries))
    figure, axes = plt.subplots(3, columns, figsize=(2.6 * columns, 7.2), squeeze=False, layout="constrained")
    for axis in axes.flat[:]:
        axis.set_visible(False)
    for (above, middle, below), (name, folder) in zip(axes.T, entries.items(), strict=False):
        denoised = planes(folder / "denoised.ome.zarr")
        residual = observed - denoised
        found = autocorrelation(residual.reshape(-1, *residual.shape[2:]))
        reach = [n // 2 for n in found.shape]
        found[reach[0], reach[1]] = np.nan  # of a voxel with itself
        above.set_visible(True)
        shown = above.imshow(
            found, cmap="RdBu_r", vmin=-0.3, vmax=0.3, extent=(-reach[1], reach[1], reach[0], -reach[0])
        )
        above.set_title(name, fontsize=9)
        above.set_xlabel("shift along X/pixels", fontsize=8)
        above.tick_params(labelsize=8)
        middle.axhline(0, color="0.6", lw=0.8)
        for c, (one, colour) in enumerate(zip(noise, itertools.cycle(COLOURS), strict=False)):
            x, mean, error, variance = by_intensity(denoised[c].ravel(), residual[c].ravel())
            middle.errorbar(x, mean, 2 * error, fmt="o-", ms=3, lw=1, color=colour)
            below.plot(x, one.variance(x), color=colour, ls="--", lw=1.2, label=None if c else "noise")
            below.plot(x, variance, "o-", ms=3, lw=1, color=colour, label=None if c else "removed")
        below.set_ylim(bottom=0)
        for axis in (middle, below):
            axis.set_visible(True)
            axis.set_xlabel("denoised intensity", fontsize=8)
            axis.tick_params(labelsize=8)
    axes[0][0].set_ylabel("shift along Y/pixels", fontsize=8)
    axes[1][0].set_ylabel("mean of noisy − denoised", fontsize=8)
    axes[2][0].set_ylabel("its variance", fontsize=8)
    axes[2][0].legend(frameon=False, fontsize=8)
    figure.colorbar(shown, ax=axes[0].tolist(), shrink=0.8, label="autocorrelation")
    figure.suptitle(title, fontsize=10)
    save(figure, output, "figures")
