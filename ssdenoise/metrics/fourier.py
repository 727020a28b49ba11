"""Fourier ring and shell correlation: up to what frequency two images agree."""

from __future__ import annotations

from dataclasses import dataclass
from functools import reduce

import numpy as np
import numpy.typing as npt
from scipy import fft

from ssdenoise.metrics.error import Image

#: Rings (in 3-D shells) of equal width from frequency 0 to half a cycle per voxel; of small images fewer, as they have
#: fewer frequencies.
RINGS = 64


@dataclass(frozen=True)
class Rings:
    """Sums over the Fourier coefficients of two images in each ring; those of several images add up.

    Attributes
    ----------
    cross : array of shape (rings,)
        Of the real part of a * conj(b).
    first, second : array of shape (rings,)
        Of |a|**2 and |b|**2.
    """

    cross: npt.NDArray[np.float64]
    first: npt.NDArray[np.float64]
    second: npt.NDArray[np.float64]

    @classmethod
    def of(cls, a: Image, b: Image) -> Rings:
        """Of two images or volumes of the same shape, under a Hann window: their ends would be edges."""
        taper = reduce(np.multiply.outer, [np.sin(np.pi * (np.arange(n) + 0.5) / n) ** 2 for n in a.shape])
        x, y = (fft.rfftn((image - image.mean(dtype=np.float64)) * taper) for image in (a, b))
        frequencies = [fft.fftfreq(n) for n in a.shape[:-1]] + [fft.rfftfreq(a.shape[-1])]
        squares = reduce(np.add.outer, [np.square(f) for f in frequencies])
        rings = max(1, min(RINGS, min(a.shape) // 2))
        ring = np.minimum(np.sqrt(squares) * (2 * rings), rings).astype(np.intp).ravel()
        # of the coefficients that a real image has twice, one is there
        times = np.where((frequencies[-1] == 0) | (frequencies[-1] == 0.5), 1.0, 2.0)

        def total(values: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
            # the corners are beyond half a cycle per voxel
            return np.bincount(ring, (values * times).ravel(), rings + 1)[:rings].astype(np.float64)

        return cls(total((x * y.conj()).real), total(np.abs(x) ** 2), total(np.abs(y) ** 2))

    def __add__(self, other: Rings) -> Rings:
        return Rings(self.cross + other.cross, self.first + other.first, self.second + other.second)


def ring_correlation(rings: Rings) -> npt.NDArray[np.float64]:
    """Correlation in each ring, NaN where no coefficient lies in it.

    Notes
    -----
    Between an estimate and an image whose noise it has not seen, never between the input of a method and its output.
    van Heel & Schatz, Journal of Structural Biology 151:250, 2005.
    """
    with np.errstate(invalid="ignore", divide="ignore"):
        return rings.cross / np.sqrt(rings.first * rings.second)


def resolution(correlation: npt.NDArray[np.float64], threshold: float = 1 / 7) -> float:
    """Finest period, in voxels, up to which images agree: 2 (every frequency) or more; NaN where they never do.

    Where the correlation first falls under the threshold, between the middles of two rings. Rosenthal & Henderson
    (Journal of Molecular Biology 333:721, 2003) give reasons for 1/7 between two halves of the data, which is 0.5
    between their sum and the truth.
    """
    middles = (np.arange(len(correlation)) + 0.5) / (2 * len(correlation))
    known = np.isfinite(correlation)
    middles, found = middles[known], correlation[known]
    below = np.flatnonzero(found < threshold)
    if not len(below):
        return 2.0 if len(found) else float("nan")
    i = int(below[0])
    if i == 0:
        return float("nan")
    share = (found[i - 1] - threshold) / (found[i - 1] - found[i])
    return float(1 / (middles[i - 1] + share * (middles[i] - middles[i - 1])))
