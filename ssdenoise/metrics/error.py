"""Squared errors, as they are and after a fit of gain and offset."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Image = npt.NDArray[np.floating]


def psnr(mean_squared_error: npt.ArrayLike, data_range: npt.ArrayLike) -> npt.NDArray[np.float64]:
    """Peak signal-to-noise ratio in dB of mean squared errors; infinite where the error is zero.

    Parameters
    ----------
    mean_squared_error : array_like
    data_range : array_like
        Width of the intensity range that counts as "peak", in the unit of the images.
    """
    with np.errstate(divide="ignore"):
        return 10 * np.log10(np.square(data_range) / np.asarray(mean_squared_error, np.float64))


@dataclass(frozen=True)
class Moments:
    """Sums over the voxels of a reference and an estimate of it; those of the parts add up to those of the whole.

    Attributes
    ----------
    count : int
        Voxels.
    error : float
        Sum of squared differences.
    mean : array of shape (2,)
        Of the reference and of the estimate.
    products : array of shape (2, 2)
        Sums of products of their deviations from these means.
    """

    count: int
    error: float
    mean: npt.NDArray[np.float64]
    products: npt.NDArray[np.float64]

    @classmethod
    def of(cls, reference: Image, estimate: Image) -> Moments:
        """Moments of two arrays of the same shape, in float64."""
        both = np.stack([reference.ravel(), estimate.ravel()]).astype(np.float64, copy=False)
        mean = both.mean(axis=1)
        error = float(np.sum(np.square(both[0] - both[1])))
        deviations = both - mean[:, None]
        return cls(both.shape[1], error, mean, deviations @ deviations.T)

    def __add__(self, other: Moments) -> Moments:
        """Of both parts (Chan et al. 1979): sums of squares of numbers far from zero would cancel."""
        count = self.count + other.count
        step = other.mean - self.mean
        products = self.products + other.products + np.outer(step, step) * self.count * other.count / count
        return Moments(count, self.error + other.error, self.mean + step * other.count / count, products)

    @property
    def reference_square(self) -> float:
        """Sum of the squared reference."""
        return float(self.products[0, 0] + self.count * self.mean[0] ** 2)

    def fit(self) -> tuple[float, float]:
        """Gain and offset of least squares, from the estimate to the reference; the gain of a flat estimate is 0."""
        gain = float(self.products[0, 1] / self.products[1, 1]) if self.products[1, 1] > 0 else 0.0
        return gain, float(self.mean[0] - gain * self.mean[1])

    @property
    def fitted_error(self) -> float:
        """Sum of squared differences after that fit."""
        return max(0.0, float(self.products[0, 0] - self.fit()[0] * self.products[0, 1]))
