"""Networks made of others: one per channel, planes as channels, means over blocks."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from ssdenoise.networks.layers import Conv, Network, halo_of
from ssdenoise.networks.unet import Plain


class PerChannel(Network):
    """A network of its own for each channel.

    Of k outputs a network, the first of all channels come first, then the second of all, as from one joint network.
    """

    def __init__(self, nets: Sequence[Network]) -> None:
        super().__init__()
        self.nets = nn.ModuleList(nets)
        self.halo, self.stride, self.padding = nets[0].halo, nets[0].stride, nets[0].padding

    def forward(self, x: Tensor, **options: Any) -> Tensor:
        parts = [net(x[:, i : i + 1], **options) for i, net in enumerate(self.nets)]
        return torch.stack(parts, dim=2).flatten(1, 2)


class Planes(Network):
    """A 2-D network that sees a plane of a volume and its neighbours as channels.

    The 2-D network gets the planes from the lowest to the highest, each with all its channels. A neighbour beyond the
    end of the volume, or of a training patch, is replaced by the one opposite; where that is missing too, by zeros.
    """

    def __init__(self, net: Network, planes: int) -> None:
        super().__init__()
        self.net, self.planes = net, planes
        self.halo, self.stride, self.padding = (planes // 2, *net.halo), (1, *net.stride), net.padding

    def forward(self, x: Tensor, **options: Any) -> Tensor:
        b, c, z, y, width = x.shape
        own = torch.arange(z, device=x.device)
        around = torch.stack(
            [self._neighbour(x, own, step) for step in range(-(self.planes // 2), self.planes // 2 + 1)], dim=1
        )  # B, plane, C, Z, Y, X
        out = self.net(around.permute(0, 3, 1, 2, 4, 5).reshape(b * z, self.planes * c, y, width), **options)
        return out.view(b, z, -1, y, width).transpose(1, 2)  # type: ignore[no-any-return]

    @staticmethod
    def _neighbour(x: Tensor, own: Tensor, step: int) -> Tensor:
        """Of each plane of (B, C, Z, Y, X) the one so many steps away; never itself, which a blind spot would see."""
        there = torch.where((own + step >= 0) & (own + step < x.shape[2]), own + step, own - step)
        exists = (there >= 0) & (there < x.shape[2])
        return x[:, :, there.clamp(0, x.shape[2] - 1)] * exists.to(x.dtype)[:, None, None]


class BlockMean(Network):
    """Means of a network's output over blocks of 64x64 pixels of each plane, at every pixel of the block.

    Blocks lie on a fixed grid, so that tiles give what the whole gives. Pixels that are exactly zero in all channels
    do not count: that is the padding of a volume's end. The last convolution starts at zero.
    """

    SIDE = 64

    def __init__(self, net: Plain) -> None:
        super().__init__()
        self.net = net
        last: Conv = net.last[-1]  # type: ignore[assignment]
        nn.init.zeros_(last.conv.weight)
        self.stride = (*net.stride[:-2], *(math.lcm(s, self.SIDE) for s in net.stride[-2:]))
        core = tuple((0, s - 1) for s in self.stride)
        self.halo = halo_of(net.reach(core), self.stride)

    def forward(self, x: Tensor) -> Tensor:
        counted = (x != 0).any(dim=1, keepdim=True).to(x.dtype)
        sums, weights = (self._pooled(image) for image in (self.net(x) * counted, counted))
        means = sums / weights.clamp(min=1e-6)
        return means.repeat_interleave(self.SIDE, -1).repeat_interleave(self.SIDE, -2)

    def _pooled(self, image: Tensor) -> Tensor:
        return functional.avg_pool2d(image.flatten(0, -3), self.SIDE).view(
            *image.shape[:-2], image.shape[-2] // self.SIDE, image.shape[-1] // self.SIDE
        )
