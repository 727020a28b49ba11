"""Structural similarity of planes and volumes, at one or at several scales."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt
from scipy import optimize
from scipy.ndimage import gaussian_filter, uniform_filter

from ssdenoise.grid import Region
from ssdenoise.metrics.error import Image

Map = npt.NDArray[np.float64]

K1, K2 = 0.01, 0.03

#: Weights of the scales, finest first (Wang et al. 2003).
BETAS = (0.0448, 0.2856, 0.3001, 0.2363, 0.1333)


@dataclass(frozen=True)
class Window:
    """Where SSIM takes means, variances and covariances.

    `uniform`: 7 voxels a side, sample covariance, as scikit-image's default; `gaussian`: standard deviation 1.5, cut to
    11 voxels, covariance of the population (Wang et al. 2004).
    """

    kind: Literal["uniform", "gaussian"] = "uniform"

    @property
    def halo(self) -> int:
        """Context that the similarity at a voxel needs, each side."""
        return {"uniform": 3, "gaussian": 5}[self.kind]

    def mean(self, image: Map) -> Map:
        """Mean over the window at each voxel; images are mirrored at their ends."""
        if self.kind == "uniform":
            return np.asarray(uniform_filter(image, 2 * self.halo + 1, mode="mirror"))
        return np.asarray(gaussian_filter(image, 1.5, radius=self.halo, mode="mirror"))

    def unbiased(self, ndim: int) -> float:
        """Factor on variances."""
        n = (2 * self.halo + 1) ** ndim
        return n / (n - 1) if self.kind == "uniform" else 1.0

    def similarity(self, x: Map, y: Map, data_range: float) -> tuple[Map, Map]:
        """Structural similarity at each voxel, and its factor of contrast and structure."""
        ux, uy = self.mean(x), self.mean(y)
        squares, product = ux * ux + uy * uy, ux * uy
        # of the variances only the sum is needed: one filter less
        variances = self.unbiased(x.ndim) * (self.mean(x * x + y * y) - squares)
        covariance = self.unbiased(x.ndim) * (self.mean(x * y) - product)
        c1, c2 = (K1 * data_range) ** 2, (K2 * data_range) ** 2
        contrast = (2 * covariance + c2) / (variances + c2)
        return (2 * product + c1) / (squares + c1) * contrast, contrast


def similarity_maps(
    reference: Image, estimate: Image, inside: Region, *, data_range: float, window: Window
) -> tuple[Map, Map]:
    """Structural similarity at the voxels of a block, and its factor of contrast and structure.

    Parameters
    ----------
    reference, estimate : array of shape ([Z,] Y, X)
        The block with a halo, `window.halo` voxels each side that is not an end of the image; same shape and unit.
    inside : Region
        The block in it.
    data_range : float
        Width of the intensity range, in that unit.
    window : Window

    Returns
    -------
    array, array
        Of those voxels inside whose window does not reach over an end of the image, as in scikit-image's
        `structural_similarity`; the mean of the first over all blocks is the SSIM. None, if the image is smaller than
        the window.

    References
    ----------
    Wang et al., IEEE Transactions on Image Processing 13:600, 2004.
    """
    whole = window.similarity(reference.astype(np.float64), estimate.astype(np.float64), data_range)
    where = _whole_windows(inside, reference.shape, window)
    return whole[0][where], whole[1][where]


def _whole_windows(inside: Region, shape: Sequence[int], window: Window) -> Region:
    return tuple(
        slice(max(s.start, window.halo), max(s.start, window.halo, min(s.stop, n - window.halo)))
        for s, n in zip(inside, shape, strict=True)
    )


@dataclass(frozen=True)
class MultiScale:
    """Sums at each scale of an image, finest first; those of its blocks add up to those of the image.

    Attributes
    ----------
    contrast, windows : array of shape (scales,)
        Sum of the factor of contrast and structure over whole windows, and their number.
    similarity, voxels : float
        Sum of the similarity over all voxels at the coarsest scale, and their number.
    """

    contrast: Map
    windows: Map
    similarity: float
    voxels: float

    @staticmethod
    def halo(scales: int = len(BETAS)) -> int:
        """Context that the sums of a block need around it, each side."""
        return Window("gaussian").halo * MultiScale.stride(scales)

    @staticmethod
    def stride(scales: int = len(BETAS)) -> int:
        """What a block's ends are multiples of, unless they are the image's."""
        return int(2 ** (scales - 1))

    @classmethod
    def of(
        cls, reference: Image, estimate: Image, inside: Region, *, data_range: float, scales: int = len(BETAS)
    ) -> MultiScale:
        """Sums of a block.

        Parameters
        ----------
        reference, estimate : array of shape ([Z,] Y, X)
            The block with its halo, as far as the image goes.
        inside : Region
            The block in it.
        data_range : float
        scales : int
        """
        window = Window("gaussian")
        contrasts, counts = np.zeros(scales), np.zeros(scales)
        similarity = voxels = 0.0
        for scale, (x, y) in enumerate(_halved(reference, estimate, scales)):
            place = tuple(
                slice(s.start >> scale, min(s.stop >> scale, n)) for s, n in zip(inside, x.shape, strict=True)
            )
            similar, contrast = window.similarity(x, y, data_range)
            part = contrast[_whole_windows(place, x.shape, window)]
            contrasts[scale], counts[scale] = part.sum(), part.size
            if scale == scales - 1:
                similarity, voxels = float(similar[place].sum()), float(similar[place].size)
        return cls(contrasts, counts, similarity, voxels)

    def __add__(self, other: MultiScale) -> MultiScale:
        return MultiScale(
            self.contrast + other.contrast,
            self.windows + other.windows,
            self.similarity + other.similarity,
            self.voxels + other.voxels,
        )

    def value(self, betas: Sequence[float] = BETAS) -> float:
        """The multi-scale similarity; NaN if the image is too small for its coarsest scale."""
        if not self.windows.all():
            return float("nan")
        factors = [*(self.contrast[:-1] / self.windows[:-1]), self.similarity / self.voxels]
        return float(np.prod(np.maximum(factors, 0) ** np.asarray(betas)))


def _halved(reference: Image, estimate: Image, scales: int) -> Iterator[tuple[Map, Map]]:
    """Both images at each scale: means over two voxels along each axis; an odd last voxel is dropped."""
    both = np.stack([reference, estimate]).astype(np.float64, copy=False)
    for scale in range(scales):
        if scale:
            for axis in range(1, both.ndim):
                n = both.shape[axis] // 2 * 2
                even, odd = (both[(slice(None),) * axis + (slice(first, n, 2),)] for first in (0, 1))
                both = (even + odd) / 2
        yield both[0], both[1]


def ms_ssim(reference: Image, estimate: Image, *, data_range: float, betas: Sequence[float] = BETAS) -> float:
    """Multi-scale structural similarity of a plane or a volume; NaN if it is too small for its coarsest scale.

    Parameters
    ----------
    reference, estimate : array of shape ([Z,] Y, X)
        Same shape and unit; more than ``10 * 2 ** (scales - 1)`` voxels a side.
    data_range : float
        Width of the intensity range, in that unit.
    betas : sequence of float
        Weight of each scale, finest first.

    Notes
    -----
    Gaussian window, contrasts below 0 count as 0, the coarsest scale's similarity over all voxels, images mirrored at
    their ends: what torchmetrics computes. Wang et al., Asilomar Conference on Signals 2003.
    """
    inside = tuple(slice(0, n) for n in reference.shape)
    return MultiScale.of(reference, estimate, inside, data_range=data_range, scales=len(betas)).value(betas)


#: Of the intensities, what counts as background for MicroSSIM, in percent.
BACKGROUND = 3


def micro_ssim(reference: Image, estimate: Image) -> float:
    """MicroSSIM of a plane: SSIM of what is above the background, at the gain of the estimate that suits it best.

    Parameters
    ----------
    reference, estimate : array of shape (Y, X)
        More than 10 pixels a side; they may be in different units.

    Returns
    -------
    float
        NaN, if the plane is smaller, or the reference is flat.

    Notes
    -----
    Both planes less their 3 % quantile, data range of the reference, sample covariance; the similarity by the Gaussian
    window, at the gain that maximises the one by the uniform window: so the authors' package does for a single image.
    The gain is that of the plane, not one of a whole dataset. Ashesh et al., MicroSSIM, arXiv:2408.08747.
    """
    width = float(np.ptp(reference))
    if min(reference.shape) <= 2 * Window("gaussian").halo or width == 0:
        return float("nan")
    x, y = (image.astype(np.float64) - np.percentile(image, BACKGROUND) for image in (reference, estimate))
    unlike = _at_gain(x, y, width, Window("uniform"))
    gain = optimize.minimize_scalar(unlike, bracket=(0.9 * (guess := _gain(x, y)), 1.1 * guess)).x
    return -_at_gain(x, y, width, Window("gaussian"))(gain)


def _gain(x: Map, y: Map) -> float:
    """Gain of least squares from `y` to `x`; 1 where there is none."""
    square = float(np.sum(y * y))
    return float(np.sum(x * y)) / square or 1.0 if square else 1.0


def _at_gain(x: Map, y: Map, data_range: float, window: Window) -> Callable[[float], float]:
    """Mean similarity, times -1, of a plane and another times a gain."""
    inside = _whole_windows(tuple(slice(0, n) for n in x.shape), x.shape, window)
    ux, uy, xx, yy, xy = (window.mean(image)[inside] for image in (x, y, x * x, y * y, x * y))
    n = (2 * window.halo + 1) ** x.ndim
    vx, vy, vxy = (n / (n - 1) * part for part in (xx - ux * ux, yy - uy * uy, xy - ux * uy))
    c1, c2 = (K1 * data_range) ** 2, (K2 * data_range) ** 2

    def unlike(gain: float) -> float:
        luminance = (2 * gain * ux * uy + c1) / (ux**2 + gain**2 * uy**2 + c1)
        return -float(np.mean(luminance * (2 * gain * vxy + c2) / (vx + gain**2 * vy + c2)))

    return unlike
