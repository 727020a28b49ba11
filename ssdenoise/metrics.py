"""PSNR and SSIM from sums over blocks, so that a volume of any size gives the value of the whole array.

Definitions: the data range is always given, never guessed; values are compared as they are, neither rounded nor
clipped. PSNR of several planes is that of their pooled squared error, not the mean of their decibels.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from scipy.ndimage import uniform_filter

Image = npt.NDArray[np.floating]

#: Side of SSIM's square window, in voxels, as in Wang et al. 2004 with a uniform window.
SSIM_WINDOW = 7
#: Context that the SSIM of a block needs.
SSIM_HALO = SSIM_WINDOW // 2


def psnr(mean_squared_error: npt.ArrayLike, data_range: float) -> npt.NDArray[np.float64]:
    """Peak signal-to-noise ratio in dB of mean squared errors; infinite where the error is zero.

    Parameters
    ----------
    mean_squared_error : array_like
    data_range : float
        Width of the intensity range that counts as "peak", in the unit of the images.
    """
    with np.errstate(divide="ignore"):
        return 10 * np.log10(data_range**2 / np.asarray(mean_squared_error, np.float64))


def squared_error(reference: Image, estimate: Image) -> float:
    """Sum of squared differences, in float64."""
    difference = reference.astype(np.float64) - estimate.astype(np.float64)
    return float(np.sum(np.square(difference)))


def ssim_map(reference: Image, estimate: Image, *, data_range: float) -> npt.NDArray[np.float64]:
    """Structural similarity at each pixel of a plane whose window lies inside it.

    Parameters
    ----------
    reference, estimate : array of shape (Y, X)
        Same shape and unit; at least `SSIM_WINDOW` pixels a side.
    data_range : float
        Width of the intensity range, in that unit.

    Returns
    -------
    array of shape (Y - 2 * SSIM_HALO, X - 2 * SSIM_HALO)
        Its mean is the SSIM of the plane.

    Notes
    -----
    Uniform 7x7 window and sample covariance as in scikit-image's `structural_similarity`; K1 = 0.01, K2 = 0.03
    (Wang et al., IEEE Transactions on Image Processing 13:600, 2004).
    """
    x, y = reference.astype(np.float64), estimate.astype(np.float64)
    unbiased = SSIM_WINDOW**2 / (SSIM_WINDOW**2 - 1)
    ux, uy = uniform_filter(x, SSIM_WINDOW), uniform_filter(y, SSIM_WINDOW)
    vx = unbiased * (uniform_filter(x * x, SSIM_WINDOW) - ux * ux)
    vy = unbiased * (uniform_filter(y * y, SSIM_WINDOW) - uy * uy)
    vxy = unbiased * (uniform_filter(x * y, SSIM_WINDOW) - ux * uy)
    c1, c2 = (0.01 * data_range) ** 2, (0.03 * data_range) ** 2
    similarity = ((2 * ux * uy + c1) * (2 * vxy + c2)) / ((ux * ux + uy * uy + c1) * (vx + vy + c2))
    return similarity[SSIM_HALO:-SSIM_HALO, SSIM_HALO:-SSIM_HALO]


def block_bootstrap(
    values: npt.NDArray[np.float64], rng: np.random.Generator, *, block: int, draws: int = 2000
) -> npt.NDArray[np.float64]:
    """Means of resampled planes, for confidence intervals.

    Neighbouring planes are alike, so whole runs of `block` planes are drawn, with wrap-around (circular block
    bootstrap, Politis & Romano 1992); independent draws would make the interval too narrow.

    Parameters
    ----------
    values : array of shape (n,)
        One value per plane, in plane order.
    rng : numpy.random.Generator
    block : int
        Planes per run.
    draws : int

    Returns
    -------
    array of shape (draws,)
    """
    n = len(values)
    starts = rng.integers(0, n, (draws, -(-n // block), 1))
    index = ((starts + np.arange(block)) % n).reshape(draws, -1)[:, :n]
    return np.asarray(values[index].mean(axis=1))
