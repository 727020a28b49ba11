"""Neighbor2Neighbor: pairs out of the neighbours in one noisy image."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor

from ssdenoise.methods.base import Batch, TrainedMethod
from ssdenoise.networks import Network, Plain, UNet

#: Ordered pairs of neighbours in a cell of 2x2 that share an edge; 0 and 1 are above 2 and 3.
PAIRS = torch.tensor([(0, 1), (1, 0), (0, 2), (2, 0), (1, 3), (3, 1), (2, 3), (3, 2)])


class Neighbor2Neighbor(TrainedMethod):
    """Neighbor2Neighbor (Huang et al. 2021).

    Notes
    -----
    Each cell of 2x2 voxels gives one voxel to an image g1 and an adjacent one to g2, both of half the size: two noisy
    observations of nearly the same scene. The loss is Noise2Noise's between them, and a regulariser for what the scene
    differs by between neighbours (equation 16 of [1]_)::

        mean((f(g1(y)) - g2(y))**2) + w * mean((f(g1(y)) - g2(y) - (g1(f(y)) - g2(f(y))))**2)

    with ``f(y)`` held fixed and w rising from 0 to `regularizer` over the training. Noise must be independent between
    neighbours. Volumes are cut into cells plane by plane.

    `network="paper"` is the U-Net of Noise2Noise that the paper starts from, depth 5 with 48 and 96 channels and 1x1
    convolutions at the end. The authors' differs in details: transposed convolutions in place of nearest-neighbour
    upsampling, a slope of 0.2 in the leaky rectifiers, not 0.1, and a tenth of He's initial weights.

    References
    ----------
    .. [1] T. Huang, S. Li, X. Jia, H. Lu and J. Liu, "Neighbor2Neighbor: Self-Supervised Denoising from Single Noisy
       Images", CVPR 2021, arXiv:2101.02824.
    """

    patch_factor: ClassVar[int] = 2
    independent_along: ClassVar[str] = "zyx"

    name: Literal["neighbor2neighbor"] = "neighbor2neighbor"
    regularizer: float = Field(2.0, ge=0, description="Weight of the regulariser at the end of the training.")

    def architecture(self, inputs: int, channels: int, ndim: int, beside: Sequence[int] = ()) -> Network:
        if self.network == "paper":
            return Plain(UNet(ndim, inputs, width=48, depth=5, head=(96, 96), skips="pooled"), channels, mix=(96, 96))
        return Plain(UNet(ndim, inputs, width=24, depth=3, head=(24, 24), up=24, skips="pooled", flat=True), channels)

    def loss(self, net: Network, batch: Batch, rng: torch.Generator, progress: float) -> Tensor:
        chosen = choose(batch.noisy.shape, rng).to(batch.noisy.device)
        first, second = subsample(batch.noisy, chosen)
        with torch.no_grad():
            whole_first, whole_second = subsample(net(batch.noisy), chosen)
        difference = net(first) - second
        gap = difference - (whole_first - whole_second)
        loss: Tensor = difference.square().mean() + self.regularizer * progress * gap.square().mean()
        return loss


def choose(shape: torch.Size, rng: torch.Generator) -> Tensor:
    """Draw neighbours for each cell, shape (2, B, 1, [Z,] Y / 2, X / 2), values 0 to 3; the same for all channels."""
    batch, _, *spatial = shape
    cells = (batch, 1, *spatial[:-2], spatial[-2] // 2, spatial[-1] // 2)
    return PAIRS[torch.randint(len(PAIRS), cells, generator=rng)].movedim(-1, 0)


def subsample(image: Tensor, chosen: Tensor) -> tuple[Tensor, Tensor]:
    """The two images of half the size in Y and X that a draw of `choose` picks."""
    rows = torch.stack([image[..., 0::2, :], image[..., 1::2, :]])
    cells = torch.stack([rows[0][..., 0::2], rows[0][..., 1::2], rows[1][..., 0::2], rows[1][..., 1::2]])
    first, second = (cells.gather(0, index.expand_as(cells[0])[None])[0] for index in chosen)
    return first, second
