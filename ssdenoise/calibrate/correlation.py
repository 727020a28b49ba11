"""Autocorrelation of the noise, from the noisy volume alone.

Structure is correlated between neighbours too, and must not be taken for noise. But optics let no structure through
that is fine in one direction: to see how noise is correlated along X, filter along Y so that only its finest detail is
left. White noise stays white along X under that filter, noise that is correlated along X stays so, and structure is
gone in either case, except for what is badly sampled. Hence the flattest blocks of each brightness are looked at, and
the median over brightnesses is taken. Of repeats, the deviations from their mean are the noise: no filter is needed,
and every block is looked at.
"""

from __future__ import annotations

from itertools import product
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.ndimage import convolve1d, gaussian_filter

from ssdenoise.noise import FloatArray

#: Fourth difference, divided by its norm.
FINEST = np.array([1.0, -4.0, 6.0, -4.0, 1.0]) / 70**0.5

#: Pixels a side of the blocks, share of the flattest that are used, and groups of brightness.
BLOCK, FLATTEST, GROUPS = 16, 0.1, 5

#: Pixels that say how flat a block is: width of the Gaussian that takes noise away before structure is measured.
SMOOTHING = 2.0

#: Lags looked at.
LAGS = 6

#: A correlation counts as such from here on. Below, neighbours tell less than a fiftieth of a voxel's noise. Negative
#: ones, which sharpening and some sensors cause, leave no blotches behind and count later.
POSITIVE, NEGATIVE = 0.08, -0.15

#: A weaker one between neighbours is told, though nothing follows from it, if it is at least so large and so many
#: standard errors from none.
WEAK, CERTAIN = 0.04, 3.0


def correlation(planes: FloatArray, *, repeats: bool) -> dict[str, Any]:
    """Autocorrelation of the noise along each axis.

    Parameters
    ----------
    planes : array of shape (T, Z, Y, X)
        Neighbouring planes.
    repeats : bool
        Whether the time points show the same scene.

    Returns
    -------
    dict
        `z`, `y`, `x`: correlation at lags 1, 2, ... (empty where an axis is too short); `offsets`: the neighbours
        (Z, Y, X) that it counts for; of two opposite ones, one; `weak`: the axes along which it is there but too weak
        to count.
    """
    mean = np.broadcast_to(planes.mean(axis=0), planes.shape) if repeats else planes
    noise = planes - mean if repeats else planes
    found, errors = {}, {}
    for axis in (1, 2, 3):
        found[axis], errors[axis] = _along(noise, mean, axis, repeats)
    weak = [
        "zyx"[axis - 1]
        for axis, values in found.items()
        if len(values) and max(WEAK, CERTAIN * errors[axis][0]) <= values[0] < POSITIVE
    ]
    counted = {}
    for axis, values in found.items():
        counts = _counts(values)
        unbroken = np.logical_and.accumulate(counts)
        # beyond the first that does not count, as interlaced rows have it, chance has more places to strike
        counted[axis] = np.flatnonzero(unbroken | (counts & (np.abs(values) >= CERTAIN * errors[axis]))) + 1
    offsets = [[int(lag) if axis == along else 0 for axis in (1, 2, 3)] for along in counted for lag in counted[along]]
    # aside of the axes, where structure cannot be filtered out, correlation is taken as the product of theirs
    for y, x in product(counted[2].tolist(), counted[3].tolist()):
        if _counts(found[2][y - 1] * found[3][x - 1]):
            offsets += [[0, y, x], [0, y, -x]]
    lags = {name: found[axis].tolist() for name, axis in (("z", 1), ("y", 2), ("x", 3))}
    return {**lags, "offsets": offsets, "weak": weak}


def _counts(values: FloatArray) -> npt.NDArray[np.bool_]:
    return (values >= POSITIVE) | (values <= NEGATIVE)


def _along(planes: FloatArray, scene: FloatArray, axis: int, repeats: bool) -> tuple[FloatArray, FloatArray]:
    """Correlation at each lag along an axis of (T, Z, Y, X), and its standard error.

    `scene` says how bright and how flat a place is.
    """
    block = [1, 1, BLOCK, BLOCK]
    lags = min(LAGS, planes.shape[axis] // 2 if axis == 1 else LAGS)
    if axis == 1:
        block[1] = planes.shape[1]
    if lags == 0 or min(planes.shape[2:]) < BLOCK + len(FINEST) - 1:
        return np.zeros(0), np.zeros(0)
    image, smooth = planes, gaussian_filter(scene, (0, 0, SMOOTHING, SMOOTHING))
    for other in (2, 3):
        if not repeats and other != axis:
            image = convolve1d(image, FINEST, axis=other)
    inner = (..., slice(2, -2), slice(2, -2))  # away from the borders, where the filter mirrors
    noise, brightness, flatness = (_blocks(part[inner], block) for part in (image, scene, smooth))
    mean, relief = brightness.mean(axis=(1, 2, 3)), flatness.var(axis=(2, 3)).mean(axis=1)
    groups = []
    for members in np.array_split(np.argsort(mean, kind="stable"), GROUPS):
        members = members[np.ptp(noise[members].reshape(len(members), -1), axis=1) > 0] if len(members) else members
        if len(members) < 4:
            continue
        share = 1.0 if repeats else FLATTEST
        flat = members[np.argsort(relief[members], kind="stable")[: max(4, round(share * len(members)))]]
        groups.append(_correlations(noise[flat], axis, lags))
    if not groups:
        return np.zeros(0), np.zeros(0)
    # of a median of so many groups, by how much they differ
    spread = np.std(groups, axis=0, ddof=1) if len(groups) > 2 else np.full(lags, np.inf)
    return np.median(groups, axis=0), np.sqrt(np.pi / 2 / len(groups)) * spread


def _correlations(blocks: FloatArray, axis: int, lags: int) -> list[float]:
    """Pooled over blocks (N, Z, Y, X)."""
    n, power = blocks.shape[axis], float(np.mean(blocks**2))
    values = []
    for lag in range(1, lags + 1):
        first, second = (np.take(blocks, range(s, s + n - lag), axis=axis) for s in (0, lag))
        values.append(float(np.mean(first * second)) / power)
    return values


def _blocks(image: FloatArray, block: list[int]) -> FloatArray:
    """Non-overlapping blocks of (T, Z, Y, X), shape (N, Z, Y, X) of a block; the rest at the ends is left out."""
    t, z, y, x = (n // b for n, b in zip(image.shape, block, strict=True))
    whole = image[: t * block[0], : z * block[1], : y * block[2], : x * block[3]]
    split = whole.reshape(t, 1, z, block[1], y, block[2], x, block[3])
    return split.transpose(0, 2, 4, 6, 1, 3, 5, 7).reshape(-1, *block[1:])
