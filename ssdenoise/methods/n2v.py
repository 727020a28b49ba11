"""Noise2Void: hide voxels and predict them from their surroundings."""

from __future__ import annotations

from typing import ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor

from ssdenoise.methods.base import Batch, Estimate, TrainedMethod
from ssdenoise.networks import Network, Plain, UNet
from ssdenoise.noise import NoiseModels


class N2V(TrainedMethod):
    """Noise2Void (Krull et al. 2019).

    Notes
    -----
    A few voxels of each patch are replaced by the value of a random neighbour, and the loss compares the network's
    output at those voxels with the values they had [1]_. The network cannot copy what it does not see, and noise that
    is independent from voxel to voxel cannot be told from the surroundings; what remains is the signal. Noise that is
    correlated between voxels is therefore kept.

    Hidden voxels are stratified: the patch is cut into boxes of ``round((100 / masked_percent)**(1 / ndim))`` voxels a
    side and one voxel of each box is hidden, drawn for each sample and channel on its own. The neighbour is drawn
    uniformly from the ``(2 * radius + 1)**ndim - 1`` others around that lie inside the patch.

    `network="paper"` is the U-Net of the authors' csbdeep: depth 2, 32 channels, batch normalisation.

    References
    ----------
    .. [1] A. Krull, T.-O. Buchholz and F. Jug, "Noise2Void - Learning Denoising from Single Noisy Images", CVPR 2019,
       arXiv:1811.10980.
    """

    name: Literal["n2v"] = "n2v"
    masked_percent: float = Field(1.5, gt=0, le=25, description="Share of hidden voxels in per cent.")
    radius: int = Field(5, ge=1, description="Largest distance per axis of the neighbour that replaces a voxel.")

    blind: ClassVar[bool] = False  # in training only: at inference the network sees the voxel

    def build(self, channels: int, ndim: int, noise: NoiseModels) -> Network:
        if self.network == "paper":
            unet = UNet(ndim, channels, width=32, depth=2, head=(32, 32), skips="features", batch_norm=True)
        else:
            unet = UNet(ndim, channels, width=24, depth=2, head=(24, 24), skips="features")
        return Plain(unet, channels, last_kernel=1)

    def loss(self, net: Network, batch: Batch, rng: torch.Generator, progress: float) -> Tensor:
        noisy = batch.noisy
        values = noisy.flatten(2)
        hidden = stratified(noisy.shape, self.masked_percent, rng)
        others = neighbours(hidden, noisy.shape[2:], self.radius, rng)
        hidden, others = hidden.to(noisy.device), others.to(noisy.device)
        masked = values.scatter(2, hidden, values.gather(2, others)).view_as(noisy)
        loss: Tensor = (net(masked).flatten(2).gather(2, hidden) - values.gather(2, hidden)).square().mean()
        return loss

    def denoise(self, net: Network, noisy: Tensor) -> Estimate:
        return Estimate(net(noisy))


def stratified(shape: torch.Size, percent: float, rng: torch.Generator) -> Tensor:
    """Flat positions of hidden voxels, one per box, shape (B, C, n).

    Boxes that reach over the patch's end are moved back inside, so each patch has the same number of hidden voxels.
    """
    spatial = shape[2:]
    side = max(1, round((100 / percent) ** (1 / len(spatial))))
    flat = torch.zeros((*shape[:2], 1), dtype=torch.long)
    for n in spatial:
        box = min(side, n)
        corner = torch.arange(0, n, box).clamp(max=n - box)
        # positions along this axis for each combination of boxes so far and boxes of this axis
        flat = flat.unsqueeze(-1).expand(*flat.shape, len(corner)).flatten(2) * n + corner.repeat(flat.shape[2])
    # the axes' offsets are drawn last, all voxels at once, so that each has its own
    scale = 1
    for n in reversed(spatial):
        flat = flat + torch.randint(min(side, n), flat.shape, generator=rng) * scale
        scale *= n
    return flat


def neighbours(positions: Tensor, spatial: torch.Size, radius: int, rng: torch.Generator) -> Tensor:
    """For each flat position a uniformly drawn other voxel at most `radius` away per axis, inside the patch."""
    lows: list[Tensor] = []
    sizes: list[Tensor] = []
    strides: list[int] = []
    centre = torch.zeros_like(positions)
    rest, scale = positions, 1
    for n in reversed(spatial):
        at = rest % n
        rest = rest // n
        low = (at - radius).clamp(min=0)
        size = (at + radius).clamp(max=n - 1) - low + 1
        lows.insert(0, low)
        sizes.insert(0, size)
        strides.insert(0, scale)
        scale *= n
    rest = positions
    for low, size, stride in zip(lows, sizes, strides, strict=True):
        centre = centre * size + (rest // stride - low)
        rest = rest % stride
    count = torch.ones_like(positions)
    for size in sizes:
        count = count * size
    draw = (torch.rand(positions.shape, generator=rng, dtype=torch.float64) * (count - 1)).long()
    draw = draw + (draw >= centre)  # skips the centre; the others stay equally likely
    flat = torch.zeros_like(positions)
    for low, size, stride in zip(reversed(lows), reversed(sizes), reversed(strides), strict=True):
        flat = flat + (low + draw % size) * stride
        draw = draw // size
    return flat
