"""Median filter, with the size that the noisy image itself recommends."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, ClassVar, Literal

import numpy as np
import torch
from pydantic import Field
from torch import Tensor

from ssdenoise.jinvariance import best_options
from ssdenoise.methods.base import Method, Odd
from ssdenoise.networks import Network
from ssdenoise.noise import FloatArray, NoiseModels


class Median(Method):
    """Median of a square or cube; its size minimises the J-invariant loss on a sample.

    Notes
    -----
    Keeps edges, and removes single outliers such as hot pixels, which a mean would spread. How the size is chosen: see
    `ssdenoise.methods.gaussian.Gaussian`.
    """

    independent_along: ClassVar[str] = "zyx"

    name: Literal["median"] = "median"
    sizes: tuple[Annotated[Odd, Field(ge=1)], ...] = Field(
        (3, 5, 7), min_length=1, description="Sides of the window to choose from, in voxels; odd."
    )

    def build(self, channels: int, ndim: int, noise: Sequence[NoiseModels]) -> Network:
        return MedianFilter(ndim, max(self.sizes))

    def fit(self, net: Network, sample: Tensor) -> None:
        net.size.fill_(best_options(smooth, sample, {"size": self.sizes})["size"])  # type: ignore[operator]


class MedianFilter(Network):
    """The filter, with its size as a buffer. The halo is that of the widest candidate."""

    size: Tensor

    def __init__(self, ndim: int, widest: int) -> None:
        super().__init__()
        self.register_buffer("size", torch.tensor(widest))
        self.halo, self.stride = (widest // 2,) * ndim, (1,) * ndim

    def forward(self, noisy: Tensor) -> Tensor:
        images = noisy.flatten(0, 1).cpu().numpy()
        out = np.stack([smooth(image, int(self.size)) for image in images])
        return torch.from_numpy(out).view(noisy.shape).to(noisy.device)


def smooth(image: FloatArray, size: float) -> FloatArray:
    """Median filter of one image, the same size along all axes."""
    from scipy.ndimage import median_filter

    return np.asarray(median_filter(image, int(size)))
