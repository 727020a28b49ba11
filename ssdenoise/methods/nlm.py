"""Non-local means, with the strength that the noisy image itself recommends."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar, Literal

import numpy as np
import torch
from pydantic import Field
from torch import Tensor

from ssdenoise.jinvariance import best_options
from ssdenoise.methods.base import Method, Odd, Positive
from ssdenoise.networks import Network
from ssdenoise.noise import FloatArray, NoiseModels


class NLM(Method):
    """Non-local means (Buades et al. 2005), as in scikit-image; `h` minimises the J-invariant loss on a sample.

    Notes
    -----
    Each voxel becomes a mean of voxels around it, weighted by how alike the patches around them are [1]_. How the
    strength is chosen: see `ssdenoise.methods.gaussian.Gaussian`.

    References
    ----------
    .. [1] A. Buades, B. Coll and J.-M. Morel, "A non-local algorithm for image denoising", CVPR 2005.
    """

    independent_along: ClassVar[str] = "zyx"

    name: Literal["nlm"] = "nlm"
    patch_size: Odd = Field(5, ge=3, description="Side of the patches that are compared, in voxels; odd.")
    patch_distance: int = Field(6, ge=1, description="How far similar patches are looked for, in voxels.")
    strengths: tuple[Positive, ...] = Field(
        (0.4, 0.6, 0.8, 1.0, 1.2), min_length=1, description="Strengths `h` to choose from, in units of the noise."
    )

    def build(self, channels: int, ndim: int, noise: Sequence[NoiseModels]) -> Network:
        sigmas = [models.gaussian.read_noise for models in noise]
        return NLMFilter(ndim, self.patch_size, self.patch_distance, sigmas)

    def fit(self, net: Network, sample: Tensor) -> None:
        assert isinstance(net, NLMFilter)
        strengths = {"strength": self.strengths}
        net.strength.fill_(best_options(net.filter, sample, strengths, sigma=net.sigma.tolist())["strength"])


class NLMFilter(Network):
    """The filter, with its strength and the noise's standard deviation of each channel as buffers."""

    strength: Tensor
    sigma: Tensor

    def __init__(self, ndim: int, patch_size: int, patch_distance: int, sigmas: Sequence[float]) -> None:
        super().__init__()
        self.patch_size, self.patch_distance = patch_size, patch_distance
        self.register_buffer("strength", torch.tensor(1.0, dtype=torch.float64))
        self.register_buffer("sigma", torch.tensor(sigmas, dtype=torch.float64))
        self.halo, self.stride = (patch_size // 2 + patch_distance,) * ndim, (1,) * ndim

    def filter(self, image: FloatArray, strength: float, sigma: float) -> FloatArray:
        """Denoise one image; float64, so that sums do not depend on where a tile begins."""
        if sigma == 0:
            return image
        from skimage.restoration import denoise_nl_means

        denoised: FloatArray = denoise_nl_means(
            image.astype(np.float64),
            patch_size=self.patch_size,
            patch_distance=self.patch_distance,
            h=strength * sigma,
            sigma=sigma,
            fast_mode=True,
        )
        return denoised.reshape(image.shape)  # a volume of one plane comes back as a plane

    def forward(self, noisy: Tensor) -> Tensor:
        strength, sigmas = float(self.strength), self.sigma.tolist() * len(noisy)
        images = noisy.flatten(0, 1).cpu().numpy()
        out = np.stack([self.filter(image, strength, sigma) for image, sigma in zip(images, sigmas, strict=True)])
        return torch.from_numpy(out.astype(np.float32)).view(noisy.shape).to(noisy.device)
