"""Block-matching and 3-D filtering, the strongest classical baseline; an optional package."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar, Literal

import numpy as np
import torch
from pydantic import Field
from torch import Tensor

from ssdenoise.errors import ConfigError
from ssdenoise.methods.base import Method
from ssdenoise.networks import Network
from ssdenoise.noise import FloatArray, NoiseModel, NoiseModels

#: Voxels between reference blocks, by dimensions. The authors take 3; powers of two divide a shard, so that tiles can
#: be as small as one. Blocks of 8x8 still overlap by half, of 4x4x4 too.
STEP = {2: 4, 3: 2}

#: How far a voxel's estimate reaches: in each of two steps to a block that covers it, from there to the block that it
#: was matched to, and from there to all others of that group. Blocks of 8 within 19 pixels; in volumes of 5 within 7.
HALO = {2: 108, 3: 48}

#: Voxels a side of the largest block; smaller images are filled up by mirrored voxels.
BLOCK = {2: 8, 3: 5}


#: Standard deviation of photographs with intensities from 0 to 1, for which the thresholds of block matching are made.
PHOTOGRAPH = 0.25


class BM3D(Method):
    """BM3D (Dabov et al. 2007) and, for volumes, BM4D (Maggioni et al. 2013), by their authors' package.

    Notes
    -----
    Blocks that look alike are stacked, and the stack is thresholded in a transform domain, then Wiener-filtered
    [1]_, [2]_. Both take the noise as Gaussian, of one known strength. Photon noise is therefore made so first, by the
    generalised Anscombe transform with the calibrated gain, offset and read noise, and undone by the inverse that is
    unbiased [3]_.

    The second step matches blocks of the first estimate, which where the image is flat are alike but for rounding. So
    tiles agree with the whole to a twentieth of the noise's standard deviation, not to rounding.

    The package (``pip install ssdenoise[bm3d]``) may be used for nonprofit, noncommercial purposes only.

    References
    ----------
    .. [1] K. Dabov, A. Foi, V. Katkovnik and K. Egiazarian, "Image Denoising by Sparse 3-D Transform-Domain
       Collaborative Filtering", IEEE TIP 16, 2007.
    .. [2] M. Maggioni, V. Katkovnik, K. Egiazarian and A. Foi, "Nonlocal Transform-Domain Filter for Volumetric Data
       Denoising and Reconstruction", IEEE TIP 22, 2013.
    .. [3] M. Mäkitalo and A. Foi, "Optimal Inversion of the Generalized Anscombe Transformation for Poisson-Gaussian
       Noise", IEEE TIP 22, 2013.
    """

    independent_along: ClassVar[str] = "zyx"

    name: Literal["bm3d"] = "bm3d"
    stabilize: bool = Field(
        True, description="Transform photon noise to constant variance first, where calibration found any."
    )

    def build(self, channels: int, ndim: int, noise: Sequence[NoiseModels]) -> Network:
        return BM3DFilter(ndim, noise, stabilize=self.stabilize)

    def fit(self, net: Network, sample: Tensor) -> None:
        _package(net.stride)  # all parameters are calibrated; here it is only seen that the package is there


def _package(stride: Sequence[int]) -> object:
    """The package for planes or for volumes."""
    try:
        if len(stride) == 2:
            import bm3d as package
        else:
            import bm4d as package
    except ImportError:
        raise ConfigError(
            "the method bm3d needs the packages bm3d and bm4d, which are free for noncommercial use only; "
            "`pip install ssdenoise[bm3d]` if yours is"
        ) from None
    return package


class BM3DFilter(Network):
    """The filter, with the noise's parameters of each channel as buffers."""

    models: Tensor
    sigmas: Tensor

    def __init__(self, ndim: int, noise: Sequence[NoiseModels], *, stabilize: bool) -> None:
        super().__init__()
        self.stabilize = stabilize
        found = [models.poisson_gaussian for models in noise]
        rows = torch.tensor([(one.gain, one.offset, one.read_noise) for one in found], dtype=torch.float64)
        self.register_buffer("models", rows)
        sigmas = [models.gaussian.read_noise for models in noise]
        self.register_buffer("sigmas", torch.tensor(sigmas, dtype=torch.float64))
        self.halo, self.stride = (HALO[ndim],) * ndim, (STEP[ndim],) * ndim

    def forward(self, noisy: Tensor) -> Tensor:
        images = noisy.double().cpu().numpy()
        out = [[self._denoise(image, channel) for channel, image in enumerate(sample)] for sample in images]
        return torch.from_numpy(np.array(out, np.float32)).to(noisy.device)

    def _denoise(self, image: FloatArray, channel: int) -> FloatArray:
        model = NoiseModel(*self.models[channel].tolist())
        if not self.stabilize or model.gain == 0:
            return self._filter(image, float(self.sigmas[channel]), 1.0)
        # how steep the transform is at the mean of the image, which is zero in normalised units
        slope = (stabilized(np.array(1e-3), model) - stabilized(np.array(-1e-3), model)) / 2e-3
        return unstabilized(self._filter(stabilized(image, model), 1.0, float(slope)), model)

    def _filter(self, image: FloatArray, sigma: float, spread: float) -> FloatArray:
        """Filter an image whose structure has about the standard deviation `spread`."""
        if sigma == 0:
            return image
        package = _package(self.stride)
        profile = package.BM3DProfile() if len(self.stride) == 2 else package.BM4DProfile()  # type: ignore[attr-defined]
        profile.num_threads = 1  # with several, sums depend on which is first
        profile.step_ht = profile.step_wiener = self.stride if len(self.stride) == 3 else self.stride[0]
        run = package.bm3d if len(self.stride) == 2 else package.bm4d  # type: ignore[attr-defined]
        scale = PHOTOGRAPH / spread
        missing = [(0, max(0, BLOCK[len(self.stride)] - n)) for n in image.shape]
        filled = np.pad(image, missing, mode="symmetric")
        found = np.asarray(run(filled * scale, sigma * scale, profile)).reshape(filled.shape) / scale
        return found[tuple(slice(0, n) for n in image.shape)]


def stabilized(image: FloatArray, model: NoiseModel) -> FloatArray:
    """Generalised Anscombe transform: Poisson-Gaussian noise becomes nearly Gaussian of variance 1."""
    photons, read_noise = (image - model.offset) / model.gain, model.read_noise / model.gain
    return np.asarray(2 * np.sqrt(np.maximum(photons + 3 / 8 + read_noise**2, 0)))


def unstabilized(image: FloatArray, model: NoiseModel) -> FloatArray:
    """Closed form of the exact unbiased inverse, for means of transformed values; zero photons below its minimum."""
    read_noise = model.read_noise / model.gain
    lowest = 2 * np.sqrt(3 / 8 + read_noise**2)
    d = np.maximum(image, lowest)
    root = np.sqrt(1.5)
    photons = d**2 / 4 + root / (4 * d) - 11 / (8 * d**2) + 5 * root / (8 * d**3) - 1 / 8 - read_noise**2
    return np.asarray(model.offset + model.gain * np.maximum(photons, 0))
