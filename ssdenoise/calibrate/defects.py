"""What is wrong with voxels: saturated, clipped at zero, hot."""

from __future__ import annotations

from typing import Any

import numpy as np
from scipy.ndimage import maximum_filter, median_filter

from ssdenoise.noise import FloatArray, NoiseModel

#: A pixel is hot in an image if it exceeds the median of its eight neighbours by this many standard deviations of the
#: noise there. Where one image is all there is, structure of one pixel's size would count too: then it takes more.
HOT, HOT_IN_ONE = 5.0, 10.0

#: Optics spread a point over neighbours: what leaves all of them under this share of its own excess was not light.
OPTICS = 0.4

#: Share of the images in which a hot pixel is hot.
MOSTLY = 0.5

#: Most positions that are listed.
LISTED = 100

RING = np.array([[1, 1, 1], [1, 0, 1], [1, 1, 1]], bool)


def saturation(planes: FloatArray, dtype: np.dtype[Any], step: float) -> float | None:
    """Value at which voxels saturate, if any do: the dtype's largest, or one that so many have that it must be it.

    `step` is the smallest between the intensities that occur.
    """
    top = float(planes.max())
    at_top, below = int(np.sum(planes == top)), int(np.sum((planes < top) & (planes >= top - 3 * step)))
    piled_up = 16 <= at_top < planes.size and at_top > 3 * below  # all alike, they are dark rather than saturated
    return top if piled_up or (dtype.kind in "iu" and top == np.iinfo(dtype).max) else None


def defects(planes: FloatArray, noise: NoiseModel, origin: tuple[int, int] = (0, 0)) -> dict[str, Any]:
    """Share of zero voxels, and the hot pixels.

    Parameters
    ----------
    planes : array of shape (T, Z, Y, X)
    noise : NoiseModel
        Calibrated from them.
    origin : tuple of int
        Where in the volume's planes these begin, (Y, X).

    Returns
    -------
    dict
        `zero_share`: voxels that are 0, if none is below. `hot_pixels`: their number, share, and the first
        positions (Y, X).
    """
    images = planes.reshape(-1, *planes.shape[-2:])
    needed = HOT if len(images) > 1 else HOT_IN_ONE
    hits = np.zeros(images.shape[1:])
    for image in images:
        around = median_filter(image, footprint=RING, mode="mirror")
        # one photon more than the fit says: where nearly none arrive, each stands out by any measure of the variance
        spread = np.sqrt(np.maximum(noise.variance(around) + noise.gain**2, 1e-12))
        brightest = maximum_filter(image, footprint=RING, mode="mirror")
        hits += (image - around > needed * spread) & (brightest - around < OPTICS * (image - around))
    hot = np.argwhere(hits > MOSTLY * len(images))
    return {
        "zero_share": float(np.mean(images == 0)) if images.min() >= 0 else 0.0,
        "hot_pixels": {
            "number": len(hot),
            "share": len(hot) / hits.size,
            "positions": (hot[:LISTED] + origin).tolist(),
        },
    }
