"""The filter that noise is measured through: it removes what is smooth, and leaves a known share of the noise.

Second differences along Y and along X leave all of white noise, but next to nothing of noise that is alike in
neighbours: a Gaussian filter of one pixel leaves it 0.7 % of its variance. Where the noise was found to be correlated,
its autocorrelation tells the share, by which the variance is divided; and where the share is small, the differences are
taken between voxels further apart, or not taken along that axis at all.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from scipy.ndimage import convolve, uniform_filter

from ssdenoise.noise import FloatArray

#: Share of the noise's variance that is to be left by the difference along an axis.
LEAST = 0.5

#: From this share on all is taken to be left: so little correlation may be that of fine structure.
NEARLY_ALL = 0.8

#: Most voxels between those of a difference.
MOST = 3

#: Voxels around what the filter sees that tell how flat a place is.
AROUND = 2


@dataclass(frozen=True)
class HighPass:
    """Second differences along Y and X.

    Attributes
    ----------
    strides : tuple of int
        Voxels between those of a difference, (Y, X); 0: none is taken along that axis.
    passes : float
        Share of the noise's variance that is left.
    """

    strides: tuple[int, int] = (1, 1)
    passes: float = 1.0

    @cached_property
    def kernel(self) -> FloatArray:
        """Zero on planes that are locally linear in X or in Y; divided by its norm (Immerkaer 1996)."""
        down, across = (_difference(stride) for stride in self.strides)
        kernel = np.outer(down, across)
        return np.asarray(kernel / np.sqrt(np.sum(kernel**2)))

    @property
    def cubes(self) -> float:
        """What is left of the third cumulant; 0, as it is not known, where noise is correlated."""
        return float((self.kernel**3).sum()) if self == FINEST else 0.0

    @property
    def window(self) -> tuple[int, int]:
        """Pixels (Y, X) that a value of the noise and what surrounds it are taken from."""
        rows, columns = (2 * max(stride, 1) + 1 + 2 * AROUND for stride in self.strides)
        return rows, columns

    @property
    def rim(self) -> tuple[slice, slice]:
        """What is left of a plane (Y, X) where the window does not reach beyond it."""
        rows, columns = (slice(side // 2, -(side // 2)) for side in self.window)
        return rows, columns

    def filtered(self, plane: FloatArray) -> FloatArray:
        """The noise of a plane (Y, X)."""
        return np.asarray(convolve(plane, self.kernel))

    def texture(self, plane: FloatArray) -> FloatArray:
        """Variance of the pixels around what the filter sees; of single differences the 40 around 3x3 pixels.

        Differences leave fine texture, which would pass for noise; so noise is measured where there is least of it.
        As the noise of these pixels has nothing to do with that in the middle, the choice does not favour noise that
        happens to be weak. Hence, along an axis without difference, none beside the middle counts.
        """
        hole = [2 * s + 1 if s else side for s, side in zip(self.strides, self.window, strict=True)]
        inside, whole = int(np.prod(hole)), int(np.prod(self.window))
        means = [
            (whole * uniform_filter(x, self.window) - inside * uniform_filter(x, hole)) / (whole - inside)
            for x in (plane, plane**2)
        ]
        return np.asarray(means[1] - means[0] ** 2)

    def to_json(self) -> dict[str, Any]:
        """Strides and share."""
        return {"strides": list(self.strides), "passes": self.passes}


#: For noise that is not correlated between pixels.
FINEST = HighPass()


def high_pass_for(correlation: Mapping[str, Any]) -> HighPass:
    """The finest filter that leaves enough of a noise, from its `correlation`.

    Along an axis on which neighbours leave too little, no difference is taken if those along the other axis do, which
    remove structure well enough; otherwise it is taken between voxels further apart. As noise is correlated, so is
    structure, and at most so far: what is measured at strides above 1 is not certain.
    """
    known = {
        axis: np.array([1.0, *correlation[axis]])
        for i, axis in enumerate("yx", 1)
        if any(offset[i] for offset in correlation["offsets"])
    }
    left = {axis: [_passes(known[axis], s) if axis in known else 1.0 for s in range(1, MOST + 1)] for axis in "yx"}
    strides, passes = [], 1.0
    for axis, other in ("yx", "xy"):
        if left[axis][0] >= LEAST:
            stride = 1
        elif left[other][0] >= LEAST:
            stride = 0
        else:
            stride = next((s for s, share in enumerate(left[axis], 1) if share >= LEAST), MOST)
        strides.append(stride)
        passes *= max(left[axis][stride - 1], LEAST / 2) if stride else 1.0
    if strides == [1, 1] and passes >= NEARLY_ALL:
        return FINEST
    return HighPass((strides[0], strides[1]), float(passes))


def _difference(stride: int) -> list[int]:
    return [1, *[0] * (stride - 1), -2, *[0] * (stride - 1), 1] if stride else [1]


def _passes(correlation: FloatArray, stride: int) -> float:
    """Share of a noise's variance that a second difference leaves: its autocorrelation, times that of [1, -2, 1]."""
    return float(1 - 4 / 3 * correlation[stride] + 1 / 3 * correlation[2 * stride])
