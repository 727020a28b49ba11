"""Pairs out of single images of photons."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt


def thin(
    intensities: npt.NDArray[Any],
    fraction: float,
    rng: np.random.Generator,
    gain: npt.ArrayLike = 1.0,
    offset: npt.ArrayLike = 0.0,
) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]:
    """Split an image of photons into a pair of independent images by binomial thinning.

    Each photon goes to the first image with probability `fraction`, else to the second. Of Poisson counts with mean x,
    the parts are independent Poisson with means ``fraction * x`` and ``(1 - fraction) * x`` [1]_; both are rescaled
    here to the intensities of the whole.

    Parameters
    ----------
    intensities : ndarray
        ``gain * photons + offset``. Where that gives no whole number of photons (a gain that is only an estimate, read
        noise), it is rounded up or down at random, by which the parts of a voxel become correlated by at most a
        quarter of a photon: read noise must be small against the gain.
    fraction : float
        Between 0 and 1, exclusive.
    rng : numpy.random.Generator
    gain, offset : float or array that broadcasts

    Returns
    -------
    pair of ndarray of float32

    References
    ----------
    .. [1] J. F. C. Kingman, Poisson Processes, Oxford University Press 1993, section 2 (colouring theorem).
    """
    gain, offset = np.asarray(gain, np.float64), np.asarray(offset, np.float64)
    if intensities.dtype.kind == "u" and (gain == 1).all() and (offset == 0).all():
        photons = intensities.astype(np.int64)
    else:
        exact = np.maximum((intensities - offset) / gain, 0)
        photons = np.floor(exact + rng.random(exact.shape)).astype(np.int64)
    first = rng.binomial(photons, fraction)
    second = photons - first
    return (
        (gain * (first / fraction) + offset).astype(np.float32),
        (gain * (second / (1 - fraction)) + offset).astype(np.float32),
    )
