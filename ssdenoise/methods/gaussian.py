"""Gaussian smoothing, with the width that the noisy image itself recommends."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar, Literal

import numpy as np
import torch
from pydantic import Field
from torch import Tensor

from ssdenoise.jinvariance import best_options
from ssdenoise.methods.base import Method, Positive
from ssdenoise.networks import Network
from ssdenoise.noise import FloatArray, NoiseModels

TRUNCATE = 4.0


class Gaussian(Method):
    """Gaussian filter; its width minimises the J-invariant self-supervised loss on a sample (Batson & Royer 2019).

    Notes
    -----
    The loss hides a grid of voxels, filters, and compares at the hidden ones [1]_: for noise independent from voxel to
    voxel it is the true error plus a constant, so the best width needs no clean image.

    References
    ----------
    .. [1] J. Batson and L. Royer, "Noise2Self: Blind Denoising by Self-Supervision", ICML 2019, arXiv:1901.11365.
    """

    independent_along: ClassVar[str] = "zyx"

    name: Literal["gaussian"] = "gaussian"
    sigmas: tuple[Positive, ...] = Field(
        (0.5, 0.7, 1.0, 1.4, 2.0, 2.8, 4.0, 5.6), min_length=1, description="Widths to choose from, in voxels."
    )

    def build(self, channels: int, ndim: int, noise: Sequence[NoiseModels]) -> Network:
        return GaussianFilter(ndim, max(self.sigmas))

    def fit(self, net: Network, sample: Tensor) -> None:
        net.sigma.fill_(best_options(smooth, sample, {"sigma": self.sigmas})["sigma"])  # type: ignore[operator]


class GaussianFilter(Network):
    """The filter, with its width as a buffer. The halo is that of the widest candidate."""

    sigma: Tensor

    def __init__(self, ndim: int, widest: float) -> None:
        super().__init__()
        self.register_buffer("sigma", torch.tensor(widest, dtype=torch.float64))
        self.halo, self.stride = (int(TRUNCATE * widest + 0.5),) * ndim, (1,) * ndim

    def forward(self, noisy: Tensor) -> Tensor:
        sigma = (0.0, 0.0, *[float(self.sigma)] * (noisy.ndim - 2))
        return torch.from_numpy(smooth(noisy.cpu().numpy(), sigma)).to(noisy.device)


def smooth(image: FloatArray, sigma: float | Sequence[float]) -> FloatArray:
    """Gaussian filter, one width or one per axis."""
    from scipy.ndimage import gaussian_filter

    return np.asarray(gaussian_filter(image, sigma, truncate=TRUNCATE))
