"""Non-local means, with the strength that the noisy image itself recommends."""

from __future__ import annotations

from typing import Literal

import numpy as np
import torch
from pydantic import Field
from torch import Tensor

from ssdenoise.methods.base import Estimate, Method
from ssdenoise.methods.gaussian import choose
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

    name: Literal["nlm"] = "nlm"
    patch_size: int = Field(5, ge=3, description="Side of the patches that are compared, in voxels; odd.")
    patch_distance: int = Field(6, ge=1, description="How far similar patches are looked for, in voxels.")
    strengths: tuple[float, ...] = Field(
        (0.4, 0.6, 0.8, 1.0, 1.2), min_length=1, description="Strengths `h` to choose from, in units of the noise."
    )

    def build(self, channels: int, ndim: int, noise: NoiseModels) -> Network:
        return NLMFilter(ndim, self.patch_size, self.patch_distance, noise.gaussian.read_noise)

    def fit(self, net: Network, sample: Tensor) -> None:
        candidates = {"h": [s * float(net.sigma) for s in self.strengths]}  # type: ignore[arg-type]
        chosen = choose(
            net.filter,  # type: ignore[arg-type]
            sample,
            candidates,
        )
        net.h.fill_(chosen["h"])  # type: ignore[operator]

    def denoise(self, net: Network, noisy: Tensor) -> Estimate:
        return Estimate(net(noisy))


class NLMFilter(Network):
    """The filter, with its strength and the noise's standard deviation as buffers."""

    h: Tensor
    sigma: Tensor

    def __init__(self, ndim: int, patch_size: int, patch_distance: int, sigma: float) -> None:
        super().__init__()
        self.patch_size, self.patch_distance = patch_size, patch_distance
        self.register_buffer("h", torch.tensor(1.0, dtype=torch.float64))
        self.register_buffer("sigma", torch.tensor(sigma, dtype=torch.float64))
        self.halo, self.stride = (patch_size // 2 + patch_distance,) * ndim, (1,) * ndim

    def filter(self, image: FloatArray, h: float) -> FloatArray:
        """Denoise one image; float64, so that sums do not depend on where a tile begins."""
        from skimage.restoration import denoise_nl_means

        denoised: FloatArray = denoise_nl_means(
            image.astype(np.float64),
            patch_size=self.patch_size,
            patch_distance=self.patch_distance,
            h=h,
            sigma=float(self.sigma),
            fast_mode=True,
        )
        return denoised.reshape(image.shape)  # a volume of one plane comes back as a plane

    def forward(self, noisy: Tensor) -> Tensor:
        images = noisy.flatten(0, 1).cpu().numpy()
        out = np.stack([self.filter(image, float(self.h)) for image in images]).astype(np.float32)
        return torch.from_numpy(out).view(noisy.shape).to(noisy.device)
